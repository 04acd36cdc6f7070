r"""Gaussian priors: posterior, score and response, in explicit dimension and in any.

In dimension d up to 4 all entries are symbols, and inverses are adjugates over determinants. In any dimension the
matrices are noncommuting symbols (:mod:`sizetransfer_verification.symbolic.words`), and the noise may have any
covariance V; the noise of the paper is :math:`V=\sigma^2`.
"""

from __future__ import annotations

import itertools

import sympy as sp

from sizetransfer_verification.symbolic import formulas
from sizetransfer_verification.symbolic.algebra import adjugate, delta, determinant, symmetric, vector
from sizetransfer_verification.symbolic.posterior import VARIANCE
from sizetransfer_verification.symbolic.proof import Equations, Formula, Identity, NegativeControl
from sizetransfer_verification.symbolic.words import C_INVERSE, V_INVERSE, C, S, V, commutative

_DIMENSIONS = (1, 2, 3, 4)
_EXPLICIT = "dimension 1 to 4; all entries of the covariance, the mean and the field are symbols"
_ANY_DIMENSION = "any dimension: covariances of prior and noise are noncommuting symbols"


class _Field:
    """A Gaussian prior of precision Q about a mean: v times the posterior's precision is A = 1 + v Q."""

    def __init__(self, dimension: int) -> None:
        self.v = sp.Symbol("v")
        self.precision, self.mean = symmetric("q", dimension), vector("mu", dimension)
        self.x, self.y = vector("x", dimension), vector("y", dimension)
        self.scaled = sp.eye(dimension) + self.v * self.precision
        self.determinant, self.adjugate = determinant(self.scaled), adjugate(self.scaled)

    def exponent(self) -> sp.Expr:
        """Minus twice the logarithm of prior times kernel: a quadratic form in the clean field y."""
        deviation, noise = self.y - self.mean, self.x - self.y
        return (deviation.T * self.precision * deviation)[0] + (noise.T * noise)[0] / self.v


def _prove_posterior(formula: Formula) -> Equations:
    """Two quadratic forms in y agree if their Hessians, their gradients at 0 and their values at 0 do.

    The posterior mean solves a linear equation in which no inverse stands, so that one determinant is enough.
    """
    for dimension in _DIMENSIONS:
        field = _Field(dimension)
        exponent = field.exponent()
        origin = dict.fromkeys(field.y, 0)
        precision, mean, marginal = formula(field)
        for i, j in itertools.product(range(dimension), repeat=2):
            hessian = sp.diff(exponent, field.y[i], field.y[j]) / 2
            yield f"d={dimension}: precision ({i}, {j})", hessian - precision[i, j]
        gradient = sp.Matrix([sp.diff(exponent, y_i).subs(origin) / 2 for y_i in field.y])
        for i in range(dimension):
            yield f"d={dimension}: mean {i}", gradient[i] + (precision[i, :] * mean)[0]
        # at y = 0 the form is mean·precision·mean + marginal, and precision·mean = -gradient was decided above
        value = exponent.subs(origin) + (mean.T * gradient)[0]
        deviation = field.x - field.mean
        yield f"d={dimension}: marginal", value - (deviation.T * marginal * deviation)[0]


def _posterior(field: _Field) -> tuple[sp.Matrix, sp.Matrix, sp.Matrix]:
    """Precision and mean of the posterior, precision of the noisy field."""
    mean = field.adjugate * (field.v * field.precision * field.mean + field.x) / field.determinant
    return field.scaled / field.v, mean, field.precision * field.adjugate / field.determinant


def _with(field: _Field, **changed: sp.Matrix) -> tuple[sp.Matrix, sp.Matrix, sp.Matrix]:
    precision, mean, marginal = _posterior(field)
    return changed.get("precision", precision), changed.get("mean", mean), changed.get("marginal", marginal)


class _Noisy:
    """A noisy Gaussian field: C the covariance of the clean one, C + v that of the noisy one."""

    def __init__(self, dimension: int) -> None:
        self.covariance, self.mean, self.x = symmetric("c", dimension), vector("mu", dimension), vector("x", dimension)
        noisy = self.covariance + VARIANCE * sp.eye(dimension)
        self.inverse = adjugate(noisy) / determinant(noisy)

    def score(self) -> sp.Matrix:
        """The gradient of the logarithm of the density, by differentiating the quadratic form."""
        deviation = self.x - self.mean
        exponent = (deviation.T * self.inverse * deviation)[0]
        return sp.Matrix([-sp.diff(exponent, x_i) / 2 for x_i in self.x])

    def posterior_mean(self) -> sp.Matrix:
        """Kriging: the mean of the clean field given the noisy one."""
        return self.mean + self.covariance * self.inverse * (self.x - self.mean)

    def posterior_covariance(self) -> sp.Matrix:
        """The covariance of the clean field given the noisy one, which does not depend on it."""
        return self.covariance - self.covariance * self.inverse * self.covariance


def _prove_tweedie(formula: Formula) -> Equations:
    for dimension in _DIMENSIONS:
        field = _Noisy(dimension)
        score, mean = field.score(), field.posterior_mean()
        for i in range(dimension):
            yield f"d={dimension}: i={i}", score[i] - formula(field.x[i], mean[i], VARIANCE)


def _prove_response(formula: Formula) -> Equations:
    """The posterior covariance is given; means of zero leave the second moment alone."""
    for dimension in _DIMENSIONS:
        field = _Noisy(dimension)
        covariance, means = field.posterior_covariance(), vector("m", dimension)
        for i, j in itertools.product(range(dimension), repeat=2):
            second = covariance[i, j] + means[i] * means[j]
            claim = formula(second, means[i], means[j], delta(i, j), VARIANCE)
            yield f"d={dimension}: i={i}, j={j}", -field.inverse[i, j] - claim


def _prove_any_dimension(formula: Formula) -> Equations:
    """P inverts the sum of the precisions from both sides; the response; Tweedie, where x stands to the right."""
    covariance, response, mean = formula()
    yield "(C⁻¹ + V⁻¹) P = 1", commutative((C_INVERSE + V_INVERSE) * covariance - 1)
    yield "P (C⁻¹ + V⁻¹) = 1", commutative(covariance * (C_INVERSE + V_INVERSE) - 1)
    yield "response", commutative(-S - response)
    yield "Tweedie", commutative(-S - V_INVERSE * (mean - 1))
    yield "mean = P V⁻¹ x", commutative(mean - covariance * V_INVERSE)


def _any_dimension(covariance: sp.Expr = C - C * S * C) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """Posterior covariance, response of the score, and the map from x to the posterior mean."""
    return covariance, V_INVERSE * covariance * V_INVERSE - V_INVERSE, C * S


def _prove_spectrum(formula: Formula) -> Equations:
    """All matrices are functions of C, so that one eigenvalue c of it stands for all."""
    c, v, v_end = sp.symbols("c v v_m")
    kernel, variance = formula(c, v, v_end)
    posterior = c * v / (c + v)
    exact = v_end / v + (1 - v_end / v) * posterior / v
    yield "kernel", kernel - exact
    bridge = v_end * (1 - v_end / v) + (1 - v_end / v) ** 2 * posterior
    yield "variance", variance - bridge
    yield "law of the end", kernel**2 * (c + v) + variance - (c + v_end)


def _spectrum(c: sp.Expr, v: sp.Expr, v_end: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    return (c + v_end) / (c + v), (v - v_end) * (c + v_end) / (c + v)


IDENTITIES = (
    Identity(
        name="gaussian-posterior",
        title="Completing the square: posterior and law of a noisy Gaussian field",
        statement=r"(y-\mu)^{\mathsf T}Q(y-\mu)+\tfrac1v|x-y|^2 = (y-m)^{\mathsf T}P^{-1}(y-m)"
        r"+(x-\mu)^{\mathsf T}R\,(x-\mu),\qquad P^{-1}=Q+\tfrac1v,\quad m=(1+vQ)^{-1}(vQ\mu+x),\quad R=Q(1+vQ)^{-1}",
        assumptions=(_EXPLICIT, "precision Q = C⁻¹ of the prior"),
        source="textbook; Williams and Rasmussen 2006, A.2",
        prover=_prove_posterior,
        formula=_posterior,
        negative_controls=(
            NegativeControl(
                "precision-of-the-prior", r"P^{-1}=Q", lambda field: _with(field, precision=field.precision)
            ),
            NegativeControl(
                "mean-ignores-the-prior",
                r"m=(1+vQ)^{-1}x",
                lambda field: _with(field, mean=field.adjugate * field.x / field.determinant),
            ),
            NegativeControl("clean-law-for-noisy", r"R=Q", lambda field: _with(field, marginal=field.precision)),
        ),
    ),
    Identity(
        name="tweedie-gaussian",
        title="Tweedie's formula for Gaussian fields",
        statement=r"-(C+\sigma^2)^{-1}(x-\mu) = \frac{m-x}{\sigma^2},\qquad m=\mu+C(C+\sigma^2)^{-1}(x-\mu)",
        assumptions=(_EXPLICIT,),
        source="paper, equation (7)",
        prover=_prove_tweedie,
        formula=formulas.tweedie,
        negative_controls=formulas.TWEEDIE_CONTROLS,
    ),
    Identity(
        name="response-gaussian",
        title="The covariance identity for Gaussian fields",
        statement=r"-\bigl((C+\sigma^2)^{-1}\bigr)_{ij} = \frac{P_{ij}}{\sigma^4}-\frac{\delta_{ij}}{\sigma^2},"
        r"\qquad P=C-C(C+\sigma^2)^{-1}C",
        assumptions=(_EXPLICIT,),
        source="paper, equation (9)",
        prover=_prove_response,
        formula=formulas.response,
        negative_controls=formulas.RESPONSE_CONTROLS,
    ),
    Identity(
        name="gaussian-any-dimension",
        title="Posterior, response and Tweedie of Gaussian fields of any dimension and any noise",
        statement=r"(C^{-1}+V^{-1})^{-1}=P,\quad -S=V^{-1}PV^{-1}-V^{-1},\quad -Sx=V^{-1}(CSx-x),"
        r"\qquad S=(C+V)^{-1},\quad P=C-CSC",
        assumptions=(_ANY_DIMENSION, "C, V and C + V are invertible; C and V need not commute"),
        source="paper, equations (7) and (9); Woodbury 1950",
        prover=_prove_any_dimension,
        formula=_any_dimension,
        negative_controls=(
            NegativeControl("wrong-sign-in-the-covariance", r"P=C+CSC", lambda: _any_dimension(C + C * S * C)),
            NegativeControl("wrong-order", r"P=C-SC^2", lambda: _any_dimension(C - S * C * C)),
            NegativeControl(
                "missing-delta",
                r"-S=V^{-1}PV^{-1}",
                lambda: (C - C * S * C, V_INVERSE * (C - C * S * C) * V_INVERSE, C * S),
            ),
            NegativeControl(
                "inverses-that-commute",
                r"-S=PV^{-2}-V^{-1}",
                lambda: (C - C * S * C, (C - C * S * C) * V_INVERSE**2 - V_INVERSE, C * S),
            ),
            NegativeControl("gain-transposed", r"-Sx=V^{-1}(SCx-x)", lambda: (*_any_dimension()[:2], S * C)),
            NegativeControl("gain-of-the-noise", r"-Sx=V^{-1}(VSx-x)", lambda: (*_any_dimension()[:2], V * S)),
        ),
    ),
    Identity(
        name="gaussian-reverse-kernel",
        title="The reverse process of a Gaussian field in Fourier space",
        statement=r"X_{v_m}\mid X_v=x\ \sim\ N\Bigl(\frac{c+v_m}{c+v}\,x,\ \frac{(v-v_m)(c+v_m)}{c+v}\Bigr),\qquad"
        r"\frac{c+v_m}{c+v}=\frac{v_m}{v}+\frac1v\Bigl(1-\frac{v_m}{v}\Bigr)\frac{cv}{c+v}",
        assumptions=(
            "c is any eigenvalue of the covariance: all matrices are functions of it, so any dimension",
            "mean zero; v > v_m > 0",
        ),
        source="derivative of the reverse semigroup (reverse-gradient) for a Gaussian prior; paper, A.2",
        prover=_prove_spectrum,
        formula=_spectrum,
        negative_controls=(
            NegativeControl("ratio-of-the-clock", r"v_m/v", lambda c, v, v_end: (v_end / v, _spectrum(c, v, v_end)[1])),
            NegativeControl("noise-of-euler", r"v-v_m", lambda c, v, v_end: (_spectrum(c, v, v_end)[0], v - v_end)),
            NegativeControl(
                "inverted",
                r"(c+v)/(c+v_m)",
                lambda c, v, v_end: (1 / _spectrum(c, v, v_end)[0], _spectrum(c, v, v_end)[1]),
            ),
        ),
    ),
)
