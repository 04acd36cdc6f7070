r"""From held-out denoising losses to what the rule tests, where no exact score is known: to second order.

With noise of variance v, the loss of a score s, in units of v a component, and Tweedie's formula for the exact score
:math:`s^*` of the noisy field,

.. math:: \ell(s) = \frac{1}{v} E\,\|x + v s(x) - x_0\|^2 , \qquad
    \ell(s) - \ell(s^*) = v\,E\,\|s - s^*\|^2 , \qquad 1 - \ell(s^*) = v\,E\,\|s^*\|^2 ,

so that the relative squared error is :math:`e^2 = (\ell - \ell^*) / (1 - \ell^*)`. The least loss :math:`\ell^*` is
not known; that of the best linear filter, :math:`\ell_\text{best} \ge \ell^*`, stands in for it, exactly for Gaussian
fields. So with the losses :math:`\ell_0` of the best filter of radius 0 and :math:`\ell_R` of that of the radius:

- error, squared: :math:`q = (\ell - \ell_\text{best}) / (1 - \ell_\text{best})`. The true one is larger; q may be
  negative, where the student is better than any linear filter;
- skill: :math:`(\ell_0 - \ell) / (\ell_0 - \ell_\text{best})`, the share of what the best linear filter gains over
  radius 0. The true one is smaller, so that a skill below the threshold is one whatever the law;
- excess over the filter of the radius: :math:`(\ell - \ell_R) / (\ell_0 - \ell_\text{best})` in skill, and
  :math:`1 - e_R^2 / e^2 = (\ell - \ell_R) / (\ell - \ell_\text{best})`;
- stay: :math:`\rho^2 - 1 = (q(L) - q(L_\text{train})) / q(L_\text{train})`, and the skill lost. The true error of a
  student that is better than linear is not known: it stays where the skill does, and degrades where the student falls
  behind the linear filter;
- cost of locality, squared: :math:`(\ell_R - \ell_\text{best}) / (1 - \ell_\text{best})`;
- advantage of a larger student with loss :math:`\ell'`: :math:`(\ell' - \ell) / (\ell - \ell_\text{best})`, and in
  skill :math:`(\ell - \ell') / (\ell_0 - \ell_\text{least})` with the least loss of student, larger student and filter.

Denominators :math:`\ell - \ell_\text{best}` are no smaller than ``LEAST`` of :math:`\ell_0 - \ell_\text{best}`:
ratios of errors that are both tiny say nothing. All losses of a level and size are of the same fields and noise, and
paired; between sizes they are independent.

References:
    Robbins 1956, An empirical Bayes approach to statistics (Tweedie's formula).
    Vincent 2011, A connection between score matching and denoising autoencoders, Neural Computation 23.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from sizetransfer.contracts.quantity import UNKNOWN, Quantity
from sizetransfer.numerics.statistics import derived
from sizetransfer.verdict.evidence import CellEvidence, DenoisingLosses, TrainingEvidence
from sizetransfer.verdict.items import Advantage, Cost, Learning, Staying

LEAST = 0.01
"""Share of what linear filters gain that an error is compared with at least."""


def squared_error(loss: Any, best: Any) -> Any:
    """Squared error relative to the exact score, to second order: negative where it is better than linear."""
    return np.divide(loss - best, 1 - best)


def _error(loss: Any, best: Any) -> Any:
    return np.sqrt(np.maximum(squared_error(loss, best), 0.0))


def _skill(loss: Any, null: Any, best: Any) -> Any:
    return np.divide(null - loss, null - best)


def _at_least(loss: Any, null: Any, best: Any) -> Any:
    return np.maximum(loss - best, LEAST * (null - best))


def _excess_error(loss: Any, linear: Any, null: Any, best: Any) -> Any:
    return np.divide(loss - linear, _at_least(loss, null, best))


def _excess_skill(loss: Any, linear: Any, null: Any, best: Any) -> Any:
    return np.divide(loss - linear, null - best)


def _rise(loss: Any, null: Any, best: Any, before: Any, null_before: Any, best_before: Any) -> Any:
    change = squared_error(loss, best) - squared_error(before, best_before)
    return np.divide(change * (1 - best_before), _at_least(before, null_before, best_before))


def _lost(loss: Any, null: Any, best: Any, before: Any, null_before: Any, best_before: Any) -> Any:
    return _skill(before, null_before, best_before) - _skill(loss, null, best)


def _change(other: Any, loss: Any, null: Any, best: Any) -> Any:
    return np.divide(other - loss, _at_least(loss, null, best))


def _gain(other: Any, loss: Any, null: Any, best: Any) -> Any:
    return np.divide(loss - other, null - np.minimum(np.minimum(loss, other), best))


def _of(function: Callable[..., Any], *numbers: Quantity | None) -> Quantity:
    """The quantity, unknown where a number is missing."""
    present = [number for number in numbers if number is not None]
    return derived(function, *present) if len(present) == len(numbers) else UNKNOWN


class LossNumbers:
    """The numbers of one training by noise level and size, from its losses."""

    def __init__(self, cell: CellEvidence, training: TrainingEvidence) -> None:
        self.cell, self.training = cell, training
        self.losses = _by_place(one for one in training.losses if cell.judged(one.sigma))
        self.levels = sorted({sigma for sigma, _ in self.losses})

    @property
    def replicates(self) -> int:
        """Independent fields that the losses are means over."""
        known = [one.student.n or 0 for one in self.training.losses if one.student is not None]
        return max(known, default=0)

    def at(self, sigma: float, size: int) -> DenoisingLosses:
        """The losses there, unknown where they are missing."""
        return self.losses.get((sigma, size), DenoisingLosses(sigma, size))

    def learning(self, sigma: float) -> Learning:
        """What was learned at a noise level."""
        one = self.at(sigma, self.cell.training_size)
        against = one.student, one.linear, one.null, one.best
        return Learning(
            squares=True,
            sigma=sigma,
            error=_of(_error, one.student, one.best),
            null=_of(_error, one.null, one.best),
            linear=_of(_error, one.linear, one.best),
            best=UNKNOWN if one.best is None else Quantity(0.0),
            irreducible=UNKNOWN,
            skill=_of(_skill, one.student, one.null, one.best),
            excess_error=_of(_excess_error, *against),
            excess_skill=_of(_excess_skill, *against),
        )

    def staying(self, sigma: float, size: int) -> Staying:
        """What became of it at a larger size."""
        before, after = self.at(sigma, self.cell.training_size), self.at(sigma, size)
        both = after.student, after.null, after.best, before.student, before.null, before.best
        return Staying(
            squares=True,
            sigma=sigma,
            size=size,
            error=_of(_error, after.student, after.best),
            ratio=_of(_rise, *both),
            skill=_of(_skill, after.student, after.null, after.best),
            lost=_of(_lost, *both),
        )

    def costs(self) -> Iterable[Cost]:
        """What locality costs, by the filters."""
        for (sigma, size), one in self.losses.items():
            squared = _of(squared_error, one.linear, one.best)
            if self.cell.radius is not None and squared.known and size >= self.cell.training_size:
                yield Cost(sigma, size, squared, exact=False)

    def advantages(self) -> Iterable[Advantage]:
        """What students of larger radius gain."""
        for larger in self.training.larger:
            losses = _by_place(larger.losses)
            for sigma in self.levels:
                for size in (self.cell.training_size, *self.cell.larger_sizes):
                    own, other = self.at(sigma, size), losses.get((sigma, size), DenoisingLosses(sigma, size))
                    compared = other.student, own.student, own.null, own.best
                    yield Advantage(
                        squares=True,
                        student=larger.name,
                        radius=larger.radius,
                        sigma=sigma,
                        size=size,
                        error=_of(_error, other.student, own.best),
                        ratio=_of(_change, *compared),
                        gain=_of(_gain, *compared),
                    )


def _by_place(losses: Iterable[DenoisingLosses]) -> dict[tuple[float, int], DenoisingLosses]:
    return {(one.sigma, one.size): one for one in losses}
