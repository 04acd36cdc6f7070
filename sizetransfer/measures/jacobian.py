r"""Response profiles from exact Jacobian rows: how far teacher and student listen.

For reference sites i and fields x, rows :math:`J_{ij} = \partial s_i/\partial x_j` by backward passes give the profile
:math:`|J_{ij}|` by distance, the tail :math:`T_R = \sum_{d(i,j)>R}|J_{ij}|` (paper eq. (5)), the effective range
:math:`R_\epsilon`, the relative Frobenius error of the student's row over near and far regions, and the share of the
teacher's squared response that lies outside the student's radius. For several channels :math:`|J_{ij}|` is the
Frobenius norm of the block.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.domain import Site
from sizetransfer.measures.response import NEGLIGIBLE
from sizetransfer.oracle import HasScore, Teacher
from sizetransfer.randomness import stream
from sizetransfer.records import Measurement, jackknife, mean, root_ratio
from sizetransfer.response import (
    Region,
    ResponseProfile,
    ScoreFunction,
    jacobian_row,
    reference_sites,
    require_finite,
    shell_counts,
    shell_sums,
    student_score,
    teacher_score,
)
from sizetransfer.specs import MeasureSpec
from sizetransfer.student import Student


class JacobianSpec(MeasureSpec):
    """Response profile, tail and range of teacher and student from exact Jacobian rows (paper eq. (5)).

    Parts: ``profile_teacher, profile_student`` (mean of the absolute response per site) and ``profile_error`` (relative
    Frobenius error) by distance; ``tail_teacher, tail_student`` by radius; ``range_teacher, range_student`` by epsilon;
    ``near_error, far_error``; ``outside_share``. Errors are over fields.
    """

    kind: Literal["jacobian"] = "jacobian"
    requires: ClassVar[tuple[type, ...]] = (HasScore,)
    fields: int = Field(8, ge=2, description="independent fields")
    sites: int = Field(2, ge=1, description="reference sites in every field, on alternating sublattices")
    near: Region = Region(nearest=0, farthest=2)
    far: Region = Region(nearest=3, farthest=8)
    epsilons: tuple[float, ...] = Field((0.05, 0.01), description="thresholds of the effective range")

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.specs.MeasureSpec.measure`."""
        sample = teacher.sample(self.fields, size, generator=stream(seed, "jacobian", size))
        domain = sample.context.domain
        exact, learned = teacher_score(teacher, sample), student_score(student, sigma, sample.context)
        rows = [
            (site, _rows(exact, sample.x, site), _rows(learned, sample.x, site))
            for site in reference_sites(domain, self.sites)
        ]

        # One shell table a site, squared or absolute, averaged over sites: shape (fields, distances).
        def shells(values: Iterable[tuple[Site, Tensor]]) -> Tensor:
            return _mean_of_ragged([shell_sums(v, domain, site) for site, v in values])

        squared_error = shells((site, (b - a).square().sum((1, 2))) for site, a, b in rows)
        squared = shells((site, a.square().sum((1, 2))) for site, a, _ in rows)
        absolute = {
            "teacher": shells((site, _block_norm(a)) for site, a, _ in rows),
            "student": shells((site, _block_norm(b)) for site, _, b in rows),
        }
        counts = _mean_of_ragged([shell_counts(domain, site) for site, _, _ in rows])
        yield from self._profiles(absolute, counts)
        yield from _errors(squared_error, squared)
        for name, region in (("near", self.near), ("far", self.far)):
            region.mask(domain, rows[0][0])
            band = slice(region.nearest, region.farthest + 1)
            yield _relative(squared_error[:, band].sum(1), squared[:, band].sum(1), squared.sum(1), f"{name}_error")
        if student.radius is not None:
            outside = squared[:, student.radius + 1 :].sum(1)
            yield jackknife(_share, torch.stack([outside, squared.sum(1)], 1), "outside_share")

    def _profiles(self, absolute: dict[str, Tensor], counts: Tensor) -> Iterable[Measurement]:
        for name, sums in absolute.items():
            for distance, count in enumerate(counts.tolist()):
                yield mean(sums[:, distance] / count, f"profile_{name}", float(distance))
            tails = torch.stack([ResponseProfile(row).tails() for row in sums])
            for radius in range(tails.shape[1]):
                yield mean(tails[:, radius], f"tail_{name}", float(radius))
            for epsilon in self.epsilons:
                yield jackknife(partial(_effective_range, epsilon=epsilon), sums, f"range_{name}", epsilon)


def _rows(score: ScoreFunction, x: Tensor, site: Site) -> Float[Tensor, "batch channels channels *size"]:
    rows = torch.stack([jacobian_row(score, x, site, channel) for channel in range(x.shape[1])], 1).double()
    return require_finite(rows, f"jacobian at {tuple(x.shape[2:])}")


def _mean_of_ragged(tables: list[Tensor]) -> Tensor:
    """Mean of tables whose last axes differ in length: in a box, some sites have no shell at the largest distances."""
    width = max(table.shape[-1] for table in tables)
    return torch.stack([F.pad(table, (0, width - table.shape[-1])) for table in tables]).mean(0)


def _share(parts: Tensor) -> float:
    """Pooled share: columns are the part and the whole, rows are fields."""
    part, whole = parts.sum(0)
    return float(part / whole)


def _effective_range(sums: Tensor, epsilon: float) -> float:
    return float(ResponseProfile(sums.mean(0)).effective_range(epsilon))


def _block_norm(rows: Tensor) -> Tensor:
    return rows.square().sum((1, 2)).sqrt()


def _errors(error: Tensor, reference: Tensor) -> Iterable[Measurement]:
    for distance in range(error.shape[1]):
        yield _relative(error[:, distance], reference[:, distance], reference.sum(1), "profile_error", float(distance))


def _relative(
    error: Tensor, reference: Tensor, total: Tensor, part: str, coordinate: float = float("nan")
) -> Measurement:
    """Relative error, undefined where the reference is rounding beside the whole response."""
    negligible = reference.mean() <= NEGLIGIBLE**2 * total.mean()
    return root_ratio(error, torch.zeros_like(reference) if negligible else reference, part, coordinate)
