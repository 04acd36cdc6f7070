"""Directories of strangers: no code of theirs runs unasked, nothing is written elsewhere, errors are for users."""

from __future__ import annotations

import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import adversary_zoo
import pytest
from adversary_zoo import remains

from sizetransfer import api
from sizetransfer.contracts.errors import RunError, SizetransferError
from sizetransfer.registry import Registry
from sizetransfer.report import write_report
from sizetransfer.runs.compare import compare_runs
from sizetransfer.runs.extending import measure_run
from sizetransfer.runs.opened import read_run
from sizetransfer.runs.runner import run
from sizetransfer.runs.storage import RunWarning, digest, sealed, to_bytes

KEY = "0123456789abcdef"


def registry() -> Registry:
    built_in = ("tiny_zoo", "adversary_zoo", "sizetransfer.students", "sizetransfer.runs")
    return Registry(built_in=built_in, find_plugins=list)


STUDENTS = {"stranger": {"kind": "module", "factory": "stranger_code:network", "radius": 1, "inputs": "x"}}
DATA = {**adversary_zoo.EXPERIMENT, "students": STUDENTS}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """What the stranger sends."""
    from sizetransfer.runs.trials import Experiment

    out = tmp_path_factory.mktemp("made") / "run"
    experiment = Experiment.parse(DATA, lookup=registry().lookup)
    assert write_report(run(experiment, out, executor="serial", registry=registry(), device="cpu")).is_file()
    return out


@pytest.fixture
def foreign(made, tmp_path) -> Path:
    out = tmp_path / "foreign"
    shutil.copytree(made, out)
    return out


@pytest.fixture
def traces(tmp_path, monkeypatch) -> Callable[[], set[str]]:
    """The traces that the stranger's code has left since the module was last forgotten."""
    folder = tmp_path / "traces"
    folder.mkdir()
    monkeypatch.setenv("STRANGER_TRACES", str(folder))
    monkeypatch.delitem(sys.modules, "stranger_code", raising=False)
    monkeypatch.setattr("sizetransfer.api.running.open_run", lambda path, trust=False: opened(path, trust=trust))
    return lambda: {path.name for path in folder.iterdir()}


def opened(path: Path, **choices: bool):
    return read_run(path, registry=registry(), **choices)


UNASKED: dict[str, Callable[[Path], object]] = {
    "open_run": opened,
    "records": lambda path: opened(path).records,
    "verdicts": lambda path: opened(path).verdicts,
    "training": lambda path: opened(path).training("white", "stranger"),
    "repr": lambda path: repr(opened(path)),
    "report": lambda path: write_report(opened(path)),
    "compare": lambda path: compare_runs(opened(path), opened(path)),
    "api.report": api.write_report,
    "api.compare": lambda path: api.compare(path, path),
    "teacher": lambda path: opened(path).teacher("white"),
}
ASKED: dict[str, Callable[[Path, bool], object]] = {
    "student": lambda path, trust: opened(path, trust=trust).student("white", "stranger"),
    "measure": lambda path, trust: measure_run(
        path, [], [10], trust=trust, registry=registry(), executor="serial", device="cpu"
    ),
}


@pytest.mark.parametrize("name", UNASKED)
def test_reading_runs_no_code_that_the_directory_names(foreign, traces, name):
    UNASKED[name](foreign)
    assert traces() == set()
    assert "stranger_code" not in sys.modules


@pytest.mark.parametrize("name", ASKED)
def test_building_runs_it_where_the_directory_is_trusted(foreign, traces, name):
    before = remains(foreign)
    with pytest.raises(RunError, match="names code") as caught:
        ASKED[name](foreign, False)
    assert "stranger_code" in str(caught.value)
    assert "--trust" in caught.value.fix
    assert traces() == set()
    assert remains(foreign) == before
    ASKED[name](foreign, True)
    assert traces() == {"imported", "called"}


def reseal(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a sealed file as somebody may who knows the seal, and the manifest that names it with it."""
    body = json.loads(path.read_bytes())
    del body["digest"]
    change(body)
    path.write_bytes(to_bytes(sealed(body)))
    manifest = path.with_name("manifest.json")
    if path.name == "experiment.json":
        reseal(manifest, lambda body: body["digests"].update({path.name: [digest(path.read_bytes())]}))


def test_a_store_that_a_manifest_names_is_not_written_to_unasked(foreign, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (foreign / "trainings").rename(elsewhere)
    reseal(foreign / "manifest.json", lambda body: body.update(store=str(elsewhere)))
    before = remains(elsewhere)
    where = {"executor": "serial", "registry": registry(), "device": "cpu"}
    with pytest.raises(RunError, match="in another store") as caught:
        measure_run(foreign, [], [10], trust=True, **where)
    assert str(elsewhere) in str(caught.value)
    with pytest.raises(RunError, match="in another store"):
        run(opened(foreign).experiment, foreign, **where)
    with pytest.raises(RunError, match="in another store"):
        run(opened(foreign).experiment, foreign, fresh=True, **where)
    write_report(opened(foreign))
    assert remains(elsewhere) == before
    again = measure_run(foreign, [], [10], trust=True, store=elsewhere, **where)
    assert set(again.records["size"]) == {6, 8, 10}


def every_place(data: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data[:1]) if isinstance(data, list) else ()
    return [place for name, value in items for place in ((*path, name), *every_place(value, (*path, name)))]


def changed(data: Any, place: tuple[Any, ...], value: object) -> None:
    for name in place[:-1]:
        data = data[name]
    if value is MISSING:
        del data[place[-1]]
    else:
        data[place[-1]] = value


MISSING = object()
STRANGE = {
    "missing": MISSING,
    "null": None,
    "path": "../../elsewhere",
    "nan": math.nan,
    "infinite": math.inf,
    "huge": 10**400,
    "negative": -1,
    "half a character": "\ud800",
    "list": [[]],
    "mapping": {"a": {"b": None}},
    "true": True,
}


def everything(out: Path) -> None:
    """Whatever a user does with a run directory that was sent; each ends well, or with an error for users."""
    from sizetransfer.cli.run_commands import show_run

    for act in (
        lambda: show_run(opened(out), as_json=False),
        lambda: show_run(opened(out), as_json=True),
        lambda: write_report(opened(out)),
        lambda: opened(out, trust=True).student("white", "stranger"),
        lambda: opened(out).training("white", "stranger"),
        lambda: opened(out).complete,
        lambda: run(opened(out).experiment, out, executor="serial", registry=registry(), device="cpu", train=False),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RunWarning)
            with suppress(SizetransferError):
                act()


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("name", ["manifest.json", "training.json", "measurement", "experiment.json"])
def test_a_sealed_file_with_strange_content_is_an_error_for_users(made, foreign, tmp_path, name, strange, capsys):
    """Several places for each strange value; together every place of the file is tried."""
    (tmp_path / "elsewhere").mkdir()
    paths = {"training.json": "trainings/*/training.json", "measurement": "trainings/*/measurements/*.json"}
    path = min(foreign.glob(paths.get(name, name)))
    whole = path.read_bytes()
    places = [place for place in every_place(json.loads(whole)) if place != ("digest",)]
    offset = list(STRANGE).index(strange)
    for place in (
        places[offset :: len(STRANGE)] + [(name,) for name in json.loads(whole) if name != "digest"][offset::4]
    ):
        reseal(path, lambda body, place=place: changed(body, place, STRANGE[strange]))
        everything(foreign)
        shutil.rmtree(foreign)
        shutil.copytree(made, foreign)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    capsys.readouterr()


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a": ' * 100_000, b"\xff\xfe", b'{"a": "\\ud800"}', b"{}", b"null", b"1" * 10_000]
)
@pytest.mark.parametrize("name", ["manifest.json", "experiment.json"])
def test_a_file_that_is_no_json_is_damaged(foreign, name, content):
    (foreign / name).write_bytes(content)
    with pytest.raises(RunError, match=name):
        opened(foreign)


@pytest.mark.parametrize("text", ["step\nx\n", "step,loss\n1\n", "", "step,loss\n1,2,3\n", "\x00"])
def test_a_history_that_is_no_table_is_damaged(foreign, text):
    path = min(foreign.glob("trainings/*/training.csv"))
    path.write_text(text)
    changes = {path.name: digest(path.read_bytes())}
    reseal(path.with_name("training.json"), lambda body: body["digests"].update(changes))
    with pytest.raises(RunError, match=r"training\.csv"):
        opened(foreign).training("white", "stranger")
    write_report(opened(foreign))
