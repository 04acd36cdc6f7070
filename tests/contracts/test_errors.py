"""What a user reads, and what survives the way back from a worker process."""

from __future__ import annotations

import pickle

import pytest

from sizetransfer.contracts import errors
from sizetransfer.contracts.errors import NonFiniteError, RunError, SizetransferError, SpecError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SizetransferError)]


def test_message_names_each_thing_on_its_own_line():
    error = SpecError(
        "The radius wraps around.",
        where="students.wide",
        expected="R < 16",
        got="R = 20",
        fix="train on a larger lattice",
    )
    assert str(error).splitlines() == [
        "The radius wraps around.",
        "  where:    students.wide",
        "  expected: R < 16",
        "  got:      R = 20",
        "  fix:      train on a larger lattice",
    ]


def test_message_leaves_out_what_is_not_known():
    assert str(RunError("The disk is full.")) == "The disk is full."
    assert str(RunError("The disk is full.", where="", fix="make room")).splitlines()[1:] == ["  fix:      make room"]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling(kind):
    error = kind("what", where="where", expected="expected", got="got", fix="fix")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_can_be_caught_as_one(kind):
    with pytest.raises(SizetransferError, match="what"):
        raise kind("what")


def test_a_number_that_is_not_finite_stops_a_run():
    assert issubclass(NonFiniteError, RunError)
