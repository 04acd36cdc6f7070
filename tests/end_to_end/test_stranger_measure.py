"""A measure and a figure of a third party, installed and run: its numbers are seen, drawn and judged without a line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
EXPERIMENT = """
name: echo
teachers:
  free: {kind: gaussian, dim: 2, mass: 0.8}
  soft: {kind: gaussian, dim: 2, mass: 0.5}
students:
  small: {kind: cnn, blocks: 0, width: 4}
  large: {kind: cnn, blocks: 1, width: 4}
seeds: [0, 1]
training: {size: 10, steps: 3, batch: 2}
evaluation:
  sizes: [10, 12]
  measures: {mine: {kind: echo, fields: 6}}
"""


def sizetransfer(folder, *arguments):
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "SIZETRANSFER_PLUGINS": "echo"}
    command = [sys.executable, "-m", "sizetransfer", *map(str, arguments)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=folder, timeout=110, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A distribution with the plugin, and its experiment run."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copy(SUPPORT / "stranger_measure.py", folder)
    metadata = folder / "echo-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: echo\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[sizetransfer]\nmain = stranger_measure\n")
    (folder / "echo.yaml").write_text(EXPERIMENT)
    finished = sizetransfer(folder, "run", "echo.yaml", "--out", "out", "--executor", "serial", "--device", "cpu")
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_its_values_by_distance_have_a_table(page):
    assert "<summary>likeness (mine) by distance</summary>" in page
    table = page.partition("<summary>likeness (mine) by distance</summary>")[2].partition("</details>")[0]
    assert "<caption>likeness of the score at a distance (1/field²)</caption>" in table
    heads = re.findall(r'<th class="number">([^<]*)</th>', table)
    assert heads == ["L", "seeds", "0", "1", "2", "3"]
    assert table.count("<tr><td") == 2 * 2 * 2


@pytest.mark.parametrize("name", ["mine-by-distance", "mine-by-noise"])
def test_its_values_along_an_axis_have_a_figure(page, folder, name):
    figure = page.partition(f'<figure id="figure-{name}">')[2].partition("</figure>")[0]
    assert "one panel for each teacher, one line for each student, at the largest size measured (L = 12)" in figure
    assert (folder / "out" / "figures" / f"{name}.png").stat().st_size > 10_000


def test_its_error_of_the_score_is_judged(page, folder):
    found = json.loads((folder / "out" / "verdicts.json").read_text())["verdicts"]
    assert len(found) == 4
    assert "off at σ = 0.3 (mine)" in page
    for verdict in found:
        assert {level["sigma"] for training in verdict["trainings"] for level in training["levels"]} == {0.3, 1.0}


def test_the_figure_that_it_registers_is_drawn(page):
    assert "<b>Bars of the echo.</b> One bar a student and size." in page


def test_its_figure_is_listed_with_its_owner(folder):
    listed = json.loads(sizetransfer(folder, "list", "figures", "--json").stdout)["figures"]
    (row,) = [row for row in listed if row["name"] == "echo-bars"]
    assert (row["distribution"], row["description"]) == ("echo", "Bars of the likeness at the largest distance.")


def test_an_unknown_figure_is_refused_at_load(folder):
    (folder / "wrong.yaml").write_text(EXPERIMENT + "report: {figures: [echo-bar]}\n")
    refused = sizetransfer(folder, "run", "wrong.yaml", "--out", "wrong")
    assert refused.returncode != 0
    assert not (folder / "wrong").exists()
    for words in ("Unknown figure 'echo-bar'", "report.figures", "Did you mean 'echo-bars'"):
        assert words in refused.stderr + refused.stdout, words
