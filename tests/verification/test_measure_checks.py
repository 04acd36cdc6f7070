"""The checks of measures: a healthy one passes, each broken one fails in the check that is meant for it."""

from __future__ import annotations

import pytest
from broken_measures import HEALTHY_PARTS, MEASURES, WRONG_PARTS, Declared, SmallErrorSpec, declaring

from sizetransfer.contracts.errors import ConformanceError
from sizetransfer_verification.conformance import MeasureSubject, check_measure, checks, run_checks

DECLARED = "measure/declared-parts-are-what-comes"
COMES = "measure/every-declared-part-comes"


def wrong(measure, check):
    report = check_measure(measure, only=(check,))
    return [outcome.id for outcome in report.outcomes if outcome.wrong]


def test_a_healthy_measure_passes_on_every_sort_of_field():
    subject = MeasureSubject(SmallErrorSpec())
    report = run_checks(subject, level="full").raise_if_failed()
    assert [pair.candidate.sort for pair in subject.pairs] == ["lattice", "graph", "dead sites"]
    left_out = [outcome.id for outcome in report.outcomes if outcome.status == "not applicable"]
    assert set(left_out) <= {DECLARED, COMES}


@pytest.mark.parametrize(("broken", "check"), MEASURES, ids=lambda value: getattr(value, "__name__", value))
def test_the_meant_check_catches_the_broken_measure(broken, check):
    assert wrong(broken(), check) == [check]


def test_each_check_has_a_broken_measure():
    caught = {check for _, check in MEASURES} | {DECLARED, COMES}
    assert caught == {check.id for check in checks("measure")}


def test_declared_parts_are_what_comes():
    healthy = declaring(HEALTHY_PARTS)
    assert check_measure(healthy, only=(DECLARED, COMES)).counts == {"passed": 2}


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_a_wrong_declaration_of_parts_is_caught(name):
    assert wrong(declaring(WRONG_PARTS[name]), DECLARED) == [DECLARED]


def test_a_declared_part_that_never_comes_is_caught():
    assert wrong(declaring({**HEALTHY_PARTS, "lost": Declared()}), COMES) == [COMES]


@pytest.mark.parametrize(
    "kind",
    [
        "clean-score",
        {"kind": "smoothed-score", "fields": 4},
        "response",
        "jacobian",
        {"kind": "linear-references", "fields": 32},
    ],
    ids=str,
)
def test_built_in_measures_keep_the_contract(kind):
    assert check_measure(kind).raise_if_failed().comparisons > 50


def test_a_measure_that_takes_no_teacher_is_not_called_right():
    class Nowhere(SmallErrorSpec):
        geometries = ()

    report = check_measure(Nowhere(), level="api")
    assert not report.ok
    with pytest.raises(ConformanceError, match="takes none of the teachers"):
        report.raise_if_failed()
