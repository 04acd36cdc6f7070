"""What a prediction is asked for: sizes, noise levels, radii, thresholds of its tables and of its verdict."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from pydantic import Field, field_validator, model_validator

from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import HasReach, Teacher
from sizetransfer.contracts.specs import Spec
from sizetransfer.verdict import VerdictSpec

DEFAULT_SIZES = {1: (32, 64, 128), 2: (16, 32, 64), 3: (8, 12, 16)}
GRAPH_SIZES = (32, 64, 128)
RADII = (1, 2, 4, 8)


class PredictionRule(Spec):
    """Thresholds of the tables, beside the verdict's; :func:`describe_prediction_rule` says what they decide.

    Attributes:
        tolerance: relative error from locality alone that still counts as none.
        growth: relative rise of a radius, between the two largest sizes, that counts as growing.
        significance: estimates count when they differ by more than this many combined standard errors.
    """

    tolerance: float = Field(0.1, gt=0, lt=1, allow_inf_nan=False)
    growth: float = Field(0.1, ge=0, allow_inf_nan=False)
    significance: float = Field(3.0, gt=0, allow_inf_nan=False)


class PredictionSpec(Spec):
    """The question: sizes, noise levels, thresholds, the patch and the noise range of Theorem 1.

    Attributes:
        sizes: sites along each axis (of a graph: sites), the smallest is that of training; ``None``: three that suit
            the dimension, without those that the ball of the student holds.
        sigmas: noise levels, in units of the field.
        epsilon: threshold of the response range R_eps (paper eq. (5)).
        shares: shares of the squared response whose covering radius is wanted.
        patch: sites of Theorem 1's patch; ``None``: one site, the origin.
        sigma_min: noise level at which reverse diffusion stops; also the lowest of training.
        sigma_max: noise level at which it starts; ``None``: ten times the scale of the data.
        fields: independent fields, where responses are averaged over fields.
        sites: reference sites in each field, likewise.
        reference_fields: independent fields of linear references and second moments, where the law is not Gaussian.
        radii: radii whose verdicts are wanted where no student is given; ``None``: 1, 2, 4 and 8, up to half of the
            training lattice.
        sample: sample posteriors, where the teacher does not know them (slow); otherwise its clean response stands in.
            A teacher that is known by its energy is always sampled.
        seed: names the random streams.
        rule: thresholds of the tables.
        verdict: thresholds of the verdict.
    """

    sizes: tuple[int, ...] | None = Field(None, min_length=1)
    sigmas: tuple[float, ...] = Field((0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0), min_length=1)
    epsilon: float = Field(0.01, gt=0, lt=1)
    shares: tuple[float, ...] = (0.95, 0.99)
    patch: tuple[tuple[int, ...], ...] | None = Field(None, min_length=1)
    sigma_min: float = Field(0.05, gt=0, allow_inf_nan=False)
    sigma_max: float | None = Field(None, gt=0, allow_inf_nan=False)
    fields: int = Field(8, ge=2)
    sites: int = Field(2, ge=1)
    reference_fields: int = Field(256, ge=16)
    radii: tuple[int, ...] | None = Field(None, min_length=1)
    sample: bool = False
    seed: int = Field(0, ge=0)
    rule: PredictionRule = PredictionRule()
    verdict: VerdictSpec = VerdictSpec()

    @field_validator("sizes", "sigmas", "shares", "radii")
    @classmethod
    def _ascending(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if values is None else tuple(sorted(set(values)))

    @model_validator(mode="after")
    def _positive(self) -> PredictionSpec:
        levels = [sigma for sigma in self.sigmas if not 0 < sigma < float("inf")]
        if levels:
            raise _wrong(
                "A noise level is not positive.",
                "sigmas",
                "numbers above zero, in units of the field",
                repr(levels),
                "give levels such as 0.1; the clean score is taken by itself where it is all that a teacher knows",
            )
        outside = [share for share in self.shares if not 0 < share < 1]
        if outside:
            raise _wrong(
                "A share is not between 0 and 1.", "shares", "for example 0.95", repr(outside), "write 0.99 for 99 %"
            )
        if self.radii and self.radii[0] < 0:
            raise _wrong(
                "A radius is negative.",
                "radii",
                "whole numbers from zero on",
                repr(self.radii[0]),
                "give radii such as 4",
            )
        if self.sizes and self.sizes[0] < 2:
            raise _wrong("A size is too small.", "sizes", "at least 2", repr(self.sizes[0]), "raise it")
        if self.sigma_max is not None and self.sigma_max <= self.sigma_min:
            raise _wrong(
                "The noise range of the reverse process is empty.",
                "sigma_min, sigma_max",
                "sigma_min < sigma_max",
                f"{self.sigma_min} and {self.sigma_max}",
                "raise sigma_max or lower sigma_min",
            )
        return self

    def sizes_for(self, teacher: Teacher, radius: int | None = None) -> tuple[int, ...]:
        """The sizes asked for, or three that suit the teacher and a student of this radius.

        Raises:
            SpecError: the teacher is not defined at one of them.
        """
        if self.sizes is None:
            # A graph's size counts its sites, as a chain's does.
            axes = teacher.field.dim if teacher.field.geometry == "lattice" else 1
            usual = teacher.usual_sizes
            defaults: tuple[int, ...] = DEFAULT_SIZES.get(axes, (6, 8)) if usual is None else usual
            fitting = tuple(size for size in defaults if self._refusal(teacher, size) is None)
            beyond = tuple(size for size in fitting if radius is None or not holds(teacher, size, radius))
            return (beyond if len(beyond) > 1 else fitting) or (defaults[0],)
        for size in self.sizes:
            refusal = self._refusal(teacher, size)
            if refusal is not None:
                raise _wrong(
                    refusal.what,
                    f"sizes, {size}",
                    refusal.expected or "",
                    refusal.got or str(size),
                    self._instead(teacher, size) or refusal.fix or "change the size",
                )
        return self.sizes

    def _refusal(self, teacher: Teacher, size: int) -> OracleError | None:
        """Why the teacher has no answer at this size: it is not defined there, or its noisy fields are beyond reach."""
        try:
            teacher.check_size(size)
            if isinstance(teacher, HasReach):
                teacher.check_reach(size, self.fields)
        except OracleError as error:
            return error
        return None

    def _instead(self, teacher: Teacher, size: int) -> str | None:
        """What to ask instead of a size beyond a teacher's reach; none where that is not what is wrong."""
        if not isinstance(teacher, HasReach):
            return None
        below = range(2, size)
        within = bisect_left(below, True, key=lambda one: self._refusal(teacher, one) is not None)
        if within == 0:
            return None
        return f"ask for sizes up to {below[within - 1]}, or raise the teacher's limits (memory, seconds)"

    def radii_for(self, teacher: Teacher) -> tuple[int, ...]:
        """The radii whose verdicts are wanted where no student is given."""
        if self.radii is not None:
            return self.radii
        size = self.sizes_for(teacher)[0]
        return tuple(radius for radius in RADII if not holds(teacher, size, radius)) or RADII[:1]

    def patch_on(self, shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The patch, on a domain of that shape.

        Raises:
            SpecError: a site leaves the domain, or comes twice.
        """
        patch = self.patch or ((0,) * len(shape),)
        fits = all(
            len(site) == len(shape) and all(0 <= a < n for a, n in zip(site, shape, strict=True)) for site in patch
        )
        if not fits or len(set(patch)) < len(patch):
            raise _wrong(
                "The patch is not a set of sites of the lattice.",
                "patch",
                f"sites of {len(shape)} coordinates below {tuple(shape)}, each once",
                repr([list(site) for site in patch]),
                "move the patch to the origin, or leave out the smallest size",
            )
        return patch

    def noise_range(self, teacher: Teacher) -> tuple[float, float]:
        """Last and first noise level of the reverse process.

        Raises:
            SpecError: the range is empty.
        """
        sigma_max = self.sigma_max or 10 * teacher.field.sigma_data
        if sigma_max <= self.sigma_min:
            raise _wrong(
                "The noise range of the reverse process is empty.",
                "sigma_min, sigma_max",
                "sigma_min < sigma_max",
                f"{self.sigma_min} and {sigma_max}, ten times the scale of the data",
                "give sigma_max, or lower sigma_min",
            )
        return self.sigma_min, sigma_max


def holds(teacher: Teacher, size: int, radius: int) -> bool:
    """Whether the ball of a radius around some site holds the whole domain."""
    domain = teacher.domain(size)
    return bool(domain.ball(domain.centre(), radius).all())


def _wrong(what: str, where: str, expected: str, got: str, fix: str) -> SpecError:
    return SpecError(what, where=where, expected=expected, got=got, fix=fix)


def describe_prediction_rule(rule: PredictionRule) -> str:
    """What the thresholds of the tables decide, in words; one paragraph a line."""
    percent = f"{100 * rule.tolerance:g} %"
    significance = f"more than {rule.significance:g} combined standard errors"
    return f"""\
Tables: the error from locality is the relative error of the best score of the student's radius: exact for Gaussian \
fields, a mean over noisy fields where the teacher knows its posterior given a ball, otherwise the square root of the \
share of the squared response outside the radius, its size for white inputs. A radius is sufficient if that error is \
at most {percent}; it grows if it rises between the two largest sizes by more than one step, more than \
{100 * rule.growth:g} % and {significance}, and so does the range R_eps."""
