r"""Nothing beyond the declared radius decides a score: a probe of a trained student on a teacher's noisy fields.

For sites i of a field and the ball :math:`B_R(i)` of the declared radius, with :math:`x'` equal to x in the ball and
far from it outside:

- the Jacobian: :math:`\partial s_i/\partial x_j = 0` exactly for all j outside the ball;
- the difference: :math:`s_i(x') = s_i(x)` up to rounding. A path that is detached from the gradient, a mean over the
  field say, shows here only;
- the rows: :math:`s(x)` of one field stays the same where another field of the batch, and its noise level, change.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Site
from sizetransfer.contracts.errors import ConformanceError, OracleError, SpecError
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import Context, Teacher
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.student import Student
from sizetransfer.runs.promises.answers import name_of
from sizetransfer.runs.promises.weights import Weights
from sizetransfer.scores.receptive.probes import AMPLITUDE, drawn_sites, irrational, named_sites
from sizetransfer.scores.response import at_sites, own_sites

SITES = 4096
"""Sites of the largest domain that is probed where a given size is wide enough."""

SECONDS = 0.05
"""Time that the student may take for its answer on the probed domain; the probe takes about twenty times as long."""

MOST_SITES = 8192
"""Sites of the largest domain that is looked for where none is."""

TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5}
"""Change of a score that is taken for rounding, relative to the largest score; one percent in other precisions."""


def hold_radius(
    teacher: Teacher, student: Student, sizes: Sequence[int], *, sigmas: Sequence[float], seed: int
) -> str | None:
    """Hold a student to its declared radius, and to treating each field of a batch by itself.

    It is probed in eval mode, at opposite corners of the domain (at the walls of an open box), next to one and in the
    middle, on both sublattices; on the largest of the sizes that is wider than the ball, has at most :data:`SITES`
    sites and takes :data:`SECONDS` at most, as far as the smallest tells, or on another lattice where none is wide
    enough. Where sites are dead, the nearest live ones are taken.

    Args:
        teacher: draws the fields.
        student: with a radius; a global one promises nothing.
        sizes: those that it is used at.
        sigmas: noise levels, one for each field; two are enough.
        seed: names the streams of fields, noise, sites and changes.

    Returns:
        Why nothing could be held, or none where all was.

    Raises:
        ConformanceError: with the farthest site that a score responds to.
    """
    if student.radius is None:
        return None
    kept = Weights(student)
    try:
        with torch.inference_mode(False), torch.no_grad():
            size = _probed_size(teacher, student.eval(), sizes, sigmas[0], seed)
            if size is None:
                return f"no domain of up to {MOST_SITES} sites is wider than the radius {student.radius}"
            probe = _probe(teacher, student, size, sigmas, seed)
            for sites in probe.sites.unbind(1):
                probe.hold_gradient(sites)
                probe.hold_difference(sites)
            probe.hold_rows()
    except SpecError as error:
        return f"{error.what} ({error.where})"
    finally:
        kept.put_back()
    return None


def _probed_size(teacher: Teacher, student: Student, sizes: Sequence[int], sigma: float, seed: int) -> int | None:
    """The largest of the sizes that is wide enough and cheap, or the first other lattice that is wide enough."""
    given = sorted(set(sizes))
    wide = [size for size in given if _fits(teacher, student, size, SITES)]
    if not wide:
        other = (size for size in _other_sizes(student, given) if _fits(teacher, student, size, MOST_SITES))
        return next(other, None)
    if len(wide) == 1:
        return wide[0]
    each = _seconds(teacher, student, wide[0], sigma, seed) / teacher.domain(wide[0]).sites
    return max([size for size in wide if each * teacher.domain(size).sites < SECONDS], default=wide[0])


def _seconds(teacher: Teacher, student: Student, size: int, sigma: float, seed: int) -> float:
    """Time of one answer about two fields, once everything is warm."""
    sample = teacher.sample(2, size, generator=stream(seed, "radius", "time"))
    spent = []
    for _ in range(2):
        started = time.perf_counter()
        answer = student(sample.x.clone(), sample.x.new_full((2,), sigma), sample.context)
        float(answer.sum())  # An accelerator has answered only when a number is here.
        spent.append(time.perf_counter() - started)
    return min(spent)


def _other_sizes(student: Student, given: Sequence[int]) -> Iterator[int]:
    """Even multiples of the student's period that are just wide enough, then doubles of the sizes that it has."""
    step = math.lcm(2, student.translation_period)
    for steps in ((student.radius or 0) + 2, 2 * (student.radius or 0) + 2):
        yield step * math.ceil(steps / step)
    for size in given:
        yield from (size * 2**power for power in range(1, MOST_SITES.bit_length()))


def _fits(teacher: Teacher, student: Student, size: int, most: int) -> bool:
    if size > most or (teacher.field.geometry == "lattice" and 2**teacher.field.dim > most):
        return False
    try:
        teacher.check_size(size)
        domain = teacher.domain(size)
    except OracleError:
        return False
    return domain.sites <= most and _width(domain) > cast(int, student.radius)


def _width(domain: Domain) -> int:
    """The farthest that a site is from one of the two sites that are probed first."""
    return max(int(domain.distance(site).max()) for site in named_sites(domain)[:2])


def _sites(domain: Domain, period: int, seed: int) -> list[Site]:
    """Those, and drawn ones where the student lays a coarser grid over the lattice, so that sites are not alike."""
    found = drawn_sites(domain, 0 if period == 1 else 6, stream(seed, "radius", "sites"))
    return list(dict.fromkeys([*named_sites(domain), *found]))


def _probe(teacher: Teacher, student: Student, size: int, sigmas: Sequence[float], seed: int) -> _Probe:
    levels = [*sigmas, *sigmas][: max(2, len(sigmas))]
    sample = teacher.sample(len(levels), size, generator=stream(seed, "radius", "fields"))
    sigma = sample.x.new_tensor(levels)
    x, _ = perturb(sample.x, sigma, generator=stream(seed, "radius", "noise"))
    context = sample.context
    if context.mask is not None:
        x = torch.where(context.mask, x, sample.x)
    wanted = torch.tensor(_sites(context.domain, student.translation_period, seed)).expand(len(x), -1, -1)
    sites, _ = own_sites(context, wanted)
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        score = student(x.clone(), sigma, context)
    far = AMPLITUDE * x.detach().std() * (1 + normal(x.shape, generator=stream(seed, "radius", "change"), like=x).abs())
    return _Probe(student, x, sigma, context, sites, score, far, f"{name_of(student)}, size {size}")


@dataclass(frozen=True)
class _Probe:
    """A student's score on some noisy fields, each at its own noise level, and what to change of them.

    Attributes:
        x, sigma, context: what it was asked, B fields.
        sites: n probed sites of every field, shape ``(B, n, axes)``.
        score: its answer, with the graph back to ``x``.
        far: change of the field outside a ball, like ``x``; of one sign, so that it changes the mean.
        where: student and size, for errors.
    """

    student: Student
    x: Float[Tensor, "batch channels *size"]
    sigma: Float[Tensor, "batch"]
    context: Context
    sites: Int[Tensor, "batch sites axes"]
    score: Float[Tensor, "batch channels *size"]
    far: Float[Tensor, "batch channels *size"]
    where: str

    @property
    def radius(self) -> int:
        return cast(int, self.student.radius)

    def distances(self, sites: Int[Tensor, "batch axes"]) -> Int[Tensor, "batch 1 *size"]:
        """Steps from the site of every field, for all its channels."""
        each = [self.context.domain.distance(tuple(site)) for site in sites.tolist()]
        return torch.stack(each)[:, None].to(self.x.device)

    def hold_gradient(self, sites: Int[Tensor, "batch axes"]) -> None:
        """The Jacobian is exactly zero outside the ball around the site of each field."""
        if not self.score.requires_grad:
            return
        weights = irrational(self.x.shape[1], self.x)  # no channel cancels another
        with torch.enable_grad():
            answer = (at_sites(self.score, sites) * weights).sum()
        (rows,) = torch.autograd.grad(answer, self.x, retain_graph=True, materialize_grads=True)
        distances = self.distances(sites).expand_as(rows)
        beyond = (rows != 0) & (distances > self.radius)
        if beyond.any():
            farthest = int(distances[beyond].max())
            size = float(rows[beyond].abs().max())
            raise self._outside(sites, f"derivatives up to {size:.3g}, the farthest at distance {farthest}")

    def hold_difference(self, sites: Int[Tensor, "batch axes"]) -> None:
        """A change of the field outside the ball does not change the score in its middle."""
        distances = self.distances(sites)
        change, allowed = self._change(sites, distances > self.radius)
        if change <= allowed:
            return
        steps = range(int(distances.max()) - 1, self.radius, -1)
        found = (step for step in steps if self._responds(sites, distances > step))
        farthest = next(found, self.radius) + 1
        got = f"a change by {change:.3g} where the field outside changes, the farthest at distance {farthest}"
        raise self._outside(sites, got)

    def _responds(self, sites: Tensor, where: Tensor) -> bool:
        change, allowed = self._change(sites, where)
        return change > allowed

    def _change(self, sites: Tensor, where: Tensor) -> tuple[float, float]:
        """Largest change of the scores at the sites by a change of the field there, and what may be rounding."""
        other = self._answer(torch.where(where, self.x.detach() + self.far, self.x.detach()), self.sigma)
        change = (at_sites(other, sites) - at_sites(self.score.detach(), sites)).abs().max()
        return float(change.nan_to_num(nan=math.inf)), self._allowed(other)

    def _allowed(self, other: Tensor) -> float:
        tolerance = TOLERANCES.get(self.x.dtype, 1e-2)
        return tolerance * float(torch.maximum(self.score.detach().abs().max(), other.abs().max()))

    def _answer(self, x: Tensor, sigma: Tensor) -> Tensor:
        answer: Tensor = self.student(x, sigma, self.context)
        return answer

    def hold_rows(self) -> None:
        """The score of a field does not change with the others of its batch."""
        for row in range(2):
            kept = torch.arange(len(self.x), device=self.x.device) == row
            x = torch.where(kept.reshape(-1, *[1] * (self.x.ndim - 1)), self.x.detach(), self.x.detach() + self.far)
            other = self._answer(x, torch.where(kept, self.sigma, 1.5 * self.sigma))
            change = float((other[row] - self.score.detach()[row]).abs().max().nan_to_num(nan=math.inf))
            if change > self._allowed(other):
                raise ConformanceError(
                    "The student's score of a field depends on the others of its batch.",
                    where=f"{self.where}, row {row}",
                    expected="each row of a batch as if it were alone, in eval mode",
                    got=f"a change by {change:.3g} where the other rows change",
                    fix="use no mean over the batch: batch normalisation in its eval mode, or a normalisation of sites",
                )

    def _outside(self, sites: Tensor, got: str) -> ConformanceError:
        places = " and ".join(str(site) for site in dict.fromkeys(map(tuple, sites.tolist())))
        return ConformanceError(
            "The student reads outside its declared radius.",
            where=f"{self.where}, site {places}",
            expected=f"nothing beyond distance {self.radius}, the declared radius",
            got=got,
            fix="declare the radius that it has (none: a global model), or look for a mean over the field, a "
            "normalisation over sites, or padding that leads around an open box",
        )
