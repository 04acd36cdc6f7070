r"""Ising models without field on tori of any size: log Z and all correlations from Pfaffians.

With :math:`t = \tanh\beta`, Z is :math:`2^N\cosh^{2N}\beta` times the sum of :math:`t^{|E|}` over even subgraphs E of
the torus, and that sum is (Kasteleyn 1963; McCoy and Wu 1973, ch. IV)

.. math:: \tfrac12(-\mathrm{Pf}A_{00} + \mathrm{Pf}A_{01} + \mathrm{Pf}A_{10} + \mathrm{Pf}A_{11}) ,

A being skew with four rows a site (right, left, up, down), periodic (0) or antiperiodic (1) along each axis: blocks of
four in Fourier space, with :math:`\det A(k) = (1+t^2)^2 - 2t(1-t^2)(\cos k_1 + \cos k_2)`. Every Pfaffian is positive
but that of the periodic sector, which has the sign of :math:`1 - 2t - t^2`: of :math:`\beta_c - \beta`.

A correlation :math:`\langle s_0 s_r\rangle` is :math:`t^n` times the ratio of two such sums, in the upper one t being
replaced by 1/t on the n bonds of a path from 0 to r. Each Pfaffian changes by the Pfaffian of a 2n x 2n matrix

.. math:: M = \bigoplus_{\text{bonds}} t\begin{pmatrix}0&1\\-1&0\end{pmatrix} - (1-t^2)\,B^TA^{-1}B ,

B the two ends of every bond. Paths that go down first and then right are nested, so that one elimination of M gives the
correlations with a whole row. In the periodic sector :math:`A^{-1}` diverges at :math:`\beta_c`; near it the table,
which is analytic in :math:`\beta` on a finite torus, is interpolated between couplings around it.

References:
    Kasteleyn 1963, Dimer statistics and phase transitions, Journal of Mathematical Physics 4.
    McCoy, Wu 1973, The two-dimensional Ising model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.errors import OracleError
from sizetransfer.systems.ising.cache import cached
from sizetransfer.systems.ising.infinite import CRITICAL
from sizetransfer.systems.ising.limits import Cost, Limits

SECTORS = ((0, 0), (0, 1), (1, 0), (1, 1))
WORKSPACE = 2**27
"""Bytes of the matrices that are eliminated together."""
NODES = 12
"""Couplings between which the table is interpolated near the critical one."""
NEAR = 0.1
"""Half the width of that neighbourhood, in units of one over the longest side."""


@dataclass(frozen=True)
class ZeroField:
    """An Ising model on a torus without field.

    Attributes:
        log_partition: log Z.
        correlation: <s_0 s_r> for every displacement r, ``(H, W)``.
    """

    log_partition: float
    correlation: Float[Tensor, "height width"]

    @property
    def susceptibility(self) -> float:
        """Sum of the correlations, chi_L."""
        return float(self.correlation.sum())

    def outside(self, radius: int) -> float:
        """Sum of the correlations beyond a Chebyshev distance."""
        height, width = self.correlation.shape
        rows, columns = (torch.minimum(torch.arange(n), n - torch.arange(n)) for n in (height, width))
        distance = torch.maximum(rows[:, None], columns[None])
        return float(self.correlation[distance > radius].sum())


def zero_field(
    beta: float, shape: tuple[int, int], *, limits: Limits | None = None, cache: str | Path | None = None
) -> ZeroField:
    """Exact log Z and correlations on a torus without field.

    Args:
        beta: coupling of each bond; negative only where both sides are even.
        shape: sites along each axis; a side of two sites has double bonds.
        limits: of memory and time.
        cache: folder in which tables are kept (:mod:`sizetransfer.systems.ising.cache`).

    Raises:
        TooLargeError: beyond the limits, with the estimate.
        OracleError: a coupling that is not finite, a side shorter than two, or an antiferromagnet with an odd side.
    """
    _check(beta, shape)
    zero_field_cost(shape).require(
        limits or Limits(),
        what=f"The table of correlations on a {shape[0]} x {shape[1]} torus",
        where="zero_field(beta, shape)",
        instead="take a smaller torus",
    )
    found = cached(
        {"table": "zero-field", "beta": float(beta).hex(), "height": shape[0], "width": shape[1]},
        lambda: _solve(beta, shape),
        folder=cache,
    )
    return ZeroField(float(found["log_partition"]), found["correlation"])


def zero_field_cost(shape: tuple[int, int]) -> Cost:
    """Estimate of the time, most of which goes into the interpolation near the critical coupling, and the memory."""
    height, width = shape
    operations = NODES * 4.0 * (height / 2 + 1) * (height + width) ** 3 / 3
    return Cost(2 * WORKSPACE + 8 * 4 * 16 * 20 * height * width + 4 * 8 * 4 * (height + width) ** 2, operations)


def _check(beta: float, shape: tuple[int, int]) -> None:
    problem = ""
    if not math.isfinite(beta):
        problem = "the coupling is not finite"
    elif min(shape) < 2:
        problem = "a side has less than two sites"
    elif beta < 0 and (shape[0] % 2 or shape[1] % 2):
        problem = "an antiferromagnet with an odd side has no sublattices"
    if problem:
        raise OracleError(
            "There is no table for this torus.",
            where="zero_field(beta, shape)",
            expected="a finite coupling, not negative where a side is odd, and sides of two sites or more",
            got=f"beta = {beta!r} on {shape[0]} x {shape[1]}: {problem}",
            fix="use even sides; for small tori IsingModel(beta).covariance_rows answers with h = 0",
        )


def _solve(beta: float, shape: tuple[int, int]) -> dict[str, Tensor]:
    if beta < 0:
        # Turning the spins of one sublattice turns the sign of the coupling.
        ferromagnet = _solve(-beta, shape)
        sign = 1.0 - 2.0 * (torch.arange(shape[0])[:, None] + torch.arange(shape[1])).remainder(2).double()
        return {**ferromagnet, "correlation": ferromagnet["correlation"] * sign}
    log_partition = torch.tensor(log_partition_function(beta, shape), dtype=torch.float64)
    half = NEAR / max(shape)
    if abs(beta - CRITICAL) >= half:
        return {"log_partition": log_partition, "correlation": _correlations(beta, shape)}
    # An even number of Chebyshev nodes leaves out the middle, where the periodic sector is singular.
    nodes = [CRITICAL + half * math.cos(math.pi * (k + 0.5) / NODES) for k in range(NODES)]
    tables = torch.stack([_correlations(node, shape) for node in nodes])
    weights = [math.prod((beta - other) / (node - other) for other in nodes if other != node) for node in nodes]
    correlation = torch.tensordot(torch.tensor(weights, dtype=torch.float64), tables, 1)
    return {"log_partition": log_partition, "correlation": correlation}


# --- the four sectors -----------------------------------------------------------------------------------------


def _momenta(length: int, antiperiodic: int) -> Tensor:
    return 2 * math.pi / length * (torch.arange(length, dtype=torch.float64) + 0.5 * antiperiodic)


def _blocks(t: float, shape: tuple[int, int], sector: tuple[int, int]) -> Tensor:
    """A(k), ``(H, W, 4, 4)``: rows and columns are right, left, up (towards the next row), down."""
    local = torch.tensor([[0, 1, -1, -1], [-1, 0, 1, -1], [1, -1, 0, 1], [1, 1, -1, 0]], dtype=torch.complex128)
    blocks = local.expand(*shape, 4, 4).clone()
    down, right = (torch.exp(1j * _momenta(n, kind)) for n, kind in zip(shape, sector, strict=True))
    blocks[..., 0, 1] += t * right
    blocks[..., 1, 0] -= t * right.conj()
    blocks[..., 2, 3] += t * down[:, None]
    blocks[..., 3, 2] -= t * down.conj()[:, None]
    return blocks


def _log_pfaffians(t: float, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Logarithms of |Pf A| of the four sectors, and the signs that they enter the sum with, ``(4,)`` each."""
    logs = []
    for sector in SECTORS:
        cosines = _momenta(shape[0], sector[0]).cos()[:, None] + _momenta(shape[1], sector[1]).cos()
        # (1 - 2t - t^2)^2 + 2t(1 - t^2)(2 - cosines), whose terms are not negative.
        determinants = (1 - 2 * t - t * t) ** 2 + 2 * t * (1 - t * t) * (2 - cosines)
        logs.append(0.5 * determinants.clamp_min(0).log().sum())
    periodic = -1.0 if 1 - 2 * t - t * t > 0 else 1.0
    return torch.stack(logs), torch.tensor([periodic, 1, 1, 1], dtype=torch.float64)


def log_partition_function(beta: float, shape: tuple[int, int]) -> float:
    """Log Z on a torus without field, for beta of zero or more."""
    logs, signs = _log_pfaffians(math.tanh(beta), shape)
    top = logs.max()
    total = 0.5 * (signs * (logs - top).exp()).sum()
    sites = shape[0] * shape[1]
    log_cosh = beta + math.log1p(math.exp(-2 * beta)) - math.log(2)
    return float(top + total.log()) + sites * (math.log(2) + 2 * log_cosh)


def _inverses(t: float, shape: tuple[int, int], reach: tuple[int, int]) -> Tensor:
    """A^-1 between two sites by sector and displacement from ``-reach`` to ``reach``: ``(4, ..., ..., 4, 4)``."""
    found = []
    steps = [torch.arange(-r, r + 1) for r in reach]
    for sector in SECTORS:
        inverse = torch.fft.ifft2(torch.linalg.inv(_blocks(t, shape, sector)), dim=(0, 1))
        for axis, length in enumerate(shape):
            inverse = inverse.index_select(axis, steps[axis] % length)
        phases = [
            torch.exp(1j * math.pi * kind / n * s.double()) for n, kind, s in zip(shape, sector, steps, strict=True)
        ]
        found.append((inverse * (phases[0][:, None] * phases[1])[..., None, None]).real)
    return torch.stack(found)


# --- correlations ---------------------------------------------------------------------------------------------


def _correlations(beta: float, shape: tuple[int, int]) -> Tensor:
    """The whole table, for beta of zero or more."""
    table = torch.zeros(shape, dtype=torch.float64)
    table[0, 0] = 1
    if beta == 0:
        return table
    t = math.tanh(beta)
    logs, signs = _log_pfaffians(t, shape)
    shares = signs * (logs - logs.max()).exp()
    shares = shares / shares.sum()
    half = shape[0] // 2, shape[1] // 2
    inverses = _inverses(t, shape, (half[0] + 1, half[1] + 1))
    quadrant = torch.empty(half[0] + 1, half[1] + 1, dtype=torch.float64)
    together = max(1, WORKSPACE // (8 * 4 * 4 * (half[0] + half[1]) ** 2))
    for first in range(0, half[0] + 1, together):
        downs = range(first, min(first + together, half[0] + 1))
        quadrant[downs.start : downs.stop] = _rows(t, inverses, shares, downs, half)
    quadrant[0, 0] = 1
    rows, columns = (torch.minimum(torch.arange(n), n - torch.arange(n)) for n in shape)
    return quadrant[rows[:, None], columns]


def _rows(t: float, inverses: Tensor, shares: Tensor, downs: range, half: tuple[int, int]) -> Tensor:
    """Correlations with the sites ``(a, 0..half[1])`` for every a of ``downs``."""
    found = torch.empty(len(downs), half[1] + 1, dtype=torch.float64)
    # All paths have the length of the longest; a shorter one ends with bonds that are not looked at.
    longest = downs[-1] + half[1]
    matrices = torch.stack([_path_matrix(t, inverses, down, longest) for down in downs], 1)
    pfaffians = leading_pfaffians(matrices)
    for index, down in enumerate(downs):
        sums = torch.tensordot(shares, pfaffians[:, index], 1)
        found[index] = sums[down : down + half[1] + 1]
    return found


def _path_matrix(t: float, inverses: Tensor, down: int, longest: int) -> Tensor:
    """M of the path that goes ``down`` bonds down, then right, up to ``longest`` bonds: ``(4, 2n, 2n)``."""
    right = longest - down
    reach = (inverses.shape[1] // 2, inverses.shape[2] // 2)
    right = min(right, reach[1] - 1)
    steps = torch.arange(down), torch.arange(right)
    zero = torch.zeros(1, dtype=torch.int64)
    # Ends of every bond in turn: row, column, kind.
    ends = [torch.stack([steps[0], zero.expand(down), (zero + 2).expand(down)], 1)]
    ends += [torch.stack([steps[0] + 1, zero.expand(down), (zero + 3).expand(down)], 1)]
    vertical = torch.stack(ends, 1).reshape(-1, 3)
    ends = [torch.stack([(zero + down).expand(right), steps[1], zero.expand(right)], 1)]
    ends += [torch.stack([(zero + down).expand(right), steps[1] + 1, (zero + 1).expand(right)], 1)]
    horizontal = torch.stack(ends, 1).reshape(-1, 3)
    places = torch.cat([vertical, horizontal])
    apart = places[:, None] - places[None]
    between = inverses[:, apart[..., 0] + reach[0], apart[..., 1] + reach[1], places[:, None, 2], places[None, :, 2]]
    matrix = torch.zeros(4, 2 * longest, 2 * longest, dtype=torch.float64)
    size = len(places)
    matrix[:, :size, :size] = -(1 - t * t) * between
    bonds = torch.arange(longest)
    matrix[:, 2 * bonds, 2 * bonds + 1] += t
    matrix[:, 2 * bonds + 1, 2 * bonds] -= t
    return matrix


def leading_pfaffians(matrices: Tensor) -> Tensor:
    """Pfaffians of all leading blocks of even size of skew matrices ``(..., 2n, 2n)``: ``(..., n + 1)``, from 1.

    Elimination in the given order, two rows at a time: every pivot is the ratio of a Pfaffian to the one before it.
    """
    matrix = matrices.clone()
    found = [matrix.new_ones(matrix.shape[:-2])]
    for k in range(0, matrix.shape[-1], 2):
        pivot = matrix[..., k, k + 1]
        found.append(found[-1] * pivot)
        first, second = matrix[..., k, k + 2 :], matrix[..., k + 1, k + 2 :]
        product = (second / pivot[..., None])[..., :, None] * first[..., None, :]
        matrix[..., k + 2 :, k + 2 :] += product - product.mT
    return torch.stack(found, -1)
