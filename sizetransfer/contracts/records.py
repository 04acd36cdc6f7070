"""Tidy records: one row for one number, always with its standard error and its count."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from sizetransfer.contracts.quantity import Quantity

Sums = tuple[tuple[float, ...], tuple[float, ...]]
"""Numerators and denominators of independent draws."""


@dataclass(frozen=True)
class Measurement:
    """One number that a measure returns: a :class:`~sizetransfer.contracts.quantity.Quantity` under a name.

    It is flat, because its attributes are columns of the records; :meth:`of` makes it from a quantity, and
    :attr:`quantity` takes the number out again.

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

    @classmethod
    def of(cls, part: str, quantity: Quantity, coordinate: float = math.nan) -> Measurement:
        """The row of an estimate, with the sums of its fields where it has them; a number without a count has n = 1."""
        sums, n = quantity.sums, 1 if quantity.n is None else quantity.n
        kept = None if sums is None else (tuple(sums.numerators.tolist()), tuple(sums.denominators.tolist()))
        return cls(part, quantity.value, quantity.error, n, coordinate, kept)

    @property
    def quantity(self) -> Quantity:
        """The number without its name; one that no draw went into is exact."""
        return number_of(self.value, self.standard_error, self.n)


def number_of(value: float, standard_error: float, n: int) -> Quantity:
    """The number of a row: one without an error that rests on no more than one draw is exact."""
    exact = n <= 1 and standard_error == 0
    return Quantity(value) if exact else Quantity.estimated(value, standard_error, n)


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
