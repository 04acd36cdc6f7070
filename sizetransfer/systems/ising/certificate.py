r"""Certificates for ferromagnetic Ising models: what holds for every noisy field x at once.

- Influence. The posterior is associated (Fortuin, Kasteleyn, Ginibre), and its covariances obey
  :math:`0 \le \mathrm{Cov}(s_i, s_j|x) \le G(i, j) = \langle s_is_j\rangle`, the correlation without field (Ding,
  Song, Sun 2021, arXiv:2107.09243). Hence the weights of :func:`~sizetransfer.theorem1.weights.ising_weights` and
  the budget

  .. math:: |A|\Big\{v_m\ln\frac{v_x}{v_m} + \chi_L\Big[\ln\frac{v_x}{v_m} - 1 + \frac{v_m}{v_x}\Big]\Big\} ,

  uniform in the size exactly where the susceptibility :math:`\chi_L = \sum_jG(0, j)` stays bounded: below
  :math:`\beta_c`. At :math:`\beta_c` it grows like :math:`L^{7/4}`.
- Response tail (paper eq. (5)): :math:`\sum_{d(0,j)>r}|\partial s_0/\partial x_j| \le v^{-2}\sum_{d(0,j)>r}G(0, j)`.
- Locality. With fields outside the ball turned on gradually,
  :math:`|E[s_i|x] - E[s_i|x_B]| \le v^{-1}\sum_{j\notin B}G(i, j)|x_j|`; since :math:`E x_j^2 = 1 + v`, and a score's
  mean square is at least :math:`1/(1 + v)` (Cramér and Rao), the best score of radius r has a relative error of at most

  .. math:: \frac{1 + v}{v^2}\sum_{d(0,j)>r}G(0, j) .

G is exact on tori (:func:`sizetransfer.systems.ising.zero_field`). Cylinders and open boxes lack bonds of the torus of
their shape, and correlations only fall with them (Griffiths 1967): its G serves them too. What lies beyond a radius
does not: the torus joins the two ends of an open axis, which are far apart. Sums over distances therefore take the
torus of twice the length along open axes, in which no way round is the shorter one. Dobrushin's criterion, for
:math:`4\tanh\beta < 1`, bounds G at every size at once by :math:`(1 - \tanh\beta\,\mathrm{Adj})^{-1}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.domain import Lattice, Patch
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.systems.ising import CRITICAL, Limits, TooLargeError, ZeroField, zero_field
from sizetransfer.theorem1.fields import patch_components
from sizetransfer.theorem1.weights import dobrushin_bound, ising_budget, ising_weights


@dataclass(frozen=True)
class FerromagnetCertificate:
    """Bounds for all fields on a torus, a cylinder or a box of one shape (see the module).

    Attributes:
        beta: coupling.
        correlation: G(0, j) or an upper bound on it, ``(H, W)``.
        source: ``exact`` correlations, or Dobrushin's bound on them.
        unrolled: the same by displacement where axes are open, twice as long along these, and zero where no two sites
            of the lattice are so far apart; none on a torus.
    """

    beta: float
    correlation: Float[Tensor, "height width"]
    source: Literal["exact", "dobrushin"]
    unrolled: Float[Tensor, "rows columns"] | None = None

    @property
    def susceptibility(self) -> float:
        """chi_L, or the bound on it."""
        return float(self.correlation.sum())

    @property
    def size_uniform(self) -> bool:
        """Whether the susceptibility stays bounded as the size grows."""
        return self.beta < CRITICAL

    def covariance(self, site: tuple[int, ...]) -> Float[Tensor, "height width"]:
        """Upper bound on Cov(s at ``site``, s | x) for every x."""
        return self.correlation.roll(tuple(site), (0, 1))

    def weights(self, patch: Patch, v: Float[Tensor, "levels"], vm: float) -> Float[Tensor, "levels height width"]:
        """Influence weights of a patch at variances ``v``.

        Raises:
            OracleError: the patch leaves the lattice.
        """
        sites = [tuple(component[1:]) for component in patch_components(patch, tuple(self.correlation.shape))]
        return ising_weights(torch.stack([self.covariance(site) for site in sites]), patch, v, vm)

    def influence(self, patch: Patch, vm: float) -> FerromagnetInfluence:
        """The same weights as a function of fields, as :func:`~sizetransfer.theorem1_bound` takes them."""
        return FerromagnetInfluence(self, patch, vm)

    def budget(self, vm: float, vx: float, *, sites: int = 1) -> Quantity:
        """What a drift error of one everywhere between two variances can cost a patch of so many sites.

        Raises:
            OracleError: not ``0 < vm < vx``.
        """
        return ising_budget(self.susceptibility, vm, vx, sites=sites)

    def outside(self, radius: int) -> float:
        """Sum of the correlations beyond a Chebyshev distance, or a bound on it for every site of an open lattice."""
        return float(self._by_displacement[self._distances > radius].sum())

    def response_tail(self, radius: int, sigma: float) -> Quantity:
        """Bound on the response beyond a radius, for every x, at noise ``sigma``."""
        return Quantity(self.outside(radius) / _variance(sigma) ** 2, kind="certificate")

    def locality_error(self, radius: int, sigma: float) -> Quantity:
        """Bound on the relative error of the best score of a receptive radius, at noise ``sigma``."""
        v = _variance(sigma)
        return Quantity((1 + v) / v**2 * self.outside(radius), kind="certificate")

    def sufficient_radius(self, sigma: float, tolerance: float = 0.1) -> Quantity:
        """Smallest radius whose best score is certified to have at most that relative error.

        Where no smaller one is, that is the radius that sees the whole lattice.
        """
        largest = int(self._distances[self._by_displacement != 0].max())
        found = next(r for r in range(largest + 1) if self.locality_error(r, sigma).value <= tolerance or r == largest)
        return Quantity(float(found), kind="certificate")

    @property
    def _by_displacement(self) -> Tensor:
        return self.correlation if self.unrolled is None else self.unrolled

    @property
    def _distances(self) -> Tensor:
        return Lattice(tuple(self._by_displacement.shape)).distance((0, 0))


@dataclass(frozen=True)
class FerromagnetInfluence:
    """Influence weights that hold for every field; they serve as :data:`~sizetransfer.theorem1.InfluenceWeights`.

    Attributes:
        certificate: of the lattice.
        patch: the sites A.
        vm: variance at which the process stops.
    """

    certificate: FerromagnetCertificate
    patch: Patch
    vm: float

    def __call__(self, x: Tensor, v: Tensor, context: Context) -> Tensor:
        """Weights ``B 1 H W``."""
        return self.certificate.weights(self.patch, v.double().cpu(), self.vm)[:, None].to(x)


@runtime_checkable
class HasSpinCoupling(Protocol):
    """Is an Ising model of nearest neighbours, seen through noise: everything here follows from its coupling."""

    @property
    def coupling(self) -> float:
        """Coupling of each bond."""
        ...

    def zero_field(self, size: int) -> ZeroField:
        """Its correlations without field."""
        ...


def _variance(sigma: float) -> float:
    if not 0 < sigma < float("inf"):
        raise OracleError(
            "The noise level is not positive.",
            where="sigma",
            expected="a finite number above zero",
            got=repr(sigma),
            fix="without noise the spins are known, and no score is asked for",
        )
    return float(sigma) ** 2


def ferromagnet_certificate(
    beta: float,
    shape: tuple[int, int],
    *,
    closed: tuple[bool, bool] = (True, True),
    method: Literal["auto", "exact", "dobrushin"] = "auto",
    limits: Limits | None = None,
    cache: str | Path | None = None,
) -> FerromagnetCertificate:
    """Certificate of a ferromagnetic Ising model.

    Args:
        beta: coupling of each bond, zero or more.
        shape: sites along each axis.
        closed: which axes are: both of a torus, the second of a cylinder, none of a box.
        method: exact correlations, Dobrushin's bound, or ``auto``: exact ones as far as the limits allow.
        limits: of the exact table.
        cache: folder of tables (:mod:`sizetransfer.systems.ising.cache`).

    Raises:
        OracleError: a negative coupling, for which covariances are not bounded by correlations; or Dobrushin's
            criterion does not hold.
        TooLargeError: the table is beyond the limits.
    """
    if not beta >= 0:
        raise OracleError(
            "The certificate is one of ferromagnets.",
            where="ferromagnet_certificate(beta, ...)",
            expected="beta >= 0: posterior covariances of an antiferromagnet are not bounded by its correlations",
            got=repr(beta),
            fix="use PosteriorInfluence, whose weights come from the posterior at each x, as an estimate",
        )
    if method != "dobrushin":
        try:
            tables = [zero_field(beta, one, limits=limits, cache=cache).correlation for one in _tori(shape, closed)]
            return _certificate(beta, tables, shape, "exact")
        except TooLargeError:
            if method == "exact":
                raise
    return _certificate(
        beta, [dobrushin_bound(beta, one).correlation for one in _tori(shape, closed)], shape, "dobrushin"
    )


def _tori(shape: tuple[int, int], closed: tuple[bool, bool]) -> list[tuple[int, int]]:
    """The torus of a shape and, where axes are open, the one of twice the length along these."""
    height, width = (length if around else 2 * length for length, around in zip(shape, closed, strict=True))
    return [shape] if all(closed) else [shape, (height, width)]


def _certificate(
    beta: float, tables: list[Tensor], shape: tuple[int, int], source: Literal["exact", "dobrushin"]
) -> FerromagnetCertificate:
    correlation, unrolled = tables[0], tables[1].clone() if len(tables) > 1 else None
    if unrolled is not None:
        for axis, length in enumerate(shape):
            if unrolled.shape[axis] > length:
                unrolled.select(axis, length).zero_()
    return FerromagnetCertificate(beta, correlation, source, unrolled)
