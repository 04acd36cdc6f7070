"""A model on data: one word, first whether its units are right, then learning and size; and always what is missing."""

from __future__ import annotations

import json
import sys
from functools import lru_cache

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from ideal_models import Ideal
from torch import Tensor, nn

import sizetransfer as st
from sizetransfer.cli import cli
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import stream
from sizetransfer.diagnosis.joined import ModelOnData

MASS = 0.5
TEACHER = st.teacher("gaussian", dim=2, mass=MASS)
SIGMAS = (0.3, 0.6)


@lru_cache(maxsize=8)
def fields(size: int, count: int = 256, mass: float = MASS) -> np.ndarray:
    teacher = st.teacher("gaussian", dim=2, mass=mass).double()
    return teacher.sample(count, size, generator=stream("joined", size)).x.numpy()


class Best(nn.Module):
    """The best score of a radius, with an error that may grow with the lattice."""

    def __init__(self, radius: int, error: float = 0.0, growth: float = 0.0, mass: float = MASS) -> None:
        super().__init__()
        self.best = st.student("optimal-local", TEACHER.field, mass=mass, radius=radius)
        self.error, self.growth = error, growth

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        score = self.best(x, sigma, Context(Lattice(tuple(x.shape[2:]))))
        return score * (1 + (self.error + self.growth * (x.shape[-1] - 16)) * torch.sin(3 * x))


def diagnosed(model: nn.Module, *sizes: int, mass: float = MASS, **options: object) -> ModelOnData:
    data = [fields(size, mass=mass) for size in sizes]
    return st.diagnose(model=model, data=data, **{"sigmas": SIGMAS, **options})


@pytest.mark.parametrize(
    ("model", "options", "fault"),
    [
        (Ideal("ve", "clean", TEACHER), {}, "prediction"),
        (Ideal("ve", "score", TEACHER, unit=0.6), {}, "scale"),
    ],
)
def test_wrong_units_end_the_diagnosis(model: nn.Module, options: dict[str, object], fault: str) -> None:
    found = diagnosed(model, 16, **options)
    assert found.word == "wrong units"
    assert found.units is not None
    assert found.units.findings[0].fault == fault
    assert (found.verdict, found.sizes) == (None, ())
    text = str(found)
    assert "Nothing else is claimed" in text
    assert found.units.findings[0].text in found.would_change
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["word"] == "wrong units"


def test_the_same_model_read_as_it_is_has_a_verdict() -> None:
    found = diagnosed(Ideal("ve", "clean", TEACHER), 16, 32, predicts="clean")
    assert found.units is not None
    assert not found.units.findings
    assert found.word != "wrong units"


@pytest.mark.parametrize(
    ("model", "sizes", "word"),
    [
        (Best(3), (16, 24), "transfers"),
        (Best(3, error=0.7), (16, 24), "not learned"),
        (Best(3, growth=0.05), (16, 24), "degrades with size"),
        (Best(0), (16, 24), "not learned"),
        (Best(3), (16,), "undecided"),
    ],
    ids=["transfers", "not learned", "degrades", "no skill", "one size"],
)
def test_words_of_a_model_are_those_of_what_it_does(model: nn.Module, sizes: tuple[int, ...], word: str) -> None:
    found = diagnosed(model, *sizes)
    assert found.radius.radius == model.best.radius
    assert found.word == word, str(found)
    assert found.would_change
    assert found.missing
    # Nothing is said of larger sizes where nothing was learned.
    assert [one.size for one in found.sizes] == list(sizes[:1] if word == "not learned" else sizes)
    assert [step.name for step in found.steps][:2] == ["model and fields", "receptive radius"]
    if word == "undecided":
        assert any("L = 32" in one for one in found.missing)


def test_a_model_whose_radius_is_too_small_is_told_which_is_enough() -> None:
    found = diagnosed(Best(1, mass=0.1), 16, 24, mass=0.1)
    assert found.word == "radius-limited"
    assert "a radius of 2" in found.would_change


def test_a_model_that_needs_more_than_its_box_does_not_transfer() -> None:
    """Mass 0.05: the correlation length exceeds the training box."""
    found = diagnosed(Best(5, mass=0.05), 16, 24, mass=0.05)
    assert found.word != "transfers"


class Pooled(nn.Module):
    """A network that reads the mean of the whole field."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
        self.norm = nn.InstanceNorm2d(1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def test_a_model_that_reads_the_whole_lattice_is_said_to() -> None:
    found = diagnosed(Pooled(), 16)
    assert found.radius.radius is None
    assert "reads the whole lattice" in str(found)
    assert any("normalises over space" in one for one in found.would_change)


MODULE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1, padding_mode="circular")
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x, sigma):
        return self.out(self.conv(x).tanh())
"""


def test_the_command_judges_a_model_with_its_weights(tmp_path, monkeypatch) -> None:
    from safetensors.torch import save_file

    (tmp_path / "joined_net.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    np.save("small.npy", fields(16)[:, 0])
    from joined_net import Net

    save_file(Net(3).state_dict(), "w.safetensors")
    command = ["diagnose", "--model", "joined_net:Net", "--data", "small.npy", "--sigma", "0.3,0.6", "--predicts"]
    weights = ["noise", "--weights", "w.safetensors", "--arguments", '{"width": 3}']
    done = CliRunner().invoke(cli, [*command, *weights, "--json"], catch_exceptions=False)
    data = json.loads(done.stdout)
    assert (data["word"], data["radius"]["radius"]) == ("not learned", 1)
    assert any("layout BHW" in note for note in data["data"]["notes"])
    shown = CliRunner().invoke(cli, [*command, *weights], catch_exceptions=False)
    for words in ("not learned", "DATA", "MODEL", "Missing:", "What would change this:", "Processor time"):
        assert words in shown.output
    wrong = CliRunner().invoke(cli, [*command, "noise", "--weights", "w.safetensors"])
    assert wrong.exit_code == 2
    assert "conv.weight" in wrong.output


def test_the_command_fails_where_units_are_wrong(tmp_path, monkeypatch) -> None:
    (tmp_path / "joined_exact.py").write_text(
        "import sizetransfer as st\nfrom ideal_models import Ideal\n"
        f"def build(): return Ideal('ve', 'clean', st.teacher('gaussian', dim=2, mass={MASS}))\n"
    )
    monkeypatch.chdir(tmp_path)
    np.save("small.npy", fields(16)[:, 0])
    command = ["diagnose", "--model", "joined_exact:build", "--data", "small.npy", "--sigma", "0.3,0.6"]
    done = CliRunner().invoke(cli, [*command, "--predicts", "noise", "--json"])
    assert done.exit_code == 2
    assert json.loads(done.stdout)["word"] == "wrong units"
    assert "wrong units" in done.stderr
    assert "predicts: clean" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--model", "torch.nn:Identity"], "diagnosed on data"),
        (["--data", "f.npy", "--predicts", "noise"], "diagnosed on data"),
        (["--data", "f.npy", "--model", "joined_nowhere:Net"], "cannot be imported"),
        (["--data", "f.npy", "--model", "torch.nn:Identity", "--train", "3"], "not trained"),
        (["--data", "f.npy", "--model", "torch.nn:Identity", "--boundary", "crop", "--layout", "BHW"], "crops"),
        (["--data", "f.npy", "--model", "torch.nn:Identity", "--teacher", "gaussian"], "without teacher"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments, what, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("f.npy", fields(16)[:, 0])
    done = CliRunner().invoke(cli, ["diagnose", *arguments])
    assert done.exit_code == 2
    assert what in done.output


def test_options_that_are_none_are_refused() -> None:
    with pytest.raises(SpecError, match="predicts"):
        diagnosed(nn.Identity(), 16, predict="noise")
