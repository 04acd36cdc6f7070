r"""Posteriors of a clean field given a noisy one, as sympy can handle them.

:math:`X = X_0 + \sigma\xi`, :math:`v=\sigma^2`, :math:`g_v` the density of the noise. What a posterior offers is the
*integral* :math:`M_\alpha(x) = \int y^\alpha\,p_0(y)\,g_v(x-y)\,dy` and its derivatives in x. All else follows, for any
prior: the density is :math:`p_v = M_0`, the score :math:`\partial_iM_0/M_0`, a posterior expectation
:math:`M_\alpha/M_0`.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import sympy as sp

from sizetransfer_verification.symbolic.algebra import derivative

SIGMA = sp.Symbol("sigma", positive=True)
VARIANCE = SIGMA**2


class Posterior(ABC):
    """The law of the clean field given a noisy one.

    Args:
        name: for the labels of equations.
        coordinates: number of scalar coordinates.
        variance: variance v of the noise.
    """

    def __init__(self, name: str, coordinates: int, *, variance: sp.Expr = VARIANCE) -> None:
        self.name = name
        self.x = tuple(sp.Symbol(f"x_{i}") for i in range(coordinates))
        self.v = variance

    @abstractmethod
    def integral(self, *indices: int) -> sp.Expr:
        """The integral of the product of the coordinates with these indices; without any, the density."""

    @abstractmethod
    def rule(self, symbol: sp.Symbol, coordinate: int) -> sp.Expr:
        """The derivative of a symbol along a coordinate of x."""

    def derivative(self, expression: sp.Expr, coordinate: int) -> sp.Expr:
        """The derivative of an expression along a coordinate of x."""
        return derivative(expression, coordinate, self.rule)

    def expectation(self, *indices: int) -> sp.Expr:
        """The posterior expectation of a product of coordinates."""
        return self.integral(*indices) / self.integral()

    def covariance(self, i: int, j: int) -> sp.Expr:
        """The posterior covariance of two coordinates."""
        return self.expectation(i, j) - self.expectation(i) * self.expectation(j)

    def score(self, i: int) -> sp.Expr:
        """The derivative of the log-density: the density differentiated, divided by the density."""
        return self.derivative(self.integral(), i) / self.integral()


class FormalMoments(Posterior):
    r"""Any prior at all: its integrals are symbols, and one rule differentiates them.

    .. math:: \partial_j M_\alpha[f] = M_\alpha[\partial_{x_j}f] + (M_{\alpha+e_j}[f] - x_jM_\alpha[f])/v
       \qquad\text{since}\qquad \partial_{x_j}g_v(x-y) = \frac{y_j-x_j}{v}\,g_v(x-y).

    The rule may be taken under the integral for every prior and every f that grows at most like a polynomial, because
    :math:`y^\alpha g_v(x-y)` is bounded. The symbols are algebraically independent: at a given x, integrals of finite
    order of all priors fill an open set, on which a polynomial vanishes only if it is zero.

    Args:
        name: for the labels of equations.
        coordinates: number of scalar coordinates; coordinates that no equation names play no part.
        variance: variance v of the noise.
        functions: for each function f(x, y) that depends on x, and each coordinate, its derivative along that
            coordinate as a combination of functions; other functions depend on y alone.
    """

    def __init__(
        self,
        name: str,
        coordinates: int,
        *,
        variance: sp.Expr = VARIANCE,
        functions: Mapping[str, Mapping[int, Mapping[str, sp.Expr]]] | None = None,
    ) -> None:
        super().__init__(name, coordinates, variance=variance)
        self._functions = functions or {}
        self._known: dict[sp.Symbol, tuple[str, tuple[int, ...]]] = {}

    def integral(self, *indices: int, of: str = "") -> sp.Expr:
        """The integral of a function times a product of coordinates."""
        ordered = tuple(sorted(indices))
        symbol = sp.Symbol(f"M{of}_{'_'.join(map(str, ordered))}")
        self._known[symbol] = (of, ordered)
        return symbol

    def expectation(self, *indices: int, of: str = "") -> sp.Expr:
        """The posterior expectation of a function times a product of coordinates."""
        return self.integral(*indices, of=of) / self.integral()

    def rule(self, symbol: sp.Symbol, coordinate: int) -> sp.Expr:
        if symbol not in self._known:
            return sp.Integer(symbol == self.x[coordinate])
        of, indices = self._known[symbol]
        parts = self._functions.get(of, {}).get(coordinate, {})
        inner = sp.Add(*(factor * self.integral(*indices, of=part) for part, factor in parts.items()))
        return inner + (self.integral(*indices, coordinate, of=of) - self.x[coordinate] * symbol) / self.v

    def derivative_in_variance(self, expression: sp.Expr) -> sp.Expr:
        r"""The derivative in v, which must be a symbol.

        By the chain rule and

        .. math:: \partial_v g_v(x-y) = \Bigl(\frac{|x-y|^2}{2v^2}-\frac{d}{2v}\Bigr)g_v(x-y).
        """
        explicit = sp.diff(expression, self.v)
        moments = [symbol for symbol in sorted(expression.free_symbols, key=str) if symbol in self._known]
        return explicit + sp.Add(*(sp.diff(expression, moment) * self._flow(moment) for moment in moments))

    def _flow(self, moment: sp.Symbol) -> sp.Expr:
        of, indices = self._known[moment]
        result = sp.Integer(0)
        for j, x_j in enumerate(self.x):
            once, twice = (self.integral(*indices, *[j] * times, of=of) for times in (1, 2))
            result += (twice - 2 * x_j * once + x_j**2 * moment) / (2 * self.v**2) - moment / (2 * self.v)
        return result


class Atoms(Posterior):
    r"""A prior on K atoms :math:`a_k` with weights :math:`w_k`, all of them symbols.

    :math:`M_\alpha = \sum_k w_k a_k^\alpha E_k` with :math:`E_k=\exp(-|x-a_k|^2/2v)` a symbol and
    :math:`\partial_iE_k = E_k(a_{ki}-x_i)/v`. For atoms in general position the :math:`E_k` are algebraically
    independent over the rational functions of x, a, v, w: monomials in them are exponentials of different polynomials.

    Args:
        atoms: number K of atoms.
        coordinates: number d of coordinates.
    """

    def __init__(self, atoms: int, coordinates: int) -> None:
        super().__init__(f"{atoms} atoms in dimension {coordinates}", coordinates)
        self._kernels = tuple(sp.Symbol(f"E_{k}") for k in range(atoms))
        self._weights = tuple(sp.Symbol(f"w_{k}") for k in range(atoms))
        self._positions = [[sp.Symbol(f"a_{k}{i}") for i in range(coordinates)] for k in range(atoms)]

    def integral(self, *indices: int) -> sp.Expr:
        terms = zip(self._weights, self._kernels, self._positions, strict=True)
        return sp.Add(*(sp.Mul(weight, kernel, *(at[i] for i in indices)) for weight, kernel, at in terms))

    def rule(self, symbol: sp.Symbol, coordinate: int) -> sp.Expr:
        if symbol in self._kernels:
            position = self._positions[self._kernels.index(symbol)]
            return symbol * (position[coordinate] - self.x[coordinate]) / self.v
        return sp.Integer(symbol == self.x[coordinate])


class IsingSpins(Posterior):
    r"""An Ising prior of symbolic temperature on a small graph.

    With :math:`T=e^{2\beta}` and :math:`Y_i=e^{2x_i/v}`, a configuration s has the weight
    :math:`\prod_{ij}T^{(1+s_is_j)/2}\prod_iY_i^{(1+s_i)/2}` times a factor of x alone, a symbol F with
    :math:`\partial_iF=-F(x_i+1)/v`: since :math:`|s|^2` is the number of sites,
    :math:`-|x-s|^2/2v = s\cdot x/v - |x|^2/2v` up to a constant. T, Y and F are algebraically independent functions of
    :math:`\beta` and x over the rational functions of x and v.

    Args:
        name: for the labels of equations.
        sites: number of sites.
        bonds: pairs of sites that are coupled.
    """

    temperature = sp.Symbol("T")
    factor = sp.Symbol("F")

    def __init__(self, name: str, sites: int, bonds: Sequence[tuple[int, int]]) -> None:
        super().__init__(name, sites)
        self.bonds = tuple(bonds)
        self.fields = tuple(sp.Symbol(f"Y_{i}") for i in range(sites))

    def weight(self, spins: Sequence[int]) -> sp.Expr:
        """Boltzmann weight of a configuration, a monomial in T and Y."""
        aligned = sum(spins[i] == spins[j] for i, j in self.bonds)
        up = (field for field, spin in zip(self.fields, spins, strict=True) if spin == 1)
        return sp.Mul(self.temperature**aligned, *up)

    def integral(self, *indices: int) -> sp.Expr:
        configurations = itertools.product((-1, 1), repeat=len(self.x))
        terms = ((sp.prod(spins[i] for i in indices), self.weight(spins)) for spins in configurations)
        return self.factor * sp.Add(*(sign * weight for sign, weight in terms))

    def rule(self, symbol: sp.Symbol, coordinate: int) -> sp.Expr:
        if symbol == self.factor:
            return -symbol * (self.x[coordinate] + 1) / self.v
        if symbol == self.fields[coordinate]:
            return 2 * symbol / self.v
        return sp.Integer(symbol == self.x[coordinate])
