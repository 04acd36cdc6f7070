r"""Response profiles from exact Jacobian rows: how far teacher and student listen.

For reference sites i and fields x, rows :math:`J_{ij} = \partial s_i/\partial x_j` by backward passes give the profile
:math:`|J_{ij}|` by distance, the tail :math:`T_R = \sum_{d(i,j)>R}|J_{ij}|` (paper eq. (5)), the effective range
:math:`R_\epsilon`, the relative Frobenius error of the student's row over near and far regions, and the share of the
teacher's squared response that lies outside the student's radius. For several channels :math:`|J_{ij}|` is the
Frobenius norm of the block.

Sums, counts and shares are over live sites. A field with too few live sites to be probed is left out, and so it is of a
number about a shell or a region in which it has none; n tells how many fields are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.domain import Domain
from sizetransfer.contracts.oracle import HasScore, Teacher, draw_fields
from sizetransfer.contracts.parts import Axis, Part
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures.response import NEGLIGIBLE
from sizetransfer.numerics.shells import ResponseProfile, effective_range, mean_of_ragged, padded, shell_sums
from sizetransfer.numerics.statistics import mean, root_ratio, share
from sizetransfer.scores.response import (
    Region,
    ScoreFunction,
    jacobian_rows,
    own_sites,
    reference_sites,
    require_finite,
    student_score,
    teacher_score,
)


def _error(label: str, serves: str = "") -> Part:
    return Part("response", label, unit="relative", lower_is_better=True, serves=serves)


def _of_both(part: str, label: str, axis: Axis, unit: str, *, logarithmic: bool) -> dict[str, Part]:
    return {
        f"{part}_{who}": Part("response", f"{label} of the {who}", axis, unit, logarithmic=logarithmic)
        for who in ("teacher", "student")
    }


class JacobianSpec(MeasureSpec):
    """Response profile, tail and range of teacher and student from exact Jacobian rows (paper eq. (5)).

    Parts: ``profile_teacher, profile_student`` (mean of the absolute response per site) and ``profile_error`` (relative
    Frobenius error) by distance; ``tail_teacher, tail_student`` by radius; ``range_teacher, range_student`` by epsilon;
    ``near_error, far_error``; ``far_to_near_teacher``, the root mean square of its rows over the two regions;
    ``outside_share``. Errors are over fields.
    """

    kind: Literal["jacobian"] = "jacobian"
    requires: ClassVar[tuple[type, ...]] = (HasScore,)
    differentiates: ClassVar[bool] = True
    figures: ClassVar[tuple[str, ...]] = ("response-profile",)
    parts: ClassVar[Mapping[str, Part]] = {
        **_of_both("profile", "absolute response", "distance", "1/field²", logarithmic=True),
        "profile_error": Part("response", "error of the response", "distance", "relative", lower_is_better=True),
        **_of_both("tail", "response beyond the radius", "radius", "1/field²", logarithmic=True),
        **_of_both("range", "effective range", "threshold", "lattice steps", logarithmic=False),
        "near_error": _error("error of the near response", "response: near"),
        "far_error": _error("error of the far response", "response: far"),
        "far_to_near_teacher": Part("response", "far over near response of the teacher", unit="ratio"),
        "outside_share": Part("response", "share of the squared response outside the radius", unit="share"),
    }
    fields: int = Field(8, ge=2, description="independent fields")
    sites: int = Field(2, ge=1, description="reference sites in every field, on alternating sublattices")
    near: Region = Region(nearest=0, farthest=2)
    far: Region = Region(nearest=3, farthest=8)
    epsilons: tuple[float, ...] = Field((0.05, 0.01), description="thresholds of the effective range")
    margin: int = Field(0, ge=0, description="steps that reference sites keep from the walls of an open box")

    def check(self, teacher: Teacher, size: int) -> None:
        """Refuse lattices and graphs that are too small for the regions."""
        for region in (self.near, self.far):
            region.require(teacher.domain(size), self.sites, self.margin)

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`."""
        sample = draw_fields(teacher, self.fields, size, generator=stream(seed, "jacobian", size))
        domain = sample.context.domain
        exact, learned = teacher_score(teacher, sample), student_score(student, sigma, sample.context)
        wanted = torch.tensor(reference_sites(domain, self.sites, self.margin))
        own, kept = own_sites(sample.context, wanted.expand(self.fields, -1, -1), self.margin)
        live = torch.ones_like(sample.x[:, :1]) if sample.context.mask is None else sample.context.mask.to(sample.x)
        rows = [
            (sites, *(live[:, None] * _rows(score, sample.x, sites) for score in (exact, learned)))
            for sites in own.unbind(1)
        ]

        # One shell table a site, squared or absolute, averaged over sites: shape (fields, distances).
        def shells(values: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
            return mean_of_ragged([_shell_sums(v, domain, sites) for sites, v in values])[kept]

        squared_error = shells((sites, (b - a).square().sum((1, 2))) for sites, a, b in rows)
        squared = shells((sites, a.square().sum((1, 2))) for sites, a, _ in rows)
        absolute = {
            "teacher": shells((sites, _block_norm(a)) for sites, a, _ in rows),
            "student": shells((sites, _block_norm(b)) for sites, _, b in rows),
        }
        counts = shells((sites, live[:, 0].double()) for sites, _, _ in rows)
        yield from self._profiles(absolute, counts)
        yield from _errors(squared_error, squared, counts)
        within: dict[str, tuple[Tensor, Tensor]] = {}
        for name, region in (("near", self.near), ("far", self.far)):
            region.masks(domain, wanted)  # a region beyond the lattice is refused
            band = slice(region.nearest, region.farthest + 1)
            parts = [table[:, band].sum(1) for table in (squared_error, squared, counts)]
            yield _relative(parts, squared.sum(1), f"{name}_error")
            within[name] = parts[1], parts[2]
        (far, in_far), (near, in_near) = within["far"], within["near"]
        both = (in_far > 0) & (in_near > 0)
        yield Measurement.of("far_to_near_teacher", root_ratio(far[both], near[both]))
        if student.radius is not None:
            outside = squared[:, student.radius + 1 :].sum(1)
            yield Measurement.of("outside_share", share(outside, squared.sum(1)))

    def _profiles(self, absolute: dict[str, Tensor], counts: Tensor) -> Iterable[Measurement]:
        for name, sums in absolute.items():
            for distance in range(counts.shape[1]):
                yield _per_site(sums[:, distance], counts[:, distance], f"profile_{name}", float(distance))
            tails = torch.stack([ResponseProfile(row).tails() for row in sums])
            for radius in range(tails.shape[1]):
                yield Measurement.of(f"tail_{name}", mean(tails[:, radius]), float(radius))
            for epsilon in self.epsilons:
                yield Measurement.of(f"range_{name}", effective_range(sums, epsilon), epsilon)


def _rows(score: ScoreFunction, x: Tensor, sites: Tensor) -> Float[Tensor, "batch channels channels *size"]:
    rows = torch.stack([jacobian_rows(score, x, sites, channel) for channel in range(x.shape[1])], 1).double()
    return require_finite(rows, f"jacobian at {tuple(x.shape[2:])}")


def _shell_sums(values: Tensor, domain: Domain, sites: Tensor) -> Float[Tensor, "batch distances"]:
    """Sums over the shells around a site of its own for every field; zero where a field has no shell so far out."""
    sums = [shell_sums(row[None], domain, tuple(site)) for row, site in zip(values, sites.tolist(), strict=True)]
    return torch.cat(padded(sums))


def _per_site(sums: Tensor, counts: Tensor, part: str, coordinate: float) -> Measurement:
    """Mean response of a site on a shell, over the fields that have live sites there."""
    there = counts > 0
    if (counts == counts[0]).all() and there.all():
        return Measurement.of(part, mean(sums / counts[0]), coordinate)
    return Measurement.of(part, share(sums[there], counts[there]), coordinate)


def _block_norm(rows: Tensor) -> Tensor:
    return rows.square().sum((1, 2)).sqrt()


def _errors(error: Tensor, reference: Tensor, counts: Tensor) -> Iterable[Measurement]:
    total = reference.sum(1)
    for distance in range(error.shape[1]):
        parts = [table[:, distance] for table in (error, reference, counts)]
        yield _relative(parts, total, "profile_error", float(distance))


def _relative(parts: Sequence[Tensor], total: Tensor, part: str, coordinate: float = float("nan")) -> Measurement:
    """Relative error over fields with live sites there; undefined where the reference is rounding beside the total.

    Args:
        parts: squared error, squared reference and number of live sites of every field, each of shape ``(B,)``.
        total: the whole squared reference of every field.
        part, coordinate: what the number is.
    """
    error, reference, counts = parts
    there = counts > 0
    negligible = reference.mean() <= NEGLIGIBLE**2 * total.mean()
    reference = torch.zeros_like(reference) if negligible else reference
    return Measurement.of(part, root_ratio(error[there], reference[there]), coordinate)
