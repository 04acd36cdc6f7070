"""The checks of executors: the built-in ones pass, each broken one fails in the check that is meant for it."""

from __future__ import annotations

import pytest
from broken_executors import EXECUTORS, end_those_left

from sizetransfer_verification.conformance import ExecutorSubject, checks, run_checks

LOST = "executor/a-lost-worker-takes-one-trial"


@pytest.fixture(autouse=True)
def _none_left():
    yield
    end_those_left()


@pytest.mark.slow
@pytest.mark.parametrize("check", [check.id for check in checks("executor")])
def test_the_local_executor_keeps_the_contract(check):
    run_checks(ExecutorSubject("local"), only=(check,)).raise_if_failed()


@pytest.mark.slow
def test_the_serial_executor_has_no_worker_to_lose():
    names = tuple(check.id for check in checks("executor") if check.id != "executor/same-records-as-local")
    outcomes = run_checks(ExecutorSubject("serial"), only=names).outcomes
    assert {outcome.id for outcome in outcomes if outcome.status == "not applicable"} == {LOST}
    assert not [outcome for outcome in outcomes if outcome.wrong]


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "check"), EXECUTORS, ids=lambda value: getattr(value, "__name__", value))
def test_the_meant_check_catches_the_broken_executor(broken, check):
    (outcome,) = run_checks(ExecutorSubject(broken), only=(check,)).outcomes
    assert outcome.status == "failed", outcome
    assert outcome.cause


def test_each_check_has_a_broken_executor():
    assert {check for _, check in EXECUTORS} == {check.id for check in checks("executor")}
