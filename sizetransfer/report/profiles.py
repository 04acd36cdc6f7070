"""Tables of the numbers that have an axis: a column for each coordinate, a line for teacher, student and size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from sizetransfer.contracts.parts import Part
from sizetransfer.drawing.axes import AXES
from sizetransfer.report.data import ReportData
from sizetransfer.report.tables import MISSING, format_number


@dataclass(frozen=True)
class Profile:
    """The numbers of one part along its axis; of parts that hold the names of classes, of all classes.

    Attributes:
        name: of the part, with the class left open (:data:`sizetransfer.contracts.parts.CLASS`).
        part: its description; nothing where it is not declared.
        rows: estimates.
        classes: names of the classes by coordinate, where the names of the parts hold them.
    """

    name: str
    part: Part | None
    rows: pd.DataFrame
    classes: Mapping[float, str]

    def text(self, coordinate: float) -> str:
        """A coordinate for people."""
        if coordinate in self.classes:
            return self.classes[coordinate]
        return f"{coordinate:g}" if self.part is None else self.part.coordinate_text(coordinate)


def profiles(data: ReportData, measure: str, rows: pd.DataFrame) -> Iterator[Profile]:
    """Estimates of one measure, part by part, and profile by profile where parts are of single classes."""
    found = {name: data.declarations.profile(measure, str(name)) for name in rows["part"].unique()}
    for group in dict.fromkeys(group for group, _ in found.values()):
        names = {name: one for name, (other, one) in found.items() if other == group}
        own = rows[rows["part"].isin(names)]
        placed = own.drop_duplicates("part").set_index("part")["coordinate"]
        classes = {float(placed[name]): one for name, one in names.items() if one}
        yield Profile(group, data.declarations.part(measure, str(next(iter(names)))), own, classes)


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

    Errors that verdicts rest on have tables by size instead (:func:`sizetransfer.report.tables.measured_tables`).
    """
    return list(_tables(data))


def _tables(data: ReportData) -> Iterator[ProfileTable]:
    rows = data.estimates[data.estimates["coordinate"].notna()]
    for measure, own in rows.groupby("measure", sort=False):
        for profile in profiles(data, str(measure), own):
            if profile.part is None or not profile.part.judged:
                yield _table(data, str(measure), profile)


def _table(data: ReportData, measure: str, profile: Profile) -> ProfileTable:
    rows, part = profile.rows, profile.part
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
    unit = f" ({part.unit})" if part is not None and part.unit else ""
    heads = [profile.text(coordinate) for coordinate in coordinates]
    return ProfileTable(measure, profile.name, f"{part.label}{unit}" if part else "", axis, heads, lines)
