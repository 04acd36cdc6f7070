"""The blind comparison of calibration/data.py: its truth against known numbers, and what its report must show."""

from __future__ import annotations

from dataclasses import replace

import data
import pytest

import sizetransfer as st

FREE = data.known("gaussian", 16, (2,), mass=0.5)


def test_truth_is_that_of_the_closed_form():
    """Generated over exact, of the filter of 32 on 64: the table of docs/diagnose-data.md."""
    made, _ = data.truth(data.known("gaussian", 32, (4,), mass=0.1), 4)
    assert [one.value for one in made] == pytest.approx([0.955, 0.924, 0.265, 0.47], abs=0.005)
    assert {one.error for one in made} == {0.0}


@pytest.mark.parametrize(("mass", "radius", "truth"), [(0.5, 2, "yes"), (0.1, 4, "yes"), (0.3, 0, "no")])
def test_truth_by_local_marginals(mass, radius, truth):
    assert data.transfers(data.known("gaussian", 32, (radius,), mass=mass), radius) == truth


def test_truth_near_the_limit_is_told_apart(monkeypatch):
    numbers = [st.Quantity.estimated(value, 0.02, 8) for value in (0.95, 0.92)]
    monkeypatch.setattr(data, "truth", lambda *_: (numbers, numbers))
    assert data.transfers(FREE, 2) == "near the limit"


def test_a_row_of_a_short_ranged_field():
    (row,) = data.rows_of(FREE, seed=0)
    assert (row["data"], row["teacher"], row["truth"]) == ("transfers", "transfers", "yes")
    assert set(row["law"]) == set(data.NAMES)
    assert data.line_of(row).count("|") == data.heading()[0].count("|")
    report = list(data.report([row]))
    assert "0 of 0" in report[0]


def test_a_false_transfers_is_counted_first_and_shown():
    (row,) = data.rows_of(FREE, seed=0)
    planted = {**row, "truth": "no", "teacher": "radius-limited"}
    report = list(data.report([row, planted]))
    assert report[0].startswith("False *transfers* where what is generated is outside the tolerance: 1 of 1")
    assert any(line.startswith("False *transfers* where the teacher denies it: 1 of 1") for line in report)
    assert planted["reason"] in report[1]


def test_a_teacher_beyond_its_reach_is_no_verdict():
    spins = replace(FREE, kind="ising", options=(("beta_over_critical", 0.5),), size=32, larger=64)
    assert data.said_of_teacher(spins) == {2: data.BEYOND}
