"""Capabilities of teachers: one file, exported and documented; a score for whoever writes a density."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

import pytest
import torch
from tolerances import assert_rounding
from torch import Tensor

import sizetransfer as st
from sizetransfer.contracts import oracle
from sizetransfer.contracts.gradients import ScoreOfDensity, density_and_score

PAGE = Path(__file__).parents[2] / "docs" / "api" / "oracle.md"


def capabilities(module: types.ModuleType) -> set[str]:
    """Names of the capability protocols that a module defines."""
    found = {name: value for name, value in vars(module).items() if inspect.isclass(value)}
    return {
        name
        for name, value in found.items()
        if name.startswith("Has")
        and getattr(value, "_is_runtime_protocol", False)
        and value.__module__ == module.__name__
    }


def modules() -> Iterable[types.ModuleType]:
    """All of the package but the systems, whose measures may ask for more of the teachers of their own room."""
    for found in pkgutil.walk_packages(st.__path__, "sizetransfer."):
        if not found.name.startswith(("sizetransfer.systems", "sizetransfer.__main__", "sizetransfer.cli.skeleton.")):
            yield importlib.import_module(found.name)


def strays(looked_at: Iterable[types.ModuleType]) -> set[str]:
    """Capabilities outside their file, or not exported, or not documented."""
    found = {(module.__name__, name) for module in looked_at for name in capabilities(module)}
    elsewhere = {name for where, name in found if where != oracle.__name__}
    page = PAGE.read_text(encoding="utf-8")
    return elsewhere | {name for _, name in found if name not in st.__all__ or f"`{name}`" not in page}


@pytest.mark.slow
def test_every_capability_is_in_one_file_and_exported_and_documented() -> None:
    looked_at = list(modules())
    assert len(capabilities(oracle)) >= 13
    assert strays(looked_at) == set()
    for name in capabilities(oracle):
        assert getattr(st, name) is getattr(oracle, name)


def test_a_capability_elsewhere_is_found() -> None:
    @runtime_checkable
    class HasColour(Protocol):
        def colour(self) -> str: ...

    module = types.ModuleType("elsewhere")
    HasColour.__module__ = "elsewhere"
    module.HasColour = HasColour
    assert strays([module]) == {"HasColour"}


class Quartic(ScoreOfDensity, st.Teacher):
    """``log p = -sum x^4 / 4`` up to a constant: its score is ``-x^3``."""

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> st.Sample:
        raise NotImplementedError

    def log_density(self, sample: st.Sample) -> Tensor:
        return -sample.x.pow(4).flatten(1).sum(1) / 4


def fields(*, gradients: bool) -> st.Sample:
    x = torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(0))
    return st.Sample(x.requires_grad_(gradients), st.Context(st.Lattice((5,))))


@pytest.mark.parametrize("recorded", [True, False])
def test_a_density_has_a_score_in_any_gradient_mode(recorded) -> None:
    teacher, sample = Quartic(st.FieldInfo(dim=1)), fields(gradients=False)
    assert isinstance(teacher, st.HasScore)
    with torch.set_grad_enabled(recorded):
        score = teacher.score(sample)
    assert_rounding(score, -sample.x.pow(3))
    assert not score.requires_grad
    assert not sample.x.requires_grad


def test_the_score_of_a_density_is_differentiable_where_x_requires_it() -> None:
    teacher, sample = Quartic(st.FieldInfo(dim=1)), fields(gradients=True)
    (slope,) = torch.autograd.grad(teacher.score(sample).sum(), sample.x)
    assert_rounding(slope, -3 * sample.x.detach().square())


def test_density_and_score_come_from_one_evaluation() -> None:
    asked = []

    def log_density(x: Tensor) -> Tensor:
        asked.append(x)
        return -x.square().flatten(1).sum(1)

    sample = fields(gradients=False)
    value, score = density_and_score(log_density, sample.x)
    assert len(asked) == 1
    assert not value.requires_grad
    assert_rounding(value, log_density(sample.x))
    assert_rounding(score, -2 * sample.x)
