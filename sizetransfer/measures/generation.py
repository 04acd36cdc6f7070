r"""Local statistics of generated fields against exact ones: the check at the level of samples (paper appendix C.2).

The student drives a reverse process (:mod:`sizetransfer.scores.sampling`) from white noise down to
:math:`\sigma_{\min}`; the exact fields are the teacher's with noise of that level added, because
:math:`p_{\sigma_{\min}}`, not the clean law, is what an exact reverse process ends in. With E over fields, sites and
pairs, and :math:`\mu = E x`, the observables are

- ``mean`` :math:`\mu`, ``variance`` :math:`E(x-\mu)^2`, ``fourth_moment`` :math:`E(x-\mu)^4`;
- ``nearest`` and ``next_nearest``: :math:`E\,x_i x_j - \mu^2` over neighbours along the axes, and along the diagonals
  (in one dimension: over second neighbours);

and the marginals of one site and of the mean over a patch of two sites an axis, compared by their Wasserstein distance
:math:`W_1 = \int |F - G|`. These are fixed local statistics, as in the theorem, not distances of whole laws.

The mean absolute error is over the five observables in units of the exact field: its standard deviation for the mean,
its variance for the variance and the two covariances (so that these are correlations), its fourth moment for the fourth
moment. Without units the fourth power of the field would decide alone. Absolute differences do not average out: with
few fields even exact ones differ, so a second set of exact fields is held against the first as a control. With
``start: exact`` the reverse process begins at the very fields that it is compared with, plus noise; what the noise does
not reach cancels, so that differences smaller than the control's are resolved.

Where the process starts decides what it can show. ``start: needed`` takes the noise that the size needs
(:mod:`sizetransfer.measures.exact_law`), from which white noise is as good as exact fields, or, where training stopped
below it, *other* exact fields with the largest noise of the training; both levels are recorded. No student is asked for
a score outside its training's range of noise, whatever the start. White noise at the data's own deviation is no law
that any score was trained on: from ``sigma_max: 1.0`` even the exact score of a free field (two dimensions, mass 0.5)
ends with 0.88 of its variance, 0.71 of its nearest-neighbour covariance and 0.42 of S(0).

A second control is the sampler's: the exact smoothed score, or the best known one, in the student's place, from the
same start with the same noise. What it misses is not the student's. The consequence that a verdict weighs are the
ratios of second moments, :mod:`sizetransfer.measures.marginal_ratios`, of the student and of this control.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import NonFiniteError, SpecError
from sizetransfer.contracts.oracle import Context, Sample, Teacher, draw_fields
from sizetransfer.contracts.parts import Part
from sizetransfer.contracts.randomness import Stream, batches
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import Geometry, MeasureSpec, NoiseSchedule, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures.exact_law import FIELDS, ControlScore, ExactLaw, smallest_wave, whole_torus
from sizetransfer.measures.generated_parts import OBSERVABLE_PARTS, REVERSE_PROCESS_PARTS
from sizetransfer.measures.marginal_ratios import marginals, plain, ratios
from sizetransfer.numerics.statistics import jackknifed
from sizetransfer.scores.sampling import SamplerSpec, Score, Streams, draw_noise, generate, sample
from sizetransfer.scores.tiling import tiled

OBSERVABLES = ("mean", "variance", "fourth_moment", "nearest", "next_nearest")
MARGINALS = ("site", "patch")
# Distribution functions are compared at so many points, as far as so many standard deviations on either side.
POINTS, REACH = 1024, 10.0
# Sites along each axis of the smallest lattice that is compared.
SMALLEST = 4

# Steps that take a right score to within half a percent of the variance from the noise that 64 x 64 sites need.
STEPS = 96

# Factor by which two estimates of the noise that a size needs may differ, each from FIELDS fields.
UNSURE = 1.25

Step = tuple[int, ...]
Start = Literal["needed", "matched", "noise", "exact"]
"""What the size needs; white noise of the variance of noise and data, or of noise alone; exact fields with noise."""


@dataclass(frozen=True)
class Beginning:
    """Where a reverse process starts.

    Attributes:
        sampler: with the noise levels that are gone through.
        white: from white noise; else from exact fields with noise.
        apart: these exact fields are others than those that are compared with.
        sigma_data: deviation that white noise has beside the noise's.
        needed: standard deviation of the noise that hides every wave.
    """

    sampler: SamplerSpec
    white: bool
    apart: bool
    sigma_data: float
    needed: float

    def measurements(self, n: int) -> Iterator[Measurement]:
        """The noise at the start, that which the size needs, and whether the start are exact fields."""
        yield plain("sigma_start", self.sampler.noise.sigma_max, n)
        yield plain("sigma_needed", self.needed, n)
        yield plain("start_exact", float(not self.white), n)


class ReverseProcessSpec(MeasureSpec):
    """What measures of generated fields share: the reverse process, where it starts, and what it may take."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"batch", "tile"})
    batch: int = Field(16, ge=1, description="fields at a time; bounds the memory")
    sampler: SamplerSpec = Field(
        SamplerSpec(steps=STEPS),
        description="the reverse process; of its noise, a start as needed takes the smallest only",
    )
    start: Start = Field(
        "needed",
        description="from the noise that the size needs, or exact fields with the training's where that is less; "
        "or at the sampler's: white noise of the variance of noise and data, or of noise alone, or exact noisy fields",
    )
    tile: int | None = Field(None, ge=1, description="evaluate the student on tiles of so many sites along each axis")
    trained: NoiseSchedule | None = Field(
        None,
        description="noise range of the student's training, which a run fills in: the student is not asked beyond it",
    )

    def for_training(self, training: TrainingSpec) -> ReverseProcessSpec:
        """The measure with the noise range of the training."""
        return self.model_copy(update={"trained": training.noise})

    def check_student(self, student: Student) -> None:
        """Refuse to tile a global student."""
        self.score(student)

    def score(self, student: Student) -> Score:
        """The student's score, on tiles where they are asked for.

        Raises:
            SpecError: a global student is to be tiled.
        """
        return student if self.tile is None else tiled(student, self.tile)

    def beginning(self, needed: float, sigma_data: float) -> Beginning:
        """Where the process starts at a size that needs so much noise.

        Raises:
            SpecError: the training's range of noise and the sampler's have no level in common.
        """
        asked = self.sampler.noise
        lowest = asked.sigma_min if self.trained is None else max(asked.sigma_min, self.trained.sigma_min)
        highest = max(needed, 2 * lowest) if self.start == "needed" else asked.sigma_max
        reached = highest if self.trained is None else min(highest, self.trained.sigma_max)
        noise = NoiseSchedule(sigma_min=lowest, sigma_max=reached)
        apart = self.start == "needed" and reached < highest
        return Beginning(
            sampler=self.sampler.model_copy(update={"noise": noise}),
            white=self.start != "exact" and not apart,
            apart=apart,
            sigma_data=0.0 if self.start == "noise" else sigma_data,
            needed=needed,
        )


class GenerationSpec(ReverseProcessSpec):
    """Local observables of fields generated by the student's reverse process, against exact fields (paper table 5).

    Parts: ``observable_mae``, the mean absolute difference over the five observables (and channels), each in units of
    the exact field; in units of the field, ``<o>_generated``, ``<o>_exact`` and ``<o>_difference`` for o in
    ``mean, variance, fourth_moment, nearest, next_nearest``; ``site_distance`` and ``patch_distance``, Wasserstein
    distances of the marginals of a site and of the mean over a patch; and ``observable_mae_control``,
    ``site_distance_control``, ``patch_distance_control``, the same numbers for a second set of exact fields.

    ``sigma_start`` and ``sigma_needed``, the noise that the process starts from and that which the size needs, and
    ``start_exact``: one if it starts from exact fields with noise, zero if from white noise. Ratios of generated to
    exact fields (:mod:`sizetransfer.measures.marginal_ratios`): ``site_variance_ratio``, ``nearest_covariance_ratio``
    and, on tori without dead sites, ``zero_mode_ratio`` and ``smallest_wave_ratio``. With ``control_`` before their
    names: these ratios, ``observable_mae``, ``<o>_generated`` and the distances of fields that the best known score
    generates from the same start with the same noise; ``control_exact`` is one if it is the exact smoothed score, zero
    if it is the best linear filter, because the exact one is not known or beyond the teacher's limits of time. Errors
    are jackknife errors over fields. The last noise level is the sampler's own, or the training's smallest where that
    is larger.
    """

    kind: Literal["generation"] = "generation"
    requires: ClassVar[tuple[type, ...]] = ()
    geometries: ClassVar[tuple[Geometry, ...]] = ("lattice",)
    figures: ClassVar[tuple[str, ...]] = ("generation",)
    parts: ClassVar[Mapping[str, Part]] = {**OBSERVABLE_PARTS, **REVERSE_PROCESS_PARTS}
    fields: int = Field(64, ge=2, description="generated fields, and as many exact ones")

    def draws(self) -> int:
        """Exact fields, and as many others to compare them with; and fields that the law is estimated from."""
        return max(2 * self.fields, FIELDS)

    def draws_of(self, teacher: Teacher, size: int) -> int:
        """Half as many again where the process may start from others.

        The noise that a size needs is estimated here from other fields than in the measurement.
        """
        law = ExactLaw(teacher.split("held out"), size, seed=0, batch=self.batch)
        with torch.no_grad():
            apart = self.beginning(UNSURE * law.needed, teacher.field.sigma_data).apart
        return max(3 * self.fields, FIELDS) if apart else self.draws()

    def check(self, teacher: Teacher, size: int) -> None:
        """Refuse lattices on which the patches and neighbours do not fit."""
        domain = teacher.domain(size)
        if isinstance(domain, Lattice):
            _require_room(domain)

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`.

        Raises:
            SpecError: the teacher's fields do not live on a lattice, or on one too small for second neighbours, or a
                global student is to be tiled.
            NonFiniteError: the reverse process leaves the finite numbers; it names the step.
        """
        scores = self.fields * self.sampler.steps * (2 if self.sampler.method == "heun" else 1)
        law = ExactLaw(teacher, size, seed=seed, batch=self.batch, scores=scores)
        begin = self.beginning(law.needed, student.field.sigma_data)
        yield from begin.measurements(self.fields)
        if law.control is not None:
            yield plain("control_exact", float(law.control.exact), self.fields)
        moments: list[Tensor] = []
        distributions: list[Tensor] = []
        points = None
        for batch, generator in batches(self.fields, self.batch, seed, "generation", size):
            sets = self._sets(teacher, self.score(student), law.control, begin, batch, size, generator)
            points = _points(sets[1], teacher.field.sigma_data) if points is None else points
            moments.append(torch.stack([averages(fields) for fields in sets], 1))
            distributions.append(torch.stack([_distributions(fields, points) for fields in sets], 1))
        all_moments = torch.cat(moments)
        yield from _compare(all_moments)
        if points is not None:
            yield from _distances(torch.cat(distributions), float(points[1] - points[0]))
        yield from moment_ratios(all_moments, law, begin.sampler.noise.sigma_min**2)

    def _sets(
        self,
        teacher: Teacher,
        score: Score,
        control: ControlScore | None,
        begin: Beginning,
        batch: int,
        size: int,
        generator: Stream,
    ) -> tuple[Sample, ...]:
        """Generated fields, exact ones, other exact ones, and, with a control, those that its score generates.

        Generated fields share the contexts of the exact ones, unless they start from exact fields of their own. The
        jackknife leaves out a generated field together with the exact one whose context, or start, it shares.
        """
        exact, other = (draw_fields(teacher, batch, size, generator=generator) for _ in range(2))
        _require_room(_lattice(exact.context))
        clean = exact
        if begin.apart:
            clean = draw_fields(teacher, batch, size, generator=generator.branch("start"))
        own = generator.branch("generated")
        x = generated_fields(within(score, self.trained), clean, begin, own.fields(0, batch))
        last = begin.sampler.noise.sigma_min
        sets = (clean.with_x(x), noisy(exact, last, generator), noisy(other, last, generator))
        if control is None:
            return sets
        return *sets, clean.with_x(controlled(control, clean, begin, own.fields(0, batch)))


def controlled(control: ControlScore, clean: Sample, begin: Beginning, streams: Stream) -> Tensor:
    """Fields that the control's score generates; not numbers where it leaves them, as an estimated filter may."""
    try:
        return generated_fields(control.score, clean, begin, streams)
    except NonFiniteError:
        return torch.full_like(clean.x, torch.nan)


def within(score: Score, trained: NoiseSchedule | None) -> Score:
    """The score, at noise levels that rounding does not put outside the training's range."""
    if trained is None:
        return score
    lowest, highest = trained.sigma_min, trained.sigma_max
    return lambda x, sigma, context: score(x, sigma.clamp(lowest, highest), context)


def generated_fields(
    score: Score, clean: Sample, begin: Beginning, streams: Streams
) -> Float[Tensor, "batch channels *size"]:
    """Fields generated in the contexts of exact ones, from white noise or from these very fields with noise.

    Raises:
        NonFiniteError: the reverse process leaves the finite numbers; it names the step.
    """
    spec, context = begin.sampler, clean.context
    if begin.white:
        return generate(score, spec, clean.x, context=context, generator=streams, sigma_data=begin.sigma_data)
    first = noisy(clean, spec.noise.sigma_max, streams).x
    return sample(score, first, spec.sigmas(), context=context, method=spec.method, churn=spec.churn, generator=streams)


def noisy(clean: Sample, sigma: float, streams: Streams) -> Sample:
    """The sample with noise of level ``sigma`` on its live sites."""
    x = clean.x + sigma * draw_noise(clean.x, streams)
    mask = clean.context.mask
    return clean.with_x(x if mask is None else torch.where(mask, x, clean.x))


def live_sites(fields: Sample) -> Float[Tensor, "batch 1 *size"]:
    """Ones at live sites and zeros elsewhere, in double precision."""
    mask, x = fields.context.mask, fields.x
    return x.new_ones(len(x), 1, *x.shape[2:], dtype=torch.float64) if mask is None else mask.double()


def _lattice(context: Context) -> Lattice:
    if not isinstance(context.domain, Lattice):
        raise SpecError(
            "Generated fields are compared on lattices only.",
            where="measure of kind generation",
            expected="a teacher on a lattice",
            got=type(context.domain).__name__,
            fix="choose another measure for this teacher",
        )
    return context.domain


def _require_room(lattice: Lattice) -> None:
    """On fewer sites a second neighbour is a first one from the other side, the site itself, or not there."""
    if min(lattice.size) < SMALLEST:
        raise SpecError(
            "The patches and neighbours of the observables do not fit on the lattice.",
            where="measure of kind generation, size",
            expected=f"at least {SMALLEST} sites along each axis",
            got=str(lattice.size),
            fix="leave this size out, or restrict the measure to larger ones (evaluation.restrict)",
        )


def _steps(dim: int) -> tuple[list[Step], list[Step]]:
    """Steps to nearest and to next-nearest neighbours, one of each two opposite ones."""
    nearest = [tuple(int(axis == a) for axis in range(dim)) for a in range(dim)]
    if dim == 1:
        return nearest, [(2,)]
    planes = itertools.product(itertools.combinations(range(dim), 2), (1, -1))
    return nearest, [tuple((axis == a) + sign * (axis == b) for axis in range(dim)) for (a, b), sign in planes]


def _pairs(x: Tensor, step: Step, *, closed: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """``x`` at both ends of every pair of sites that are ``step`` apart; there are fewer across open axes."""
    here = there = x
    for axis, (shift, around) in enumerate(zip(step, closed, strict=True), start=2):
        if around:
            there = there.roll(-shift, axis)
        else:
            length = max(x.shape[axis] - abs(shift), 0)
            here, there = here.narrow(axis, max(0, -shift), length), there.narrow(axis, max(0, shift), length)
    return here, there


def averages(fields: Sample) -> Float[Tensor, "batch channels parts"]:
    """Averages of the first four powers over live sites, and of the two products over pairs of them.

    On a torus without dead sites there is a seventh: of the squares of the smallest waves.
    """
    lattice, x, live = _lattice(fields.context), fields.x.double(), live_sites(fields)

    def over_sites(values: Tensor) -> Tensor:
        return (values * live).flatten(2).sum(2) / live.flatten(2).sum(2)

    def over_pairs(steps: Sequence[Step]) -> Tensor:
        products, counts = (
            torch.stack([torch.mul(*_pairs(v, step, closed=lattice.closed_axes)).flatten(2).sum(2) for step in steps])
            for v in (x * live, live)
        )
        return products.sum(0) / counts.sum(0)

    powers = [over_sites(x**power) for power in (1, 2, 3, 4)]
    waves = [smallest_wave(x)] if whole_torus(fields) else []
    return torch.stack([*powers, *map(over_pairs, _steps(lattice.dim)), *waves], dim=2)


def _observables(moments: Float[Tensor, "*rows channels parts"]) -> Float[Tensor, "*rows channels 5"]:
    """The five observables from averages over fields, sites and pairs."""
    m, m2, m3, m4, nearest, next_nearest = moments[..., :6].unbind(-1)
    fourth = m4 - 4 * m * m3 + 6 * m**2 * m2 - 3 * m**4
    return torch.stack([m, m2 - m**2, fourth, nearest - m**2, next_nearest - m**2], dim=-1)


def _points(fields: Sample, scale: float) -> Float[Tensor, "points"]:
    """Where distribution functions are compared: evenly spaced around the mean of the first field's live sites.

    One field, so that they do not depend on how many are drawn together; its spread counts where it is larger than
    ``scale``, that of all fields.
    """
    x = fields.x[0].double()[live_sites(fields)[0].expand_as(fields.x[0]) > 0]
    centre, spread = (float(x.mean()), float(x.std(correction=0))) if len(x) else (0.0, 0.0)
    reach = REACH * max(spread, scale)
    return torch.linspace(centre - reach, centre + reach, POINTS, dtype=torch.float64, device=x.device)


def _distributions(fields: Sample, points: Float[Tensor, "points"]) -> Float[Tensor, "batch channels 2 points"]:
    """Empirical distribution functions of a live site and of the mean over a live patch, field by field."""
    lattice, x, live = _lattice(fields.context), fields.x.double(), live_sites(fields)
    site = _distribution(x, live, points)
    for step in _steps(lattice.dim)[0]:
        (x, x_next), (live, live_next) = (_pairs(v, step, closed=lattice.closed_axes) for v in (x, live))
        x, live = (x + x_next) / 2, live * live_next
    return torch.stack([site, _distribution(x, live, points)], dim=2)


def _distribution(x: Tensor, live: Tensor, points: Tensor) -> Float[Tensor, "batch channels points"]:
    values = torch.where(live > 0, x, torch.inf).flatten(2).sort(dim=2).values
    below = torch.searchsorted(values, points.expand(*values.shape[:2], -1).contiguous(), right=True)
    return below.double() / live.flatten(2).sum(2, keepdim=True)


def _leaving_out(values: Float[Tensor, "n *rest"]) -> Float[Tensor, "rows *rest"]:
    """Means over fields: of all, then of all but each one. A field without a live pair or patch does not count."""
    known = ~values.isnan()
    values = values.nan_to_num()
    sums, counts = (torch.cat([one.sum(0, keepdim=True), one.sum(0) - one]) for one in (values, known.to(values)))
    return sums / counts


def _compare(moments: Float[Tensor, "n sets channels parts"]) -> Iterable[Measurement]:
    """Measurements of the observables; the second axis holds generated, exact, other exact, and control's fields."""
    generated, exact, other, *control = _observables(_leaving_out(moments)).unbind(1)
    _, variance, fourth, _, _ = exact.unbind(-1)
    units = torch.stack([variance.sqrt(), variance, fourth, variance, variance], dim=-1)
    named = {"observable_mae": generated, "observable_mae_control": other}
    named |= dict(zip(["control_observable_mae"], control, strict=False))
    for part, fields in named.items():
        yield Measurement.of(part, jackknifed(((fields - exact) / units).abs().mean((1, 2))))
    for index, name in enumerate(OBSERVABLES):
        columns = {"generated": generated, "exact": exact, "difference": generated - exact}
        for part, values in columns.items():
            yield Measurement.of(f"{name}_{part}", jackknifed(values[..., index].mean(1)))
        for values in control:
            yield Measurement.of(f"control_{name}_generated", jackknifed(values[..., index].mean(1)))


def _distances(distributions: Float[Tensor, "n sets channels 2 points"], spacing: float) -> Iterable[Measurement]:
    """Wasserstein distances of the marginals, averaged over channels."""
    generated, exact, other, *control = _leaving_out(distributions).unbind(1)
    named = {"{}_distance": generated, "{}_distance_control": other}
    named |= dict(zip(["control_{}_distance"], control, strict=False))
    for part, fields in named.items():
        distances = (fields - exact).abs().sum(-1).mean(1) * spacing
        for index, name in enumerate(MARGINALS):
            yield Measurement.of(part.format(name), jackknifed(distances[:, index]))


def moment_ratios(moments: Float[Tensor, "n sets channels parts"], law: ExactLaw, v: float) -> Iterable[Measurement]:
    """Ratios of the second moments of the student's and of the control's fields to those of exact ones.

    Args:
        moments: averages of generated, exact, other exact, and, with a control, its fields.
        law: of these fields.
        v: variance of the noise that is left.
    """
    averages = moments[..., [0, 1, 4, *range(6, moments.shape[-1])]]
    other = averages[:, 2, :, 0].nanmean(0)
    mean = torch.zeros_like(other) if law.centred else other
    generated, exact, _, *control = (marginals(one, mean, law.sites, v) for one in averages.unbind(1))
    known = law.marginals
    yield from ratios(generated, exact, known)
    for one in control:
        yield from ratios(one, exact, known, "control_")
