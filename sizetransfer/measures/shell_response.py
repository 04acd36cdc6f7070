r"""How a shell of sites moves the smoothed score: exactly, at the best of a radius, and as learned.

For the smoothed score s at noise :math:`\sigma` and a site i (paper eq. (9), (22)), the rows

.. math:: \frac{\partial s_i}{\partial x_j} = \frac{\mathrm{Cov}(X_{0i}, X_{0j}|x)}{v^2} - \frac{\delta_{ij}}v,
    \qquad v = \sigma^2,

are compared with those of the best score of the student's receptive radius, whose posterior is the one given the field
within the radius (:class:`~sizetransfer.contracts.oracle.HasLocalPosterior`), and with the student's. What separates
the first two is locality; what separates the last two is training. The number of the paper's figure 4 is the shell
response :math:`\sum_{d(i,j)=p}\partial s_i/\partial x_j` at a probe distance p inside the radius.

All is taken twice: at x = 0, where no field holds the spins and the response is that of the clean law, the largest of
all for ferromagnets; and at noisy fields drawn from the teacher, which are what a diffusion model meets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, cast

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Site
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import Context, HasLocalPosterior, HasPosterior, HasReach, Teacher, draw_fields
from sizetransfer.contracts.parts import Part, relative_error
from sizetransfer.contracts.randomness import batches, stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import MeasureSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures.correlation_length import correlation_length
from sizetransfer.measures.smoothed_score import NoiseLevel
from sizetransfer.numerics.shells import effective_range, shell_sums
from sizetransfer.numerics.statistics import jackknife, mean, root_ratio, share
from sizetransfer.scores.response import jacobian_row, require_finite, student_score

Index = tuple[slice | int, ...]
_Table = Mapping[str, Tensor]


_AT_NOISY_FIELDS: Mapping[str, Part] = {
    "shell_absolute_*": Part("response", "absolute response at the probe distance", "noise", "1/field²"),
    "shell_*": Part("response", "response at the probe distance", "noise", "1/field²"),
    "tail_*": Part("response", "response beyond a radius", "radius", "1/field²", logarithmic=True),
    "range_*": Part("response", "effective range", "noise", "lattice steps"),
    "outside_share_*": Part("response", "share of the squared response outside a radius", "noise", "share"),
    "correlation_length": Part("response", "correlation length of the posterior", "noise", "lattice steps"),
}


class ShellResponseSpec(MeasureSpec):
    r"""Responses of the exact, the best local and the learned smoothed score (paper figure 4, eq. (5) and (22)).

    ``exact`` is the teacher, ``local`` the best score of the student's radius (for teachers that know it, and students
    that have one), ``student`` the student; the noise level is the coordinate where no other is named. Parts:

    - ``shell_exact, shell_local, shell_student``: :math:`\sum_{d=p}\partial s_i/\partial x_j` at the probe distance p,
      with its sign (over several channels, the mean over components of their own responses);
    - ``shell_absolute_exact`` (and so on): the same of absolute values (Frobenius norms of the blocks);
    - ``tail_exact_0.5`` (one for each sigma, and so on), by radius R: the response beyond it, T_R;
    - ``range_exact`` (and so on): effective range, the smallest R with T_R at most ``epsilon`` of T_0;
    - ``outside_share_4`` (one for each of ``radii`` and the student's): share of the exact squared response outside;
    - ``correlation_length``: second-moment length of the posterior covariances, averaged over fields, on a torus.

    At x = 0 the same parts begin with ``zero_``: numbers that no draw went into, with n = 1 and a standard error of
    zero. Of noisy fields alone, relative to the root mean square of the exact score at the same sites:

    - ``student_error``; ``local_error_4`` (one for each of ``radii`` and the student's): what locality costs;
      ``training_error``: the distance from the best score of the student's radius. The squares of the latter two add up
      to that of the first, on average over fields.

    Errors are over independent fields; the site is the centre of the domain.
    """

    kind: Literal["shell-response"] = "shell-response"
    requires: ClassVar[tuple[type, ...]] = (HasPosterior,)
    without_effect: ClassVar[frozenset[str]] = frozenset({"batch"})
    figures: ClassVar[tuple[str, ...]] = ("ising-response",)
    parts: ClassVar[Mapping[str, Part]] = {
        **_AT_NOISY_FIELDS,
        **{
            f"zero_{name}": replace(part, label=f"{part.label}, at x = 0", known="exact")
            for name, part in _AT_NOISY_FIELDS.items()
        },
        "student_error": relative_error("error of the student at the site", "noise", region="site"),
        "local_error_*": Part("evidence", "error of the best score of a radius", "noise", "relative"),
        "training_error": Part("evidence", "what training left", "noise", "relative", lower_is_better=True),
    }
    sigmas: tuple[NoiseLevel, ...] = Field((0.5, 1.0, 2.0), min_length=1, description="noise levels")
    probe: int = Field(3, ge=1, description="Chebyshev distance of the shell")
    fields: int = Field(16, ge=2, description="independent noisy fields at each noise level")
    batch: int = Field(8, ge=1, description="fields evaluated at a time; bounds the memory")
    radii: tuple[NonNegativeInt, ...] = Field(
        (), description="further radii whose local error and outside share are recorded"
    )
    epsilon: float = Field(0.05, gt=0, lt=1, description="threshold of the effective range")

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.contracts.specs.MeasureSpec.measure`.

        Raises:
            SpecError: no site is as far away as the probe.
            OracleError: the size is beyond the teacher's oracles.
        """
        self.check(teacher, size)
        domain = teacher.domain(size)
        radii = sorted({*self.radii, *([] if student.radius is None else [student.radius])})
        for level in self.sigmas:
            pair = _Pair(teacher, student, domain.centre(), level)
            one = teacher.sample(1, size, generator=stream(seed, "shell-response", size))
            yield from self._responses(pair.rows(torch.zeros_like(one.x), one.context), domain, radii, level, "zero_")
            rows, scores = [], []
            for count, generator in batches(self.fields, self.batch, seed, "shell-response", size, repr(level)):
                sample = draw_fields(teacher, count, size, generator=generator)
                x, _ = perturb(sample.x, sample.x.new_full((count,), level), generator=generator)
                rows.append(pair.rows(x, sample.context))
                scores.append(pair.scores(x, sample.context, radii))
            yield from self._responses(_joined(rows), domain, radii, level, "")
            yield from _errors(_joined(scores), student.radius, radii, level)

    def check(self, teacher: Teacher, size: int) -> None:
        """Refuse a probe beyond every site, and sizes beyond the teacher's oracles."""
        domain = teacher.domain(size)
        farthest = int(domain.distance(domain.centre()).max())
        if self.probe > farthest:
            raise SpecError(
                "No site is as far away as the probe.",
                where=f"shell-response, probe, at size {size}",
                expected=f"at most {farthest}",
                got=str(self.probe),
                fix="choose a nearer probe or a larger size",
            )
        if isinstance(teacher, HasReach):
            teacher.check_reach(size, min(self.batch, self.fields))

    def _responses(
        self, rows: _Table, domain: Domain, radii: list[int], level: float, prefix: str
    ) -> Iterator[Measurement]:
        """All numbers that rows give; those at x = 0 are not estimates."""
        site = domain.centre()
        finished = _as_constant if prefix else _as_it_is
        for name, blocks in rows.items():
            signed = shell_sums(blocks.diagonal(dim1=1, dim2=2).mean(-1), domain, site)
            shells = shell_sums(blocks.square().sum((1, 2)).sqrt(), domain, site)
            found = [
                Measurement.of(f"shell_{name}", mean(signed[:, self.probe]), level),
                Measurement.of(f"shell_absolute_{name}", mean(shells[:, self.probe]), level),
                Measurement.of(f"range_{name}", effective_range(shells, self.epsilon), level),
            ]
            beyond = shells.flip(1).cumsum(1).flip(1)
            found += [
                Measurement.of(f"tail_{name}_{level:g}", mean(beyond[:, radius + 1]), float(radius))
                for radius in range(shells.shape[1] - 1)
            ]
            yield from (finished(one, prefix) for one in found)
        squares = shell_sums(rows["exact"].square().sum((1, 2)), domain, site)
        for radius in radii:
            outside = share(squares[:, radius + 1 :].sum(1), squares.sum(1))
            yield finished(Measurement.of(f"outside_share_{radius}", outside, level), prefix)
        covariance = _covariances(rows["exact"], site, level)
        length = Measurement.of("correlation_length", jackknife(partial(_length, domain=domain), covariance), level)
        yield finished(length, prefix)


@dataclass(frozen=True)
class _Pair:
    """What teacher and student answer at one site and one noise level."""

    teacher: Teacher
    student: Student
    site: Site
    sigma: float

    def rows(self, x: Tensor, context: Context) -> _Table:
        """Jacobian rows ``(B, C, C, *S)`` of the exact, the best local and the student's score."""
        oracle, levels = cast(HasPosterior, self.teacher), self._levels(x)
        found = {"exact": self._response(oracle.posterior_covariance(x, levels, context, self.site))}
        radius = self.student.radius
        if radius is not None and isinstance(self.teacher, HasLocalPosterior):
            if bool(context.domain.ball(self.site, radius).all()):
                found["local"] = found["exact"]
            else:
                local = self.teacher.local_posterior_covariance(x, levels, context, self.site, radius)
                found["local"] = self._response(local)
        score = student_score(self.student, self.sigma, context)
        channels = range(x.shape[1])
        learned = torch.stack([jacobian_row(score, x, self.site, channel) for channel in channels], 1)
        found["student"] = require_finite(learned.double(), "shell-response, the student's Jacobian")
        return found

    def scores(self, x: Tensor, context: Context, radii: list[int]) -> _Table:
        """Scores ``(B, C)`` at the site: exact, the student's, and the best of every radius."""
        levels = self._levels(x)
        at_site: Index = (slice(None), slice(None), *self.site)
        held = x[at_site].double()

        def score(mean: Tensor) -> Tensor:
            return (mean.double() - held) / self.sigma**2

        found = {"exact": score(cast(HasPosterior, self.teacher).posterior_mean(x, levels, context)[at_site])}
        with torch.no_grad():
            learned = student_score(self.student, self.sigma, context)(x)[at_site]
        found["student"] = require_finite(learned.double(), "shell-response, the student's score")
        if isinstance(self.teacher, HasLocalPosterior):
            for radius in radii:
                whole = bool(context.domain.ball(self.site, radius).all())
                found[f"local_{radius}"] = (
                    found["exact"]
                    if whole
                    else score(self.teacher.local_posterior_mean(x, levels, context, self.site, radius))
                )
        return found

    def _levels(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), self.sigma)

    def _response(self, covariance: Tensor) -> Tensor:
        v = self.sigma**2
        rows = covariance.double() / v**2
        at_site: Index = (slice(None), slice(None), slice(None), *self.site)
        rows[at_site] -= torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device) / v
        return rows


def _joined(tables: list[_Table]) -> _Table:
    return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}


def _errors(scores: _Table, own: int | None, radii: list[int], level: float) -> Iterator[Measurement]:
    exact = scores["exact"]
    power = exact.square().mean(1)

    def error(mine: Tensor, other: Tensor, part: str) -> Measurement:
        return Measurement.of(part, root_ratio((mine - other).square().mean(1), power), level)

    yield error(scores["student"], exact, "student_error")
    for radius in radii:
        if f"local_{radius}" in scores:
            yield error(scores[f"local_{radius}"], exact, f"local_error_{radius}")
    if f"local_{own}" in scores:
        yield error(scores["student"], scores[f"local_{own}"], "training_error")


def _as_it_is(measured: Measurement, prefix: str) -> Measurement:
    return measured


def _as_constant(measured: Measurement, prefix: str) -> Measurement:
    """A number that no draw went into."""
    return replace(measured, part=prefix + measured.part, standard_error=0.0, n=1)


def _covariances(exact: Tensor, site: Site, level: float) -> Tensor:
    """Posterior covariances of the site with all others, ``(B, *S)``, moved so that the site has indices zero."""
    v = level**2
    covariance = v**2 * exact.diagonal(dim1=1, dim2=2).mean(-1)
    at_site: Index = (slice(None), *site)
    covariance[at_site] += v
    return covariance.roll([-step for step in site], list(range(1, covariance.ndim)))


def _length(covariances: Tensor, domain: Domain) -> float:
    return correlation_length(covariances.mean(0), domain)
