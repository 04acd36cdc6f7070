r"""Denoising losses of a score on given fields, and of linear filters of growing radius on the same fields and noise.

.. math:: L(\sigma) = \frac1N\sum_i \big|\sigma\,s_i(x_0 + \sigma\xi) + \xi_i\big|^2
   = L^*(\sigma) + \sigma^2\,E|s_i - s^*_i|^2

with the exact score :math:`s^*` and its loss :math:`L^* = 1 - \sigma^2 E|s^*_i|^2`. So with any loss :math:`L_0`
between :math:`L^*` and L, :math:`(L - L_0)/(1 - L_0)` is at most the squared error of the score, relative to the exact
one: no reading of a model with an error of e gains more than :math:`e^2`.

Linear filters are cross-fitted: each is judged on fields that it was not fitted to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import Context, Sample
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.scores.references import estimate_moments, squared_errors
from sizetransfer.scores.references.errors import others
from sizetransfer.scores.references.filters import AnyFilter

Score = Callable[[Tensor, Tensor, Context], Tensor]
"""A score of noisy fields ``B C *S`` at noise levels ``(B,)`` in a context."""

FOLDS = 4
_SITES_AT_A_TIME = 2**18


def as_sample(fields: Sample | Float[Tensor, "batch channels *size"], field: FieldInfo) -> Sample:
    """Fields with their domain.

    Raises:
        SpecError: another number of channels or axes, fewer than eight fields, numbers that are not finite, or a
            channel that never varies.
    """
    sample = fields
    if isinstance(sample, Tensor):
        sample = Sample(sample, Context(Lattice(tuple(sample.shape[2:]), field.periodic, field.closed)))
    x = sample.x
    if x.shape[1] != field.channels or (field.geometry == "lattice" and x.ndim != 2 + field.dim):
        raise _unusable(f"B x {field.channels} channels x {field.dim} axes", f"shape {tuple(x.shape)}")
    if len(x) < 2 * FOLDS:
        raise _unusable(f"at least {2 * FOLDS} independent fields", str(len(x)))
    if not bool(x.isfinite().all()):
        raise _unusable("finite numbers", f"{int((~x.isfinite()).sum())} that are not")
    constant = (x.movedim(1, 0).flatten(1).std(1) == 0).nonzero().flatten().tolist()
    if constant:
        raise _unusable("channels that vary", f"constant channels {constant}")
    return sample


def _unusable(expected: str, got: str) -> SpecError:
    return SpecError(
        "The fields cannot be used.", where="fields of the data", expected=expected, got=got, fix="correct the fields"
    )


@dataclass(frozen=True)
class NoisyFields:
    """Fields, to be seen at several noise levels with noise that depends on the level and the number of the field.

    Attributes:
        sample: B independent fields.
        seed: names the noise.
    """

    sample: Sample
    seed: int

    def at(self, sigma: float) -> tuple[Sample, Tensor]:
        """The noisy fields at one level, and what a score is compared with: minus the noise over the level."""
        x = self.sample.x
        levels = x.new_full((len(x),), sigma)
        noisy, noise = perturb(x, levels, generator=stream(self.seed, "model", x[0].numel(), repr(sigma)))
        mask = self.sample.context.mask
        noisy = noisy if mask is None else torch.where(mask, noisy, x)
        return self.sample.with_x(noisy), -noise / sigma

    def first(self, count: int) -> NoisyFields:
        """Some of the fields."""
        return NoisyFields(self.sample.rows(slice(0, count)), self.seed)

    def losses(self, score: Score, sigma: float) -> Float[Tensor, "batch"]:
        """The loss of every field, float64."""
        noisy, target = self.at(sigma)
        step = max(1, _SITES_AT_A_TIME // noisy.x[0].numel())
        parts = []
        with torch.no_grad():
            for start in range(0, len(target), step):
                rows = noisy.rows(slice(start, start + step))
                answer = score(rows.x, rows.x.new_full((len(rows.x),), sigma), rows.context)
                parts.append(sigma**2 * squared_errors(answer, target[start : start + step], rows.context)[0])
        return torch.cat(parts)


def linear_losses(
    fields: NoisyFields, judged: int, radii: Sequence[int | None], sigmas: Sequence[float]
) -> Mapping[float, Mapping[int | None, Float[Tensor, "judged"]]]:
    """Losses of the best linear filters, by noise level and radius, on the first ``judged`` fields.

    A radius whose filter cannot be had of so few fields, or of such a domain, is left out.
    """
    sample = fields.sample
    found: dict[float, dict[int | None, Tensor]] = {sigma: {} for sigma in sigmas}
    largest = max(radius for radius in radii if radius is not None)
    moments = [estimate_moments(others(sample, fold, FOLDS), largest) for fold in range(FOLDS)]
    filters: dict[int | None, list[AnyFilter]] = {}
    for radius in radii:
        with contextlib.suppress(OracleError):
            filters[radius] = [each.filter(radius) for each in moments]
    few = fields.first(judged)
    for sigma in sigmas:
        noisy, target = few.at(sigma)
        for radius, by_fold in filters.items():
            each = torch.zeros(judged, dtype=torch.float64)
            for fold, linear in enumerate(by_fold):
                own = torch.arange(fold, judged, FOLDS)
                each[own] = _of_rows(noisy, target, own, linear.score, sigma)
            found[sigma][radius] = each
    return found


def _of_rows(noisy: Sample, target: Tensor, rows: Tensor, score: Score, sigma: float) -> Tensor:
    context = noisy.context
    part = Context(
        context.domain,
        None if context.condition is None else context.condition[rows],
        None if context.mask is None else context.mask[rows],
    )
    x = noisy.x[rows]
    with torch.no_grad():
        answer = score(x, x.new_full((len(x),), sigma), part)
    return sigma**2 * squared_errors(answer, target[rows], part)[0]


def smallest(by_radius: Mapping[int | None, Tensor]) -> tuple[int | None, Tensor]:
    """The radius with the smallest mean loss, and its losses."""
    return min(by_radius.items(), key=lambda item: float(item[1].mean()))
