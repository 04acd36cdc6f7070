"""Averages of records over seeds, with their standard errors.

Standard errors are standard errors of the mean over seeds; with one seed, the record's own (over evaluation
fields) stands in. Two or three seeds may agree by chance, so a difference is never judged by less than the errors over
evaluation fields leave of the mean: the root of their sum of squares over the number of seeds. Seeds share no
randomness; students of one seed see the same evaluation fields, so calling their errors independent overstates the
standard error of a difference where it matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pandas as pd

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.records import Record

Source = Literal["seeds", "records"]

KEYS = ("teacher", "student", "radius", "train_size", "size", "measure", "part", "coordinate")
ESTIMATE_COLUMNS = (*KEYS, "value", "standard_error", "within", "seeds", "n", "source")
_TYPES = {
    **dict.fromkeys(("radius", "coordinate", "value", "standard_error", "within"), "float64"),
    **dict.fromkeys(("train_size", "size", "seeds", "n"), "int64"),
}


@dataclass(frozen=True)
class Estimate:
    """A row of the averages over seeds: the mean, with two errors.

    Its number is a :class:`~sizetransfer.contracts.quantity.Quantity` (:attr:`quantity`); what the errors over fields
    leave of the mean stands beside it, so that seeds that agree by chance do not make a difference significant.

    Attributes:
        value: the mean; NaN if any seed's number is.
        standard_error: of the mean; NaN where there is none.
        seeds: seeds that it rests on.
        source: ``seeds``: standard error of the mean over seeds; ``records``: one seed, its record's own.
        within: what the errors over evaluation fields alone leave of the mean; zero where there are none.
    """

    value: float
    standard_error: float
    seeds: int = 1
    source: Source = "records"
    within: float = 0.0

    @property
    def quantity(self) -> Quantity:
        """The mean with its standard error; without seeds of its own, one without a count."""
        return Quantity.estimated(self.value, self.standard_error, self.seeds if self.source == "seeds" else None)

    @property
    def judged_error(self) -> float:
        """The larger of the two errors, by which differences are judged; NaN where there is no standard error."""
        return self.standard_error if math.isnan(self.standard_error) else max(self.standard_error, self.within)

    def standard_errors_from(self, other: Estimate) -> float:
        """``(self - other)`` in combined standard errors; infinite where both are zero and the values differ."""
        return in_standard_errors(self.value - other.value, math.hypot(self.judged_error, other.judged_error))


def in_standard_errors(difference: float, standard_error: float) -> float:
    """Return ``difference / standard_error``; 0 for no difference and signed infinity for a zero standard error."""
    if math.isnan(standard_error) or math.isnan(difference):
        return math.nan
    if standard_error > 0:
        return difference / standard_error
    return math.copysign(math.inf, difference) if difference else 0.0


def estimates(records: pd.DataFrame) -> pd.DataFrame:
    """Average records over seeds.

    Args:
        records: rows of :class:`sizetransfer.contracts.records.Record`; may be empty.

    Returns:
        One row for each teacher, student, size, measure, part and coordinate, with ``value`` (NaN if a seed's is),
        ``standard_error``, ``within``, ``seeds``, ``n`` (draws of all seeds together) and ``source`` (see
        :class:`Estimate`). Numbers that belong to no radius or no coordinate have NaN there.
    """
    if records.empty:
        return pd.DataFrame({column: pd.Series(dtype=_TYPES.get(column, "str")) for column in ESTIMATE_COLUMNS})
    # A seed counts once, even where a size or a noise level was named twice and measured twice.
    known = records[[field.name for field in fields(Record)]].drop_duplicates([*KEYS, "seed"])
    for column in ("radius", "coordinate", "value", "standard_error"):
        known[column] = pd.to_numeric(known[column]).astype("float64")
    known["squared"] = known["standard_error"] ** 2
    groups = known.groupby(list(KEYS), dropna=False, sort=False, observed=True)
    table = groups.agg(
        value=("value", "mean"),
        spread=("value", "std"),
        finite=("value", "count"),
        seeds=("value", "size"),
        own=("standard_error", "first"),
        squared=("squared", "sum"),
        n=("n", "sum"),
    ).reset_index()
    several = table["seeds"] > 1
    table["value"] = table["value"].where(table["finite"] == table["seeds"])
    table["standard_error"] = np.where(several, table["spread"] / np.sqrt(table["seeds"]), table["own"])
    table["standard_error"] = table["standard_error"].where(table["value"].notna())
    table["within"] = np.sqrt(table["squared"]) / table["seeds"]
    table["source"] = np.where(several, "seeds", "records")
    return table[list(ESTIMATE_COLUMNS)]


def number(value: float, standard_error: float) -> str:
    """A value with two digits of its standard error, for example ``0.2634 ± 0.0029``."""
    if not standard_error > 0 or not math.isfinite(standard_error):
        return f"{value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(standard_error)))
    if digits > 8:
        return f"{value:.1e} ± {standard_error:.1e}"
    return f"{value:.{digits}f} ± {standard_error:.{digits}f}"
