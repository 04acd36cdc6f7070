"""Two runs side by side, number by number."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from sizetransfer.numerics.averages import estimates, in_standard_errors

MATCHED = ("teacher", "student", "size", "measure", "part", "coordinate")
_NUMBERS = ("value", "standard_error", "within", "seeds")


class HasRecords(Protocol):
    """A run, or anything that has its numbers."""

    @property
    def records(self) -> pd.DataFrame:
        """One row for each number."""
        ...


def compare_runs(a: HasRecords, b: HasRecords) -> pd.DataFrame:
    r"""Match the numbers of two runs and take their differences.

    Args:
        a: the run that is compared with.
        b: the run whose numbers are looked at.

    Returns:
        One row for each teacher, student, size, measure, part and coordinate that either run has: ``value_a``,
        ``standard_error_a``, ``within_a``, ``seeds_a`` and the same of b (means over seeds, see
        :func:`sizetransfer.numerics.averages.estimates`), ``difference`` (b minus a), ``standard_errors`` (the
        difference divided by :math:`\sqrt{s_a^2 + s_b^2}`, s the larger of the two errors; infinite where both are zero
        and the values differ) and ``found_in``: ``both``, ``a`` or ``b``.
    """
    columns = [*MATCHED, *_NUMBERS]
    merged = estimates(a.records)[columns].merge(
        estimates(b.records)[columns], on=list(MATCHED), how="outer", suffixes=("_a", "_b"), indicator="found_in"
    )
    merged["found_in"] = merged["found_in"].map({"both": "both", "left_only": "a", "right_only": "b"}).astype(str)
    merged["difference"] = (merged["value_b"] - merged["value_a"]).astype("float64")
    combined = np.hypot(_judged(merged, "a"), _judged(merged, "b"))
    merged["standard_errors"] = [
        in_standard_errors(difference, error) for difference, error in zip(merged["difference"], combined, strict=True)
    ]
    return merged


def _judged(merged: pd.DataFrame, run: str) -> npt.NDArray[np.float64]:
    """The larger of the errors over seeds and over evaluation fields; NaN where there is no standard error."""
    errors = merged[[f"standard_error_{run}", f"within_{run}"]].to_numpy(dtype="float64")
    return np.where(np.isnan(errors[:, 0]), np.nan, np.fmax(errors[:, 0], errors[:, 1]))
