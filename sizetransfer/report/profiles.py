"""Tables of the numbers that have an axis: a column for each coordinate, a line for teacher, student and size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from sizetransfer.contracts.parts import Part
from sizetransfer.drawing.axes import AXES
from sizetransfer.report.data import ReportData
from sizetransfer.report.tables import MISSING, format_number


@dataclass(frozen=True)
class ProfileTable:
    """All numbers of one part that has an axis.

    Attributes:
        measure: its name in the experiment.
        part: name of the part.
        label: what it is, with its unit.
        axis: what the columns are.
        coordinates: their heads.
        rows: teacher, student, size, seeds, and a text for each coordinate.
    """

    measure: str
    part: str
    label: str
    axis: str
    coordinates: Sequence[str]
    rows: Sequence[tuple[str, str, int, str, Sequence[str]]]


def profile_tables(data: ReportData) -> list[ProfileTable]:
    """A table for every part with a coordinate, declared or not.

    Errors that verdicts rest on have tables by size instead (:func:`sizetransfer.report.tables.measured_tables`); parts
    of single classes, of which each has one number, are in the records alone.
    """
    return list(_tables(data))


def _tables(data: ReportData) -> Iterator[ProfileTable]:
    rows = data.estimates[data.estimates["coordinate"].notna()]
    for (measure, name), own in rows.groupby(["measure", "part"], sort=False):
        part = data.declarations.part(str(measure), str(name))
        single = own["coordinate"].nunique() == 1
        if part is None or not (part.judged or (part.axis == "class" and single)):
            yield _table(data, str(measure), str(name), part, own)


def _table(data: ReportData, measure: str, name: str, part: Part | None, rows: pd.DataFrame) -> ProfileTable:
    coordinates = sorted(rows["coordinate"].unique())
    cells = {
        (row["teacher"], row["student"], int(row["size"]), row["coordinate"]): row for row in rows.to_dict("records")
    }
    lines = []
    for teacher in data.experiment.teachers:
        for student in data.radii:
            for size in sorted(rows["size"].unique()):
                own = [cells.get((teacher, student, int(size), coordinate)) for coordinate in coordinates]
                texts = [format_number(cell["value"], cell["standard_error"]) if cell else MISSING for cell in own]
                seeds = max((int(cell["seeds"]) for cell in own if cell), default=0)
                if seeds:
                    lines.append((teacher, data.student_label(student), int(size), str(seeds), texts))
    axis = AXES[part.axis].title if part is not None and part.has_coordinate else "coordinate"
    heads = ["clean" if axis == AXES["noise"].title and value == 0 else f"{value:g}" for value in coordinates]
    unit = f" ({part.unit})" if part is not None and part.unit else ""
    return ProfileTable(measure, name, f"{part.label}{unit}" if part else "", axis, heads, lines)
