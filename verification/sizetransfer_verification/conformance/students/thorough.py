"""What takes minutes: compilers, large lattices, and the checks of before on many more cases."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import repeated, student_check
from sizetransfer_verification.conformance.evidence import Evidence
from sizetransfer_verification.conformance.students import context, derivatives, interface, locality, repetition, rows
from sizetransfer_verification.conformance.students.setting import answer, require, spread
from sizetransfer_verification.conformance.subjects import StudentSubject

GROWTH = {1: 4, 2: 2, 3: 2}
"""Factors by which the axes grow where memory is measured, by dimension."""


def _compiler() -> str | None:
    named = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    return next(filter(None, map(shutil.which, filter(None, named))), None)


@contextmanager
def _compiled(student: torch.nn.Module) -> Iterator[Any]:
    try:
        yield torch.compile(student, dynamic=False)
    finally:
        torch._dynamo.reset()


@student_check(
    "torch.compile gives the same score, unless declared not to.",
    cause="Python side effects in forward, or reliance on the order of operations",
    level="full",
    space=CaseSpace(examples=1, batches=(2,), largest=130, smallest=30, noises=(1.0,)),
)
def compiled_score(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, surroundings) = subject.student(case), subject.inputs(case)
    require("compile" not in student.unsupported, "The student declares that it does without torch.compile.")
    require(_compiler() is not None, "There is no C++ compiler, which torch.compile needs.")
    require(case.member == 0, "The compiler is tried on the first field.")
    expected = answer(student, x, spread(sigma), surroundings)
    with _compiled(student) as compiled, torch.no_grad():
        score = compiled(x, spread(sigma), surroundings)
    evidence.close(score, expected, "score of the compiled student", "value")


class _LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that an operation gave."""

    elements = 0

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
    level="full",
    space=CaseSpace(examples=5, batches=(1,), largest=130, smallest=60, noises=(1.0,)),
)
def memory_grows_with_the_sites(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, field = subject.student(case), subject.field(case)
    require(student.radius is not None, "The student declares no radius.")
    graph = field.geometry == "graph"
    small = max(case.size, 0 if graph or student.radius is None else 2 * student.radius + 1)
    factor = 2 if graph else GROWTH.get(field.dim, 2)
    found, sites = [], []
    for size in (small, factor * small):
        inputs = subject.inputs(replace(case, size=size))
        with _LargestTensor() as largest:
            score = answer(student, *inputs)
        evidence.equal(score.isfinite(), torch.ones_like(score, dtype=torch.bool), f"finite numbers at size {size}")
        found.append(largest.elements)
        sites.append(inputs[0][0, 0].numel())
    growth, allowed = found[1] / found[0], 1.5 * sites[1] / sites[0]
    what = f"growth of the largest tensor from {sites[0]} to {sites[1]} sites ({found[0]} elements)"
    evidence.at_most(growth, allowed, what, source="one and a half times the growth of the sites")


MANY = CaseSpace(examples=40, batches=(2, 1, 3, 5), largest=500, dtypes=("float64", "float32"))
DOUBLE = replace(MANY, dtypes=("float64",))

for _check, _space in (
    (interface.output_like_input, MANY),
    (interface.inputs_unchanged, DOUBLE),
    (repetition.deterministic_evaluation, DOUBLE),
    (repetition.no_memory_of_earlier_calls, DOUBLE),
    (context.dead_sites_are_left_out, MANY),
    (rows.rows_alone, MANY),
    (rows.rows_do_not_mix, replace(MANY, batches=(2, 3, 5))),
    (locality.translation_equivariance, replace(DOUBLE, smallest=4)),
    (locality.relabelling_equivariance, replace(DOUBLE, largest=160)),
    (locality.nothing_beyond_the_radius, replace(DOUBLE, examples=20)),
    (locality.same_patch_same_score, replace(DOUBLE, examples=20)),
    (derivatives.gradients_reach_every_parameter, DOUBLE),
    (derivatives.float32_agrees_with_float64, DOUBLE),
    (derivatives.double_precision_throughout, DOUBLE),
):
    repeated(_check, _space)
