"""What a student takes in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import student_check
from sizetransfer_verification.conformance.evidence import Evidence
from sizetransfer_verification.conformance.students.setting import LOCAL, answer, radius_of, require
from sizetransfer_verification.conformance.subjects import StudentSubject

SIZES = {1: (256, 1024), 2: (16, 32), 3: (6, 12)}
"""Sites along each axis of the two lattices that are compared, by dimension."""
GRAPH_SITES = (80, 160)


class _LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers the number of elements of the largest tensor that an operation gave."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


@student_check(
    "A student of finite radius takes memory in proportion to the sites, and its score is finite on large domains.",
    cause="a table or a mask of all pairs of sites",
    needs=(LOCAL,),
    space=CaseSpace(examples=1, batches=(1,), largest=60, noises=(1.0,)),
)
def memory_grows_with_the_sites(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, field = subject.student(case), subject.field(case)
    require(student.radius is not None, "The student declares no radius.")
    require(not student.reads_domain, "The student declares that it reads the domain beyond its radius.")
    sizes = GRAPH_SITES if field.geometry == "graph" else SIZES.get(field.dim, (4, 8))
    if not subject.accepts(replace(case, size=sizes[0])):
        least = 2 * radius_of(subject, case) + 1
        sizes = least, least * sizes[1] // sizes[0]
    found, sites = [], []
    for size in sizes:
        inputs = subject.inputs(replace(case, size=size))
        with _LargestTensor() as largest:
            score = answer(student, *inputs)
        evidence.equal(score.isfinite(), torch.ones_like(score, dtype=torch.bool), f"finite numbers at size {size}")
        found.append(largest.elements)
        sites.append(inputs[0][0, 0].numel())
    growth, allowed = found[1] / found[0], 1.5 * sites[1] / sites[0]
    what = f"growth of the largest tensor from {sites[0]} to {sites[1]} sites ({found[0]} elements)"
    evidence.at_most(growth, allowed, what, source="one and a half times the growth of the sites")
