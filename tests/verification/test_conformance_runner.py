"""What the suite says when it is asked wrongly, when a plugin cannot be built, and when time is over."""

from __future__ import annotations

import sys
import time

import pytest
from small_students import TORUS, SmallCNN, SmallSpec

from sizetransfer.contracts.errors import ConformanceError, PluginError, SpecError
from sizetransfer_verification.conformance import Case, StudentSubject, check_student, check_teacher, subjects_of
from sizetransfer_verification.conformance.api import BoundCheck
from sizetransfer_verification.conformance.check import CaseSpace, Check, checks
from sizetransfer_verification.conformance.runner import run_check


@pytest.mark.parametrize(
    "text",
    [
        '{"size": "a"}',
        '{"size": 0}',
        '{"batch": 1.5}',
        '{"member": -1}',
        '{"noise": 0}',
        '{"dtype": "int8"}',
        '{"device": 3}',
        '{"sizes": 3}',
        "[1]",
        '{"size": 5',
    ],
)
def test_examples_that_no_report_shows_are_refused(text):
    with pytest.raises(SpecError, match="copy the example from a report"):
        Case.parse(text)


def test_examples_are_read_back():
    case = Case(member=2, size=7, batch=3, noise=0.05, dtype="float32", seed=9)
    assert Case.parse(case.to_json()) == case


@pytest.mark.parametrize("case", [Case(member=1), Case(device="blub")])
def test_an_example_of_another_subject_is_no_failure_of_this_one(case):
    with pytest.raises(SpecError, match="another subject"):
        check_student(SmallSpec(), fields=(TORUS,), only=("student/rows-alone",), example=case)
    with pytest.raises(SpecError, match="another subject"):
        check_teacher("gaussian", only=("teacher/answers-repeat",), example=case)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_a_timeout_must_be_positive(timeout):
    with pytest.raises(SpecError, match="not positive"):
        check_student(SmallSpec(), fields=(TORUS,), only=("student/rows-alone",), timeout=timeout)


def _sleeps(subject, case, evidence):
    time.sleep(5)


def _sleeps_and_hides(subject, case, evidence):
    try:
        time.sleep(5)
    except BaseException as error:
        raise AssertionError from error


def _loses_the_first_alarm(subject, case, evidence):
    try:
        time.sleep(5)
    except BaseException:
        time.sleep(5)


@pytest.mark.parametrize("function", [_sleeps, _sleeps_and_hides, _loses_the_first_alarm])
def test_a_check_that_takes_too_long_is_told_as_such_even_where_a_library_hides_it(function):
    check = Check("student/sleeps", "student", "It ends.", "a loop", "api", False, (), CaseSpace(), function)
    outcome = run_check(check, StudentSubject(SmallCNN, fields=(TORUS,)), timeout=1.0)
    assert outcome.status == "timed out"
    assert outcome.reason == "It took longer than 1 s."
    assert outcome.seconds < 4


def test_a_bound_check_names_a_missing_library(monkeypatch):
    check = checks("student", only=("student/declarations",))[0]
    bound = BoundCheck(check, StudentSubject(SmallCNN, fields=(TORUS,)))
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(PluginError, match="hypothesis"):
        bound()


def test_a_plugin_that_cannot_be_built_is_named_with_its_error():
    def broken(*arguments):
        raise KeyError("width")

    for build, family in ((check_student, "student"), (check_teacher, "teacher")):
        with pytest.raises(ConformanceError, match=f"The {family} cannot be built") as raised:
            build(broken, level="api")
        assert "KeyError: 'width'" in str(raised.value)
        assert "test_conformance_runner.py line" in str(raised.value)


def test_a_name_may_be_a_mapping_as_text():
    (subject,) = subjects_of("{kind: gaussian, mass: 0.3}")
    assert subject.spec.mass == 0.3
    for text in ("{kind: gaussian", "gaussian {", "{a}b"):
        with pytest.raises(SpecError):
            subjects_of(text)
