"""The tutorial's plugin: what ``sizetransfer new-plugin`` writes, and that it keeps its contract at once."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

import sizetransfer as st
from sizetransfer.cli import cli
from sizetransfer.cli.skeleton import write_plugin
from sizetransfer.registry import Registry

EXAMPLE = Path(__file__).parents[2] / "plugins" / "example"


def contents(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.suffix in {".py", ".md", ".toml"}]
    return {str(path.relative_to(directory)): path.read_text(encoding="utf-8") for path in files}


@pytest.fixture
def no_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry without plugins, so that the example's kind is new."""
    monkeypatch.setattr("sizetransfer.cli.skeleton.default_registry", lambda: Registry(find_plugins=list))


def test_the_example_is_what_the_command_writes(tmp_path: Path, no_example: None) -> None:
    write_plugin("sizetransfer-example", tmp_path, kind="linear-filter")
    assert contents(EXAMPLE) == contents(tmp_path)


def test_the_example_is_installed_under_its_entry_point() -> None:
    found = {point.name: point for point in entry_points(group="sizetransfer")}
    if "linear-filter" not in found:
        pytest.skip("sizetransfer-example is not installed")
    assert found["linear-filter"].value == "sizetransfer_example"
    assert st.student("linear-filter", st.FieldInfo(dim=2), radius=3).radius == 3


def run_tests(directory: Path) -> subprocess.CompletedProcess[str]:
    places = filter(None, [str(directory), os.environ.get("PYTHONPATH")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir=."]
    return subprocess.run(
        [*command, "tests"],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.slow
def test_a_new_plugin_keeps_the_contract_and_a_lie_about_its_radius_is_found(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["new-plugin", "my-students", "--directory", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    student = tmp_path / "new" / "my_students" / "student.py"
    assert str(student) in result.output
    # The tests of the skeleton, at the level that takes seconds, with the clause on the radius.
    contract = tmp_path / "new" / "tests" / "test_contract.py"
    contract.write_text(contract.read_text().replace("Spec()]", 'Spec()], level="api"'))
    healthy = run_tests(tmp_path / "new")
    assert healthy.returncode == 0, healthy.stdout
    student.write_text(
        student.read_text().replace("super().__init__(field, radius=spec.radius)", "super().__init__(field, radius=-1)")
    )
    broken = run_tests(tmp_path / "new")
    assert broken.returncode == 1
    assert "radius" in broken.stdout


@pytest.mark.parametrize("name", ["a b", "1st", "class", "-x", "a--b"])
def test_a_name_that_no_distribution_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(st.SpecError, match="cannot have this name"):
        write_plugin(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_kind_that_is_taken_is_refused_with_its_owner(tmp_path: Path) -> None:
    with pytest.raises(st.SpecError, match="a student 'cnn' already"):
        write_plugin("my-students", tmp_path / "new", kind="cnn")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(st.SpecError, match="in the way"):
        write_plugin("my-students", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
