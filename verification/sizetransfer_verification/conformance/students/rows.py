"""A batch is a list of fields that know nothing of each other."""

from __future__ import annotations

from dataclasses import replace

import torch

from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import student_check
from sizetransfer_verification.conformance.evidence import Evidence
from sizetransfer_verification.conformance.students.setting import answer, spread
from sizetransfer_verification.conformance.subjects import StudentSubject


@student_check(
    "A row of a batch is the row alone, each with its own noise level.",
    cause="statistics over the batch (BatchNorm in train mode), a mean over it, sigma[0] taken for every row",
    space=CaseSpace(examples=10, batches=(2, 3, 5), largest=130, dtypes=("float64", "float32")),
)
def rows_alone(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    sigma = spread(sigma)
    together = answer(student, x, sigma, context)
    for row in range(len(x)):
        own = slice(row, row + 1)
        alone = answer(student, x[own], sigma[own], context.rows(own))
        evidence.close(alone.to(x), together[own].to(x), f"score of row {row} alone", "value")


@student_check(
    "A row does not depend on the other rows: when another one changes, even wildly, it keeps its bits.",
    cause="a leak too small to show among like rows: a rescaling, a clip or a maximum that is taken over the batch",
    space=CaseSpace(examples=5, batches=(3, 2), largest=130, dtypes=("float64", "float32")),
)
def rows_do_not_mix(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    sigma, kept = spread(sigma), slice(0, len(x) - 1)
    together = answer(student, x, sigma, context)
    for factor in (-0.5, 1e3):
        changed, level = x.clone(), sigma.clone()
        changed[-1], level[-1] = factor * x[-1].flip(-1), 0.5 * sigma[-1]
        surroundings = context
        if context.condition is not None:
            condition = torch.cat([context.condition[:-1], 1 - context.condition[-1:]])
            surroundings = replace(context, condition=condition)
        score = answer(student, changed, level, surroundings)
        evidence.equal(
            score[kept], together[kept], f"the other rows when the last one is {factor:g} times its mirror image"
        )
