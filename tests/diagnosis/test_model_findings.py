"""One model on given fields: radius-limited is told from not learned, and the command names what a module reads."""

from __future__ import annotations

import json
import math

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import sizetransfer as st
from sizetransfer.cli import cli
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import stream

TEACHER = st.teacher("gaussian", dim=2, mass=0.1).double()
FIELDS = TEACHER.sample(64, 16, generator=stream("findings")).x


class Filter(nn.Module):
    """The best score of a radius, times a factor that a network has yet to learn."""

    def __init__(self, radius: int, factor: float = 1.0) -> None:
        super().__init__()
        self.best = st.student("optimal-local", TEACHER.field, mass=0.1, radius=radius)
        self.factor = factor

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.best(x, sigma, Context(TEACHER.domain(x.shape[-1]))) * (1 + self.factor * torch.sin(3 * x))


@pytest.mark.parametrize(
    ("radius", "error", "limit"),
    [(1, 0.0, "radius-limited"), (5, 0.0, "learned"), (5, 0.6, "not learned")],
)
def test_what_limits_a_model_is_told(radius: int, error: float, limit: str) -> None:
    found = st.diagnose_model(Filter(radius, error), FIELDS, field=TEACHER.field, sigmas=(0.3, 1.0))
    assert found.radius is not None
    assert found.radius.radius == radius
    assert not found.units.findings
    assert {level.limit for level in found.levels} >= {limit}
    assert limit in found.text()
    data = json.loads(json.dumps(found.to_json()))
    assert all(level["own_radius"] <= radius for level in data["levels"])
    assert all(math.isfinite(one["standard_error"]) for level in data["levels"] for one in level["linear"])
    assert data["fields"] == len(FIELDS)


MODULE = """
from torch import nn


class Net(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.conv = nn.Conv1d(1, width, 5, padding=2)
        self.out = nn.Conv1d(width, 1, 1)

    def forward(self, x, sigma):
        return self.out(self.conv(x).tanh())
"""


def test_the_command_measures_a_module_beside_it(tmp_path, monkeypatch) -> None:
    (tmp_path / "radius_net.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    command = ["radius", "radius_net:Net", "--dim", "1", "--arguments", '{"width": 3}']
    shown = CliRunner().invoke(cli, [*command, "--layers"], catch_exceptions=False)
    assert shown.exit_code == 0
    for words in ("receptive radius 2", "pads with zeros", "conv", "32  -2 +2"):
        assert words in shown.output
    data = json.loads(CliRunner().invoke(cli, [*command, "--json", "--size", "8,9"]).output)
    assert (data["radius"], data["faults"][0]["kind"]) == (2, "padding")
    box = CliRunner().invoke(cli, [*command, "--walls"])
    assert "pads with" not in box.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["radius", "radius_missing:Net"], "cannot be imported"),
        (["radius", "torch.nn:Identity", "--arguments", "[1]"], "no mapping"),
        (["radius", "torch.nn:Identity", "--inputs", "y"], "no input 'y'"),
        (["radius", "torch.nn:Identity", "--inputs", "x", "--weights", "w.pkl"], "no such file"),
        (["radius", "torch.nn:Identity", "--size", "a"], "not a list of numbers"),
    ],
)
def test_what_is_asked_wrongly_is_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert message in done.output
