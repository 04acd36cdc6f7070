"""The command line: what it accepts, prints and returns; the runs themselves are replaced by made-up ones."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from plugin_factory import HEALTHY, PluginFactory
from synthetic_run import SmoothedResponseSpec, SyntheticRun, make_experiment, make_run

from sizetransfer import api
from sizetransfer import cli as command_line
from sizetransfer.cli.console import RunProgress, TimeLeft, duration, finite
from sizetransfer.cli.run_commands import parse_settings
from sizetransfer.contracts.errors import NonFiniteError, PluginError, RunError, SpecError
from sizetransfer.contracts.events import Event
from sizetransfer.numerics.averages import number
from sizetransfer.registry import Registry

CORE = '''
from pathlib import Path
from typing import ClassVar, Literal
from sizetransfer.registry.hooks import hookimpl

@hookimpl
def register_teachers(register):
    from pydantic import Field
    from sizetransfer.contracts.specs import Spec, TeacherSpec

    class Mode(Spec):
        """A mode.

        Attributes:
            strength: how strong it is,
                at every size.
        """
        strength: float = Field(4.0, gt=0)

    class WavesSpec(TeacherSpec):
        """Waves on the sea.

        Not more than that.
        """
        kind: Literal["waves"] = "waves"
        depth: int = Field(1, ge=1, description="layers")
        mode: Mode = Mode()
        presets: ClassVar = {"stormy": {"depth": 7, "mode": {"strength": 9.0}}}
        aliases: ClassVar = {"wild": "stormy"}

        def build(self):
            raise AssertionError("nothing is built here")

    register(WavesSpec)

@hookimpl
def register_measures(register):
    from sizetransfer.contracts.specs import MeasureSpec

    class CountSpec(MeasureSpec):
        kind: Literal["count"] = "count"

        def measure(self, teacher, student, size, *, sigma, seed):
            return ()

    register(CountSpec)

@hookimpl
def register_experiments(register):
    register(Path(__file__).with_name("sea.yaml"))
''' + HEALTHY.format(kind="plain").replace("from sizetransfer.registry.hooks import hookimpl", "")

SEA = {
    "title": "The sea",
    "teachers": {"sea": {"kind": "waves"}},
    "students": {"plain": {"kind": "plain"}},
    "training": {"size": 16, "steps": 100},
    "evaluation": {"sizes": [16, 32], "measures": {"number": {"kind": "count"}}},
    "presets": {"quick": {"training": {"steps": 10}}, "paper": {}},
}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginFactory]:
    """A registry with a small teacher, student, measure and experiment; plugins can be installed beside them."""
    folder = tmp_path / "site"
    folder.mkdir()
    factory = PluginFactory(folder, monkeypatch)
    (folder / "sea.yaml").write_text(yaml.safe_dump(SEA, sort_keys=False))
    factory.module("core_for_commands", CORE)
    registry = Registry(built_in=("core_for_commands",))
    for module in ("cli", "api.kinds", "runs.loading"):
        monkeypatch.setattr(f"sizetransfer.{module}.default_registry", lambda: registry)
    monkeypatch.chdir(tmp_path)
    yield factory
    factory.forget()


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command_line.cli, arguments, catch_exceptions=False)


def run_python(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, env=env)


class Runs:
    """Takes the place of ``api.run``: notes the calls, returns a made-up run or raises."""

    def __init__(self, run: SyntheticRun) -> None:
        self.run = run
        self.error: BaseException | None = None
        self.events: tuple[Event, ...] = ()
        self.calls: list[dict[str, Any]] = []

    def __call__(self, experiment: object, out: Path, *, on_event: Callable[[Event], None], **options: Any) -> object:
        self.calls.append({"experiment": experiment, "out": out, **options})
        for event in self.events:
            on_event(event)
        if self.error is not None:
            raise self.error
        return self.run


@pytest.fixture
def runs(plugins: PluginFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    fake = Runs(make_run(tmp_path / "made-up"))
    monkeypatch.setattr(api, "run", fake)
    return fake


def test_help_lists_the_commands_without_importing_what_is_heavy() -> None:
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from sizetransfer.cli import cli\n"
        "result = CliRunner().invoke(cli, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "print(*[name for name in ('torch', 'pydantic', 'rich', 'pandas', 'yaml') if name in sys.modules])\n"
        "print(result.output)\n"
    )
    environment = {**os.environ, "SIZETRANSFER_PLUGINS": "none"}
    finished = run_python("-c", program, env=environment)
    assert finished.returncode == 0, finished.stderr
    heavy, _, text = finished.stdout.partition("\n")
    assert heavy == ""
    for command in ("run", "list", "show", "report", "compare", "plugins", "schema"):
        assert f"\n  {command} " in text


def test_the_module_is_the_command() -> None:
    finished = run_python("-m", "sizetransfer", "--version")
    assert finished.returncode == 0
    assert "version" in finished.stdout


def test_run_resolves_the_experiment_and_chooses_the_directory(runs: Runs) -> None:
    result = invoke("run", "sea", "--set", "training.steps=30", "--set", "evaluation.sizes=[16, 48]")
    assert result.exit_code == 0, result.output
    (call,) = runs.calls
    assert call["experiment"].training.steps == 30
    assert call["experiment"].evaluation.sizes == (16, 48)
    assert call["out"] == Path("runs/sea-quick")
    assert (call["device"], call["executor"], call["workers"]) == ("auto", "local", None)
    assert (call["fresh"], call["report"]) == (False, True)


def test_run_passes_its_options_on(runs: Runs) -> None:
    options = "--preset paper --device cpu --out here --executor other --workers 3 --fresh --no-report"
    assert invoke("run", "sea", *options.split()).exit_code == 0
    (call,) = runs.calls
    assert call["experiment"].preset == "paper"
    assert call["experiment"].training.steps == 100
    assert call["out"] == Path("here")
    assert (call["device"], call["executor"], call["workers"]) == ("cpu", "other", 3)
    assert (call["fresh"], call["report"]) == (True, False)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("[1, 2]", [1, 2]), ("{kind: cnn}", {"kind": "cnn"}), ("null", None), ('"a=b"', "a=b")],
)
def test_settings_are_read_as_yaml(text: str, value: object) -> None:
    assert parse_settings([f"a.b={text}"]) == {"a.b": value}


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("students.R=4.width=32", "students.R=4.width", 32),
        ("students.R=4=null", "students.R=4", None),
        ("students.R=4={kind: cnn, note: a=b}", "students.R=4", {"kind": "cnn", "note": "a=b"}),
        ("students.my filter=[1]", "students.my filter", [1]),
    ],
)
def test_names_in_settings_may_hold_equals_signs_and_spaces(setting: str, key: str, value: object) -> None:
    assert parse_settings([setting]) == {key: value}


@pytest.mark.parametrize("setting", ["training.steps", "=3", "a=[1,", "a={b: "])
def test_malformed_settings_are_refused(runs: Runs, setting: str) -> None:
    result = invoke("run", "sea", "--set", setting)
    assert result.exit_code == 2
    assert f"--set {setting}" in result.stderr
    assert not runs.calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "sea", "--set", "training.stpes=3"], "Did you mean 'steps'"),
        (["run", "sea", "--preset", "qiuck"], "Did you mean 'quick'"),
        (["run", "see"], "Did you mean 'sea'"),
        (["show", "wavse"], "Did you mean 'waves'"),
        (["show", "waves", "--preset", "strmy"], "Did you mean 'stormy'"),
        (["rnu"], "Did you mean 'run'"),
        (["list", "techers"], "'teachers'"),
        (["compare", "nowhere", "elsewhere"], "nowhere"),
    ],
)
def test_wrong_usage_is_refused_with_the_nearest_names(runs: Runs, arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError("wrong"), 2),
        (PluginError("wrong"), 2),
        (RunError("wrong", where="a directory"), 1),
        (NonFiniteError("wrong"), 1),
    ],
)
def test_errors_for_users_end_the_command_without_a_traceback(runs: Runs, error: Exception, code: int) -> None:
    runs.error = error
    result = invoke("run", "sea")
    assert result.exit_code == code
    assert result.stderr == f"Error: {error}\n"
    assert result.stdout == ""


def test_other_errors_are_not_hidden(runs: Runs) -> None:
    runs.error = ZeroDivisionError("a fault in the program")
    with pytest.raises(ZeroDivisionError):
        invoke("run", "sea")


@pytest.mark.parametrize(("option", "advice"), [((), "the same command goes on"), (("--fresh",), "without --fresh")])
def test_an_interrupted_run_says_how_to_go_on(runs: Runs, option: tuple[str, ...], advice: str) -> None:
    runs.error = KeyboardInterrupt()
    result = invoke("run", "sea", *option)
    assert result.exit_code == 130
    assert advice in result.stderr
    assert "runs/sea-quick" in result.stderr


def test_failed_trials_are_listed_and_change_the_exit_code(runs: Runs) -> None:
    failure = {"trial": "abc", "label": "sea / plain / seed 0", "error": "The loss is not finite."}
    runs.run = dataclasses.replace(runs.run, failures=[failure])
    result = invoke("run", "sea")
    assert result.exit_code == 3
    assert "Failed: sea / plain / seed 0: The loss is not finite." in result.stderr
    runs.run = dataclasses.replace(runs.run, records=runs.run.records.iloc[:0])
    assert invoke("run", "sea").exit_code == 1


def test_a_run_ends_with_errors_verdicts_and_the_report(runs: Runs) -> None:
    skipped = {"label": "sea / plain / seed 0", "measure": "number", "reason": "no density"}
    runs.run = dataclasses.replace(runs.run, report=runs.run.path / "report.html", skipped=[skipped])
    result = invoke("run", "sea")
    assert result.exit_code == 0
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("medium-range  ") and "R=8" in line]
    (verdict,) = [one for one in runs.run.verdicts if (one.teacher, one.student) == ("medium-range", "R=8")]
    assert f"{verdict.shown.headline['error']:.3g}" in row.split()
    assert row.strip().endswith(verdict.label)
    assert f"medium-range / R=8: {verdict.label}. {verdict.reason}" in result.stdout
    assert (runs.run.path / "report.html").as_uri() in result.stdout
    assert "Skipped: number of sea / plain / seed 0: no density" in result.stderr


def test_a_run_that_measures_no_error_ends_without_verdicts(runs: Runs) -> None:
    experiment = make_experiment(measures={"ranges": SmoothedResponseSpec()})
    runs.run = dataclasses.replace(runs.run, experiment=experiment)
    result = invoke("run", "sea")
    assert result.exit_code == 0
    assert "No verdict: no error of a student's score was measured." in result.stdout
    assert "undecided" not in result.stdout


def test_json_of_a_run_is_all_that_is_printed(runs: Runs) -> None:
    runs.events = (Event("finished", "abc", "sea / plain / seed 0", done=1.0),)
    result = invoke("run", "sea", "--json")
    data = json.loads(result.stdout)
    assert result.stderr == ""
    assert len(data["verdicts"]) == 9
    assert data["path"] == str(runs.run.path)
    assert data["failures"] == []


def test_without_a_terminal_every_finished_trial_gets_a_line(runs: Runs) -> None:
    runs.events = (
        Event("started", "abc", "first"),
        Event("step", "abc", "first", done=0.5),
        Event("finished", "abc", "first", done=1.0),
        Event("failed", "def", "second", detail="The loss is not finite.\n  where: there"),
    )
    lines = invoke("run", "sea").stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[1/1] first: finished")
    assert lines[1].endswith("second: failed: The loss is not finite.")


def test_progress_is_the_mean_share_of_all_trials() -> None:
    progress = RunProgress(4, quiet=True)
    progress(Event("reused", "a", "a"))
    progress(Event("step", "b", "b", done=0.5))
    assert progress.share == pytest.approx(1.5 / 4)
    assert progress.share_of_new_work == pytest.approx(0.5 / 3)
    progress(Event("measured", "b", "b", done=0.25))
    assert progress.share == pytest.approx(1.5 / 4)
    progress(Event("failed", "b", "b", done=0.6))
    assert progress.share == pytest.approx(0.5)


@pytest.mark.parametrize(("share", "text"), [(0.0, "time left: –"), (0.25, "time left: 30 s"), (1.0, "time left: 0 s")])
def test_the_time_left_follows_from_the_work_of_this_run(share: float, text: str) -> None:
    task: Any = SimpleNamespace(elapsed=10.0, fields={"share": share})
    assert TimeLeft().render(task).plain == text


def test_a_bar_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with RunProgress(2) as progress:
        progress(Event("finished", "a", "first"))
    captured = capsys.readouterr()
    assert "time left" in captured.err
    assert "50%" in captured.err
    assert "1/2 · first" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.2, "8 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(0.26344, 0.0029, "0.2634 ± 0.0029"), (12.3, 4.56, "12.3 ± 4.6"), (321.0, 45.6, "321 ± 46")]
    + [(0.12345, error, "0.123") for error in (float("nan"), 0.0, float("inf"))],
)
def test_a_number_has_the_digits_of_its_standard_error(value: float, error: float, text: str) -> None:
    assert number(value, error) == text


def test_json_has_no_numbers_that_json_lacks() -> None:
    assert finite({"a": [float("nan"), 1.0, (float("inf"),)]}) == {"a": [None, 1.0, [None]]}


def test_list_shows_everything_with_its_owner(plugins: PluginFactory) -> None:
    plugins.healthy("toy-students", "toy")
    text = invoke("list").stdout
    (line,) = [line for line in text.splitlines() if line.startswith("toy ")]
    assert "A toy student." in line
    assert line.rstrip().endswith("toy-students 1.2")
    (line,) = [line for line in text.splitlines() if line.startswith("sea ")]
    assert "The sea — presets: quick, paper" in line
    (line,) = [line for line in text.splitlines() if line.startswith("waves ")]
    assert "Waves on the sea. — presets: stormy" in line


def test_list_of_one_sort_as_json(plugins: PluginFactory) -> None:
    data = json.loads(invoke("list", "experiments", "--json").stdout)
    assert list(data) == ["experiments"]
    assert data["experiments"][0]["presets"] == ["quick", "paper"]


def test_list_survives_an_unreadable_experiment(plugins: PluginFactory) -> None:
    (plugins.directory / "sea.yaml").write_text("title: [\n")
    result = invoke("list", "experiments")
    assert result.exit_code == 0
    assert "unreadable" in result.stdout


def test_show_describes_the_fields_of_a_kind(plugins: PluginFactory) -> None:
    rows = {row["name"]: row for row in json.loads(invoke("show", "waves", "--json").stdout)["fields"]}
    assert rows["depth"] == {
        "name": "depth",
        "type": "int, at least 1",
        "required": False,
        "default": 1,
        "description": "layers",
    }
    assert rows["mode.strength"]["type"] == "float, above 0"
    assert rows["mode.strength"]["description"] == "how strong it is, at every size."
    text = invoke("show", "waves").stdout
    assert "wild is another name of stormy" in text
    assert "Waves on the sea." in text


def test_show_lists_the_parts_of_a_measure() -> None:
    parts = {part["name"]: part for part in json.loads(invoke("show", "locality", "--json").stdout)["parts"]}
    expected = {"axis": "noise", "unit": "relative", "role": "evidence", "known": "exact", "better": ""}
    assert expected.items() <= parts["locality_error"].items()
    rows = [line for line in invoke("show", "locality").stdout.splitlines() if line.startswith("student_error ")]
    assert [re.split(r"\s{2,}", row.strip()) for row in rows] == [
        ["student_error", "error of the student", "noise", "relative", "evidence", "estimated", "lower"]
    ]


def test_only_measures_have_parts(plugins: PluginFactory) -> None:
    assert "parts" not in json.loads(invoke("show", "waves", "--json").stdout)


def test_show_with_a_preset_shows_its_values(plugins: PluginFactory) -> None:
    data = json.loads(invoke("show", "waves", "--preset", "wild", "--json").stdout)
    values = {row["name"]: row["default"] for row in data["fields"]}
    assert (values["depth"], values["mode.strength"], values["seed"]) == (7, 9.0, 0)


def test_show_resolves_an_experiment(plugins: PluginFactory) -> None:
    data = yaml.safe_load(invoke("show", "sea").stdout)
    assert data["preset"] == "quick"
    assert data["training"]["steps"] == 10
    assert data["teachers"]["sea"]["depth"] == 1
    assert json.loads(invoke("show", "sea", "--preset", "paper", "--json").stdout)["training"]["steps"] == 100


def test_the_schema_knows_every_registered_kind(plugins: PluginFactory) -> None:
    plugins.healthy("toy-students", "toy")
    schema = json.loads(invoke("schema").stdout)
    definitions = schema["$defs"]

    def kinds(places: Mapping[str, Any], name: str) -> set[str]:
        references = places["properties"][name]["additionalProperties"]["anyOf"]
        return {definitions[item["$ref"].rpartition("/")[2]]["properties"]["kind"]["const"] for item in references}

    assert kinds(schema, "teachers") == {"waves"}
    assert kinds(schema, "students") == {"plain", "toy"}
    assert kinds(definitions["EvaluationSpec"], "measures") == {"count"}
    assert definitions["WavesSpec"]["properties"]["preset"]["enum"] == ["stormy", "wild"]
    assert "presets" in schema["properties"]
    assert schema["additionalProperties"] is False


def test_plugins_shows_what_is_wrong_and_how_to_mend_it(plugins: PluginFactory) -> None:
    assert "No plugins are installed" not in invoke("list").stdout
    plugins.healthy("toy-students", "toy")
    plugins.install("broken-one", "import a_module_that_is_not_there")
    fresh = Registry(built_in=("core_for_commands",))
    plugins._monkeypatch.setattr(command_line, "default_registry", lambda: fresh)
    text = invoke("plugins").stdout
    assert "student toy" in text
    assert "broken-one 1.2 (entry point main) failed to import" in text
    assert "install the module 'a_module_that_is_not_there'" in text
    records = {record["distribution"]: record for record in json.loads(invoke("plugins", "--json").stdout)}
    assert records["broken-one"]["status"] == "broken"
    assert records["toy-students"]["provides"] == ["student toy"]


def test_compare_and_report_reach_the_interface(
    plugins: PluginFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import pandas as pd

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(api, "compare", lambda a, b: pd.DataFrame({"part": ["rmse"], "difference": [0.123456]}))
    monkeypatch.setattr(api, "open_run", lambda path, trust: SimpleNamespace(path=path))
    monkeypatch.setattr(api, "write_report", lambda run: run.path / "report.html")
    assert "0.1235" in invoke("compare", "a", "b").stdout
    assert json.loads(invoke("compare", "a", "b", "--json").stdout) == [{"part": "rmse", "difference": 0.123456}]
    assert invoke("report", "a", "b").stdout.split() == [(tmp_path / n / "report.html").as_uri() for n in ("a", "b")]


COMMANDS = """
import click
from sizetransfer.registry.hooks import hookimpl

@hookimpl
def register_commands(cli):
    @cli.command({name!r})
    def greet():
        "Greet."
        {body}

    {then}
"""


def test_commands_of_plugins_are_listed_and_run(plugins: PluginFactory) -> None:
    plugins.install("greeter", COMMANDS.format(name="greet", body="click.echo('hello')", then=""))
    assert "Greet. (greeter)" in invoke("--help").stdout
    assert invoke("greet").stdout == "hello\n"


def test_a_command_of_a_plugin_that_fails_names_its_owner(plugins: PluginFactory) -> None:
    plugins.install("greeter", COMMANDS.format(name="greet", body="1 / 0", then=""))
    with pytest.raises(ZeroDivisionError) as caught:
        invoke("greet")
    assert "greeter 1.2 (entry point main)" in caught.value.__notes__[0]


def test_a_plugin_cannot_take_the_name_of_a_built_in_command(plugins: PluginFactory) -> None:
    plugins.install("greeter", COMMANDS.format(name="list", body="click.echo('hello')", then=""))
    assert "waves" in invoke("list").stdout
    text = invoke("plugins").stdout
    assert "The command 'list' is registered twice" in text
    assert "greeter 1.2 (entry point main)" in text


def test_broken_commands_of_a_plugin_leave_the_others_alone(plugins: PluginFactory) -> None:
    plugins.install("a-broken", COMMANDS.format(name="other", body="pass", then="raise RuntimeError('no')"))
    plugins.install("greeter", COMMANDS.format(name="greet", body="click.echo('hello')", then=""))
    assert invoke("greet").stdout == "hello\n"
    text = invoke("--help").stdout
    assert "Greet." in text
    assert "a-broken (`sizetransfer plugins` says why)" in text
    result = invoke("gone")
    assert result.exit_code == 2
    assert "a-broken 1.2 (entry point main): RuntimeError: no" in " ".join(result.stderr.split())


@pytest.mark.filterwarnings("default")
def test_warnings_are_short_lines(plugins: PluginFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZETRANSFER_PLUGINS", "absent")
    result = invoke("list", "students")
    assert result.stderr.startswith("Warning: SIZETRANSFER_PLUGINS names 'absent'")
    assert len(result.stderr.splitlines()) == 1


def test_code_that_exits_fails_the_command_that_needed_it(plugins: PluginFactory) -> None:
    exits = "        depth: int = Field(default_factory=lambda: exit(0))\n\n        def build"
    imports = "    from sys import exit\n    from pydantic import Field\n    from typing"
    code = HEALTHY.format(kind="toy").replace("        def build", exits).replace("    from typing", imports)
    plugins.install("toy-students", code)
    result = invoke("show", "toy")
    assert result.exit_code == command_line.EXIT_RUN_FAILED
    assert "SystemExit: 0" in result.stderr
    assert "toy_students.py" in result.stderr


@pytest.mark.parametrize("exit_code", [0, 7])
def test_a_command_of_a_plugin_ends_with_its_own_code(plugins: PluginFactory, exit_code: int) -> None:
    plugins.install(
        "exiting",
        f"""
        from sizetransfer.registry.hooks import hookimpl

        @hookimpl
        def register_commands(cli):
            @cli.command()
            def leave():
                raise SystemExit({exit_code})
        """,
    )
    assert invoke("leave").exit_code == exit_code
