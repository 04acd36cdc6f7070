r"""Finite-difference responses near and far from a reference site, teacher against student.

.. math:: E_\Omega = \sqrt{\frac{E\,|\Delta_u s_{\theta,i} - \Delta_u s_i|^2}{E\,|\Delta_u s_i|^2}}

(paper eq. (17)), where u perturbs a near or a far region :math:`\Omega` of site i. With random signs the two
expectations are squared Frobenius norms of Jacobian rows over the region; with a uniform shift signed entries are
summed first. A far region wholly outside the student's radius gives exactly one, by construction; where the teacher
does not respond at all the ratio is undefined (NaN) and the sizes of the responses tell the story.

Dead sites are neither perturbed nor probed. A field that has no live site to be probed at, or none in one of its
regions, is left out, and n tells how many are left. In an open box, so is one probed so far from the walls that no site
is as far away as a region.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Context, HasScore, Teacher, draw_fields
from sizetransfer.contracts.parts import Part
from sizetransfer.contracts.randomness import stream, uniform
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.statistics import root_ratio
from sizetransfer.scores.response import (
    Region,
    ScoreFunction,
    at_sites,
    own_sites,
    reference_sites,
    require_finite,
    student_score,
    teacher_score,
)

# Teacher responses below this share of the near response are rounding, not signal, in single precision.
NEGLIGIBLE = 1e-4


def _error(label: str, serves: str = "") -> Part:
    return Part("response", label, unit="relative", lower_is_better=True, serves=serves)


class ResponseSpec(MeasureSpec):
    """Relative error of near and far finite-difference responses (paper eq. (17)).

    Parts: ``near_error, far_error`` (random signs), ``near_shift_error, far_shift_error`` (uniform shift), the root
    mean square responses ``near_teacher, far_teacher, near_student, far_student`` and ``far_to_near_teacher``. Every
    field is probed around a site of its own; errors are over fields.
    """

    kind: Literal["response"] = "response"
    requires: ClassVar[tuple[type, ...]] = (HasScore,)
    figures: ClassVar[tuple[str, ...]] = ("size-sweep", "radius-sweep")
    parts: ClassVar[Mapping[str, Part]] = {
        "near_error": _error("error of the near response", "response: near"),
        "far_error": _error("error of the far response", "response: far"),
        "near_shift_error": _error("error of the response to a uniform shift nearby"),
        "far_shift_error": _error("error of the response to a uniform shift far away"),
        "near_teacher": Part("response", "near response of the teacher", unit="1/field²"),
        "far_teacher": Part("response", "far response of the teacher", unit="1/field²"),
        "near_student": Part("response", "near response of the student", unit="1/field²"),
        "far_student": Part("response", "far response of the student", unit="1/field²"),
        "far_to_near_teacher": Part("response", "far over near response of the teacher", unit="ratio"),
    }
    fields: int = Field(8, ge=2, description="independent fields (the paper's response batch)")
    repeats: int = Field(4, ge=1, description="random directions for each field and region")
    amplitude: float = Field(0.05, gt=0, description="step of the central difference, in units of the field")
    near: Region = Region(nearest=0, farthest=2)
    far: Region = Region(nearest=3, farthest=8)
    margin: int = Field(0, ge=0, description="steps that probed sites keep from the walls of an open box")

    def check(self, teacher: Teacher, size: int) -> None:
        """Refuse lattices and graphs that are too small for the regions."""
        for region in (self.near, self.far):
            region.require(teacher.domain(size), self.fields, self.margin)

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`."""
        sample = draw_fields(teacher, self.fields, size, generator=stream(seed, "response", size))
        scores = (teacher_score(teacher, sample), student_score(student, sigma, sample.context))
        wanted = torch.tensor(reference_sites(sample.context.domain, self.fields, self.margin))[:, None]
        sites, kept = own_sites(sample.context, wanted, self.margin)
        regions = {
            name: _live(region.masks(sample.context.domain, sites[:, 0])[:, None], sample.context).to(sample.x)
            for name, region in (("near", self.near), ("far", self.far))
        }
        kept = kept & torch.stack([(masks > 0).flatten(1).any(1).cpu() for masks in regions.values()]).all(0)
        _require_fields(kept, size)
        squares: dict[str, Tensor] = {}
        for name, masks in regions.items():
            signs = [_signs(sample.x, stream(seed, "directions", name, size, index)) for index in range(self.repeats)]
            probes = [self._probe(scores, sample.x, masks * sign, sites[:, 0]) for sign in signs]
            squares[name] = torch.stack(probes).mean(0)[:, kept]
            squares[f"{name}_shift"] = self._probe(scores, sample.x, masks.expand_as(sample.x), sites[:, 0])[:, kept]
        yield from _summarise(squares)

    def _probe(
        self, scores: tuple[ScoreFunction, ScoreFunction], x: Tensor, directions: Tensor, sites: Tensor
    ) -> Tensor:
        """Squared error, squared teacher and squared student response of every field: shape ``(3, B)``."""
        step = self.amplitude * directions
        with torch.no_grad():
            teacher, student = ((at_sites(s(x + step) - s(x - step), sites) / (2 * self.amplitude)) for s in scores)
        squares = torch.stack([v.square().sum(1).double() for v in (student - teacher, teacher, student)])
        return require_finite(squares, f"response at {tuple(x.shape[2:])}")


def _require_fields(kept: Tensor, size: int) -> None:
    if not kept.any():
        raise SpecError(
            "No field has live sites in both regions around the site where it is probed.",
            where=f"response, near and far, at size {size}",
            expected="a live site in each of them",
            got=f"none, in {len(kept)} fields",
            fix="widen the regions, or take a larger lattice or more fields",
        )


def _live(masks: Tensor, context: Context) -> Tensor:
    """Regions ``B 1 *S`` without their dead sites."""
    return masks if context.mask is None else masks & context.mask.cpu()


def _signs(x: Tensor, generator: torch.Generator) -> Tensor:
    draws = uniform(x.shape, generator=generator, like=x)
    return torch.where(draws < 0.5, -1.0, 1.0).to(x)


def _summarise(squares: dict[str, Tensor]) -> Iterable[Measurement]:
    near_size = squares["near"][1].mean()
    for name, (error, teacher, student) in squares.items():
        negligible = teacher.mean() <= NEGLIGIBLE**2 * near_size
        yield Measurement.of(f"{name}_error", root_ratio(error, torch.zeros_like(teacher) if negligible else teacher))
        if not name.endswith("_shift"):
            one = torch.ones_like(teacher)
            yield Measurement.of(f"{name}_teacher", root_ratio(teacher, one))
            yield Measurement.of(f"{name}_student", root_ratio(student, one))
    yield Measurement.of("far_to_near_teacher", root_ratio(squares["far"][1], squares["near"][1]))
