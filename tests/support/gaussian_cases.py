"""Random reverse processes of Gaussian fields, with learned scores that are wrong in every way we know."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.randomness import stream
from sizetransfer.theorem1 import FieldLaw, LinearScore, Theorem1, gaussian_theorem1, log_levels

STUDENTS = ("scaled", "biased", "patterned", "best-local", "truncated", "rough", "leaning")
SAMPLERS = ("continuous", "euler", "heun", "ancestral")


def free_field(size: int, dim: int, mass: float, scale: float = 1.0) -> Tensor:
    """Eigenvalues ``scale / (m^2 + e_k)`` of the covariance of a free field."""
    axis = 2 - 2 * torch.cos(2 * math.pi * torch.arange(size) / size)
    total = sum(axis.reshape(*(1,) * a, -1, *(1,) * (dim - a - 1)) for a in range(dim))
    return scale / (mass**2 + total)


def ball(spectrum: Tensor, radius: int) -> Tensor:
    """Sites within Chebyshev distance ``radius`` of the origin."""
    return Lattice(tuple(spectrum.shape)).ball((0,) * spectrum.ndim, radius)


def best_local(spectrum: Tensor, radius: int) -> LinearScore:
    """The score of the ball's marginal: first row of the inverse covariance of the ball."""
    mask = ball(spectrum, radius)
    axes = tuple(range(spectrum.ndim))
    sites = mask.nonzero()
    lags = (sites[:, None] - sites[None]) % torch.tensor(spectrum.shape)
    origin = int((sites == 0).all(1).nonzero())

    def eigenvalues(v: Tensor) -> Tensor:
        covariance = torch.fft.ifftn(spectrum, dim=axes).real[tuple(lags.movedim(-1, 0))]
        noisy = covariance + v[:, None, None] * torch.eye(len(sites))
        rows = torch.linalg.inv(noisy)[:, origin]
        kernel = torch.zeros(len(v), *spectrum.shape)
        kernel[:, mask] = rows
        return torch.fft.fftn(kernel, dim=[a + 1 for a in axes]).real

    return LinearScore(eigenvalues)


def exact(spectrum: Tensor) -> LinearScore:
    return LinearScore(lambda v: 1 / (spectrum + spread(v, spectrum)))


def truncated(spectrum: Tensor, radius: int) -> LinearScore:
    """The exact kernel, cut off outside the ball."""
    mask, axes = ball(spectrum, radius), [a + 1 for a in range(spectrum.ndim)]

    def eigenvalues(v: Tensor) -> Tensor:
        kernel = torch.fft.ifftn(1 / (spectrum + spread(v, spectrum)), dim=axes).real
        return torch.fft.fftn(kernel * mask, dim=axes).real

    return LinearScore(eigenvalues)


def spread(v: Tensor, spectrum: Tensor) -> Tensor:
    return v.reshape(-1, *(1,) * spectrum.ndim)


@dataclass(frozen=True)
class Case:
    """Everything that Theorem 1 needs for a Gaussian field."""

    student: str
    spectrum: Tensor
    score: LinearScore
    patch: list[tuple[int, ...]]
    vm: float
    vx: float
    churn: float
    sampler: str
    steps: int
    start: FieldLaw

    def result(self) -> Theorem1:
        return gaussian_theorem1(
            self.spectrum,
            self.score,
            patch=self.patch,
            vm=self.vm,
            vx=self.vx,
            churn=self.churn,
            sampler=self.sampler,
            start=self.start,
            levels=log_levels(self.vm, self.vx, self.steps),
        )


class Draw:
    """Random choices from one stream."""

    def __init__(self, *labels: int | str) -> None:
        self.generator = stream("gaussian cases", *labels)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def log_uniform(self, low: float, high: float) -> float:
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def choice(self, options):
        return options[int(torch.randint(len(options), (), generator=self.generator))]

    def field(self, shape) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator)


def draw_score(draw: Draw, student: str, spectrum: Tensor) -> LinearScore:
    """A learned score of the named kind."""
    right, size = exact(spectrum), draw.log_uniform(1e-3, 0.5) * draw.choice((-1, 1))
    turn, where = draw.uniform(0, 6), draw.field(spectrum.shape)
    if student == "scaled":
        return LinearScore(lambda v: right.spectrum(v) * (1 + size * torch.cos(turn + spread(v, spectrum).log())))
    if student == "biased":
        return LinearScore(right.spectrum, lambda v: size / (1 + spread(v, spectrum)).expand(-1, *spectrum.shape))
    if student == "patterned":
        return LinearScore(right.spectrum, lambda v: size * where / (1 + spread(v, spectrum)))
    if student == "best-local":
        return best_local(spectrum, draw.choice((0, 1, 2)))
    if student == "truncated":
        return truncated(spectrum, draw.choice((1, 2, 3)))
    if student == "rough":
        even = torch.fft.fftn(where).abs() / spectrum.numel() ** 0.5
        return LinearScore(lambda v: right.spectrum(v) * (1 + size * even))
    # A kernel that looks to one side: complex eigenvalues.
    wave = 2 * math.pi * torch.arange(spectrum.shape[-1]) / spectrum.shape[-1]
    return LinearScore(lambda v: right.spectrum(v) * (1 + size * torch.exp(1j * wave)))


def draw_case(index: int) -> Case:
    """The case with this number; kinds of students and samplers take turns, everything else is drawn."""
    draw = Draw(index)
    (student, sampler), dim = list(itertools.product(STUDENTS, SAMPLERS))[index % 28], draw.choice((1, 1, 2))
    size = draw.choice((6, 9, 16, 32)) if dim == 1 else draw.choice((5, 8, 12))
    spectrum = free_field(size, dim, draw.log_uniform(0.1, 3), draw.log_uniform(0.05, 3))
    vm, vx = draw.log_uniform(1e-3, 0.5), draw.log_uniform(2, 1e3)
    origin = (draw.choice(range(size)),) * dim
    neighbour = (*origin[:-1], (origin[-1] + draw.choice((1, 2))) % size)
    start = FieldLaw(vx + draw.choice((0.0, 1.0)) * spectrum)
    churn, steps = draw.choice((0.0, 0.5, 1.0, 1.0, 1.5)), draw.choice((1, 3, 10, 30, 60))
    if sampler == "ancestral":
        # Steps may not add more noise than there is afterwards.
        churn = min(churn, (1 - (vm / vx) ** (1 / steps)) ** -0.5)
    return Case(
        student=student,
        spectrum=spectrum,
        score=draw_score(draw, student, spectrum),
        patch=[origin] if draw.uniform(0, 1) < 0.7 else [origin, neighbour],
        vm=vm,
        vx=vx,
        churn=churn,
        sampler=sampler,
        steps=steps,
        start=start,
    )
