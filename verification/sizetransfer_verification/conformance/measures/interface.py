"""What a measure declares, and that it refuses by name what it cannot be taken of."""

from __future__ import annotations

import json
from typing import get_args

from sizetransfer.contracts.arithmetic import GeneratorStates
from sizetransfer.contracts.errors import SizetransferError
from sizetransfer.contracts.specs import Geometry
from sizetransfer.runs.promises.weights import Weights
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.check import measure_check
from sizetransfer_verification.conformance.evidence import Evidence
from sizetransfer_verification.conformance.measures.bench import SIZES
from sizetransfer_verification.conformance.measures.subject import MeasureSubject, built, small_student


@measure_check(
    "A measure declares protocols, geometries, and fields of its own that change no number; it survives JSON.",
    cause="a capability named by a string, a class that is no protocol, a field without_effect that was renamed",
    level="api",
)
def declarations(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    spec = subject.spec
    protocols = all(getattr(one, "_is_protocol", False) for one in spec.requires)
    evidence.holds(protocols, "requires", measured=repr(spec.requires), allowed="a tuple of protocols of teachers")
    known = get_args(Geometry)
    some = bool(spec.geometries) and set(spec.geometries) <= set(known)
    evidence.holds(some, "geometries", measured=repr(spec.geometries), allowed=f"some of {', '.join(known)}")
    fields = set(type(spec).model_fields)
    inside = spec.without_effect <= fields
    evidence.holds(inside, "without_effect", measured=repr(spec.without_effect), allowed=f"some of {sorted(fields)}")
    again = type(spec).parse(json.loads(json.dumps(spec.to_json())), where=spec.kind)
    evidence.holds(again == spec, "the specification read back", measured=repr(again), allowed=repr(spec))


@measure_check(
    "What a measure requires of teachers and their fields, it refuses by name where it is missing.",
    cause="a method lacking() of its own that forgets the protocols or the geometry of the class",
    level="api",
)
def refuses_what_is_missing(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    spec = subject.spec
    for candidate in subject.candidates:
        teacher = built(candidate)
        missing = [protocol.__name__ for protocol in spec.requires if not isinstance(teacher, protocol)]
        missing += [] if teacher.field.geometry in spec.geometries else [f"no geometry {teacher.field.geometry}"]
        lacking = spec.lacking(teacher)
        what = f"lacking() of {candidate.name}, which misses {', '.join(missing) or 'nothing that is declared'}"
        named = all(any(name in text for text in lacking) for name in missing if not name.startswith("no geometry"))
        holds = named and (bool(lacking) or not missing)
        evidence.holds(holds, what, measured=repr(lacking), allowed="each by its name")


@measure_check(
    "Teachers, sizes and students are refused with an error of sizetransfer, before anything is drawn or changed.",
    cause="a KeyError or an AttributeError in check() or check_student(), or a field that is drawn there",
    level="api",
)
def refuses_before_anything_is_computed(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    for candidate in subject.candidates:
        teacher = built(candidate)
        if subject.spec.lacking(teacher):
            continue
        student = small_student(teacher, subject.seed, "student")
        kept, states = (Weights(teacher), Weights(student)), GeneratorStates.read()
        for size in SIZES:
            try:
                teacher.check_size(size)
                subject.spec.check(teacher, size)
                subject.spec.check_student(student)
            except SizetransferError:
                continue
        changes = [change for weights in kept for change in weights.changes()]
        what = f"weights after check() and check_student() with {candidate.name}"
        evidence.holds(not changes, what, measured=str(changes[:2]), allowed="no change")
        now = GeneratorStates.read()
        what = f"torch's global generator after check() with {candidate.name}"
        evidence.equal(now.torch_state, states.torch_state, what, source="the contract")


@measure_check(
    "What cannot be measured is refused before anything is trained, by lacking(), check() or check_student(): what "
    "passes these is measured.",
    cause="a refusal that comes out of measure(), of a size that is too small, say: a run meets it after the training",
)
def refuses_before_the_training(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    late = "; ".join(f"{where}: {reason}" for where, reason in subject.refused_late.items())
    evidence.holds(not late, "what measure() itself refuses", measured=late, allowed="nothing that check() lets pass")


@measure_check(
    "Whatever a measure says it takes, it measures: teachers that have all that it requires, every geometry that it "
    "declares, dead sites unless it says that it takes none.",
    cause="a capability that is used and not required, axes of a lattice looked for on graphs, a mask forgotten",
    level="api",
)
def measures_what_it_takes(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    found = subject.numbers(case)
    what = f"numbers of {subject.pairs[case.member].candidate.name}"
    evidence.holds(bool(found), what, measured="none", allowed="at least one")
