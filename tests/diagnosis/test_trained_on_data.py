"""Networks of nested radii on stored fields: early stopping, pairing, generation and what fails without loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.diagnosis.from_data import ArrayFields, DataDiagnosis, DataQuestion, diagnose_fields
from sizetransfer.diagnosis.from_data import trained as module
from sizetransfer.diagnosis.from_data.trained import RowsTeacher, _beyond, split, trained_radii


def fields(count: int, size: int = 16) -> Tensor:
    teacher = st.teacher("gaussian", mass=0.5).double()
    return teacher.sample(count, size, generator=torch.Generator().manual_seed(1)).x


@pytest.fixture(scope="module")
def found() -> DataDiagnosis:
    question = DataQuestion(radii=(2,), sigmas=(0.3, 0.6), sizes=(24,), train=150)
    return diagnose_fields(ArrayFields(fields(160)), question)


def test_differences_are_paired_and_tell_what_was_learned(found: DataDiagnosis) -> None:
    assert not found.problems
    for one in found.nested:
        # A filter is the best there is for Gaussian fields: no network is below it by more than chance.
        assert one.above_linear.value > -4 * one.above_linear.error
        assert one.above_linear.error < one.loss.error
    assert {one.above_largest.value for one in found.nested if one.radius == max(o.radius for o in found.nested)} == {0}


def test_sizes_and_response_are_said(found: DataDiagnosis) -> None:
    assert [(one.size, one.measured) for one in found.checks] == [(16, True), (24, False)]
    (tail,) = found.tails
    assert len(tail.shells) == tail.radius + 1
    assert 0 <= tail.beyond_exponential <= tail.beyond_power
    for said in ("nested radii", "over the law", "power law", "generation by size"):
        assert said in str(found)


def test_weights_are_those_of_the_least_loss(monkeypatch) -> None:
    """A learning rate that ruins the network late: the weights from before are kept."""
    losses = iter([3.0, 1.0, 2.0])
    kept = {}

    def scripted(student, x, sigma, seed, purpose):
        if purpose == "stopping" and sigma == scripted.first:
            scripted.now = next(losses)
            kept[scripted.now] = {name: value.clone() for name, value in student.state_dict().items()}
        return torch.full((len(x),), scripted.now)

    scripted.first = None
    monkeypatch.setattr(module, "EVERY", 2)
    original = torch.logspace

    def levels(*arguments):
        found = original(*arguments)
        scripted.first = float(found[0])
        return found

    monkeypatch.setattr(torch, "logspace", levels)
    monkeypatch.setattr(module, "_losses", scripted)
    stored = ArrayFields(fields(64))
    from types import SimpleNamespace

    known = SimpleNamespace(training=16, deviation=0.6, sigma_min=0.05, laws={16: SimpleNamespace(sigma_needed=6.0)})
    student = module.network(stored, known, split(stored, 16), 4, 6, 0)
    for name, value in student.state_dict().items():
        assert torch.equal(value, kept[1.0][name])


def test_rows_to_train_on_are_not_those_to_measure_on() -> None:
    stored = ArrayFields(torch.arange(64.0).reshape(64, 1, 1, 1).expand(64, 1, 16, 16))
    parts = split(stored, 16)
    drawn = RowsTeacher(stored, 16, parts.training, 1.0).sample(500, 16, generator=torch.Generator().manual_seed(0))
    rows = [set(x[:, 0, 0, 0].tolist()) for x in (drawn.x, parts.stopping, parts.evaluation)]
    assert rows[0] == set(range(parts.training))
    assert not rows[0] & rows[1] | rows[1] & rows[2] | rows[0] & rows[2]


def test_training_that_is_impossible_loses_nothing() -> None:
    found = diagnose_fields(ArrayFields(fields(12)), DataQuestion(radii=(2,), sigmas=(0.5,), train=10))
    assert "at least 32" in found.problems[0]
    assert found.verdicts
    assert "Not done: nested radii" in str(found)


def test_tails_are_those_of_known_laws() -> None:
    domain = Lattice((64,))
    r = torch.arange(13, dtype=torch.float64)
    exponential, _ = _beyond((-r).exp(), domain)
    assert exponential == pytest.approx(math.exp(-13) / (1 - math.exp(-1)), rel=1e-6)
    _, power = _beyond((1 + r - 1).clamp_min(1) ** -3, domain)
    assert power == pytest.approx(float((torch.arange(13, 640, dtype=torch.float64) ** -3).sum()), rel=1e-6)


def test_networks_have_even_radii_that_the_lattice_holds() -> None:
    assert trained_radii((3, 4), 32) == (4, 8)
    assert trained_radii((1,), 16) == (4,)
