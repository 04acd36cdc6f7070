"""Without any one of the systems the rest is a working product, and nothing outside knows of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import sizetransfer
from sizetransfer.registry import SYSTEMS, Registry
from sizetransfer.runs import load

PACKAGE = Path(sizetransfer.__file__).parent
NAMES = ("teacher", "student", "measure", "figure", "experiment", "executor")

PROGRAM = """
import json
import sizetransfer as st
from sizetransfer.contracts.errors import SpecError
from sizetransfer.registry import default_registry

registry = default_registry()
names = {sort: sorted(registry.entries(sort)) for sort in %r}
for kind in set(names["teacher"]) - {"dataset", "functions"}:  # which need somebody's files and functions
    st.teacher(kind)
refused, left_out = {}, {}
for name in names["experiment"]:
    try:
        left_out[name] = sorted(st.load(name).left_out)
    except SpecError as error:
        refused[name] = str(error)
for name in names["figure"]:
    assert callable(registry.figure(name))
print(json.dumps([st.__file__, names, refused, left_out]))
"""


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "SIZETRANSFER_PLUGINS": "none"}
    finished = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=folder
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def kinds_of(experiment: Path) -> set[str]:
    """Kinds of teachers, students and measures that an experiment file needs: what is optional may be away."""
    data = yaml.safe_load(experiment.read_text())
    optional = data.get("optional", ())
    groups = (data["teachers"], data["students"], data["evaluation"]["measures"])
    return {spec["kind"] for group in groups for name, spec in group.items() if name not in optional}


def optional_of(experiment: Path, kinds: set[str]) -> list[str]:
    """What is left out of an experiment: what is without any plugin, and what is optional and of these kinds."""
    whole = Registry(find_plugins=list)
    loaded = load(experiment, registry=whole)
    entries = {**loaded.teachers, **loaded.students}
    gone = {name for name in loaded.optional if name in entries and entries[name].kind_name() in kinds}
    return sorted({*loaded.left_out, *gone})


def test_each_experiment_of_a_system_needs_no_other_system() -> None:
    whole = Registry(find_plugins=list)
    owner = {
        name: entry.plugin.record.value
        for sort in ("teacher", "student", "measure")
        for name, entry in whole.entries(sort).items()
        if entry.plugin.record.value.startswith("sizetransfer.systems")
    }
    for name, entry in whole.entries("experiment").items():
        needed = {owner[kind] for kind in kinds_of(entry.value) if kind in owner}
        assert needed <= {entry.plugin.record.value}, name


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_without_a_system_the_rest_works(system: str, tmp_path: Path) -> None:
    copy = tmp_path / "sizetransfer"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(copy / "systems" / system)
    listed = copy / "registry" / "__init__.py"
    before = listed.read_text()
    after = before.replace(f'    "{system}",\n', "")
    assert len(after) < len(before)
    listed.write_text(after)

    whole = Registry(find_plugins=list)
    own = f"sizetransfer.systems.{system}.plugin"
    entries = {sort: whole.entries(sort) for sort in NAMES}
    gone = {
        sort: {name for name, entry in table.items() if entry.plugin.record.value == own}
        for sort, table in entries.items()
    }
    kinds = gone["teacher"] | gone["student"] | gone["measure"]
    assert gone["teacher"]

    file, names, refused, left_out = json.loads(run(tmp_path, "-c", PROGRAM % (NAMES,)))
    assert Path(file).parent == copy
    assert names == {sort: sorted(set(table) - gone[sort]) for sort, table in entries.items()}
    needing = {name for name in names["experiment"] if kinds_of(entries["experiment"][name].value) & kinds}
    assert set(refused) == needing
    assert all(any(repr(kind) in refused[name] for kind in kinds) for name in needing)
    assert left_out == {name: optional_of(entries["experiment"][name].value, kinds) for name in left_out}
    listing = json.loads(run(tmp_path, "-m", "sizetransfer", "list", "--json"))
    assert {row["name"] for row in listing["teachers"]} == set(names["teacher"])


def test_the_folders_are_those_of_the_list() -> None:
    folders = {path.name for path in (PACKAGE / "systems").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(SYSTEMS)


def test_no_code_outside_names_a_system() -> None:
    outside = [path for path in PACKAGE.rglob("*.py") if "systems" not in path.relative_to(PACKAGE).parts]
    # References in docstrings are words for the reader; code is what imports.
    code = {
        path: path.read_text().replace("`sizetransfer.systems", "").replace("`~sizetransfer.systems", "")
        for path in outside
    }
    assert [str(path) for path, text in code.items() if "sizetransfer.systems" in text] == []
