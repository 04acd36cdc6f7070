"""The report: one HTML file that opens offline, and the figures beside it."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from sizetransfer.drawing import Drawing, Omitted, style
from sizetransfer.report import tables
from sizetransfer.report.data import ReportData, RunLike, gather
from sizetransfer.report.default_figures import default_figures
from sizetransfer.report.drawn import draw, known_figures
from sizetransfer.report.profiles import profile_tables
from sizetransfer.runs.storage import make_directory, remove_partial_files, write_atomically
from sizetransfer.verdict import describe

ORIGINS = {"P": "the paper", "C": "our choice"}


@dataclass(frozen=True)
class RenderedFigure:
    """A figure as files: the same picture as SVG and as PNG."""

    name: str
    title: str
    caption: str
    svg: bytes
    png: bytes

    @property
    def data_uri(self) -> str:
        """The SVG inline, so that the page needs no other file."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()


def write_report(run: RunLike) -> Path:
    """Write ``figures/<name>.svg``, ``figures/<name>.png`` and ``report.html`` into the run directory.

    Every file is written to a temporary name and renamed, ``report.html`` last. A run of which trials are missing
    or failed gets a report that says so. The same run gives the same bytes.

    Args:
        run: a run, or anything with the attributes of :class:`~sizetransfer.report.data.RunLike`.

    Returns:
        Path of ``report.html``.

    Raises:
        SpecError: the experiment asks for a figure that does not exist.
        RunError: a link leads out of the directory.
        StorageError: the directory cannot be written.
    """
    data = gather(run)
    rendered, omitted = render_figures(data)
    folder = run.path / "figures"
    make_directory(folder, within=run.path)
    remove_partial_files(folder, within=run.path)
    for figure in rendered:
        write_atomically(folder / f"{figure.name}.svg", figure.svg)
        write_atomically(folder / f"{figure.name}.png", figure.png)
    path = run.path / "report.html"
    write_atomically(path, render_page(data, rendered, omitted).encode())
    return path


def render_figures(data: ReportData) -> tuple[list[RenderedFigure], list[Omitted]]:
    """Draw the figures that the experiment asks for, in its order, or all of them where it names none.

    After them come the default figures, of measures that no registered figure draws.
    """
    with style.drawing():
        drawn = [draw(name, data) for name in known_figures(data)]
        omitted = [drawing for drawing in drawn if isinstance(drawing, Omitted)]
        found = [drawing for drawing in drawn if isinstance(drawing, Drawing)]
        return [_rendered(drawing) for drawing in (*found, *default_figures(data))], omitted


def _rendered(drawing: Drawing) -> RenderedFigure:
    style.settle(drawing.figure)
    svg, png = (style.to_bytes(drawing.figure, file_format) for file_format in ("svg", "png"))
    return RenderedFigure(drawing.name, drawing.title, drawing.caption, svg, png)


def render_page(data: ReportData, figures: list[RenderedFigure], omitted: list[Omitted]) -> str:
    """The page as HTML; every text of the user's is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = files("sizetransfer.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(**_context(data), figures=figures, omitted=omitted)


def _context(data: ReportData) -> dict[str, Any]:
    experiment, run = data.experiment, data.run
    missing = tables.missing_trials(data)
    total = len(experiment.trials())
    return {
        "title": experiment.title or experiment.name,
        "experiment": experiment,
        "answer": tables.answer(data),
        "total": total,
        "present": total - len(missing),
        "missing": missing,
        "failures": run.failures,
        "skipped": tables.skipped_groups(data),
        "verdicts": tables.verdict_rows(data),
        "symbol": data.words.symbol,
        "no_verdict": tables.no_verdict(data),
        "error_meaning": tables.error_meaning(data),
        "rule": list(_rule_items(data)),
        "error_bars": data.error_bars(),
        "paper": tables.paper_rows(data),
        "notes": [_note(text) for text in experiment.report.notes],
        "costs": tables.cost_rows(data),
        "reuse": tables.reuse(run.manifest),
        "renewed": tables.renewed(run.manifest),
        "tables": tables.measured_tables(data),
        "profiles": profile_tables(data),
        "specification": yaml.safe_dump(experiment.to_json(), sort_keys=False, allow_unicode=True, width=110),
        "manifest_rows": list(tables.manifest_rows(run.manifest)),
        "manifest": json.dumps(dict(run.manifest), indent=2, ensure_ascii=False, default=str),
        "teacher_notes": dict(run.manifest.get("notes", {})),
        "commands": _commands(data),
        "verdict_columns": tables.VERDICT_COLUMNS,
        "verdict_colours": style.VERDICT_COLOURS,
    }


def _rule_items(data: ReportData) -> Iterator[tuple[str, str]]:
    """The lines of the rule as (verdict, text); lines that define no verdict have an empty one."""
    for line in describe(data.experiment.verdict, symbol=data.words.symbol).split("\n"):
        name, separator, text = line.partition(": ")
        defines = bool(separator) and name in style.VERDICT_COLOURS
        yield (name, text) if defines else ("", line)


def _note(text: str) -> tuple[str, str]:
    """Split ``P: text`` and ``C: text`` into the origin and the text."""
    mark, separator, rest = text.partition(":")
    return (mark, rest.strip()) if separator and mark in ORIGINS else ("", text)


def _commands(data: ReportData) -> list[tuple[str, str]]:
    experiment = data.experiment
    preset = f" --preset {shlex.quote(experiment.preset)}" if experiment.preset else ""
    return [
        ("from the experiment's name", f"sizetransfer run {shlex.quote(experiment.name)}{preset}"),
        ("exactly this one, from the run directory", "sizetransfer run experiment.json --out again"),
        ("this page alone, from the run directory", "sizetransfer report ."),
    ]
