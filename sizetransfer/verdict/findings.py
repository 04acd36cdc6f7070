r"""From numbers to the quantities that the rule tests, each with its variance: of one training, or over seeds.

At a noise level, with the student's error e, the null error :math:`e_0`, the error :math:`e_R` of the reference of the
radius and that of the best reference, :math:`e_*`:

- skill :math:`1 - (e / e_0)^2`: the share of the squared score known beyond a filter of radius 0;
- excess over the reference: :math:`\ln(e / e_R)` and, in skill, :math:`(e^2 - e_R^2) / e_0^2`;
- stay: :math:`\ln \rho(L)`, :math:`\rho = e(L) / e(L_\text{train})`, of the same weights;
- cost of locality, squared: :math:`e_R^2 - e_*^2`, where :math:`e_*` is zero against a known irreducible error;
- advantage of a larger student :math:`e'` on the same fields: :math:`\ln(e' / e)` and :math:`(e^2 - e'^2) / e_0^2`.

Where no error of the score is known, held-out losses stand in for it (:mod:`sizetransfer.verdict.losses`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np

from sizetransfer.contracts.quantity import UNKNOWN, Quantity
from sizetransfer.numerics.statistics import derived, over_seeds
from sizetransfer.verdict.evidence import CellEvidence, Consequence, LawChange, Reference, TrainingEvidence
from sizetransfer.verdict.items import Advantage, Cost, Generated, Item, Law, Learning, Staying
from sizetransfer.verdict.losses import LossNumbers

_LEAST = 1e-150
"""Stands for an error of zero in logarithms, so that two of them are equal; its square is a number still."""


ItemT = TypeVar("ItemT", bound=Item)


@dataclass(frozen=True)
class Findings:
    """All quantities that the rule tests.

    Attributes:
        claim: what the replicates are: fields of one model, or seeds of a recipe.
        replicates: how many there are.
        learning: by noise level.
        staying: by noise level and larger size.
        costs: by noise level and size, where the references are known.
        advantages: by larger student, noise level and size.
        generated: of this model.
        best_of_radius: of the best score of the radius.
        law: the law's own change.
        correlation_squared: squared correlation length of the exact fields.
        missing_seeds: seeds that were asked for and are not there.
    """

    claim: Literal["this model", "this recipe"]
    replicates: int
    learning: tuple[Learning, ...]
    staying: tuple[Staying, ...]
    costs: tuple[Cost, ...]
    advantages: tuple[Advantage, ...]
    generated: tuple[Generated, ...]
    best_of_radius: tuple[Generated, ...]
    law: tuple[Law, ...]
    correlation_squared: Quantity
    missing_seeds: tuple[int, ...] = field(default=())


def findings(cell: CellEvidence, training: TrainingEvidence) -> Findings:
    """The quantities of one training; its replicates are the evaluation fields."""
    numbers = LossNumbers(cell, training) if cell.from_data else _Numbers(cell, training)
    return Findings(
        claim="this model",
        replicates=numbers.replicates,
        learning=tuple(numbers.learning(sigma) for sigma in numbers.levels),
        staying=tuple(numbers.staying(sigma, size) for sigma in numbers.levels for size in cell.larger_sizes),
        costs=tuple(numbers.costs()),
        advantages=tuple(numbers.advantages()),
        generated=tuple(_generated(training.consequences, cell.training_size)),
        best_of_radius=tuple(_generated(cell.best_of_radius, cell.training_size)),
        law=tuple(_law(cell.law)),
        correlation_squared=_plain(cell.correlation_squared),
    )


def _plain(number: Quantity | None) -> Quantity:
    return UNKNOWN if number is None else derived(lambda x: x, number)


def _of(function: Callable[..., Any], *numbers: Quantity | None) -> Quantity:
    """The quantity, unknown where a number is missing."""
    present = [number for number in numbers if number is not None]
    return derived(function, *present) if len(present) == len(numbers) else UNKNOWN


def _log_ratio(one: Any, other: Any) -> Any:
    return np.log(np.maximum(one, _LEAST)) - np.log(np.maximum(other, _LEAST))


def _difference_in_skill(one: Any, other: Any, null: Any) -> Any:
    return _over(np.square(one) - np.square(other), np.square(null))


def _skill(error: Any, null: Any) -> Any:
    return 1 - np.square(_over(error, null))


def _over(one: Any, null: Any) -> Any:
    """A quotient that is not a number where the null is zero: of white noise there is nothing to know."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(one, null)


class _Numbers:
    """The numbers of one training by noise level and size."""

    def __init__(self, cell: CellEvidence, training: TrainingEvidence) -> None:
        self.cell, self.training = cell, training
        self.errors = {(one.sigma, one.size): _error(one.error) for one in training.errors if cell.judged(one.sigma)}
        self.references = {(one.sigma, one.size): one for one in training.references if cell.judged(one.sigma)}
        self.levels = sorted({sigma for sigma, _ in self.errors})

    @property
    def replicates(self) -> int:
        counted = max((found.error.n or 0 for found in self.training.errors), default=0)
        return self.training.fields or counted

    def reference(self, sigma: float, size: int) -> Reference:
        return self.references.get((sigma, size), Reference(sigma, size))

    def null(self, sigma: float, size: int) -> Quantity | None:
        # In the bulk the null error hardly depends on the size; where it was not measured, the training size's is it.
        return self.reference(sigma, size).null or self.reference(sigma, self.cell.training_size).null

    def learning(self, sigma: float) -> Learning:
        size = self.cell.training_size
        error, known = self.errors.get((sigma, size)), self.reference(sigma, size)
        reference = known.irreducible or known.linear
        return Learning(
            squares=False,
            sigma=sigma,
            error=_plain(error),
            null=_plain(known.null),
            linear=_plain(known.linear),
            best=_plain(known.best),
            irreducible=_plain(known.irreducible),
            skill=_of(_skill, error, known.null),
            excess_error=_of(_log_ratio, error, reference),
            excess_skill=_of(_difference_in_skill, error, reference, known.null),
        )

    def staying(self, sigma: float, size: int) -> Staying:
        before, after = self.errors.get((sigma, self.cell.training_size)), self.errors.get((sigma, size))
        ratio, skill = _of(_log_ratio, after, before), _of(_skill, after, self.null(sigma, size))
        return Staying(False, sigma, size, _plain(after), ratio, skill)

    def costs(self) -> Iterable[Cost]:
        if self.cell.radius is None:
            return
        for (sigma, size), known in self.references.items():
            exact = known.irreducible is not None
            squared = _of(np.square, known.irreducible) if exact else _of(_squares, known.linear, known.best)
            if squared.known and size >= self.cell.training_size and sigma in self.levels:
                yield Cost(sigma, size, squared, exact)

    def advantages(self) -> Iterable[Advantage]:
        for larger in self.training.larger:
            errors = {(one.sigma, one.size): _error(one.error) for one in larger.errors}
            for sigma in self.levels:
                for size in (self.cell.training_size, *self.cell.larger_sizes):
                    own, other = self.errors.get((sigma, size)), errors.get((sigma, size))
                    gain = _of(_difference_in_skill, own, other, self.null(sigma, size))
                    ratio = _of(_log_ratio, other, own)
                    yield Advantage(False, larger.name, larger.radius, sigma, size, _plain(other), ratio, gain)


def _squares(radius: Any, best: Any) -> Any:
    return np.square(radius) - np.square(best)


def _error(error: Quantity) -> Quantity:
    """The error; a negative one is no error."""
    return error if error.value >= 0 else replace(error, value=float("nan"))


def _generated(consequences: Iterable[Consequence], training_size: int) -> Iterable[Generated]:
    for one in consequences:
        local = dict(one.local())
        for name, number in {**local, **one.long_range}.items():
            if one.size > training_size:
                ratio = _plain(number)
                yield Generated(name, one.size, one.source, ratio, name in local, one.starts_short)


def _law(changes: Iterable[LawChange]) -> Iterable[Law]:
    for one in changes:
        yield Law("site variance", one.size, _plain(one.site_variance))
        yield Law("nearest-neighbour covariance", one.size, _plain(one.nearest))
        yield Law("S(0)", one.size, _plain(one.zero_mode))


# --- over seeds -----------------------------------------------------------------------------------------------


def recipe(cell: CellEvidence, trainings: Sequence[Findings]) -> Findings:
    """The same quantities over seeds: means, with the spread between trainings."""
    first = trainings[0]
    present = {training.seed for training in cell.trainings}
    return Findings(
        claim="this recipe",
        replicates=len(trainings),
        learning=_together([one.learning for one in trainings]),
        staying=_together([one.staying for one in trainings]),
        costs=_together([one.costs for one in trainings]),
        advantages=_together([one.advantages for one in trainings]),
        generated=_together([one.generated for one in trainings]),
        # The law and the best of the radius have no seeds.
        best_of_radius=first.best_of_radius,
        law=first.law,
        correlation_squared=first.correlation_squared,
        missing_seeds=tuple(seed for seed in cell.seeds if seed not in present),
    )


def _together(seeds: Sequence[tuple[ItemT, ...]]) -> tuple[ItemT, ...]:
    """The items of all seeds, each averaged; one that a seed lacks is unknown in the mean."""
    tables = [{_key(item): item for item in items} for items in seeds]
    keys = dict.fromkeys(key for table in tables for key in table)
    return tuple(_mean([table.get(key) for table in tables]) for key in keys)


def _key(item: Item) -> Hashable:
    return tuple(getattr(item, name) for name in item.labels)


def _mean(items: Sequence[ItemT | None]) -> ItemT:
    present = [item for item in items if item is not None]
    first = present[0]
    names = [one.name for one in fields(first) if one.name not in first.labels]
    complete = len(present) == len(items)
    means = {name: over_seeds([getattr(item, name) for item in present]) if complete else UNKNOWN for name in names}
    return replace(first, **means)
