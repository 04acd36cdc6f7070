"""A whole system of a third party, one distribution: installed, run, seen in the report, verified, removed again."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "support" / "coin_toss"
LAW = "teacher/noisy-samples-follow-the-smoothed-score"
"""The check that holds the score against the samples; it belongs to level core."""


def wheel(folder: Path) -> Path:
    """The distribution as the wheel that its build backend makes of it, which tests do without."""
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    name, version = project["name"].replace("-", "_"), project["version"]
    points = "".join(f"{key} = {value}\n" for key, value in project["entry-points"]["sizetransfer"].items())
    info = f"{name}-{version}.dist-info"
    files = {
        str(path.relative_to(SOURCE)): path.read_text()
        for path in sorted((SOURCE / name).iterdir())
        if path.suffix in {".py", ".yaml"}
    }
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = f"[sizetransfer]\n{points}"
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    target = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return target


def install(archive: Path, site: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    finished = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(site), str(archive)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def remove(site: Path) -> None:
    """Delete every file that the distribution's record names, as pip does."""
    (record,) = site.glob("coin_toss-*.dist-info/RECORD")
    for file, _, _ in csv.reader(record.read_text().splitlines()):
        (site / file).unlink()


def sizetransfer(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    places = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "sizetransfer", *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1"}
    variables |= {"SIZETRANSFER_PLUGINS": "coin-toss,sizetransfer-verification", "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the distribution is installed, and its experiment run by name with its own executor."""
    folder = tmp_path_factory.mktemp("stranger")
    install(wheel(folder), folder / "site")
    arguments = ("run", "coins", "--out", "out", "--executor", "one-by-one", "--device", "cpu")
    finished = sizetransfer(folder, *arguments, COIN_TOSS_NOTES=str(folder / "notes"))
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_its_values_by_distance_have_a_table(page):
    table = page.partition("<summary>likeness (tosses) by distance</summary>")[2].partition("</details>")[0]
    assert "<caption>likeness of the score at a distance (1/field²)</caption>" in table
    assert re.findall(r'<th class="number">([^<]*)</th>', table) == ["L", "seeds", "0", "1", "2"]
    assert table.count("<tr><td") == 2 * 2 * 2


@pytest.mark.parametrize("name", ["tosses-by-distance", "tosses-by-noise"])
def test_its_values_along_an_axis_have_a_figure(page, folder, name):
    figure = page.partition(f'<figure id="figure-{name}">')[2].partition("</figure>")[0]
    assert "one panel for each teacher, one line for each student, at the largest size measured (L = 16)" in figure
    assert (folder / "out" / "figures" / f"{name}.png").stat().st_size > 10_000


def test_the_figure_that_it_registers_is_drawn(page):
    assert "<b>Bars of the coins.</b> One bar a student and size." in page


def test_its_error_of_the_score_is_judged(folder):
    found = json.loads((folder / "out" / "verdicts.json").read_text())["verdicts"]
    assert [(verdict["teacher"], verdict["student"]) for verdict in found] == [
        (teacher, student) for teacher in ("fair", "tilted") for student in ("narrow", "wide")
    ]
    for verdict in found:
        assert {level["sigma"] for training in verdict["trainings"] for level in training["levels"]} == {0.5, 1.0}


def test_its_listener_heard_the_run(folder):
    kinds = [line.split()[0] for line in (folder / "notes").read_text().splitlines()]
    assert kinds.count("trained") == kinds.count("finished") == 2 * 2 * 2
    assert kinds.count("measured") == 2 * kinds.count("finished")


def test_everything_of_it_is_listed_with_its_owner(folder):
    listed = json.loads(sizetransfer(folder, "list", "--json").stdout)
    own = {sort: [row["name"] for row in rows if row["distribution"] == "coin-toss"] for sort, rows in listed.items()}
    assert {sort: names for sort, names in own.items() if names} == {
        "teachers": ["coins"],
        "students": ["coin-reader"],
        "measures": ["coin-likeness"],
        "figures": ["coin-bars"],
        "experiments": ["coins"],
        "executors": ["one-by-one"],
    }


def test_an_unknown_figure_is_refused_at_load(folder):
    refused = sizetransfer(folder, "run", "coins", "--set", "report.figures=[coin-bar]", "--out", "wrong")
    assert refused.returncode == 2
    assert not (folder / "wrong").exists()
    for words in ("Unknown figure 'coin-bar'", "report.figures", "Did you mean 'coin-bars'"):
        assert words in refused.stderr + refused.stdout, words


def verified(folder: Path) -> dict[str, object]:
    return json.loads(sizetransfer(folder, "verify", "plugin", "coin-toss", "--level", "api", "--json").stdout)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_all_that_it_registers_keeps_its_contract_and_a_lie_is_found(folder):
    report = verified(folder)
    assert [one["family"] for one in report["reports"]] == ["teacher", "student", "measure", "executor", "listener"]
    assert all(one["ok"] and one["comparisons"] for one in report["reports"])
    (named,) = report["names"]
    assert (set(named["unchecked"]), named["broken"]) == ({"figure coin-bars", "experiment coins"}, {})
    law = folder / "site" / "coin_toss" / "law.py"
    whole = law.read_text()
    law.write_text(whole.replace("score = (torch.tanh(x / v + self.spec.tilt) - x) / v", "score = -x / v"))
    try:
        broken = sizetransfer(folder, "verify", "plugin", "coins", "--check", LAW)
    finally:
        law.write_text(whole)
    assert broken.returncode == 1, broken.stdout
    assert f"{LAW}: failed" in broken.stdout


def test_without_it_the_rest_is_as_before(folder, tmp_path):
    site = tmp_path / "site"
    install(folder / "coin_toss-1.0-py3-none-any.whl", site)
    assert "coins" in sizetransfer(tmp_path, "list", "teachers").stdout
    remove(site)
    gone = sizetransfer(tmp_path, "run", "coins")
    assert gone.returncode == 2
    assert "coins" in gone.stderr + gone.stdout
    assert "coin" not in sizetransfer(tmp_path, "list").stdout
