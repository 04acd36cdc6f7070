"""Broken measures: each a plausible bug, with the check that must catch it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import HasScore
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.numerics.statistics import root_ratio

MEASURES: list[tuple[type[MeasureSpec], str]] = []


def caught_by(check: str) -> Callable[[type[MeasureSpec]], type[MeasureSpec]]:
    """Register a class with the id of the check that catches it."""

    def register(broken: type[MeasureSpec]) -> type[MeasureSpec]:
        MEASURES.append((broken, f"measure/{check}"))
        return broken

    return register


class SmallErrorSpec(MeasureSpec):
    """Relative error of the clean score, and the mean field; healthy."""

    kind: Literal["small-error"] = "small-error"
    requires: ClassVar[tuple[type, ...]] = (HasScore,)
    fields: int = 4

    def measure(self, teacher, student, size, *, sigma, seed):
        sample = self.sample(teacher, size, seed)
        exact = self.exact(teacher, sample)
        with torch.no_grad():
            error = student(sample.x, sample.x.new_full((self.fields,), sigma), sample.context) - exact
        squares = [value.square().flatten(1).sum(1) for value in (error, exact)]
        yield self.changed(Measurement.of("relative_rmse", root_ratio(*squares)))
        yield self.changed(Measurement.of("by_noise", root_ratio(*squares), sigma))

    def sample(self, teacher, size, seed):
        return teacher.sample(self.fields, size, generator=stream(seed, "fields"))

    def exact(self, teacher, sample):
        return teacher.score(sample)

    def changed(self, one):
        return one


def _with(one: Measurement, **changes: object) -> Measurement:
    fields = {name: getattr(one, name) for name in ("part", "value", "standard_error", "n", "coordinate", "sums")}
    return Measurement(**{**fields, **changes})


@caught_by("declarations")
class NoProtocol(SmallErrorSpec):
    requires: ClassVar[tuple[type, ...]] = (OracleError,)

    def lacking(self, teacher):
        return []

    def exact(self, teacher, sample):
        return sample.x


@caught_by("declarations")
class ForgottenField(SmallErrorSpec):
    without_effect: ClassVar[frozenset[str]] = frozenset({"batch"})


@caught_by("refuses-what-is-missing")
class LacksNothing(SmallErrorSpec):
    def lacking(self, teacher):
        return []


@caught_by("refuses-what-is-missing")
class ForgetsGeometry(SmallErrorSpec):
    geometries: ClassVar = ("lattice",)

    def lacking(self, teacher):
        return [protocol.__name__ for protocol in self.requires if not isinstance(teacher, protocol)]


@caught_by("refuses-before-anything-is-computed")
class ChecksWithAKeyError(SmallErrorSpec):
    def check(self, teacher, size):
        return {8: None}[size]


@caught_by("refuses-before-anything-is-computed")
class ChecksByDrawing(SmallErrorSpec):
    def check(self, teacher, size):
        torch.rand(1)


@caught_by("refuses-before-the-training")
class RefusesLate(SmallErrorSpec):
    def sample(self, teacher, size, seed):
        if size < 12:
            raise OracleError("The lattice is too small.")
        return super().sample(teacher, size, seed)


@caught_by("measures-what-it-takes")
class RequiresNothing(SmallErrorSpec):
    requires: ClassVar[tuple[type, ...]] = ()


@caught_by("measures-what-it-takes")
class LatticesOnly(SmallErrorSpec):
    def exact(self, teacher, sample):
        assert sample.context.domain.periodic
        return super().exact(teacher, sample)


@caught_by("measures-what-it-takes")
class NoDeadSites(SmallErrorSpec):
    def exact(self, teacher, sample):
        if sample.context.mask is not None:
            raise ValueError("a mask")
        return super().exact(teacher, sample)


@caught_by("numbers-with-errors-and-counts")
class NegativeError(SmallErrorSpec):
    def changed(self, one):
        return _with(one, standard_error=-1.0)


@caught_by("numbers-with-errors-and-counts")
class NoCount(SmallErrorSpec):
    def changed(self, one):
        return _with(one, n=0)


@caught_by("numbers-with-errors-and-counts")
class Twice(SmallErrorSpec):
    def changed(self, one):
        return _with(one, part="relative_rmse", coordinate=math.nan)


@caught_by("numbers-with-errors-and-counts")
class LostSum(SmallErrorSpec):
    def changed(self, one):
        return _with(one, sums=((1.0, 2.0), (1.0,)))


@caught_by("parts-are-stable")
class CoordinateOfTheDraws(SmallErrorSpec):
    def changed(self, one):
        return one if math.isnan(one.coordinate) else _with(one, coordinate=one.value)


@caught_by("parts-are-stable")
class PartOfTheStudent(SmallErrorSpec):
    def changed(self, one):
        return _with(one, part=f"{one.part}_{one.value:.3f}")


@caught_by("same-seed-same-numbers")
class GlobalCounter(SmallErrorSpec):
    calls: ClassVar[list[int]] = []

    def changed(self, one):
        self.calls.append(1)
        return _with(one, value=one.value + len(self.calls))


@caught_by("nothing-is-changed")
class TrainsTheStudent(SmallErrorSpec):
    def measure(self, teacher, student, size, *, sigma, seed):
        student.train()
        yield from super().measure(teacher, student, size, sigma=sigma, seed=seed)


@caught_by("nothing-is-changed")
class MovesTheWeights(SmallErrorSpec):
    def measure(self, teacher, student, size, *, sigma, seed):
        yield from super().measure(teacher, student, size, sigma=sigma, seed=seed)
        with torch.no_grad():
            next(student.parameters()).add_(1)


@caught_by("nothing-is-changed")
class ScalesTheFields(SmallErrorSpec):
    def exact(self, teacher, sample):
        exact = super().exact(teacher, sample)
        sample.x.mul_(2)
        return exact


@dataclass(frozen=True)
class Declared:
    """Stands for the description of a part."""

    axis: str = "none"
    known: str = "estimated"


HEALTHY_PARTS = {"relative_rmse": Declared(), "by_*": Declared("noise")}


def declaring(parts: dict[str, Declared]) -> MeasureSpec:
    """The healthy measure with declared parts."""

    class DeclaringSpec(SmallErrorSpec):
        def declarations(self):
            return parts

    return DeclaringSpec()


WRONG_PARTS = {
    "not-declared": {"relative_rmse": Declared()},
    "axis-without-coordinate": {**HEALTHY_PARTS, "relative_rmse": Declared("noise")},
    "coordinate-without-axis": {**HEALTHY_PARTS, "by_*": Declared()},
    "error-of-an-exact-number": {**HEALTHY_PARTS, "relative_rmse": Declared(known="exact")},
}
