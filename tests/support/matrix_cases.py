"""Random reverse processes of Gaussian fields on graphs and with several channels, and their learned scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from gaussian_cases import Draw
from torch import Tensor

from sizetransfer.numerics.gaussian import GaussianField
from sizetransfer.theorem1 import FieldLaw, LinearScore, Theorem1, gaussian_theorem1, log_levels

DOMAINS = ("graph", "graph with channels", "torus with channels", "crystal")
SCORES = ("scaled", "biased", "truncated", "noisy matrix", "one-sided")
SAMPLERS = ("continuous", "euler", "heun", "ancestral")


def random_graph(draw: Draw, count: int) -> Tensor:
    """Laplacian of a random tree with a few more edges, of random strengths."""
    adjacency = torch.zeros(count, count)
    for site in range(1, count):
        adjacency[site, draw.choice(range(site))] = draw.log_uniform(0.3, 3)
    for _ in range(count // 2):
        one, other = draw.choice(range(count)), draw.choice(range(count))
        if one != other:
            adjacency[one, other] = adjacency[other, one] = draw.log_uniform(0.3, 3)
    adjacency = torch.maximum(adjacency, adjacency.T)
    return torch.diag(adjacency.sum(1)) - adjacency


def ring_laplacian(size: int) -> Tensor:
    """Laplacian of a ring."""
    identity = torch.eye(size)
    return 2 * identity - identity.roll(1, 0) - identity.roll(-1, 0)


def random_coupling(draw: Draw, channels: int) -> Tensor:
    """A positive definite matrix between channels."""
    factor = draw.field((channels, channels))
    return factor @ factor.T + 0.3 * torch.eye(channels)


def blocks_of(covariance: Tensor, size: int, channels: int) -> Tensor:
    """Fourier blocks ``C C *S`` of a dense translation-invariant covariance on a ring."""
    matrix = covariance.reshape(channels, size, channels, size)
    return torch.fft.fft(matrix[:, :, :, 0].movedim(1, 2), dim=-1)


def to_blocks(matrices: Tensor, size: int, channels: int) -> Tensor:
    """Operators ``(V, S, C, C)`` of dense translation-invariant matrices ``(V, n, n)`` on a ring."""
    columns = matrices.reshape(-1, channels, size, channels, size)[..., 0]
    return torch.fft.fft(columns, dim=2).movedim(2, 1)


def draw_covariance(draw: Draw, domain: str) -> tuple[Tensor, int, int, Tensor]:
    """Dense covariance, sites, channels, and the mask of neighbours (the sites themselves included)."""
    mass, scale = draw.log_uniform(0.15, 3), draw.log_uniform(0.05, 3)
    channels = 1 if domain == "graph" else draw.choice((2, 3))
    size = draw.choice((4, 6, 9))
    laplacian = random_graph(draw, size) if domain.startswith("graph") else ring_laplacian(size)
    coupling = random_coupling(draw, channels)
    if domain == "crystal":
        # Bonds of another matrix than the pinning: no rotation of channels serves every wave vector.
        precision = torch.kron(mass**2 * random_coupling(draw, channels), torch.eye(size))
        precision = precision + torch.kron(coupling, laplacian)
    else:
        precision = torch.kron(coupling, laplacian + mass**2 * torch.eye(size))
    near = torch.kron(torch.ones(channels, channels), (laplacian != 0).double()) > 0
    return scale * torch.linalg.inv(precision), size, channels, near


def draw_matrix_score(
    draw: Draw, kind: str, covariance: Tensor, near: Tensor
) -> tuple[Callable[[Tensor], Tensor], float]:
    """Dense A_v of the named kind, and the size of a bias."""
    identity, size = torch.eye(len(covariance)), draw.log_uniform(1e-3, 0.4) * draw.choice((-1, 1))
    wrong = draw.field(covariance.shape) / len(covariance) ** 0.5

    def right(v: Tensor) -> Tensor:
        return torch.linalg.inv(covariance + v[:, None, None] * identity)

    if kind == "biased":
        return right, size
    if kind == "scaled":
        return lambda v: right(v) * (1 + size * torch.cos(v.log()))[:, None, None], 0.0
    if kind == "truncated":
        return lambda v: right(v) * near, 0.0
    if kind == "noisy matrix":
        return lambda v: right(v) + size * wrong / (1 + v)[:, None, None], 0.0
    return lambda v: right(v) @ (identity + size * wrong.triu()), 0.0


@dataclass(frozen=True)
class MatrixCase:
    """Everything that Theorem 1 needs, dense; and the same in Fourier blocks where the field is on a ring."""

    domain: str
    kind: str
    covariance: Tensor
    size: int
    channels: int
    matrices: Callable[[Tensor], Tensor]
    bias: float
    patch: list
    vm: float
    vx: float
    churn: float
    sampler: str
    steps: int
    warm: bool

    def dense(self) -> Theorem1:
        """The result with dense matrices."""
        field = GaussianField.between_sites(self.covariance, (self.size,), self.channels)
        return self._result(field, self.matrices)

    def in_blocks(self) -> Theorem1:
        """The result in Fourier blocks."""
        field = GaussianField.with_channels(blocks_of(self.covariance, self.size, self.channels))
        return self._result(field, lambda v: to_blocks(self.matrices(v), self.size, self.channels))

    def _result(self, field: GaussianField, operators: Callable[[Tensor], Tensor]) -> Theorem1:
        one = field.basis.identity(field.covariance)
        start = FieldLaw(self.vx * one + (field.covariance if self.warm else 0), None, field.basis)
        shape = (-1, *(1,) * len(field.basis.field_shape))
        bias = (lambda v: self.bias / (1 + v).reshape(shape)) if self.bias else None
        return gaussian_theorem1(
            field,
            LinearScore(operators, bias),
            patch=self.patch,
            vm=self.vm,
            vx=self.vx,
            churn=self.churn,
            start=start,
            sampler=self.sampler,
            levels=log_levels(self.vm, self.vx, self.steps),
        )


def draw_matrix_case(index: int) -> MatrixCase:
    """The case with this number; domains, scores and samplers take turns, everything else is drawn."""
    draw = Draw("matrices", index)
    domain, sampler = DOMAINS[index % 4], SAMPLERS[index // 4 % 4]
    covariance, size, channels, near = draw_covariance(draw, domain)
    # Only matrices that commute with translations are scores on a torus.
    kind = SCORES[index // 16 % (5 if domain.startswith("graph") else 3)]
    matrices, bias = draw_matrix_score(draw, kind, covariance, near)
    vm, vx, steps = draw.log_uniform(1e-3, 0.5), draw.log_uniform(2, 300), draw.choice((1, 3, 10, 30))
    churn, site = draw.choice((0.0, 0.5, 1.0, 1.0, 1.5)), (draw.choice(range(size)),)
    if sampler == "ancestral":
        churn = min(churn, (1 - (vm / vx) ** (1 / steps)) ** -0.5)
    one = [(site, draw.choice(range(channels)))]
    patch = draw.choice((one, one, [site], [site, ((site[0] + 1) % size,)]))
    return MatrixCase(
        domain, kind, covariance, size, channels, matrices, bias, patch, vm, vx, churn, sampler, steps,
        warm=bool(draw.choice((0, 1))),
    )  # fmt: skip
