r"""Errors of linear references, cross-fitted: every filter is judged on fields that it was not fitted to.

The fields are divided into folds; the filter for one fold is fitted to all others. Against exact scores the error of a
radius is, as :mod:`sizetransfer.measures.clean_score` has it for students,

.. math:: e_r = \sqrt{\sum_b \|\hat s(x_b) - s(x_b)\|^2 \Big/ \sum_b \|s(x_b)\|^2}

with means over live components, in an open box those of the bulk. Where no exact score is known at a noise level, it is
the denoising loss :math:`\sigma^2\,\|\hat s(x_b) + \xi_b/\sigma\|^2`: of two scores on the same fields and noise the
losses differ, in the mean, by :math:`\sigma^2` times the difference of their squared errors. Balls nest, so what a
radius is worth is the smallest error of any radius up to it; the larger ball with the larger error had too few fields.
Sums of every field are kept, to be paired with a student's on the same fields. Standard errors are by jackknife over
fields, with the filters as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Graph
from sizetransfer.contracts.noise import expand, perturb
from sizetransfer.contracts.oracle import Context, HasScore, HasSmoothedScore, Sample, Teacher, draw_fields
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.numerics.statistics import mean, root_ratio
from sizetransfer.scores.references.classes import Sight
from sizetransfer.scores.references.filters import AnyFilter
from sizetransfer.scores.references.moments import WindowMoments, default_margin, estimate_moments

Against = Literal["score", "denoising"]

_FIELDS_AT_A_TIME = 64


@dataclass(frozen=True)
class LinearReference:
    """The error of the best linear filter of one radius at one noise level.

    Attributes:
        radius: Chebyshev, or hops on a graph; none: the whole lattice.
        sigma: noise level; zero is the clean score.
        against: ``score``: ``error`` is relative to the exact score; ``denoising``: it is the mean denoising loss.
        error: with standard error, number of fields, and the sums of every field.
        best: the smallest error of any radius up to this one.
        best_radius: whose it is.
    """

    radius: int | None
    sigma: float
    against: Against
    error: Measurement
    best: Measurement
    best_radius: int | None


def linear_references(
    teacher: Teacher,
    size: int,
    *,
    radii: Sequence[int] = (0, 1, 2, 3, 4),
    whole: bool = True,
    sigmas: Sequence[float] = (0.0,),
    fields: int = 512,
    folds: int = 4,
    seed: int = 0,
    sight: Sight | None = None,
    margin: int | None = None,
    denoising: bool = False,
) -> tuple[LinearReference, ...]:
    """Errors of the best linear filters of several radii, from fields of a teacher.

    Args:
        teacher: draws the fields; its exact score is used where it knows it.
        size: as for :meth:`sizetransfer.contracts.oracle.Teacher.sample`.
        radii: radii; zero, the null of every comparison, is always among them.
        whole: also the filter of the whole lattice or graph; there is none in an open box, with dead sites, or where
            conditions do not alternate.
        sigmas: noise levels; zero is the clean score.
        fields: independent fields.
        folds: parts that the fields are divided into.
        seed: names the fields and their noise.
        sight: what filters see beside the field; by default all there is.
        margin: of the bulk of an open box; by default :func:`sizetransfer.scores.references.moments.default_margin`.
        denoising: the denoising loss even where the exact score is known.

    Returns:
        By noise level, then by radius, the whole lattice last.
    """
    sight = sight or Sight()
    with torch.no_grad():
        sample = draw_fields(teacher, fields, size, generator=stream(seed, "linear references", size))
    asked: list[int | None] = [*sorted({0, *radii})]
    margin = default_margin(sample.context.domain) if margin is None else margin
    if whole and _has_whole(sample, sight, margin):
        asked.append(None)
    filters = _cross_fitted(sample, asked, folds, sight, margin)
    found: list[LinearReference] = []
    for sigma in sigmas:
        target = _target(teacher, sample, sigma, seed, denoising=denoising)
        rows = [_error(target, by_fold, sight, margin) for by_fold in filters]
        found += _with_minimum(asked, sigma, target.against, rows)
    return tuple(found)


def squared_errors(
    estimate: Tensor, exact: Tensor, context: Context, *, margin: int | None = None, dead: bool = False
) -> Float[Tensor, "2 batch"]:
    """Mean squares of the error and of the exact score of each field, over live components of the bulk.

    Args:
        estimate, exact: scores ``B C *S``.
        context: domain and mask of the fields.
        margin: of the bulk of an open box; by default :func:`sizetransfer.scores.references.moments.default_margin`.
        dead: count dead sites as well, for scores that know no mask.

    Returns:
        float64; zero for a field without such sites.
    """
    domain = context.domain
    counted = domain.bulk(default_margin(domain) if margin is None else margin).to(exact.device)
    live = torch.ones_like(exact, dtype=torch.bool) & counted
    if context.mask is not None and not dead:
        live = live & context.mask
    count = live.flatten(1).sum(1).clamp_min(1)
    squares = [(live * v.double().square()).flatten(1).sum(1) / count for v in (estimate - exact, exact)]
    return torch.stack(squares).cpu()


# --- steps ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Target:
    """Noisy fields and what a score of them is compared with."""

    against: Against
    sample: Sample
    sigma: float
    score: Tensor


def _has_whole(sample: Sample, sight: Sight, margin: int) -> bool:
    if isinstance(sample.context.domain, Graph):
        return True
    return not isinstance(estimate_moments(sample, 0, sight=sight, margin=margin), WindowMoments)


def _cross_fitted(
    sample: Sample, radii: Sequence[int | None], folds: int, sight: Sight, margin: int
) -> list[list[AnyFilter]]:
    """For every radius the filter of every fold, fitted to the fields of the others."""
    largest = max(radius for radius in radii if radius is not None)
    fitted: list[list[AnyFilter]] = [[] for _ in radii]
    for fold in range(folds):
        moments = estimate_moments(others(sample, fold, folds), largest, sight=sight, margin=margin)
        for place, radius in enumerate(radii):
            fitted[place].append(moments.filter(radius))
    return fitted


def others(sample: Sample, fold: int, folds: int) -> Sample:
    """The fields without those of one fold."""
    kept = torch.tensor([row for row in range(len(sample.x)) if row % folds != fold])
    return _picked(sample, kept)


def _picked(sample: Sample, rows: Tensor) -> Sample:
    context = sample.context
    return Sample(
        sample.x[rows.to(sample.x.device)],
        Context(
            context.domain,
            None if context.condition is None else context.condition[rows.to(context.condition.device)],
            None if context.mask is None else context.mask[rows.to(context.mask.device)],
        ),
    )


def _target(teacher: Teacher, sample: Sample, sigma: float, seed: int, *, denoising: bool) -> _Target:
    if sigma == 0 and not denoising and isinstance(teacher, HasScore):
        return _Target("score", sample, sigma, _in_parts(lambda part: cast(HasScore, teacher).score(part), sample))
    levels = sample.x.new_full((len(sample.x),), sigma)
    generator = stream(seed, "linear references, noise", sample.context.domain.sites, repr(sigma))
    x, noise = perturb(sample.x, levels, generator=generator)
    noisy = sample.with_x(x if sample.context.mask is None else torch.where(sample.context.mask, x, sample.x))
    if denoising or not isinstance(teacher, HasSmoothedScore):
        return _Target("denoising", noisy, sigma, -noise / expand(levels, noise))
    known = teacher
    score = _in_parts(lambda part: known.smoothed_score(part.x, levels[: len(part.x)], part.context), noisy)
    return _Target("score", noisy, sigma, score)


def _in_parts(score: Callable[[Sample], Tensor], sample: Sample) -> Tensor:
    parts = range(0, len(sample.x), _FIELDS_AT_A_TIME)
    return torch.cat([score(sample.rows(slice(start, start + _FIELDS_AT_A_TIME))).detach() for start in parts])


def _error(target: _Target, filters: Sequence[AnyFilter], sight: Sight, margin: int) -> Measurement:
    squares = torch.zeros(2, len(target.sample.x), dtype=torch.float64)
    with torch.no_grad():
        for rows, estimate, part, exact in _estimates(target, filters):
            squares[:, rows] = squared_errors(estimate, exact, part.context, margin=margin, dead=not sight.mask)
    radius = filters[0].radius
    coordinate = float("inf") if radius is None else float(radius)
    if target.against == "score":
        return Measurement.of("linear_reference", root_ratio(squares[0], squares[1]), coordinate)
    return Measurement.of("denoising_loss", mean(target.sigma**2 * squares[0]), coordinate)


def _estimates(target: _Target, filters: Sequence[AnyFilter]) -> Iterator[tuple[Tensor, Tensor, Sample, Tensor]]:
    """Rows of the batch, the filter's score of them, the fields, and what the score is compared with."""
    for fold, linear in enumerate(filters):
        own = torch.arange(fold, len(target.sample.x), len(filters))
        for rows in torch.split(own, _FIELDS_AT_A_TIME):
            part = _picked(target.sample, rows)
            levels = part.x.new_full((len(rows),), target.sigma)
            estimate = linear.score(part.x, levels, part.context)
            yield rows, estimate, part, target.score[rows.to(target.score.device)]


def _with_minimum(
    radii: Sequence[int | None], sigma: float, against: Against, rows: Sequence[Measurement]
) -> Iterator[LinearReference]:
    best, best_radius = rows[0], radii[0]
    for radius, row in zip(radii, rows, strict=True):
        if row.value < best.value:
            best, best_radius = row, radius
        yield LinearReference(radius, sigma, against, row, best, best_radius)
