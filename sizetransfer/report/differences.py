"""Two runs side by side, number by number."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sizetransfer.averages import estimates, in_standard_errors
from sizetransfer.report.data import RunLike

MATCHED = ("teacher", "student", "size", "measure", "part", "coordinate")
_NUMBERS = ("value", "standard_error", "seeds")


def compare_runs(a: RunLike, b: RunLike) -> pd.DataFrame:
    r"""Match the numbers of two runs and take their differences.

    Args:
        a: the run that is compared with.
        b: the run whose numbers are looked at.

    Returns:
        One row for each teacher, student, size, measure, part and coordinate that either run has: ``value_a``,
        ``standard_error_a``, ``seeds_a`` and the same of b (means over seeds, see
        :func:`sizetransfer.averages.estimates`), ``difference`` (b minus a), ``standard_errors`` (the difference
        divided by :math:`\sqrt{s_a^2 + s_b^2}`; infinite where both are zero and the values differ) and
        ``found_in``: ``both``, ``a`` or ``b``.
    """
    columns = [*MATCHED, *_NUMBERS]
    merged = estimates(a.records)[columns].merge(
        estimates(b.records)[columns], on=list(MATCHED), how="outer", suffixes=("_a", "_b"), indicator="found_in"
    )
    merged["found_in"] = merged["found_in"].map({"both": "both", "left_only": "a", "right_only": "b"}).astype(str)
    merged["difference"] = (merged["value_b"] - merged["value_a"]).astype("float64")
    errors = merged[["standard_error_a", "standard_error_b"]].to_numpy(dtype="float64")
    merged["standard_errors"] = [
        in_standard_errors(difference, combined)
        for difference, combined in zip(merged["difference"], np.hypot(errors[:, 0], errors[:, 1]), strict=True)
    ]
    return merged
