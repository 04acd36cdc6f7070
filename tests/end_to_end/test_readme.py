"""The README's student, its entry point and its commands are what they are said to be."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch

import sizetransfer as st
from sizetransfer.cli.run_commands import parse_settings
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.randomness import stream
from sizetransfer.registry import Registry
from sizetransfer.registry.plugins import Plugin, PluginRecord
from sizetransfer.runs import load
from sizetransfer_verification import check_student

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GROUP = "sizetransfer"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


STUDENT, PYTHON = blocks("python")


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry that finds the README's code under the README's entry point, without an installation."""
    (name, module), *_ = tomllib.loads(*blocks("toml"))["project"]["entry-points"][GROUP].items()
    (tmp_path / f"{module}.py").write_text(STUDENT, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    record = PluginRecord("my-distribution", "0.1", name, module)
    yield Registry(find_plugins=lambda: [Plugin(record)])
    monkeypatch.delitem(importlib.sys.modules, module, raising=False)


def test_the_student_is_found_as_the_plugins_own(registry):
    kind = registry.kinds("student")["linear-filter"]
    assert (kind.distribution, kind.version) == ("my-distribution", "0.1")
    assert [record.status for record in registry.plugins()] == ["loaded"]


def test_the_student_has_twenty_lines():
    lines = [line for line in STUDENT.splitlines() if line.strip()]
    assert len(lines) <= 24


def test_the_specification_refuses_what_the_readme_says(registry):
    with pytest.raises(st.SpecError, match="greater than or equal to 1"):
        registry.lookup("student", "linear-filter").parse({"kind": "linear-filter", "reach": 0})


def score_error(teacher, student, generator):
    """Squared distance to the clean score of held-out fields, at low noise."""
    sample = teacher.sample(16, 16, generator=generator)
    sigma = torch.full((16,), 0.05, dtype=sample.x.dtype)
    x, _ = perturb(sample.x, sigma, generator=generator)
    with torch.no_grad():
        return (student(x, sigma, sample.context) - teacher.score(sample)).square().mean().item()


def test_the_student_learns_on_a_small_lattice_and_runs_on_a_larger_one(registry):
    spec = registry.lookup("student", "linear-filter").parse({"kind": "linear-filter", "reach": 2})
    teacher = st.teacher("flow", preset="medium-range").double().frozen()
    student = spec.build(teacher.field).double()
    before = score_error(teacher, student, stream(0, "held out"))
    training = st.TrainingSpec(size=8, steps=60, batch=8, objective="target-score", learning_rate=0.02)
    result = st.train(teacher, student, training, seed=0)
    assert result.steps == 60
    after = score_error(teacher, student, stream(0, "held out"))
    assert after < 0.8 * before


def test_the_student_keeps_its_promises(registry, generator):
    spec = registry.lookup("student", "linear-filter").parse({"kind": "linear-filter", "reach": 2})
    teacher = st.teacher("flow", preset="short-range-simple").double()
    student = spec.build(teacher.field).double()
    torch.nn.init.normal_(student.filter.weight, generator=generator)
    sample = teacher.sample(2, 8, generator=generator)
    x, sigma = sample.x.requires_grad_(), torch.tensor([0.1, 0.9])
    (row,) = torch.autograd.grad(student(x, sigma, sample.context)[:, :, 3, 3].sum(), x)
    ball = sample.context.domain.ball((3, 3), student.radius)
    assert (row[..., ~ball] == 0).all()
    assert (row[..., ball] != 0).all()


def test_the_interface_that_the_readme_uses_exists():
    nodes = ast.walk(ast.parse(PYTHON))
    names = {
        n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "st"
    }
    assert names
    assert all(hasattr(st, name) for name in names)


def test_the_sessions_that_the_readme_names_exist():
    defined = {
        node.name for node in ast.parse((ROOT / "noxfile.py").read_text()).body if isinstance(node, ast.FunctionDef)
    }
    named = set(re.findall(r"nox -s (\w+)", README))
    assert {"quickstart", "tests"} <= named <= defined


def test_continuous_integration_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    for part in ("python3 -m venv .venv", ".venv/bin/pip install", ".venv/bin/nox -s tests"):
        assert part in README
        assert part in script


def test_the_command_that_runs_the_student_gives_a_valid_experiment(registry):
    (setting,) = re.findall(r"--set (\S+='[^']+')", README)
    overrides = parse_settings(shlex.split(setting))
    experiment = load("quickstart", overrides=overrides, registry=registry)
    assert experiment.students["filter"].to_json() == {"kind": "linear-filter", "reach": 6}
    assert any(trial.student_name == "filter" for trial in experiment.trials())


@pytest.mark.parametrize(
    "field",
    [st.FieldInfo(dim=2, periodic=False, closed=(False, True)), st.FieldInfo(dim=3), st.FieldInfo(dim=2)],
    ids=["cylinder", "torus-3d", "torus-2d"],
)
def test_the_student_goes_around_every_closed_axis(registry, field):
    spec = registry.lookup("student", "linear-filter").parse({"kind": "linear-filter", "reach": 2})
    names = ("student/translation-equivariance", "student/nothing-beyond-the-radius", "student/radius-is-reached")
    report = check_student(spec, fields=(field,), only=names).raise_if_failed()
    assert report.counts == {"passed": 3}
