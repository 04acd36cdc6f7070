"""Hostile plugins: the named outcome of each, at the command line; the other trials finish with their numbers."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import hostile_zoo
import pandas as pd
import pytest
import tiny_zoo
from click.testing import CliRunner
from hostile_table import OUTCOMES, PAGE, TABLE, Row, page
from plugin_factory import PluginFactory

from sizetransfer.cli import cli
from sizetransfer.registry import default_registry
from sizetransfer.runs.opened import read_run

MODEL = {"variance": 2.0}
EXPERIMENT = {**tiny_zoo.EXPERIMENT, "seeds": [0]}
ENTRY_POINTS = "[sizetransfer]\nhostile = hostile_zoo\ntiny = tiny_zoo\n"


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginFactory]:
    """The zoos, installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    factory = PluginFactory(folder, monkeypatch)
    factory.install("hostile", "", entry_points=ENTRY_POINTS)
    monkeypatch.chdir(tmp_path)
    default_registry.cache_clear()
    yield factory
    default_registry.cache_clear()
    factory.forget()


def experiment(who: str, does: str) -> dict:
    """The tiny experiment, and what is hostile before everything else."""
    building = {"building": True} if who.endswith("when built") else {}
    family = who.partition(",")[0]
    hostile = {"hostile": {"kind": f"hostile-{family}", "does": does, **building}}
    data = json.loads(json.dumps(EXPERIMENT))
    if family == "teacher":
        data["teachers"] = {**hostile, **data["teachers"]}
    elif family == "student":
        data["students"] = {**hostile, **data["students"]}
    elif family == "measure":
        data["evaluation"]["measures"] = {**hostile, **data["evaluation"]["measures"]}
    else:
        data["seeds"] = [0, 1]
    return data


def arguments(row: Row, path: Path) -> list[str]:
    executor = f"hostile-{row.does.replace(' ', '-')}" if row.who == "executor" else row.executor
    path.write_text(json.dumps(experiment(row.who, row.does)))
    # The relative path shows whether anything changes the working directory.
    return ["run", path.name, "--out", "run", "--executor", executor, "--device", "cpu", "--no-report", "--json"]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> pd.DataFrame:
    """The records without anything hostile."""
    from sizetransfer.runs.runner import run

    registry = tiny_zoo.registry()
    out = tmp_path_factory.mktemp("healthy") / "run"
    return run(tiny_zoo.experiment(), out, executor="serial", registry=registry, device="cpu").records


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, pd.DataFrame]:
    """The records of what is called hostile and does nothing."""
    from sizetransfer.registry import Registry
    from sizetransfer.runs.runner import run
    from sizetransfer.runs.trials import Experiment

    registry = Registry(built_in=("tiny_zoo", "hostile_zoo", "sizetransfer.runs"), find_plugins=list)
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for family in ("teacher", "student", "measure"):
        spec = Experiment.parse(experiment(family, ""), lookup=registry.lookup)
        found[family] = run(spec, folder / family, executor="serial", registry=registry, device="cpu").records
    return found


def is_hostile(records: pd.DataFrame) -> pd.Series:
    return (records[["teacher", "student", "measure"]] == "hostile").any(axis=1)


def same(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    return first.reset_index(drop=True).equals(second.reset_index(drop=True))


IN_PROCESS = [row for row in TABLE if row.outcome != "interrupted"]


@pytest.mark.parametrize("row", [pytest.param(row, id=str(row)) for row in IN_PROCESS])
def test_hostile_plugin(row, plugins, healthy, models, tmp_path, monkeypatch):
    if row.who == "listener":
        monkeypatch.setenv(hostile_zoo.LISTENER, row.does)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = CliRunner().invoke(cli, arguments(row, tmp_path / "tiny.json"), catch_exceptions=False)
    os.chdir(tmp_path)
    _, _, code = OUTCOMES[row.outcome]
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    out = tmp_path / "run"
    if row.outcome == "refused":
        assert row.says in result.stderr
        assert not out.exists()
        return
    run = read_run(out)
    if row.outcome != "run stops":
        told = json.loads(result.stdout)
        assert told["failures"] == run.failures
    said = result.stderr + "".join(failure["error"] for failure in run.failures)
    if row.outcome != "unfinished":
        assert row.says in said
    check_stored(row, run, healthy, models)


def check_stored(row: Row, run, healthy: pd.DataFrame, models: dict[str, pd.DataFrame]) -> None:
    hostile = is_hostile(run.records)
    others = run.records[~hostile]
    seeds = sorted(set(others["seed"]))
    assert same(others, healthy[healthy["seed"].isin(seeds)])
    assert seeds == ([0] if row.who != "listener" and row.outcome != "no effect" else seeds)
    labels = {failure["label"] for failure in run.failures}
    if row.outcome == "no effect":
        assert run.complete
        assert not run.failures
        if row.who in {"executor", "listener"}:
            assert seeds == [0, 1]
        else:
            model = models[row.who.partition(",")[0]]
            kept = run.records[hostile]
            if row.does not in {"nothing", "nan"}:
                assert same(kept, model[is_hostile(model)])
    elif row.outcome == "training fails":
        assert not hostile.any()
        assert len(labels) == 1
        assert "hostile" in labels.pop()
    elif row.outcome == "measurement fails":
        assert not hostile.any()
        assert {failure["size"] for failure in run.failures} == {6, 8}
        trials = {failure["trial"] for failure in run.failures}
        assert all((run.store.training(trial).path / "training.json").is_file() for trial in trials)
    else:
        assert not run.complete


@pytest.mark.slow
@pytest.mark.parametrize("row", [pytest.param(row, id=str(row)) for row in TABLE if row.outcome == "interrupted"])
def test_a_run_that_hangs_can_be_interrupted(row, plugins, healthy, tmp_path):
    data = experiment(row.who, row.does)
    data["students"] = dict(sorted(data["students"].items(), reverse=True))
    path = tmp_path / "tiny.json"
    command = arguments(row, path)
    # What is healthy comes first: it is costlier, or one worker takes it first.
    data["students"]["narrow"] = {"kind": "tiny-line", "radius": 2}
    path.write_text(json.dumps(data))
    started = tmp_path / "started"
    places = os.pathsep.join([str(plugins.directory), *sys.path])
    environment = {**os.environ, "PYTHONPATH": places, hostile_zoo.STARTED: str(started)}
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from sizetransfer.cli import cli; cli()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command, "--workers", "1"]
        if row.executor == "local"
        else [sys.executable, "-c", code, *command],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 90
        while not started.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == OUTCOMES[row.outcome][2], errors
    assert row.says in errors
    run = read_run(tmp_path / "run")
    assert set(run.records["student"]) == {"narrow"}
    assert not run.complete


def test_the_page_has_the_table():
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "write it anew: python tests/support/hostile_table.py"


def test_the_plugin_is_installed_as_others_are(plugins):
    names = {found.name for found in importlib.metadata.distributions() if found.name == "hostile"}
    assert names == {"hostile"}
