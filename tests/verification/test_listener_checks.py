"""The checks of listeners: a healthy one passes, each broken one fails, and changes no run."""

from __future__ import annotations

import pytest
from broken_listeners import LISTENERS, mended

from sizetransfer_verification.conformance import ListenerSubject, checks, run_checks

RECORDS = "listener/records-are-unchanged"


@pytest.fixture(autouse=True)
def _mended():
    yield
    mended()


def test_a_healthy_listener_keeps_the_contract():
    heard = []
    report = run_checks(ListenerSubject(heard.append, name="notes")).raise_if_failed()
    assert report.counts == {"passed": 4}
    assert {event.kind for event in heard} >= {"started", "step", "trained", "measured", "finished", "failed"}


@pytest.mark.parametrize(("broken", "check"), LISTENERS, ids=lambda value: getattr(value, "__name__", value))
def test_the_meant_check_catches_the_broken_listener(broken, check):
    (outcome,) = run_checks(ListenerSubject(broken), only=(check,)).outcomes
    assert outcome.status == "failed", outcome


@pytest.mark.parametrize(
    "broken", [broken for broken, check in LISTENERS if check != RECORDS], ids=lambda f: f.__name__
)
def test_a_run_gives_the_same_records_whatever_a_listener_does(broken):
    """Raising, exiting, slow or changing the settings: the run goes on, and nothing of it is another."""
    (outcome,) = run_checks(ListenerSubject(broken), only=(RECORDS,)).outcomes
    assert outcome.status == "passed", outcome


def test_each_check_has_a_broken_listener():
    assert {check for _, check in LISTENERS} == {check.id for check in checks("listener")}
