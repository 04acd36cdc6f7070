"""What takes minutes: compilers, and the checks of before on many more cases."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import repeated, student_check
from sizetransfer_verification.conformance.evidence import Evidence
from sizetransfer_verification.conformance.students import context, derivatives, interface, locality, repetition, rows
from sizetransfer_verification.conformance.students.setting import answer, require, spread
from sizetransfer_verification.conformance.subjects import StudentSubject


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
