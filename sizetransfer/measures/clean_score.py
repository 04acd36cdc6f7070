r"""Error of a student's low-noise score against the exact clean score, at every size.

.. math:: \mathrm{RelRMSE}_L = \sqrt{\frac{E\,\|s_\theta(x, \sigma_{\min}) - s_0(x)\|^2}{E\,\|s_0(x)\|^2}},
   \qquad x \sim p_L

(paper eq. (16)); where sites are dead, :math:`\|\cdot\|^2` is the mean over the live components of a field, so that
every field has the same weight. The student estimates the *smoothed* score, so even a perfect one keeps a floor of the
size of :math:`s_{\sigma_{\min}} - s_0`: it vanishes with :math:`\sigma_{\min}` and is below 0.01 at 0.05 for the
short- and medium-range families.

In an open box the same ratio is also taken over the bulk alone, the sites more than ``margin`` steps away from the
place outside, and over the rest, the boundary. With q the bulk's share of :math:`E\,\|s_0\|^2`, the squares add up:

.. math:: \mathrm{RelRMSE}^2 = q\,\mathrm{RelRMSE}_{\mathrm{bulk}}^2 + (1 - q)\,\mathrm{RelRMSE}_{\mathrm{boundary}}^2
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Lattice
from sizetransfer.contracts.oracle import HasScore, Sample, Teacher, draw_fields
from sizetransfer.contracts.parts import Part, relative_error
from sizetransfer.contracts.randomness import batches
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.statistics import root_ratio, share
from sizetransfer.scores.response import require_finite, student_score, teacher_score


class CleanScoreSpec(MeasureSpec):
    """Relative root-mean-square error of the low-noise score against the exact clean score (paper eq. (16)).

    Parts: ``relative_rmse``; ``rmse``, the absolute error per live component; ``teacher_rms``, the size of the exact
    score per live component; ``field_std``, the root mean square of the field. In an open box besides
    ``bulk_relative_rmse, boundary_relative_rmse``; ``bulk_share``, of the bulk in the squared exact score; ``margin``,
    the one that was taken; ``wall_relative_rmse`` by distance to the wall. NaN where no field has a live site there.

    Errors are over independent fields: those that have a live site where the number is taken. Students of different
    radius can be compared in the bulk if they are given the same margin.
    """

    kind: Literal["clean-score"] = "clean-score"
    requires: ClassVar[tuple[type, ...]] = (HasScore,)
    without_effect: ClassVar[frozenset[str]] = frozenset({"batch"})
    figures: ClassVar[tuple[str, ...]] = ("regimes", "size-sweep", "radius-sweep")
    parts: ClassVar[Mapping[str, Part]] = {
        "relative_rmse": relative_error("relative RMSE of the clean score"),
        "rmse": Part("error of the score", "RMSE of a component", unit="1/field", lower_is_better=True),
        "teacher_rms": Part("evidence", "root mean square of the exact score", unit="1/field", serves="field: score"),
        "field_std": Part("evidence", "root mean square of the field", unit="field", serves="field: deviation"),
        "bulk_relative_rmse": relative_error("relative RMSE in the bulk", region="bulk"),
        "boundary_relative_rmse": relative_error("relative RMSE near the walls", region="boundary"),
        "bulk_share": Part("evidence", "share of the bulk in the squared score", unit="share", region="bulk"),
        "margin": Part("control", "steps from the bulk to the walls", unit="lattice steps", known="exact"),
        "wall_relative_rmse": relative_error("relative RMSE by distance to the wall", "distance", region="boundary"),
    }
    fields: int = Field(16, ge=2, description="independent fields at each size")
    batch: int = Field(8, ge=1, description="fields evaluated at a time; bounds the memory")
    margin: int | None = Field(
        None,
        ge=0,
        description="sites of the bulk have at least so many sites between them and every wall of an open box; none: "
        "the student's radius, at most a quarter of the box, which a global student gets",
    )

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`."""
        margin = self._margin(student, teacher.domain(size))
        squared, parts = [], []
        for batch, generator in batches(self.fields, self.batch, seed, "clean-score", size):
            sample = draw_fields(teacher, batch, size, generator=generator)
            squares, live = _with_live_sites(*_squares(teacher, student, sample, sigma))
            squared.append(_means(squares, live))
            domain = sample.context.domain
            if isinstance(domain, Lattice) and not domain.bulk(max(domain.shape)).all():
                parts.append(_by_wall(squares[:2], live, domain))
        error, score, field = require_finite(torch.cat(squared, dim=1), f"clean-score at size {size}")
        yield Measurement.of("relative_rmse", root_ratio(error, score))
        one = torch.ones_like(error)
        yield Measurement.of("rmse", root_ratio(error, one))
        yield Measurement.of("teacher_rms", root_ratio(score, one))
        yield Measurement.of("field_std", root_ratio(field, one))
        if parts:
            yield from _near_and_far_from_walls(torch.cat(parts, dim=1), margin)

    def _margin(self, student: Student, domain: Domain) -> int:
        if self.margin is not None:
            return self.margin
        quarter = min(domain.shape) // 4
        return quarter if student.radius is None else min(student.radius, quarter)


def _squares(
    teacher: Teacher, student: Student, sample: Sample, sigma: float
) -> tuple[Float[Tensor, "3 batch channels *size"], Bool[Tensor, "batch channels *size"]]:
    """Squares of the error, of the exact score and of the field, and where they count."""
    exact = teacher_score(teacher, sample)(sample.x)
    with torch.no_grad():
        estimate = student_score(student, sigma, sample.context)(sample.x)
    live = torch.ones_like(sample.x, dtype=torch.bool) if sample.context.mask is None else sample.context.mask
    return torch.stack([v.square() for v in (estimate - exact, exact, sample.x)]), live.expand_as(sample.x)


def _with_live_sites(squares: Tensor, live: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out fields that have none; they have no score."""
    kept = live.flatten(1).any(1)
    return squares[:, kept], live[kept]


def _means(squares: Tensor, live: Tensor) -> Float[Tensor, "3 batch"]:
    """Means over the live components of each field."""
    return torch.stack([(live * v).flatten(1).sum(1) / live.flatten(1).sum(1) for v in squares])


def _by_wall(squares: Tensor, live: Tensor, domain: Lattice) -> Float[Tensor, "3 batch distances"]:
    """Means of error and score over live components, split by distance to the wall; and the live components there.

    The sum over distances is the mean over the field. The first column is at distance one.
    """
    distance = domain.wall_distance().flatten().to(squares.device) - 1
    counts = live.flatten(1).sum(1)
    columns = [*((live * v).sum(1) / counts.reshape(-1, *[1] * domain.dim) for v in squares), live.sum(1).to(squares)]
    tables = torch.stack(columns).flatten(2).double()
    return tables.new_zeros(3, len(live), int(distance.max()) + 1).index_add(2, distance, tables)


def _near_and_far_from_walls(table: Float[Tensor, "3 batch distances"], margin: int) -> Iterator[Measurement]:
    bulk, boundary = table[..., margin:].sum(2), table[..., :margin].sum(2)
    yield _relative(bulk, "bulk_relative_rmse")
    yield _relative(boundary, "boundary_relative_rmse")
    yield Measurement.of("bulk_share", share(bulk[1], bulk[1] + boundary[1]))
    yield Measurement("margin", float(margin), math.nan, table.shape[1])
    for column in range(table.shape[2]):
        yield _relative(table[..., column], "wall_relative_rmse", float(column + 1))


def _relative(squares: Float[Tensor, "3 batch"], part: str, coordinate: float = math.nan) -> Measurement:
    """Relative error over the fields that have live components there."""
    error, score, _ = squares[:, squares[2] > 0]
    return Measurement.of(part, root_ratio(error, score), coordinate)
