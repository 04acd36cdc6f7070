"""What a measure gives: numbers with their errors and counts, under names that stay."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sizetransfer.contracts.errors import ConformanceError
from sizetransfer.contracts.parts import matches
from sizetransfer.contracts.records import Measurement
from sizetransfer.runs.promises.measured import checked
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.check import Need, measure_check
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.measures.subject import MeasureSubject


def parts_of(subject: MeasureSubject) -> Mapping[str, Any]:
    """The parts that the measure declares, by name or pattern of names; none where measures declare none."""
    declared: Callable[[], Mapping[str, Any]] | None = getattr(subject.spec, "declarations", None)
    found: Mapping[str, Any] = getattr(subject.spec, "parts", {}) if declared is None else declared()
    return found


PARTS: Need[MeasureSubject] = Need("declared parts", lambda subject: bool(parts_of(subject)))


def place(one: Measurement) -> tuple[str, str]:
    """Part and coordinate, such that NaN equals NaN."""
    return one.part, repr(float(one.coordinate))


@measure_check(
    "Each number has a name, a standard error that is not negative and a positive count, once at each coordinate.",
    cause="a tensor instead of a float, a variance for a standard error, a count of batches where fields are meant",
    level="api",
)
def numbers_with_errors_and_counts(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    try:
        found = checked(subject.numbers(case), measure=subject.name, where=subject.pairs[case.member].candidate.name)
    except ConformanceError as error:
        evidence.holds(False, f"{error.what} ({error.where})", measured=error.got or "", allowed=error.expected or "")
        return
    for one in found:
        what = f"part {one.part!r}"
        counted = one.n >= 1 or math.isnan(one.value)
        evidence.holds(counted, f"n of {what}", measured=str(one.n), allowed="at least 1 draw for a number")
        if one.sums is not None:
            lengths = tuple(len(side) for side in one.sums)
            evidence.holds(len(set(lengths)) == 1, f"sums of {what}", measured=str(lengths), allowed="equal lengths")


@measure_check(
    "The names of the parts and their coordinates are the same for every seed and every student of a field.",
    cause="a part named by a measured number, a bin or a coordinate that follows from the draws",
)
def parts_are_stable(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    first = sorted(map(place, subject.numbers(case)))
    others = {
        "with another seed": subject.take(case, subject.teacher(case), subject.student(case), seed=2),
        "of another student": subject.take(case, subject.teacher(case), subject.student(case, label="other"), seed=1),
    }
    for name, numbers in others.items():
        found = sorted(map(place, numbers))
        apart = sorted(set(found) ^ set(first))
        what = f"parts and coordinates {name}"
        evidence.holds(found == first, what, measured=f"not in both: {apart[:4]}", allowed="the same")


@measure_check(
    "What comes is what is declared: every part by its name, with a coordinate where it has an axis, without an error "
    "where it is exact.",
    cause="a part that was renamed or added without its declaration, an axis for a number that has no coordinate",
    level="api",
    needs=(PARTS,),
)
def declared_parts_are_what_comes(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    table = parts_of(subject)
    for one in subject.numbers(case):
        names = [name for name in (one.part, *table) if name in table and matches(name, one.part)]
        what = f"part {one.part!r}"
        evidence.holds(bool(names), what, measured="not declared", allowed=f"one of {', '.join(table)}")
        part = table[names[0]]
        has_axis = getattr(part, "axis", None) not in (None, "none", "size")
        placed = has_axis is not math.isnan(one.coordinate)
        what = f"coordinate of {what}, whose axis is {getattr(part, 'axis', None)}"
        evidence.holds(placed, what, measured=str(one.coordinate), allowed="a number" if has_axis else "NaN")
        exact = getattr(part, "known", "estimated") == "exact"
        what = f"standard error of part {one.part!r}, declared as exact"
        evidence.holds(
            not exact or not one.standard_error > 0, what, measured=str(one.standard_error), allowed="0 or NaN"
        )


@measure_check(
    "Only names that come are declared: each part, or pattern of parts, is seen with one of the teachers.",
    cause="a part that was renamed in the code and not in its declaration",
    level="full",
    needs=(PARTS,),
)
def every_declared_part_comes(subject: MeasureSubject, case: Case, evidence: Evidence) -> None:
    if case.member:
        raise NotApplicableError("All teachers are looked at together.")
    came = {one.part for each in subject.cases() for one in subject.numbers(each)}
    for name in parts_of(subject):
        seen = any(matches(name, part) for part in came)
        evidence.holds(seen, f"declared part {name!r}", measured="it never comes", allowed=f"one of {sorted(came)}")
