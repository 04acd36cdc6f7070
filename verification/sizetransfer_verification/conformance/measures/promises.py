"""What a measure leaves alone, and that it repeats itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sizetransfer.contracts.oracle import Sample, Teacher
from sizetransfer.contracts.records import Measurement
from sizetransfer.runs.promises.weights import Weights
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.check import measure_check
from sizetransfer_verification.conformance.evidence import Evidence
from sizetransfer_verification.conformance.measures.subject import MeasureSubject
from sizetransfer_verification.conformance.subjects import global_randomness


def _text(one: Measurement) -> str:
    """Every bit of a number, such that NaN equals NaN."""
    numbers = (float(one.value), float(one.standard_error), int(one.n), float(one.coordinate))
    return f"{one.part} {numbers!r} {one.sums!r}"


@measure_check(
    "The same seed gives the same numbers, bit for bit, whatever was measured before and in whatever state the global "
    "generators are.",
    cause="a generator without a seed, a cache that outlives the call, numbers of an earlier call that are averaged in",
)
def same_seed_same_numbers(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    first = subject.numbers(case)
    with global_randomness(17):
        again = list(subject.take(case, subject.teacher(case), subject.student(case), seed=1))
    evidence.holds(len(first) == len(again), "how many numbers", measured=str(len(again)), allowed=str(len(first)))
    for one, other in zip(first, again, strict=True):
        what = f"part {one.part!r} at {one.coordinate} with the same seed again"
        evidence.holds(_text(one) == _text(other), what, measured=_text(other)[:200], allowed=_text(one)[:200])


@measure_check(
    "Nothing is changed: neither the teacher, nor the student's weights and mode, nor the fields that were drawn.",
    cause="an operation in place on x, a student left in train mode, gradients of weights switched on for good",
)
def nothing_is_changed(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    teacher, student = subject.teacher(case), subject.student(case)
    spec = subject.spec.to_json()
    drawn = _Drawn.by(teacher)
    modules = {"teacher": Weights(teacher), "student": Weights(student)}
    list(subject.take(case, teacher, student, seed=1))
    for name, weights in modules.items():
        changes = weights.changes()
        measured = "; ".join(f"{where}: {what}" for where, what in changes[:3])
        evidence.holds(not changes, f"the {name} after the measure", measured=measured, allowed="no change")
    gradients = [name for name, weight in student.named_parameters() if weight.grad is not None]
    evidence.holds(not gradients, "gradients of the student", measured=str(gradients[:3]), allowed="none left behind")
    for number, (sample, copies) in enumerate(drawn.samples):
        for name, value in _tensors(sample).items():
            what = f"{name} of sample {number} that the teacher drew"
            evidence.equal(value, copies[name], what, source="the contract")
    evidence.holds(subject.spec.to_json() == spec, "the specification", measured="changed", allowed="no change")


@dataclass
class _Drawn:
    """The samples of a teacher, each beside a copy."""

    samples: list[tuple[Sample, dict[str, Tensor]]]

    @classmethod
    def by(cls, teacher: Teacher) -> _Drawn:
        """Keep what the teacher draws from here on."""
        found, draw = cls([]), teacher.sample

        def sample(*given: Any, **named: Any) -> Sample:
            one = draw(*given, **named)
            found.samples.append((one, {name: value.clone() for name, value in _tensors(one).items()}))
            return one

        object.__setattr__(teacher, "sample", sample)
        return found


def _tensors(sample: Sample) -> dict[str, Tensor]:
    context = {"condition": sample.context.condition, "mask": sample.context.mask}
    found = {"x": sample.x, **context, **sample.labels}
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
