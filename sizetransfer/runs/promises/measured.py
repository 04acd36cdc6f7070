"""What a measure returns: numbers with their errors and counts, each of them once."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from dataclasses import replace
from numbers import Integral, Real

from sizetransfer.contracts.errors import ConformanceError
from sizetransfer.contracts.records import Measurement

SIZES = ("rmse", "_error", "_mae", "_std", "_rms", "_distance")
"""Endings of the parts that are sizes of something and so not negative, as is the part ``error``."""


def is_size(part: str) -> bool:
    """Whether a part is, by its name, a number that cannot be negative.

    Example:
        >>> is_size("relative_rmse"), is_size("error"), is_size("mean_difference")
        (True, True, False)
    """
    return part == "error" or part.endswith(SIZES)


def checked(measurements: Iterable[Measurement], *, measure: str, where: str) -> list[Measurement]:
    """Take all measurements of a measure, if they are what they should be.

    Values are real numbers, errors among them not negative (:func:`is_size`); standard errors are not negative; counts
    are integers from zero on; a (part, coordinate) comes once. NaN says that there is no number. Infinite values are
    numbers too: an infinite error is what a student that diverges has.

    Args:
        measurements: what the measure returns.
        measure: its name, for errors.
        where: the size, say, for errors.

    Returns:
        The same, with Python's own ``float`` and ``int``.

    Raises:
        ConformanceError: by name of the part.
    """
    found: dict[tuple[str, float | None], Measurement] = {}
    for index, one in enumerate(measurements):
        clean = _checked(one, f"{measure}, {where}, number {index}")
        key = (clean.part, None if math.isnan(clean.coordinate) else clean.coordinate)
        if key in found:
            raise _broken(
                "returns a number twice.",
                f"{measure}, {where}, part {clean.part!r}",
                "each part once at each coordinate",
                f"a second one at coordinate {clean.coordinate}",
                "give it another part, or a coordinate",
            )
        found[key] = clean
    return list(found.values())


def _checked(one: object, where: str) -> Measurement:
    if not isinstance(one, Measurement):
        fix = "yield Measurement(part, value, standard_error, n)"
        raise _broken("returns no measurement.", where, "a Measurement", type(one).__name__, fix)
    part: object = one.part
    if not isinstance(part, str) or not part or not _is_text(part):
        raise _broken("returns a number without a name.", where, "part: some text", reprlib.repr(part), "name the part")
    where = f"{where}, part {reprlib.repr(part)}"
    value, error = _real(one.value, "value", where), _real(one.standard_error, "standard_error", where)
    if value < 0 and is_size(one.part):
        fix = f"return the size of the error, or call a number with a sign by a name that does not end in {SIZES}"
        raise _broken("returns a negative error.", where, "a value not below zero, or NaN", f"{value}", fix)
    if error < 0:
        fix = "return the square root of the variance, or NaN where there is none"
        raise _broken("returns a negative standard error.", where, "not below zero, or NaN", f"{error}", fix)
    return replace(
        one,
        value=value,
        standard_error=error,
        n=_count(one.n, where),
        coordinate=_real(one.coordinate, "coordinate", where),
    )


def _is_text(part: str) -> bool:
    """Whether a file can hold it: half a character is no text."""
    try:
        return bool(part.encode())
    except UnicodeEncodeError:
        return False


def _real(number: object, name: str, where: str) -> float:
    if isinstance(number, bool) or not isinstance(number, Real):
        got = f"{type(number).__name__} {reprlib.repr(number)}"
        raise _broken(f"returns no number as {name}.", where, "a float", got, "convert it: float(x), or x.item()")
    return float(number)


def _count(number: object, where: str) -> int:
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 0:
        got = f"{type(number).__name__} {reprlib.repr(number)}"
        fix = "return the number of independent draws"
        raise _broken("returns no count as n.", where, "an integer not below zero", got, fix)
    return int(number)


def _broken(what: str, where: str, expected: str, got: str, fix: str) -> ConformanceError:
    return ConformanceError(f"The measure {what}", where=where, expected=expected, got=got, fix=fix)
