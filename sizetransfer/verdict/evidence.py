"""What a verdict rests on: the numbers of one student of one teacher, wherever they come from.

Everything is optional but names and sizes. What is missing is never guessed: the rule says what would be needed.
Numbers that share fields carry the same name of these fields (:class:`~sizetransfer.contracts.quantity.FieldSums`), so
that their differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sizetransfer.contracts.quantity import Quantity

SLACK = 1.01
"""A site deviation that is measured may be below a noise level that it should equal, as of spins, by so much."""

Source: TypeAlias = Literal["closed form", "rollout", "second-order forecast"]
"""How generated statistics are known: exactly; by running the reverse process; or as if the law were Gaussian."""

CLEAN = 0.0
"""The noise level that stands for the clean score."""


@dataclass(frozen=True)
class ScoreError:
    """A relative error of the score at one noise level and size.

    Attributes:
        sigma: noise level; zero: the clean score.
        size: sites along each axis (of a graph: sites).
        error: the error relative to the exact score.
    """

    sigma: float
    size: int
    error: Quantity


@dataclass(frozen=True)
class Reference:
    r"""What others than the student reach at one noise level and size; each may be unknown.

    Attributes:
        sigma: noise level; zero: the clean score.
        size: sites along each axis.
        null: relative error of the best filter of radius 0.
        linear: of the best linear filter of the student's radius (of the whole lattice, for a global student).
        best: of the best reference there is: larger radii and the whole lattice.
        irreducible: of the best score of the student's radius, linear or not, where it is known. Its own best is the
            exact score, so that it is the cost of locality.
    """

    sigma: float
    size: int
    null: Quantity | None = None
    linear: Quantity | None = None
    best: Quantity | None = None
    irreducible: Quantity | None = None


@dataclass(frozen=True)
class DenoisingLosses:
    r"""Held-out denoising losses at one noise level and size, on the same fields and noise; each may be unknown.

    In units of the noise's variance :math:`v = \sigma^2`, :math:`\ell = E\|x + v s - x_0\|^2 / v` a component: 0 is
    the clean field, and doing nothing costs 1.

    Attributes:
        sigma: noise level.
        size: sites along each axis.
        student: of the student.
        null: of the best filter of radius 0.
        linear: of the best linear filter of the student's radius (of the whole lattice, for a global student).
        best: of the best linear filter of any radius; unknown where none of a larger radius was tried.
    """

    sigma: float
    size: int
    student: Quantity | None = None
    null: Quantity | None = None
    linear: Quantity | None = None
    best: Quantity | None = None


@dataclass(frozen=True)
class LargerStudent:
    """A student of larger radius, trained and measured alike, of the same seed.

    Attributes:
        name: what it is called.
        radius: its receptive radius; ``None``: global.
        errors: its errors; one that is missing at the largest size leaves the verdict undecided.
        losses: its losses, where there are no errors.
    """

    name: str
    radius: int | None
    errors: tuple[ScoreError, ...] = ()
    losses: tuple[DenoisingLosses, ...] = ()


@dataclass(frozen=True)
class Consequence:
    """What a score generates at one size, as ratios of generated to exact statistics.

    Attributes:
        size: sites along each axis.
        source: how it is known.
        site_variance, nearest: ratios of the site variance and of the covariance of nearest neighbours.
        long_range: ratios of long-range order by name, such as S(0) and S(k_min): said, not judged.
        sigma_start: noise level that the reverse process started from; ``None``: the one that is needed.
        sigma_needed: noise level from which it has to start at this size; ``None``: not known.
    """

    size: int
    source: Source
    site_variance: Quantity
    nearest: Quantity
    long_range: Mapping[str, Quantity] = field(default_factory=dict)
    sigma_start: float | None = None
    sigma_needed: float | None = None

    def local(self) -> Iterator[tuple[str, Quantity]]:
        """The local marginals by name."""
        yield "site variance", self.site_variance
        yield "nearest-neighbour covariance", self.nearest

    @property
    def starts_short(self) -> bool:
        """Whether the process started below the noise level that this size needs."""
        if self.sigma_start is None or self.sigma_needed is None:
            return False
        return self.sigma_start < (1 - 1e-9) * self.sigma_needed


@dataclass(frozen=True)
class LawChange:
    """The teacher's own law at a larger size relative to the training size.

    Attributes:
        size: the larger size.
        site_variance, nearest, zero_mode: ratios of site variance, nearest covariance and S(0), of the larger
            size to the training size.
    """

    size: int
    site_variance: Quantity
    nearest: Quantity
    zero_mode: Quantity


@dataclass(frozen=True)
class TrainingEvidence:
    """One training: a student with its weights.

    Attributes:
        seed: what it is called.
        errors: relative errors of its score, by noise level and size.
        references: what others reach at the same noise levels and sizes.
        larger: students of larger radius of the same seed.
        consequences: what it generates, by size.
        losses: held-out denoising losses, by noise level and size: they stand in for errors that nothing measures.
        fields: independent fields that its numbers rest on; none: as many as they count. Numbers may count groups.
    """

    seed: int
    errors: tuple[ScoreError, ...] = ()
    references: tuple[Reference, ...] = ()
    larger: tuple[LargerStudent, ...] = ()
    consequences: tuple[Consequence, ...] = ()
    losses: tuple[DenoisingLosses, ...] = ()
    fields: int | None = None


@dataclass(frozen=True)
class CellEvidence:
    """One student of one teacher, with all that is known.

    Attributes:
        teacher, student: what they are called.
        radius: receptive radius of the student; ``None``: global, which locality costs nothing.
        training_size: size at which it was trained, or fitted.
        sizes: sizes that were asked for; an error that is missing at one of them is missing evidence.
        trainings: one for each seed.
        seeds: seeds that were asked for; empty: those of the trainings.
        site_deviation: standard deviation of a site of the data; larger noise levels are not judged by their errors.
        best_of_radius: what the best score of this radius *at that size* generates, by size.
        law: how the teacher's own law changes from the training size.
        correlation_squared: squared correlation length of the exact fields, at the largest size that there is: an
            estimate by second moments may be negative, and its upper limit counts.
        has_bulk: whether sites remain that are far enough from every wall.
        region: which sites the numbers are of.
        of_radius: the student is a filter fitted to the radius, not a trained model: the word is of the radius.
        symbol: how sizes are called.
    """

    teacher: str
    student: str
    radius: int | None
    training_size: int
    sizes: tuple[int, ...]
    trainings: tuple[TrainingEvidence, ...]
    seeds: tuple[int, ...] = ()
    site_deviation: float | None = None
    best_of_radius: tuple[Consequence, ...] = ()
    law: tuple[LawChange, ...] = ()
    correlation_squared: Quantity | None = None
    has_bulk: bool = True
    region: Literal["whole", "bulk", "edge"] = "whole"
    of_radius: bool = False
    symbol: str = "L"

    def judged(self, sigma: float) -> bool:
        """Whether errors at this noise level are judged: up to the site deviation of the data."""
        return self.site_deviation is None or sigma <= self.site_deviation * SLACK

    @property
    def from_data(self) -> bool:
        """Whether held-out losses stand in for errors of the score, of which none were measured."""
        errors = any(training.errors for training in self.trainings)
        return not errors and any(training.losses for training in self.trainings)

    @property
    def larger_sizes(self) -> tuple[int, ...]:
        """Sizes asked for, or measured, above the training size, ascending."""
        errors = (one.size for training in self.trainings for one in training.errors)
        losses = (one.size for training in self.trainings for one in training.losses)
        return tuple(sorted({size for size in (*self.sizes, *errors, *losses) if size > self.training_size}))
