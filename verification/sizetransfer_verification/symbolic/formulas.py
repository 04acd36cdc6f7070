r"""The formulas of paper §2.1 and their wrong versions, for every kind of prior; the provers that hold them to account.

Whatever the prior, the left-hand side is the score, differentiated by the rules of the posterior's symbols, and the
right-hand side is built from posterior expectations. ``general``, ``finite`` and ``ising`` supply the posteriors.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import sympy as sp

from sizetransfer_verification.symbolic.algebra import delta
from sizetransfer_verification.symbolic.posterior import Posterior
from sizetransfer_verification.symbolic.proof import Equations, Formula, NegativeControl, Prover

TWEEDIE_STATEMENT = r"s_i(x) = \frac{\mathrm{E}[X_{0i}\mid x]-x_i}{\sigma^2}"
RESPONSE_STATEMENT = (
    r"\frac{\partial s_i}{\partial x_j} = \frac{1}{\sigma^4}\,\mathrm{Cov}(X_{0i},X_{0j}\mid x)"
    r"-\frac{\delta_{ij}}{\sigma^2}"
)
CUMULANT_STATEMENT = (
    r"\frac{\partial^2 s_i}{\partial x_j\,\partial x_k} = \frac{1}{\sigma^6}\,\kappa_3(X_{0i},X_{0j},X_{0k}\mid x)"
)


def tweedie(x: sp.Expr, mean: sp.Expr, v: sp.Expr) -> sp.Expr:
    """Equation (7): the score from the posterior mean."""
    return (mean - x) / v


def response(second: sp.Expr, mean_i: sp.Expr, mean_j: sp.Expr, same: int, v: sp.Expr) -> sp.Expr:
    """Equation (9): the Jacobian of the score from the posterior's first and second moments."""
    return (second - mean_i * mean_j) / v**2 - same / v


def cumulant(moments: dict[str, sp.Expr]) -> sp.Expr:
    """The third cumulant of i, j, k from moments, which are named by their indices."""
    m = moments
    pairs = m["ij"] * m["k"] + m["ik"] * m["j"] + m["jk"] * m["i"]
    return m["ijk"] - pairs + 2 * m["i"] * m["j"] * m["k"]


TWEEDIE_CONTROLS = (
    NegativeControl("wrong-sign", r"(x_i-\mathrm{E}[X_{0i}\mid x])/\sigma^2", lambda x, mean, v: -tweedie(x, mean, v)),
    NegativeControl("missing-field", r"\mathrm{E}[X_{0i}\mid x]/\sigma^2", lambda x, mean, v: mean / v),
    NegativeControl(
        "sigma-for-its-square",
        r"(\mathrm{E}[X_{0i}\mid x]-x_i)/\sigma",
        lambda x, mean, v: tweedie(x, mean, sp.sqrt(v)),
    ),
)
RESPONSE_CONTROLS = (
    NegativeControl(
        "missing-delta",
        r"\mathrm{Cov}(X_{0i},X_{0j}\mid x)/\sigma^4",
        lambda second, mean_i, mean_j, same, v: response(second, mean_i, mean_j, 0, v),
    ),
    NegativeControl(
        "wrong-sign-of-delta",
        r"\mathrm{Cov}(X_{0i},X_{0j}\mid x)/\sigma^4+\delta_{ij}/\sigma^2",
        lambda second, mean_i, mean_j, same, v: response(second, mean_i, mean_j, -same, v),
    ),
    NegativeControl(
        "wrong-power",
        r"\mathrm{Cov}(X_{0i},X_{0j}\mid x)/\sigma^2-\delta_{ij}/\sigma^2",
        lambda second, mean_i, mean_j, same, v: v * response(second, mean_i, mean_j, 0, v) - same / v,
    ),
    NegativeControl(
        "second-moment-for-covariance",
        r"\mathrm{E}[X_{0i}X_{0j}\mid x]/\sigma^4-\delta_{ij}/\sigma^2",
        lambda second, mean_i, mean_j, same, v: response(second, 0, 0, same, v),
    ),
)
CUMULANT_CONTROLS = (
    NegativeControl("wrong-power", r"\kappa_3/\sigma^4", lambda moments, v: cumulant(moments) / v**2),
    NegativeControl("wrong-sign", r"-\kappa_3/\sigma^6", lambda moments, v: -cumulant(moments) / v**3),
    NegativeControl(
        "moment-for-cumulant",
        r"\mathrm{E}[X_{0i}X_{0j}X_{0k}\mid x]/\sigma^6",
        lambda moments, v: moments["ijk"] / v**3,
    ),
    NegativeControl(
        "half-centred",
        r"(\kappa_3-\mathrm{E}[X_{0i}]\,\mathrm{E}[X_{0j}]\,\mathrm{E}[X_{0k}])/\sigma^6",
        lambda moments, v: (cumulant(moments) - moments["i"] * moments["j"] * moments["k"]) / v**3,
    ),
)


def third_cumulant(moments: dict[str, sp.Expr], v: sp.Expr) -> sp.Expr:
    """The second derivative of the score from posterior moments up to the third."""
    return cumulant(moments) / v**3


def prove_tweedie(posteriors: Sequence[Posterior]) -> Prover:
    """A prover of equation (7) for all coordinates of the posteriors."""

    def prover(formula: Formula) -> Equations:
        for posterior in posteriors:
            for i, x_i in enumerate(posterior.x):
                claim = formula(x_i, posterior.expectation(i), posterior.v)
                yield f"{posterior.name}: i={i}", posterior.score(i) - claim

    return prover


def prove_response(posteriors: Sequence[Posterior]) -> Prover:
    """A prover of equation (9) for all pairs of coordinates of the posteriors."""

    def prover(formula: Formula) -> Equations:
        for posterior in posteriors:
            for i, j in itertools.product(range(len(posterior.x)), repeat=2):
                means = posterior.expectation(i), posterior.expectation(j)
                claim = formula(posterior.expectation(i, j), *means, delta(i, j), posterior.v)
                yield f"{posterior.name}: i={i}, j={j}", posterior.derivative(posterior.score(i), j) - claim

    return prover


def prove_third_cumulant(posteriors: Sequence[Posterior]) -> Prover:
    """A prover of the second derivative of the score for all triples, up to their order."""

    def prover(formula: Formula) -> Equations:
        for posterior in posteriors:
            for triple in itertools.combinations_with_replacement(range(len(posterior.x)), 3):
                left = posterior.derivative(posterior.derivative(posterior.score(triple[0]), triple[1]), triple[2])
                yield f"{posterior.name}: i, j, k = {triple}", left - formula(_moments(posterior, triple), posterior.v)

    return prover


def _moments(posterior: Posterior, triple: Sequence[int]) -> dict[str, sp.Expr]:
    index = dict(zip("ijk", triple, strict=True))
    names = ("i", "j", "k", "ij", "ik", "jk", "ijk")
    return {name: posterior.expectation(*(index[letter] for letter in name)) for name in names}
