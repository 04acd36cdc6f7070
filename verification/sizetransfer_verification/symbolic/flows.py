r"""The layers of a finite-depth local flow: mean mode, affine and additive couplings.

A coupling updates the sites of one class, A, from the others, B, by networks of which nothing is known: the scale
:math:`E_a=\exp s_a(x_B)` and the shift :math:`t_a(x_B)` of a site are symbols, and so are the derivatives of
:math:`s_a` and :math:`t_a` along each site that the network reads. A clipped scale
:math:`s=c\tanh(\cdot/c)` is such a function too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sympy as sp
from sympy.polys.matrices import DomainMatrix

from sizetransfer_verification.symbolic.algebra import derivative, determinant
from sizetransfer_verification.symbolic.proof import Equations, Formula, Identity, NegativeControl

_SITES = (2, 3, 4, 5)
_NETWORKS = "any differentiable networks; each site's may read every site of the other class"
_LARGEST = 8


@dataclass(frozen=True)
class Coupling:
    """One coupling layer on a row of sites, of which every second is updated.

    Attributes:
        sites: number of sites.
        parity: 0 if the even sites are updated, 1 if the odd ones are.
        affine: whether there is a scale beside the shift.
        reads_own: whether the networks also read the sites that they update, which they must not.
    """

    sites: int
    parity: int = 0
    affine: bool = True
    reads_own: bool = False

    @property
    def x(self) -> tuple[sp.Symbol, ...]:
        """The field that goes in."""
        return tuple(sp.Symbol(f"x_{i}") for i in range(self.sites))

    @property
    def updated(self) -> list[int]:
        """The sites of class A."""
        return list(range(self.parity, self.sites, 2))

    def scale(self, site: int) -> sp.Expr:
        """The factor E of a site: exp of its scale, or 1."""
        return sp.Symbol(f"E{self.parity}_{site}") if self.affine else sp.Integer(1)

    def shift(self, site: int) -> sp.Symbol:
        """The shift t of a site."""
        return sp.Symbol(f"t{self.parity}_{site}")

    def outputs(self) -> tuple[sp.Expr, ...]:
        """The field that comes out."""
        return tuple(x_i * self.scale(i) + self.shift(i) if i in self.updated else x_i for i, x_i in enumerate(self.x))

    def inverse_outputs(self) -> tuple[sp.Expr, ...]:
        """What the inverse makes of a field."""
        return tuple(
            (x_i - self.shift(i)) / self.scale(i) if i in self.updated else x_i for i, x_i in enumerate(self.x)
        )

    def network_rule(self, symbol: sp.Symbol, read: Sequence[Sequence[sp.Expr]], coordinate: int) -> sp.Expr | None:
        """The derivative of a scale or a shift along a coordinate; None for other symbols.

        Args:
            symbol: the symbol to differentiate.
            read: the derivatives of the field that the networks read, one row for each site.
            coordinate: index of the coordinate.
        """
        for a in self.updated:
            factor = {self.scale(a): ("s", self.scale(a)), self.shift(a): ("t", sp.Integer(1))}.get(symbol)
            if factor is not None:
                name, outer = factor
                sites = [j for j in range(self.sites) if j not in self.updated or self.reads_own]
                inner = (sp.Symbol(f"d{name}{self.parity}_{a}{j}") * read[j][coordinate] for j in sites)
                return outer * sp.Add(*inner)
        return None

    def jacobian(self, outputs: Sequence[sp.Expr]) -> sp.Matrix:
        """The Jacobian of outputs with respect to the field that goes in and that the networks read."""
        read = sp.eye(self.sites).tolist()

        def rule(symbol: sp.Symbol, j: int) -> sp.Expr:
            inner = self.network_rule(symbol, read, j)
            return sp.Integer(symbol == self.x[j]) if inner is None else inner

        return sp.Matrix(self.sites, self.sites, lambda i, j: derivative(outputs[i], j, rule))


def _prove_determinant(*, affine: bool) -> Callable[[Formula], Equations]:
    def prover(formula: Formula) -> Equations:
        for sites in _SITES:
            claim, reads_own = formula(Coupling(sites, affine=affine))
            coupling = Coupling(sites, affine=affine, reads_own=reads_own)
            forward = coupling.jacobian(coupling.outputs())
            for a, b in itertools.permutations(coupling.updated, 2):
                yield f"{sites} sites: triangular at ({a}, {b})", forward[a, b]
            yield f"{sites} sites: forward", determinant(forward) - claim
            inverse = coupling.jacobian(coupling.inverse_outputs())
            yield f"{sites} sites: inverse", determinant(inverse) * claim - 1

    return prover


def _product(*couplings: Coupling) -> sp.Expr:
    """The product of the scales of all sites that are updated: 1 for additive couplings."""
    return sp.Mul(*(coupling.scale(a) for coupling in couplings for a in coupling.updated))


def _prove_inverse(*, affine: bool) -> Callable[[Formula], Equations]:
    """One site is enough: the sites that the networks read are the same before and after."""

    def prover(formula: Formula) -> Equations:
        x, shift = sp.symbols("x t")
        scale = sp.Symbol("E") if affine else sp.Integer(1)
        yield "inverse after forward", formula(x * scale + shift, scale, shift) - x
        yield "forward after inverse", formula(x, scale, shift) * scale + shift - x

    return prover


def _affine_inverse(x: sp.Expr, scale: sp.Expr, shift: sp.Expr) -> sp.Expr:
    return (x - shift) / scale


def _prove_depth(formula: Formula) -> Equations:
    """Even sites first, then odd sites, whose networks read what the first layer made.

    The first layer leaves the odd sites alone, and the second the even ones.
    """
    for sites in _SITES[:-1]:
        first, second = Coupling(sites, parity=0), Coupling(sites, parity=1)
        claim, reads_old = formula(first, second)
        between = first.jacobian(first.outputs())
        read = sp.eye(sites) if reads_old else between
        rows = [_second_row(second, i, between, read) if i in second.updated else between[i, :] for i in range(sites)]
        yield f"{sites} sites", determinant(sp.Matrix.vstack(*rows)) - claim


def _second_row(second: Coupling, i: int, between: sp.Matrix, read: sp.Matrix) -> sp.Matrix:
    """The gradient of x_i E + t, where E and t depend on the field through what the networks read."""
    rows = read.tolist()

    def rule(symbol: sp.Symbol, j: int) -> sp.Expr:
        inner = second.network_rule(symbol, rows, j)
        return between[i, j] if inner is None else inner

    output = second.outputs()[i]
    known = {second.x[i], second.scale(i), second.shift(i)}
    parts = [sp.Add(*(sp.diff(output, symbol) * rule(symbol, j) for symbol in known)) for j in range(second.sites)]
    return sp.Matrix([parts])


def _prove_mean_determinant(formula: Formula) -> Equations:
    """Explicit matrices; then any N by eigenvectors: the constant field, and N - 1 differences, whose mean is zero."""
    strength, any_sites = sp.symbols("kappa N", positive=True)
    for n in range(1, _LARGEST + 1):
        entries = DomainMatrix.from_Matrix(sp.eye(n) + strength * sp.ones(n, n) / n)
        yield f"N={n}", entries.domain.to_sympy(entries.det()) - formula(strength, n)
    on_constant, on_differences = (1 + strength * mean for mean in (1, 0))
    yield "any N", on_constant * sp.Integer(on_differences) ** (any_sites - 1) - formula(strength, any_sites)


def _prove_mean_inverse(formula: Formula) -> Equations:
    strength = sp.Symbol("kappa")
    for n in range(1, _LARGEST + 1):
        x = [sp.Symbol(f"x_{i}") for i in range(n)]
        mean = sp.Add(*x) / n
        stressed = [x_i + strength * mean for x_i in x]
        stressed_mean = sp.Add(*stressed) / n
        restored = [formula(x_i, mean, strength) for x_i in x]
        restored_mean = sp.Add(*restored) / n
        for i in range(n):
            yield f"N={n}: inverse after forward, site {i}", formula(stressed[i], stressed_mean, strength) - x[i]
            yield f"N={n}: forward after inverse, site {i}", restored[i] + strength * restored_mean - x[i]
    x_i, mean = sp.symbols("x m")
    yield "any N", formula(x_i + strength * mean, mean + strength * mean, strength) - x_i


def _mean_inverse(x: sp.Expr, mean: sp.Expr, strength: sp.Expr) -> sp.Expr:
    return x - strength / (1 + strength) * mean


_READS_OWN = r"\log|\det J| = \sum_{a\in A}s_a(x),\ s_a,\,t_a \text{ of the whole field}"

IDENTITIES = (
    Identity(
        name="mean-mode-determinant",
        title="The determinant of the mean mode",
        statement=r"\det\Bigl(I+\frac{\kappa}{N}\mathbf{1}\mathbf{1}^{\mathsf T}\Bigr) = 1+\kappa",
        assumptions=(
            f"explicit matrices for N = 1 to {_LARGEST}",
            "any N by the eigenvalues: 1 + κ of constant fields, 1 of the N - 1 differences of neighbouring sites",
        ),
        source="paper, §3 and appendix C (mean mode of the stress family); matrix determinant lemma",
        prover=_prove_mean_determinant,
        formula=lambda strength, sites: 1 + strength,
        negative_controls=(
            NegativeControl("divided-by-sites", r"1+\kappa/N", lambda strength, sites: 1 + strength / sites),
            NegativeControl("sum-for-mean", r"1+N\kappa", lambda strength, sites: 1 + sites * strength),
            NegativeControl("every-site", r"(1+\kappa)^N", lambda strength, sites: (1 + strength) ** sites),
        ),
    ),
    Identity(
        name="mean-mode-inverse",
        title="The inverse of the mean mode",
        statement=r"x = x'-\frac{\kappa}{1+\kappa}\,\overline{x'}\,\mathbf{1}\quad\text{for}\quad"
        r"x' = x+\kappa\,\overline{x}\,\mathbf{1}",
        assumptions=(
            f"explicit fields for N = 1 to {_LARGEST}; any N with the mean as a symbol",
            "κ is not -1",
        ),
        source="paper, §3 and appendix C (mean mode of the stress family); Sherman and Morrison 1950",
        prover=_prove_mean_inverse,
        formula=_mean_inverse,
        negative_controls=(
            NegativeControl(
                "same-strength", r"x'-\kappa\,\overline{x'}", lambda x, mean, strength: x - strength * mean
            ),
            NegativeControl(
                "wrong-sign",
                r"x'-\tfrac{\kappa}{1-\kappa}\,\overline{x'}",
                lambda x, mean, strength: _mean_inverse(x, -mean, -strength),
            ),
        ),
    ),
    Identity(
        name="affine-coupling-determinant",
        title="The Jacobian of an affine coupling is triangular, and its log-determinant a sum of scales",
        statement=r"x_A'=x_A\,e^{s_A(x_B)}+t_A(x_B),\ x_B'=x_B:\qquad\log|\det J| = \sum_{a\in A}s_a(x_B)",
        assumptions=("2 to 5 sites, every second updated", _NETWORKS),
        source="paper, equation (15); Dinh, Sohl-Dickstein, Bengio 2017",
        prover=_prove_determinant(affine=True),
        formula=lambda coupling: (_product(coupling), False),
        negative_controls=(
            NegativeControl("wrong-sign", r"-\sum_{a\in A}s_a", lambda coupling: (1 / _product(coupling), False)),
            NegativeControl(
                "one-site-missing",
                r"\sum_{a\in A,\,a\neq1}s_a",
                lambda coupling: (_product(coupling) / coupling.scale(coupling.updated[0]), False),
            ),
            NegativeControl("missing", r"0", lambda coupling: (sp.Integer(1), False)),
            NegativeControl("reads-its-own-class", _READS_OWN, lambda coupling: (_product(coupling), True)),
        ),
    ),
    Identity(
        name="affine-coupling-inverse",
        title="The inverse of an affine coupling",
        statement=r"x_A = (x_A'-t_A(x_B'))\,e^{-s_A(x_B')},\qquad x_B=x_B'",
        assumptions=("any number of sites, any networks: they read what the coupling leaves alone",),
        source="paper, equation (14); Dinh, Sohl-Dickstein, Bengio 2017",
        prover=_prove_inverse(affine=True),
        formula=_affine_inverse,
        negative_controls=(
            NegativeControl(
                "wrong-order", r"x_A'e^{-s_A}-t_A", lambda x, scale, shift: _affine_inverse(x, scale, scale * shift)
            ),
            NegativeControl(
                "wrong-sign-of-the-scale",
                r"(x_A'-t_A)\,e^{s_A}",
                lambda x, scale, shift: _affine_inverse(x, 1 / scale, shift),
            ),
            NegativeControl(
                "wrong-sign-of-the-shift",
                r"(x_A'+t_A)\,e^{-s_A}",
                lambda x, scale, shift: _affine_inverse(x, scale, -shift),
            ),
        ),
    ),
    Identity(
        name="coupling-depth",
        title="One unit of depth: both classes, one after the other",
        statement=r"\log|\det J| = \sum_{a\in A}s_a(x_B)+\sum_{b\in B}s_b(x_A')",
        assumptions=("2 to 4 sites, alternately in A and B", _NETWORKS),
        source="paper, equations (14) and (15)",
        prover=_prove_depth,
        formula=lambda first, second: (_product(first, second), False),
        negative_controls=(
            NegativeControl("first-class-only", r"\sum_{a\in A}s_a", lambda first, second: (_product(first), False)),
            NegativeControl(
                "second-inverted",
                r"\sum_{a\in A}s_a-\sum_{b\in B}s_b",
                lambda first, second: (_product(first) / _product(second), False),
            ),
            NegativeControl(
                "reads-the-old-field",
                r"\sum_{a\in A}s_a(x_B)+\sum_{b\in B}s_b(x_A)",
                lambda first, second: (_product(first, second), True),
            ),
        ),
    ),
    Identity(
        name="additive-coupling-determinant",
        title="The Jacobian of an additive coupling is triangular with log-determinant zero",
        statement=r"x_A'=x_A+t_A(x_B),\ x_B'=x_B:\qquad\log|\det J| = 0",
        assumptions=(
            "2 to 5 sites, every second updated",
            _NETWORKS,
            "weighted means and any function of them are such",
        ),
        source="paper, appendix B.1 (additive smoother); Dinh, Krueger, Bengio 2015",
        prover=_prove_determinant(affine=False),
        formula=lambda coupling: (_product(coupling), False),
        negative_controls=(
            NegativeControl(
                "shift-for-scale",
                r"\sum_{a\in A}\log t_a",
                lambda coupling: (sp.Mul(*map(coupling.shift, coupling.updated)), False),
            ),
            NegativeControl(
                "reads-its-own-class", r"0,\ t_a \text{ of the whole field}", lambda coupling: (sp.Integer(1), True)
            ),
        ),
    ),
    Identity(
        name="additive-coupling-inverse",
        title="The inverse of an additive coupling",
        statement=r"x_A = x_A'-t_A(x_B'),\qquad x_B=x_B'",
        assumptions=("any number of sites, any networks: they read what the coupling leaves alone",),
        source="paper, appendix B.1 (additive smoother); Dinh, Krueger, Bengio 2015",
        prover=_prove_inverse(affine=False),
        formula=_affine_inverse,
        negative_controls=(
            NegativeControl("wrong-sign", r"x_A'+t_A", lambda x, scale, shift: _affine_inverse(x, scale, -shift)),
            NegativeControl("missing", r"x_A'", lambda x, scale, shift: _affine_inverse(x, scale, 0)),
        ),
    ),
)
