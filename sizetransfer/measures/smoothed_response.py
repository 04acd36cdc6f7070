r"""How far the *smoothed* score of a teacher responds, at every noise level: what a student is asked to match.

The response range of equation (5) belongs to a score field; the one that a diffusion model learns is the smoothed
score at noise :math:`\sigma`, of which the clean score is the limit :math:`\sigma \to 0`. Its response
:math:`\partial s_i/\partial x_j` is a posterior covariance (paper eq. (9)), estimated by
:mod:`sizetransfer.scores.posterior`; the page of that module says how sums of absolute values are taken without the
floor that noise puts under them. A radius shorter than the range at some noise level limits the student there, whatever
it is at the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import HasScore, Sample, Teacher, draw_fields
from sizetransfer.contracts.parts import Part
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.numerics.chains import Mixing, NotMixedError
from sizetransfer.numerics.shells import ResponseProfile, effective_range, mean_of_ragged, shell_sums
from sizetransfer.numerics.statistics import error_of_mean, jackknife, mean, share
from sizetransfer.scores.posterior import Posterior, PosteriorSpec, Responses, sample_posterior
from sizetransfer.scores.response import jacobian_row, reference_sites, teacher_score


class SmoothedResponseSpec(MeasureSpec):
    """Response range of the teacher's smoothed score against the noise level (paper eq. (5) and (9)).

    A measure of the teacher; of the student only the radius counts. Parts, with the noise level as coordinate where no
    other is named:

    - ``range_0.05`` (and so on, one for each epsilon): effective range; NaN where the chains have not mixed or its
      tail is lost in noise. ``clean_range_0.05``: the same of the clean score, no coordinate;
    - ``mixed``: 1 where the chains have, else 0, which tells the two reasons for a NaN apart;
    - ``total``: the whole response beyond the site itself, T_0; ``clean_total``: the clean score's;
    - ``outside_share_4`` (one for each of ``radii`` and the student's): share of the squared response outside;
    - ``profile_0.3`` (one for each sigma), by distance: mean absolute response of a site, from below;
      ``profile_rms_0.3``: its root mean square, from above;
    - ``r_hat, effective, acceptance``: the diagnostics of the chains, worst over fields and observables.

    Errors are over fields.
    """

    kind: Literal["smoothed-response"] = "smoothed-response"
    requires: ClassVar[tuple[type, ...]] = (HasScore,)
    takes_masks: ClassVar[bool] = False
    figures: ClassVar[tuple[str, ...]] = ("smoothed-range",)
    parts: ClassVar[Mapping[str, Part]] = {
        "range_*": Part("response", "effective range of the smoothed score", "noise", "lattice steps"),
        "clean_range_*": Part("response", "effective range of the clean score", unit="lattice steps"),
        "mixed": Part("control", "whether the chains have mixed", "noise"),
        "total": Part("response", "response to all other sites", "noise", "1/field²"),
        "clean_total": Part("response", "response of the clean score to all other sites", unit="1/field²"),
        "outside_share_*": Part("response", "share of the squared response outside a radius", "noise", "share"),
        "profile_rms_*": Part("response", "RMS response of a site", "distance", "1/field²", logarithmic=True),
        "profile_*": Part("response", "mean absolute response of a site", "distance", "1/field²", logarithmic=True),
        "r_hat": Part("control", "R-hat of the chains", "noise", lower_is_better=True),
        "effective": Part("control", "effective draws of the chains", "noise", "draws", lower_is_better=False),
        "acceptance": Part("control", "acceptance of the chains", "noise", "share"),
    }
    sigmas: tuple[float, ...] = Field((0.1, 0.3, 1.0, 3.0), min_length=1, description="noise levels")
    fields: int = Field(4, ge=2, description="independent noisy fields at each noise level")
    sites: int = Field(64, ge=2, description="reference sites in every field; at most all of them")
    hessians: int = Field(2, ge=1, description="draws of every two chains whose Hessian rows are averaged")
    clean_sites: int = Field(8, ge=1, description="reference sites of the clean score's range")
    epsilons: tuple[float, ...] = Field((0.05, 0.01), description="thresholds of the effective range")
    radii: tuple[int, ...] = Field((4, 8, 12), description="radii for which the share outside is recorded")
    posterior: PosteriorSpec = PosteriorSpec()

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`."""
        sample = draw_fields(teacher, self.fields, size, generator=stream(seed, "smoothed-response", size))
        radii = sorted({*self.radii, *([] if student.radius is None else [student.radius])})
        yield from self._clean(teacher, sample)
        for level in self.sigmas:
            generator = stream(seed, "smoothed-response", size, repr(level))
            levels = torch.full_like(sample.x[:, 0].flatten(1)[:, 0], level)
            noisy, _ = perturb(sample.x, levels, generator=generator)
            try:
                posterior = sample_posterior(
                    teacher, noisy, levels, sample.context, self.posterior, generator=generator
                )
            except NotMixedError as refusal:
                yield from self._refused(level, refusal)
            else:
                yield from self._responses(posterior, level, radii)

    def _clean(self, teacher: Teacher, sample: Sample) -> Iterator[Measurement]:
        score, domain = teacher_score(teacher, sample), sample.context.domain
        channels = range(sample.x.shape[1])
        tables = []
        for site in reference_sites(domain, self.clean_sites):
            rows = torch.stack([jacobian_row(score, sample.x, site, channel) for channel in channels], 1).double()
            tables.append(shell_sums(rows.square().sum((1, 2)).sqrt(), domain, site))
        shells = mean_of_ragged(tables)
        yield from self._ranges(shells, "clean_range", math.nan)
        yield Measurement.of("clean_total", mean(shells[:, 1:].sum(1)))

    def _responses(self, posterior: Posterior, level: float, radii: list[int]) -> Iterator[Measurement]:
        domain = posterior.context.domain
        responses = posterior.responses(reference_sites(domain, min(self.sites, domain.sites)), hessians=self.hessians)
        shells, squares = responses.shells(), responses.squared_shells()
        yield from self._ranges(shells, "range", level)
        yield Measurement.of("total", mean(shells[:, 1:].sum(1)), level)
        for radius in radii:
            outside = share(squares[:, radius + 1 :].sum(1), squares.sum(1))
            yield Measurement.of(f"outside_share_{radius}", outside, level)
        yield from _profile(responses, shells, squares, level)
        yield from _diagnostics(posterior.mixing, level, mixed=True)

    def _ranges(self, shells: Tensor, part: str, level: float) -> Iterator[Measurement]:
        for epsilon in self.epsilons:
            found, name = effective_range(shells, epsilon), f"{part}_{epsilon:g}"
            known = _resolved(shells, found.value, epsilon)
            yield Measurement.of(name, found, level) if known else _undefined(name, level)

    def _refused(self, level: float, refusal: NotMixedError) -> Iterator[Measurement]:
        for epsilon in self.epsilons:
            yield _undefined(f"range_{epsilon:g}", level)
        if refusal.mixing is not None:
            yield from _diagnostics(refusal.mixing, level, mixed=False)


def _undefined(part: str, level: float) -> Measurement:
    return Measurement(part, math.nan, math.nan, 0, level)


def _resolved(shells: Tensor, value: float, epsilon: float) -> bool:
    """Whether noise leaves the range where it is, by the standard errors of relative tails over fields.

    The tail beyond the range must be known to half of epsilon, and so must the one a step before, unless it exceeds
    epsilon by two standard errors.
    """
    if not bool(shells[:, 1:].any()):
        return True  # exactly nothing responds
    relative = torch.stack([ResponseProfile(row).tails() for row in shells]) / shells[:, 1:].sum(1).mean()
    tails, errors = relative.mean(0), error_of_mean(relative)
    here, before = int(value), max(int(value) - 1, 0)
    exceeds = bool(tails[before] - epsilon >= 2 * errors[before])
    return bool(errors[here] <= epsilon / 2) and (exceeds or bool(errors[before] <= epsilon / 2))


def _profile(responses: Responses, shells: Tensor, squares: Tensor, level: float) -> Iterator[Measurement]:
    for distance, count in enumerate(responses.counts().tolist()):
        yield Measurement.of(f"profile_{level:g}", mean(shells[:, distance] / count), float(distance))
        root = jackknife(_root_of_mean, squares[:, distance] / count)
        yield Measurement.of(f"profile_rms_{level:g}", root, float(distance))


def _root_of_mean(squares: Tensor) -> float:
    """Root of an unbiased mean square, which may come out below zero: then the response is lost in noise."""
    return math.sqrt(max(0.0, float(squares.mean())))


def _diagnostics(report: Mixing, level: float, *, mixed: bool) -> Iterator[Measurement]:
    parts = {"r_hat": report.r_hat, "effective": report.effective, "acceptance": report.acceptance}
    for part, value in {"mixed": float(mixed), **parts}.items():
        yield Measurement(part, value, math.nan, report.chains, level)
