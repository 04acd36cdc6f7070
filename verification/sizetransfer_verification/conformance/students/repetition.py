"""The same question has the same answer: again, later, after a round trip, whatever the global seed."""

from __future__ import annotations

import json
from dataclasses import replace

import torch
from safetensors.torch import load, save
from torch import Tensor

from sizetransfer.contracts.specs import StudentSpec
from sizetransfer.contracts.student import Student
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import student_check
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.students.setting import SPECIFICATION, answer, spread
from sizetransfer_verification.conformance.subjects import StudentSubject, global_randomness, stir

SMALL = CaseSpace(examples=5, batches=(2, 1), largest=130)


@student_check(
    "In eval mode two calls give the same bits; the global generator is neither read nor moved.",
    cause="dropout that stays on, noise from torch.randn without a generator, a call of torch.manual_seed",
    level="api",
    space=SMALL,
)
def deterministic_evaluation(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    scores = []
    for seed in (1, 1, 2):
        with global_randomness(seed):
            before = torch.random.get_rng_state()
            scores.append(answer(student, x, sigma, context))
            evidence.equal(torch.random.get_rng_state(), before, "state of the global generator after the call")
    evidence.equal(scores[1], scores[0], "score in a second call")
    evidence.equal(scores[2], scores[0], "score under another global seed")


@student_check(
    "An answer does not depend on earlier questions: other fields, other sizes.",
    cause="a cache with a key that is too short, running statistics in eval mode, initialisation by the first batch",
    level="api",
    space=SMALL,
)
def no_memory_of_earlier_calls(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    x, sigma, context = subject.inputs(case)
    expected = answer(subject.fresh(case), x, sigma, context)
    student = subject.fresh(case)
    sizes = [size for size in subject.sizes(SMALL)[case.member] if size != case.size]
    for size, noise in ((case.size, 1.7), (sizes[0] if sizes else case.size, 0.4)):
        other = replace(case, size=size, noise=noise * case.noise, seed=case.seed + 100)
        answer(student, *subject.inputs(other))
    evidence.equal(answer(student, x, sigma, context), expected, "score after questions about other fields and sizes")


def _same_weights(evidence: Evidence, got: Student, expected: Student, what: str) -> None:
    ours, theirs = got.state_dict(), expected.state_dict()
    evidence.holds(list(ours) == list(theirs), f"names of {what}", measured=str(list(ours)), allowed=str(list(theirs)))
    for name, value in ours.items():
        evidence.equal(value, theirs[name], f"{what}, {name}")


@student_check(
    "The specification survives JSON: what is read back has the same weights and the same score.",
    cause="a field excluded from the dump, or of a type that JSON turns into another; weights from another generator",
    level="api",
    needs=(SPECIFICATION,),
    space=CaseSpace(examples=5, batches=(2,), largest=130),
)
def specification_round_trip(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    spec = subject.spec
    if not isinstance(spec, StudentSpec):
        raise NotApplicableError("The student comes from no specification.")
    again = type(spec).parse(json.loads(json.dumps(spec.to_json())))
    evidence.holds(again == spec, "specification read back", measured=str(again), allowed=str(spec))
    rebuilt = StudentSubject(again, fields=(subject.field(case),), seed=subject.seed, name=subject.name)
    got, expected = rebuilt.fresh(replace(case, member=0)), subject.fresh(case)
    _same_weights(evidence, got, expected, "weights built from what was read back")
    inputs = subject.inputs(case)
    evidence.equal(answer(got, *inputs), answer(expected, *inputs), "score of what was read back")


@student_check(
    "The weights survive safetensors: loaded into a student built from another seed, they give the same score.",
    cause="a tensor that is no parameter and no persistent buffer, two names for one tensor, a hook on the state",
    level="api",
    space=CaseSpace(examples=5, batches=(2,), largest=130),
)
def weights_round_trip(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in student.state_dict().items()}
    stored: dict[str, Tensor] = load(save(weights)) if weights else {}
    other = subject.build(subject.field(case), label="another seed").to(x)
    stir(other, case.generator("another seed"))
    missing, unexpected = other.load_state_dict(stored, strict=False)
    names = ", ".join([*missing, *unexpected])
    evidence.holds(not names, "names in the file", measured=f"missing or unexpected: {names}", allowed="the student's")
    _same_weights(evidence, other, student, "weights read back")
    evidence.equal(
        answer(other, x, spread(sigma), context), answer(student, x, spread(sigma), context), "score with them"
    )
