"""Tidy records: one row for one number, always with its standard error and its count."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

Sums = tuple[tuple[float, ...], tuple[float, ...]]
"""Numerators and denominators of independent draws."""


@dataclass(frozen=True)
class Measurement:
    """One number that a measure returns.

    Attributes:
        part: which of the measure's numbers it is, for example ``relative_rmse``.
        value: the number; NaN where it is undefined.
        standard_error: its standard error; NaN where a single draw gives none.
        n: independent draws that it rests on.
        coordinate: position along a profile (a distance, say); NaN for a number that has none.
        sums: numerator and denominator of every independent draw, where the number comes from such sums: kept beside
            the records, so that pairing, limits and other thresholds need no new measurement.
    """

    part: str
    value: float
    standard_error: float
    n: int
    coordinate: float = math.nan
    sums: Sums | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Record:
    """A measurement with everything that says where it comes from: one row of ``records.parquet``.

    Attributes:
        experiment: name of the experiment.
        teacher, student: names in the experiment.
        radius: receptive radius of the student, in lattice steps or hops; none: global.
        seed: of the initial weights, the training batches and the evaluation fields.
        train_size, size: sites along each axis in training and here; of graphs, their number of sites.
        sigma: the low noise level at which the student was asked for its clean score, in units of the field.
        measure: name of the measure in the experiment.
        part: which of the measure's numbers it is.
        coordinate: where along the axis of the part; NaN for a part that has none.
        value: the number, in the unit of the part; NaN where it is undefined.
        standard_error: its standard error; NaN where a single draw gives none, zero or NaN of exact parts.
        n: independent draws that it rests on.
    """

    experiment: str
    teacher: str
    student: str
    radius: int | None
    seed: int
    train_size: int
    size: int
    sigma: float
    measure: str
    part: str
    coordinate: float
    value: float
    standard_error: float
    n: int

    def row(self) -> dict[str, object]:
        """The record as a mapping of column names to values."""
        return asdict(self)


def mean(values: Tensor, part: str, coordinate: float = math.nan) -> Measurement:
    """Mean of independent values of shape ``(n,)``, with the standard error of the mean."""
    n = values.numel()
    error = values.double().std(unbiased=True).item() / math.sqrt(n) if n > 1 else math.nan
    sums = (tuple(values.double().tolist()), (1.0,) * n)
    return Measurement(part, values.double().mean().item(), error, n, coordinate, sums)


def root_ratio(numerator: Tensor, denominator: Tensor, part: str, coordinate: float = math.nan) -> Measurement:
    r"""The ratio :math:`\sqrt{\sum_b a_b / \sum_b c_b}` over independent draws b, with its jackknife standard error.

    Relative errors are such ratios: squared errors over squared references, pooled before the root is taken,
    so that draws with a small reference do not dominate.

    Args:
        numerator: squared errors a, shape ``(n,)``.
        denominator: squared references c, shape ``(n,)``; where they sum to zero the value is NaN.
    """
    a, c = numerator.double(), denominator.double()
    n = a.numel()
    sums = (tuple(a.tolist()), tuple(c.tolist()))
    if not c.sum() > 0:
        return Measurement(part, math.nan, math.nan, n, coordinate, sums)
    value = (a.sum() / c.sum()).sqrt().item()
    if n < 2 or not (c.sum() - c).min() > 0:
        return Measurement(part, value, math.nan, n, coordinate, sums)
    left_out = ((a.sum() - a) / (c.sum() - c)).clamp_min(0).sqrt()
    variance = (n - 1) / n * (left_out - left_out.mean()).square().sum()
    return Measurement(part, value, torch.sqrt(variance).item(), n, coordinate, sums)


def ratio(numerator: Tensor, denominator: Tensor, part: str, coordinate: float = math.nan) -> Measurement:
    r"""The ratio :math:`\sum_b a_b / \sum_b c_b` over independent draws b, with its jackknife standard error.

    Args:
        numerator: a, shape ``(n,)``; where one is not finite the value is NaN, and no sums are kept.
        denominator: c, shape ``(n,)``; where they sum to zero the value is NaN.
    """
    a, c = numerator.double(), denominator.double()
    n = a.numel()
    if not (a.isfinite().all() and c.isfinite().all()):
        return Measurement(part, math.nan, math.nan, n, coordinate)
    sums = (tuple(a.tolist()), tuple(c.tolist()))
    if c.sum() == 0:
        return Measurement(part, math.nan, math.nan, n, coordinate, sums)
    value = (a.sum() / c.sum()).item()
    if n < 2 or bool(((c.sum() - c) == 0).any()):
        return Measurement(part, value, math.nan, n, coordinate, sums)
    left_out = (a.sum() - a) / (c.sum() - c)
    variance = (n - 1) / n * (left_out - left_out.mean()).square().sum()
    return Measurement(part, value, torch.sqrt(variance).item(), n, coordinate, sums)


def jackknife(
    estimator: Callable[[Tensor], float], draws: Tensor, part: str, coordinate: float = math.nan
) -> Measurement:
    """An estimate from independent draws, stacked along the first axis, with its jackknife standard error."""
    n = draws.shape[0]
    value = estimator(draws)
    if n < 2:
        return Measurement(part, value, math.nan, n, coordinate)
    left_out = torch.tensor([estimator(torch.cat([draws[:i], draws[i + 1 :]])) for i in range(n)], dtype=torch.float64)
    variance = (n - 1) / n * (left_out - left_out.mean()).square().sum()
    return Measurement(part, value, torch.sqrt(variance).item(), n, coordinate)
