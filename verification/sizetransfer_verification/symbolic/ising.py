r"""Ising priors of symbolic inverse temperature, noisy field and noise level, on two to four sites.

The graphs are chains and rings; every configuration is summed
(:class:`sizetransfer_verification.symbolic.posterior.IsingSpins`). :math:`\beta` enters as :math:`T=e^{2\beta}`, the
field as :math:`Y_i=e^{2x_i/v}`.
"""

from __future__ import annotations

import itertools

import sympy as sp

from sizetransfer_verification.symbolic import formulas
from sizetransfer_verification.symbolic.algebra import delta
from sizetransfer_verification.symbolic.posterior import IsingSpins
from sizetransfer_verification.symbolic.proof import Equations, Formula, Identity, NegativeControl


def _chain(sites: int) -> IsingSpins:
    return IsingSpins(f"chain of {sites}", sites, [(i, i + 1) for i in range(sites - 1)])


def _ring(sites: int) -> IsingSpins:
    return IsingSpins(f"ring of {sites}", sites, [(i, (i + 1) % sites) for i in range(sites)])


_GRAPHS = [_chain(2), _chain(3), _ring(3), _chain(4), _ring(4)]
_SIZES = "chains of 2, 3 and 4 sites, rings of 3 and 4"
_SYMBOLIC = "inverse temperature of any sign, noisy field and noise level are symbols"


def _correlation(model: IsingSpins, i: int, j: int) -> sp.Expr:
    """The correlation of two spins without field, by its own sum over configurations."""
    configurations = list(itertools.product((-1, 1), repeat=len(model.x)))
    bare = [model.weight(spins).subs(dict.fromkeys(model.fields, 1)) for spins in configurations]
    signs = [spins[i] * spins[j] for spins in configurations]
    return sp.Add(*(sign * weight for sign, weight in zip(signs, bare, strict=True))) / sp.Add(*bare)


def _prove_zero_field(formula: Formula) -> Equations:
    """The response at x = 0: Y = 1 there, and the factor of x alone cancels."""
    for model in _GRAPHS:
        origin: dict[sp.Symbol, int] = {**dict.fromkeys(model.x, 0), **dict.fromkeys(model.fields, 1)}
        for i, j in itertools.product(range(len(model.x)), repeat=2):
            left = model.derivative(model.score(i), j).subs(origin)
            claim = formula(_correlation(model, i, j), delta(i, j), model.v)
            yield f"{model.name}: i={i}, j={j}", left - claim


def _zero_field(correlation: sp.Expr, same: int, v: sp.Expr) -> sp.Expr:
    return correlation / v**2 - same / v


def _prove_beyond_neighbours(formula: Formula) -> Equations:
    """The ends of the chain of three: no bond joins them, and the clean score of one does not know the other."""
    model = _chain(3)
    left, right, variance = (model.covariance(i, j) for i, j in ((0, 1), (1, 2), (1, 1)))
    yield "chain of 3: its ends", model.derivative(model.score(0), 2) - formula(left, right, variance, model.v)


IDENTITIES = (
    Identity(
        name="tweedie-ising",
        title="Tweedie's formula for Ising models",
        statement=r"s_i(x) = \frac{\langle s_i\rangle_x-x_i}{\sigma^2}",
        assumptions=(_SIZES, _SYMBOLIC),
        source="paper, equations (7) and (21)",
        prover=formulas.prove_tweedie(_GRAPHS),
        formula=formulas.tweedie,
        negative_controls=formulas.TWEEDIE_CONTROLS,
    ),
    Identity(
        name="response-ising",
        title="The response of an Ising model's smoothed score",
        statement=r"\frac{\partial s_i}{\partial x_j} = \frac{1}{\sigma^4}\,\mathrm{Cov}(S_i,S_j\mid x)"
        r"-\frac{\delta_{ij}}{\sigma^2}",
        assumptions=(_SIZES, _SYMBOLIC),
        source="paper, equation (22)",
        prover=formulas.prove_response(_GRAPHS),
        formula=formulas.response,
        negative_controls=formulas.RESPONSE_CONTROLS,
    ),
    Identity(
        name="response-ising-zero-field",
        title="The same at x = 0: correlations of the clean model",
        statement=r"\frac{\partial s_i}{\partial x_j}\Big|_{x=0}"
        r" = \frac{\langle s_is_j\rangle_\beta}{\sigma^4}-\frac{\delta_{ij}}{\sigma^2}",
        assumptions=(_SIZES, "inverse temperature of any sign and noise level are symbols"),
        source="paper, §5, equation (22) at x = 0",
        prover=_prove_zero_field,
        formula=_zero_field,
        negative_controls=(
            NegativeControl(
                "missing-delta",
                r"\langle s_is_j\rangle_\beta/\sigma^4",
                lambda correlation, same, v: _zero_field(correlation, 0, v),
            ),
            NegativeControl(
                "wrong-power",
                r"\langle s_is_j\rangle_\beta/\sigma^2-\delta_{ij}/\sigma^2",
                lambda correlation, same, v: (correlation - same) / v,
            ),
            NegativeControl(
                "independent-spins",
                r"\delta_{ij}/\sigma^4-\delta_{ij}/\sigma^2",
                lambda correlation, same, v: _zero_field(sp.Integer(same), same, v),
            ),
        ),
    ),
    Identity(
        name="response-ising-beyond-neighbours",
        title="The smoothed score of a nearest-neighbour model listens beyond nearest neighbours",
        statement=r"\frac{\partial s_1}{\partial x_3} = \frac{1}{\sigma^4}\,"
        r"\frac{\mathrm{Cov}(S_1,S_2\mid x)\,\mathrm{Cov}(S_2,S_3\mid x)}{\mathrm{Var}(S_2\mid x)}",
        assumptions=("the chain of 3 sites: given its middle, the ends are independent", _SYMBOLIC),
        source="paper, §5: nearest-neighbour interactions, long-ranged response",
        prover=_prove_beyond_neighbours,
        formula=lambda left, right, variance, v: left * right / (variance * v**2),
        negative_controls=(
            NegativeControl("clean-range", "0", lambda left, right, variance, v: sp.Integer(0)),
            NegativeControl(
                "variance-of-one",
                r"\mathrm{Cov}(S_1,S_2\mid x)\,\mathrm{Cov}(S_2,S_3\mid x)/\sigma^4",
                lambda left, right, variance, v: left * right / v**2,
            ),
        ),
    ),
)
