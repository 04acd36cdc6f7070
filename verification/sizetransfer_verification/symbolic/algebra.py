r"""Exact decisions about rational expressions in independent symbols.

sympy never sees an exponential here. What is transcendental, such as a Gaussian weight
:math:`E_k(x) = \exp(-|x-a_k|^2/2v)`, is a symbol with a rule for its derivatives,
:math:`\partial_iE_k=E_k(a_{ki}-x_i)/v`. An equation is then a rational expression; its numerator, multiplied out, is a
polynomial with rational coefficients, and that is zero or it is not. Zero proves the equation whatever the symbols
stand for, as long as no denominator vanishes. Not zero refutes it where the symbols are algebraically independent;
where they are not names of free variables, the module says why they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import sympy as sp
from sympy.polys.rings import PolyElement, ring

from sizetransfer.contracts.errors import ConformanceError

Rule = Callable[[sp.Symbol, int], sp.Expr]

_SHOWN_TERMS = 3


def numerator(expression: Any, label: str = "") -> Any:
    """The numerator of a rational expression, multiplied out: zero if and only if the expression is.

    Returns:
        A polynomial of sympy's sparse representation, whose form is canonical, or a rational number.

    Raises:
        ConformanceError: the expression has floating-point numbers, functions, or powers that are no integers, or
            divides by zero.
    """
    expression = sp.sympify(expression)
    symbols = sorted(expression.free_symbols, key=str)
    polynomials = ring(symbols, sp.QQ)[0] if symbols else sp.QQ
    generators = dict(zip(symbols, polynomials.gens, strict=True)) if symbols else {}
    try:
        return _Quotients(polynomials, generators).of(expression).top
    except (ArithmeticError, TypeError, ValueError) as error:
        raise _undecidable(expression, label) from error


@dataclass(frozen=True)
class _Quotient:
    """A polynomial over a product of powers of polynomials that are not zero."""

    top: Any
    bottom: Mapping[Any, int]


class _Quotients:
    """Reads expressions as quotients of polynomials; nothing is cancelled, and no greatest common divisor computed.

    Denominators stay factored, so that terms over the same powers of the same polynomial are added as they are. For the
    expressions here that is many times faster than sympy's ``together``.
    """

    def __init__(self, polynomials: Any, generators: Mapping[sp.Symbol, Any]) -> None:
        self._ring = polynomials
        self._generators = generators
        self._known: dict[sp.Expr, _Quotient] = {}

    def of(self, expression: sp.Expr) -> _Quotient:
        """The quotient that an expression is."""
        if expression not in self._known:
            self._known[expression] = self._read(expression)
        return self._known[expression]

    def _read(self, expression: sp.Expr) -> _Quotient:
        if expression.is_Rational:
            return _Quotient(self._ring.one * sp.QQ.from_sympy(expression), {})
        if expression.is_Symbol and expression.is_commutative:
            return _Quotient(self._generators[expression], {})
        if expression.is_Add:
            return self._sum([self.of(part) for part in expression.args])
        if expression.is_Mul:
            return self._product([self.of(part) for part in expression.args])
        if expression.is_Pow and expression.exp.is_Integer:
            return self._power(self.of(expression.base), int(expression.exp))
        raise TypeError(expression)

    def _sum(self, parts: Sequence[_Quotient]) -> _Quotient:
        common: dict[Any, int] = {}
        for part in parts:
            for base, power in part.bottom.items():
                common[base] = max(power, common.get(base, 0))
        tops: dict[frozenset[tuple[Any, int]], Any] = {}
        for part in parts:  # those over the same denominator are added before they are multiplied
            key = frozenset(part.bottom.items())
            tops[key] = tops.get(key, self._ring.zero) + part.top
        total = self._ring.zero
        for key, top in tops.items():
            own = dict(key)
            missing = (base ** (power - own.get(base, 0)) for base, power in common.items())
            total += prod(missing, start=top)
        return _Quotient(total, common)

    def _product(self, parts: Sequence[_Quotient]) -> _Quotient:
        bottom = Counter[Any]()
        for part in parts:
            bottom.update(part.bottom)
        return _Quotient(prod((part.top for part in parts), start=self._ring.one), bottom)

    def _power(self, base: _Quotient, power: int) -> _Quotient:
        if power >= 0:
            return _Quotient(base.top**power, {key: value * power for key, value in base.bottom.items()})
        if not base.top:
            raise ZeroDivisionError
        factors = (key ** (-power * value) for key, value in base.bottom.items())
        return _Quotient(prod(factors, start=self._ring.one), {base.top: -power})


def _undecidable(expression: sp.Expr, label: str) -> ConformanceError:
    return ConformanceError(
        "An equation of a symbolic proof cannot be decided exactly.",
        where=f"the equation {label!r}",
        expected="a rational expression in symbols, with rational coefficients and a denominator that is not zero",
        got=str(expression)[:200],
        fix="give every function a symbol with a rule for its derivatives, and write numbers as sympy rationals",
    )


def shortened(polynomial: Any) -> str:
    """A polynomial for people: its first terms, and how many there are."""
    if not isinstance(polynomial, PolyElement):
        return str(polynomial)
    shown = polynomial.ring.from_terms(polynomial.terms()[:_SHOWN_TERMS]).as_expr()
    return str(shown) if len(polynomial) <= _SHOWN_TERMS else f"{shown} + ... ({len(polynomial)} terms)"


def derivative(expression: sp.Expr, coordinate: int, rule: Rule) -> sp.Expr:
    """The derivative of an expression along a coordinate, by the chain rule.

    Args:
        expression: any expression in symbols.
        coordinate: index of the coordinate.
        rule: the derivative of a symbol along a coordinate; 1 for the coordinate itself.
    """
    symbols = sorted(expression.free_symbols, key=str)
    return sp.Add(*(sp.diff(expression, symbol) * rule(symbol, coordinate) for symbol in symbols))


def delta(i: int, j: int) -> int:
    """Kronecker's delta."""
    return int(i == j)


def determinant(matrix: sp.Matrix) -> sp.Expr:
    """The determinant by expansion along rows, which never divides."""
    return matrix.det(method="laplace")


def adjugate(matrix: sp.Matrix) -> sp.Matrix:
    """The adjugate: the determinant times the inverse, a polynomial in the entries."""
    return matrix.adjugate(method="laplace")


def symmetric(name: str, dimension: int) -> sp.Matrix:
    """A symmetric matrix of independent symbols."""
    return sp.Matrix(dimension, dimension, lambda i, j: sp.Symbol(f"{name}_{min(i, j)}{max(i, j)}"))


def vector(name: str, dimension: int) -> sp.Matrix:
    """A column of independent symbols."""
    return sp.Matrix([sp.Symbol(f"{name}_{i}") for i in range(dimension)])
