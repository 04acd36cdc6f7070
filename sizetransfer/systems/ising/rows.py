r"""The states of one row of spins, and the bonds between neighbouring rows.

A row of W spins has :math:`S = 2^W` states; the first spin is the most significant bit, and a bit of one is a spin of
-1. The bonds between two rows are :math:`V = \bigotimes_{c=1}^{W}\begin{pmatrix}e^\beta & e^{-\beta}\\ e^{-\beta} &
e^\beta\end{pmatrix}`. A product with V is taken as W butterflies, a few at a time: groups of up to five bits are small
dense matrices, which a processor multiplies at full speed. All weights are scaled to a largest one of 1; the logarithms
of the scales are kept apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from sizetransfer.contracts.errors import OracleError

GROUP = 5
"""Bits of a row that are multiplied at once, at most."""

LARGEST_EXPONENT = 600.0
"""Weights of a row's surroundings span a factor ``exp(4 |beta| W)`` at most, which must stay within float64."""


@dataclass(frozen=True, eq=False)
class Rows:
    """All states of a row (see the module).

    Attributes:
        width: spins W.
        beta: coupling.
        closed: whether the last spin is a neighbour of the first.
        device: of all tensors.
    """

    width: int
    beta: float
    closed: bool
    device: torch.device

    @property
    def states(self) -> int:
        """Number of states S."""
        return 1 << self.width

    @cached_property
    def spins(self) -> Tensor:
        """Spins of every state, ``(W, S)``."""
        states = torch.arange(self.states, device=self.device)
        bits = torch.stack([states >> (self.width - 1 - c) & 1 for c in range(self.width)])
        return 1.0 - 2.0 * bits.double()

    @cached_property
    def indicators(self) -> Tensor:
        """One where a spin is up (first W rows), or down (last W), in every state: ``(2W, S)``."""
        return torch.cat([(1 + self.spins) / 2, (1 - self.spins) / 2])

    @cached_property
    def energies(self) -> Tensor:
        """``beta`` times the sum over the row's own bonds, ``(S,)``."""
        neighbours = self.spins.roll(-1, 0)
        products = self.spins * neighbours
        return self.beta * (products if self.closed else products[:-1]).sum(0)

    @property
    def log_scale(self) -> float:
        """Logarithm of the largest entry of V, which :meth:`bonds` leaves out."""
        return abs(self.beta) * self.width

    @cached_property
    def _factors(self) -> list[Tensor]:
        """Kronecker factors of V over its largest entry, the first bits first."""
        pair = torch.tensor([[self.beta, -self.beta], [-self.beta, self.beta]], dtype=torch.float64) - abs(self.beta)
        groups = math.ceil(self.width / GROUP)
        bits = [self.width // groups + (index < self.width % groups) for index in range(groups)]
        found = []
        for count in bits:
            factor = torch.ones(1, 1, dtype=torch.float64)
            for _ in range(count):
                factor = torch.kron(factor, pair.exp())
            found.append(factor.to(self.device))
        return found

    def bonds(self, x: Tensor) -> Tensor:
        """V over its largest entry, times ``x`` of shape ``(B, S, m)``, real or complex."""
        shape = x.shape
        before, after = shape[0], self.states * shape[2]
        for factor in self._factors:
            size = len(factor)
            after //= size
            x = factor.to(x.dtype) @ x.reshape(before, size, after)
            before *= size
        return x.reshape(shape)

    @cached_property
    def _by_difference(self) -> tuple[Tensor, Tensor]:
        """Number of spins in which a state differs from state zero, and the entry of V for every such number."""
        counts = ((1 - self.spins) / 2).sum(0).long()
        numbers = torch.arange(self.width + 1, device=self.device, dtype=torch.float64)
        return counts, (self.beta * (self.width - 2 * numbers) - self.log_scale).exp()

    def bonds_to(self, states: Tensor) -> Tensor:
        """Rows of V over its largest entry at ``states`` of shape ``(n,)``: ``(n, S)``."""
        counts, entries = self._by_difference
        table = entries[counts]
        return table[states[:, None] ^ torch.arange(self.states, device=self.device)]

    def weights(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the states of single rows in fields ``h``, the largest of each row being one.

        Args:
            h: fields ``(B, H, W)``, real or complex.

        Returns:
            Weights ``(B, H, S)``, and the logarithms of the scales, ``(B, H)``.
        """
        exponents = h @ self.spins.to(h.dtype) + self.energies.to(h.dtype)
        top = (exponents.real if exponents.is_complex() else exponents).amax(2)
        return (exponents - top[..., None]).exp(), top


def rows_of(width: int, beta: float, *, closed: bool, device: torch.device) -> Rows:
    """The states of rows of this width; they are kept for later calls.

    Raises:
        OracleError: the coupling is so strong that weights leave the range of float64.
    """
    if not 4 * abs(beta) * width <= LARGEST_EXPONENT:
        raise OracleError(
            "The coupling is too strong for rows of this width.",
            where="beta",
            expected=f"|beta| at most {LARGEST_EXPONENT / (4 * width):.4g} for {width} sites in a row",
            got=f"{beta!r}",
            fix="lower |beta|: such a lattice is in its ground state",
        )
    return _rows(width, beta, closed, device)


@lru_cache(maxsize=16)
def _rows(width: int, beta: float, closed: bool, device: torch.device) -> Rows:
    # Kept for later calls, so they must not be tensors of an inference mode that the first caller was in.
    with torch.inference_mode(False):
        rows = Rows(width, beta, closed, device)
        _ = rows.indicators, rows.energies, rows._factors, rows._by_difference
        return rows
