"""A name stands for everything of that kind and for everything that a distribution of that name registers."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from plugin_factory import PluginFactory

from sizetransfer.contracts.errors import PluginError, SpecError
from sizetransfer.registry import Registry
from sizetransfer_verification.command_line import verify
from sizetransfer_verification.conformance import inventory, subjects_of

HIDDEN = """
from pathlib import Path
from typing import Literal
from sizetransfer.registry.hooks import hookimpl
from sizetransfer.students.cnn import CNNStudent, CNNStudentSpec
from sizetransfer.systems.gaussian.teacher import GaussianTeacherSpec
from sizetransfer.measures.smoothed_score import SmoothedScoreSpec

class Leaky(CNNStudent):
    def __init__(self, spec, field):
        super().__init__(spec, field)
        self.radius = 1

class LeakySpec(CNNStudentSpec):
    kind: Literal["leaky"] = "leaky"
    width: int = 4
    blocks: int = 0

    def build(self, field):
        return Leaky(self, field)

class AskingSpec(CNNStudentSpec):
    kind: Literal["asking"] = "asking"
    path: str

class NamesakeSpec(GaussianTeacherSpec):
    kind: Literal["many-sorts"] = "many-sorts"
    dim: int = 1

class MeasureOfItSpec(SmoothedScoreSpec):
    kind: Literal["measure-of-it"] = "measure-of-it"
    fields: int = 2

@hookimpl
def register_teachers(register):
    register(NamesakeSpec)

@hookimpl
def register_students(register):
    register(LeakySpec)
    register(AskingSpec)

@hookimpl
def register_measures(register):
    register(MeasureOfItSpec)

@hookimpl
def register_experiments(register):
    register(Path(__file__).with_name("an_experiment.yaml"))

@hookimpl
def register_commands(cli):
    import click
    cli.add_command(click.Command("some-command"))

@hookimpl
def on_event(event):
    pass
"""


@pytest.fixture
def factory(tmp_path, monkeypatch):
    made = PluginFactory(tmp_path, monkeypatch)
    (tmp_path / "an_experiment.yaml").write_text("name: an_experiment\n")
    yield made
    made.forget()


@pytest.fixture
def many(factory, monkeypatch):
    """A distribution that registers something of every sort, its teacher under its own name."""
    factory.install("many-sorts", HIDDEN)
    return _use(monkeypatch)


def _use(monkeypatch):
    registry = Registry()
    for module in ("sizetransfer_verification.conformance.named", "sizetransfer.api.kinds", "sizetransfer.registry"):
        monkeypatch.setattr(f"{module}.default_registry", lambda: registry)
    return registry


def test_a_kind_of_the_name_of_a_distribution_hides_nothing_of_it(many):
    found = inventory("many-sorts")
    assert [(subject.family, subject.name) for subject in found.subjects] == [
        ("teacher", "many-sorts"),
        ("student", "leaky"),
        ("measure", "measure-of-it"),
        ("listener", "many-sorts:main"),
    ]
    assert [what for what, _ in found.unchecked] == [
        "student asking",
        "experiment an_experiment",
        "command some-command",
    ]
    assert "path" in dict(found.unchecked)["student asking"]
    assert "no contract for experiments" in dict(found.unchecked)["experiment an_experiment"]
    assert not found.broken


def test_the_distributions_own_teachers_are_those_that_its_measures_are_tried_on(many):
    measure = next(subject for subject in inventory("many_sorts").subjects if subject.family == "measure")
    assert measure.pairs[0].candidate.name == "many-sorts"


def test_a_leaky_student_beside_a_teacher_of_the_same_name_is_found(many):
    radius = "student/nothing-beyond-the-radius"
    result = CliRunner().invoke(verify, ["plugin", "many-sorts", "--check", radius])
    assert result.exit_code == 1, result.output
    assert "many-sorts: 4 to check: teacher many-sorts, student leaky, measure measure-of-it, listener" in result.output
    assert "BROKEN  leaky" in result.output
    assert "Not checked: experiment an_experiment: there is no contract for experiments." in result.output


def test_what_is_whole_exits_with_zero_and_says_what_is_not_checked(many):
    names = ("teacher/answers-repeat", "measure/declarations", "listener/takes-every-event")
    checks = [text for name in names for text in ("--check", name)]
    result = CliRunner().invoke(verify, ["plugin", "many-sorts", *checks])
    assert result.exit_code == 0, result.output
    assert result.output.count("OK  ") == 3
    assert "Not checked: command some-command" in result.output


def test_a_check_that_does_not_exist_is_refused(many):
    result = CliRunner().invoke(verify, ["plugin", "many-sorts", "--check", "students/declarations"])
    assert isinstance(result.exception, SpecError)


def test_what_cannot_be_built_fails_and_hides_nothing(factory, monkeypatch):
    factory.install("half-broken", HIDDEN.replace("return Leaky(self, field)", "raise KeyError('width')"))
    _use(monkeypatch)
    found = inventory("half-broken")
    assert [what for what, _ in found.broken] == ["student leaky"]
    assert [subject.family for subject in found.subjects] == ["teacher", "measure", "listener"]
    with pytest.raises(PluginError, match="Not all of 'half-broken'"):
        subjects_of("half-broken")
    result = CliRunner().invoke(verify, ["plugin", "half-broken", "--check", "listener/takes-every-event"])
    assert result.exit_code == 1
    assert "BROKEN  student leaky" in result.output


def test_a_plugin_that_cannot_be_imported_fails(factory, monkeypatch):
    factory.install("not-there", "import a_module_that_nobody_has")
    _use(monkeypatch)
    result = CliRunner().invoke(verify, ["plugin", "not-there"])
    assert result.exit_code == 1
    assert "a_module_that_nobody_has" in result.output


def test_every_sort_of_a_name_is_checked():
    assert [subject.family for subject in inventory("serial").subjects] == ["executor"]
    assert [subject.family for subject in inventory("clean-score").subjects] == ["measure"]
    with pytest.raises(SpecError, match="no teacher, student, measure, executor or plugin"):
        inventory("nothing-of-that-name")
