"""What a student sees beside the field: the condition, dead sites."""

from __future__ import annotations

from dataclasses import replace

import torch

from sizetransfer.contracts.errors import SizetransferError
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import student_check
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.students.setting import CONDITION, answer, direction, require
from sizetransfer_verification.conformance.subjects import StudentSubject


@student_check(
    "Every channel of the condition reaches the score, unless the condition is declared to be ignored.",
    cause="the condition is not concatenated, or the wrong slice of its channels is",
    level="api",
    needs=(CONDITION,),
    space=CaseSpace(examples=5, batches=(2,), largest=130),
)
def condition_reaches_the_score(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    if context.condition is None:
        raise NotApplicableError("The field has no condition channels.")
    score = answer(student, x, sigma, context)
    for channel in range(context.condition.shape[1]):
        condition = context.condition.clone()
        condition[:, channel] = 1 - condition[:, channel]
        changed = answer(student, x, sigma, replace(context, condition=condition))
        if "condition" in student.ignores:
            evidence.equal(changed, score, f"score with channel {channel} of the ignored condition changed")
            continue
        apart = float((changed - score).abs().max() / score.abs().max())
        what = f"relative change of the score with channel {channel} of the condition"
        evidence.at_least(apart, 1e-9, what, source="the contract: it has one")


@student_check(
    "Sites that the mask calls dead influence no score and get none; a mask without dead sites changes nothing.",
    cause="only the input or only the output is masked, or the mask is inverted",
    level="api",
    space=CaseSpace(examples=5, batches=(2, 1), largest=130),
)
def dead_sites_are_left_out(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    require("mask" not in student.ignores, "The student declares that it ignores masks.")
    live = torch.rand(x[:, :1].shape, generator=case.generator("mask"), dtype=torch.float64).to(x.device) < 0.7
    # At least one site of each sort.
    live.view(len(x), -1)[:, 0], live.view(len(x), -1)[:, -1] = True, False
    masked = replace(context, mask=live)
    try:
        score = answer(student, x, sigma, masked)
    except SizetransferError as error:
        raise NotApplicableError(f"The student refuses masks: {error.what}") from None
    evidence.equal(score * ~live, torch.zeros_like(score), "score at dead sites", source="the contract")
    changed = torch.where(live, x, x + direction(x, case, "dead"))
    evidence.equal(answer(student, changed, sigma, masked), score, "score after a change of x at dead sites")
    everywhere = answer(student, x, sigma, replace(context, mask=torch.ones_like(live)))
    evidence.close(everywhere, answer(student, x, sigma, context), "score with every site live", "value")
