"""Functions by their import paths: the teacher of an experiment file, trained on and measured."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import HasDensity, HasScore
from sizetransfer.contracts.randomness import stream
from sizetransfer.teachers.by_path import FunctionsSpec

LAW = """
import math
import torch

def score(x):
    return -x / 4

def log_density(x):
    return (-x**2 / 8 - 0.5 * math.log(8 * math.pi)).sum((1, 2, 3))

def sample(batch, size, generator):
    return 2 * torch.randn(batch, 1, size, size, generator=generator, dtype=torch.float64)

nothing = 3
"""


@pytest.fixture
def law(tmp_path, monkeypatch):
    """A module of somebody's functions."""
    (tmp_path / "white_law.py").write_text(LAW)
    monkeypatch.syspath_prepend(tmp_path)
    yield "white_law"
    sys.modules.pop("white_law", None)


def test_functions_by_path_are_those_passed(law):
    names = ("score", "log_density", "sample")
    teacher = st.teacher("functions", **{name: f"{law}:{name}" for name in names}, sizes=[4, 6])
    module = __import__(law)
    passed = st.oracle_from_functions(**{name: getattr(module, name) for name in names}, sizes=(4, 6))
    samples = [one.double().sample(3, 4, generator=stream("a")) for one in (teacher, passed)]
    assert torch.equal(samples[0].x, samples[1].x)
    assert torch.equal(teacher.score(samples[0]), passed.score(samples[0]))
    assert isinstance(teacher, HasScore)
    assert isinstance(teacher, HasDensity)
    assert teacher.field == passed.field
    assert 1.9 < teacher.field.sigma_data < 2.1


def test_their_module_takes_part_and_is_run_only_for_those_who_trust(law):
    spec = FunctionsSpec(score=f"{law}:score")
    assert law in spec.code()
    assert spec.names_code
    assert FunctionsSpec.parse(spec.to_json()) == spec


def test_a_student_is_trained_on_them(law):
    teacher = st.teacher("functions", score=f"{law}:score", sample=f"{law}:sample").double()
    student = st.student("cnn", teacher.field, blocks=0, width=4).double()
    st.train(teacher, student, st.TrainingSpec(size=4, steps=3, batch=4), seed=0)
    rows = list(st.measure("clean-score", fields=8).measure(teacher, student, 6, sigma=0.1, seed=0))
    assert rows[0].value > 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "No function is named"),
        ({"score": "white_law"}, "score"),
        ({"score": "nowhere_at_all:score"}, "cannot be imported"),
        ({"score": "white_law:absent"}, "cannot be imported"),
        ({"score": "white_law:nothing"}, "no function"),
    ],
)
@pytest.mark.usefixtures("law")
def test_what_is_no_function_is_named(fields, said):
    with pytest.raises(SpecError, match=said):
        st.teacher("functions", **fields)


EXPERIMENT = """
title: beside
teachers: {mine: {kind: functions, score: "law_beside:score", sample: "law_beside:sample"}}
students: {small: {kind: cnn, blocks: 0}}
training: {size: 4, steps: 1}
evaluation: {sizes: [4], measures: {error: {kind: clean-score}}}
"""


@pytest.mark.parametrize("where", ["working directory", "experiment"])
def test_functions_beside_are_found_without_a_path(where, tmp_path):
    """In a process of its own, whose path knows nothing of the folder."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "law_beside.py").write_text(LAW)
    (tmp_path / "code" / "mine.yaml").write_text(EXPERIMENT)
    experiment = "spec = st.load('code/mine.yaml').teachers['mine']"
    passed = "from sizetransfer.teachers.by_path import FunctionsSpec as S; spec = S(score='law_beside:score')"
    program = f"import sizetransfer as st; {experiment if where == 'experiment' else passed}"
    program += "; print(spec.build().field.channels, spec.code()[-1])"
    folder = tmp_path if where == "experiment" else tmp_path / "code"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "law_beside"], done.stderr


@pytest.mark.parametrize(
    "build",
    [
        lambda path: st.teacher("functions", score=path),
        lambda path: st.student("module", st.FieldInfo(dim=1), factory=path),
    ],
    ids=["functions", "module"],
)
def test_a_package_that_fails_leaves_the_path_as_it_was(build, tmp_path, monkeypatch):
    (tmp_path / "law_broken.py").write_text("import nowhere_at_all")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with pytest.raises(SpecError, match="nowhere_at_all"):
        build("law_broken:score")
    assert sys.path == before
