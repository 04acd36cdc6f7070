r"""A general prior: Tweedie's formula, the covariance identity and their kin, by formal moments.

The prior is arbitrary: its integrals :math:`\int f(y)\,y^\alpha\,p_0(y)\,g_v(x-y)\,dy` are symbols, and only the rule
that differentiates the Gaussian kernel is used (:class:`sizetransfer_verification.symbolic.posterior.FormalMoments`).
An equation names at most three coordinates, so the proofs hold for any number of sites: what matters is which of the
indices are equal, and all patterns of equality are decided.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import sympy as sp

from sizetransfer_verification.symbolic import formulas
from sizetransfer_verification.symbolic.algebra import delta
from sizetransfer_verification.symbolic.posterior import FormalMoments
from sizetransfer_verification.symbolic.proof import Equations, Formula, Identity, NegativeControl

ANY_PRIOR = "any prior on real vectors, with a density or without; no moment of it need exist"
ANY_SIZE = "any number of sites: at most three coordinates are named, and all patterns of equal ones are decided"
_COMPONENTS = 3


@dataclass(frozen=True)
class Sites:
    """Two vector-valued sites of a general prior.

    Attributes:
        posterior: formal moments of all scalar coordinates.
    """

    posterior: FormalMoments

    def index(self, site: int, component: int) -> int:
        """The scalar coordinate of a component of a site."""
        return _COMPONENTS * site + component % _COMPONENTS

    def field(self, site: int, component: int) -> sp.Expr:
        """A component of the noisy field."""
        return self.posterior.x[self.index(site, component)]

    def mean(self, site: int, component: int) -> sp.Expr:
        """A component of the posterior mean."""
        return self.posterior.expectation(self.index(site, component))

    def covariance(self, i: int, a: int, j: int, b: int) -> sp.Expr:
        """Entry (a, b) of the block (i, j) of the posterior covariance."""
        return self.posterior.covariance(self.index(i, a), self.index(j, b))

    def score(self, site: int, component: int) -> sp.Expr:
        """A component of the score."""
        return self.posterior.score(self.index(site, component))


def _two_sites() -> Sites:
    return Sites(FormalMoments("general prior", 2 * _COMPONENTS))


def _prove_vector_tweedie(formula: Formula) -> Equations:
    sites = _two_sites()
    for i, a in itertools.product(range(2), range(_COMPONENTS)):
        yield f"site {i}, component {a}", sites.score(i, a) - formula(sites, i, a, sites.posterior.v)


def _prove_vector_response(formula: Formula) -> Equations:
    sites = _two_sites()
    for i, a, j, b in itertools.product(range(2), range(_COMPONENTS), range(2), range(_COMPONENTS)):
        left = sites.posterior.derivative(sites.score(i, a), sites.index(j, b))
        yield f"block ({i}, {j}), entry ({a}, {b})", left - formula(sites, i, a, j, b, sites.posterior.v)


def _vector_tweedie(sites: Sites, i: int, a: int, v: sp.Expr) -> sp.Expr:
    return formulas.tweedie(sites.field(i, a), sites.mean(i, a), v)


def _vector_response(sites: Sites, i: int, a: int, j: int, b: int, v: sp.Expr) -> sp.Expr:
    return sites.covariance(i, a, j, b) / v**2 - sp.Integer(delta(i, j) * delta(a, b)) / v


def _prove_log_weight(formula: Formula) -> Equations:
    """q(y|x) = p_0(y) g(x - y) / p_v(x), the kernel g a symbol with its rule."""
    posterior = FormalMoments("general prior", 2)
    kernel, y = sp.Symbol("g"), sp.Symbol("y_0")

    def rule(symbol: sp.Symbol, j: int) -> sp.Expr:
        return symbol * (y - posterior.x[j]) / posterior.v if symbol == kernel else posterior.rule(symbol, j)

    weight = kernel / posterior.integral()
    left = sp.Add(*(sp.diff(weight, symbol) * rule(symbol, 0) for symbol in sorted(weight.free_symbols, key=str)))
    yield "j=0", left / weight - formula(y, posterior.x[0], posterior.expectation(0), posterior.v)


def _prove_expectation(formula: Formula) -> Equations:
    """The function stands alone, or is multiplied by one of the coordinates: that too is a function."""
    posterior = FormalMoments("general prior", 3)
    for factors, j in itertools.product(((), (0,), (1,)), range(2)):
        together = posterior.expectation(*factors, j, of="f")
        alone = posterior.expectation(*factors, of="f")
        claim = formula(together, alone, posterior.expectation(j), posterior.v)
        yield f"f times coordinates {factors}, j={j}", posterior.derivative(alone, j) - claim


def _expectation(together: sp.Expr, alone: sp.Expr, mean: sp.Expr, v: sp.Expr) -> sp.Expr:
    return (together - alone * mean) / v


@dataclass(frozen=True)
class Integrand:
    """An integrand linear in the clean density and its gradient; all else multiplies them.

    Attributes:
        density: the factor of p_0(y).
        gradient: the factor of each derivative of p_0 along a coordinate of y.
    """

    density: sp.Expr
    gradient: dict[int, sp.Expr]

    def by_parts(self, differentiate: Callable[[sp.Expr, int], sp.Expr]) -> sp.Expr:
        """The factor of p_0 once no derivative of p_0 is left: the integral vanishes for every p_0 iff this does."""
        return self.density - sp.Add(*(differentiate(factor, i) for i, factor in self.gradient.items()))


def _prove_target_score(formula: Formula) -> Equations:
    """Both sides of p_v s_v = the integral of targets, as integrals of p_0; the kernel is a symbol with its rules."""
    kernel, v, dimension = sp.Symbol("g"), sp.Symbol("v"), 3
    x, y = (tuple(sp.Symbol(f"{name}_{i}") for i in range(dimension)) for name in "xy")

    def along_x(expression: sp.Expr, i: int) -> sp.Expr:
        return sp.diff(expression, x[i]) + sp.diff(expression, kernel) * kernel * (y[i] - x[i]) / v

    def along_y(expression: sp.Expr, i: int) -> sp.Expr:
        return sp.diff(expression, y[i]) + sp.diff(expression, kernel) * kernel * (x[i] - y[i]) / v

    for i in range(dimension):
        clean, denoising = formula(x[i], y[i], v, sp.Symbol("lambda"))
        targets = Integrand(density=denoising * kernel, gradient={i: clean * kernel})
        yield f"i={i}", (along_x(kernel, i) - targets.by_parts(along_y)) / kernel


def _target_score(x: sp.Expr, y: sp.Expr, v: sp.Expr, share: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """Factor of the clean score, and the denoising target with its factor."""
    return share, (1 - share) * (y - x) / v


_GENERAL = [FormalMoments("general prior", 3)]

IDENTITIES = (
    Identity(
        name="tweedie",
        title="Tweedie's formula, scalar sites",
        statement=formulas.TWEEDIE_STATEMENT,
        assumptions=(ANY_PRIOR, ANY_SIZE),
        source="paper, equation (7); Robbins 1956; Efron 2011",
        prover=formulas.prove_tweedie(_GENERAL),
        formula=formulas.tweedie,
        negative_controls=formulas.TWEEDIE_CONTROLS,
    ),
    Identity(
        name="tweedie-vector",
        title="Tweedie's formula, vector sites: Proposition 2, first part",
        statement=r"s_i(x) = \frac{\mathrm{E}[X_{0i}\mid x]-x_i}{\sigma^2},\qquad x_i\in\mathbb{R}^q",
        assumptions=(ANY_PRIOR, "two sites of three components, which hold all patterns of equal indices"),
        source="paper, Proposition 2",
        prover=_prove_vector_tweedie,
        formula=_vector_tweedie,
        negative_controls=(
            NegativeControl(
                "another-component",
                r"s_{ia} = (\mathrm{E}[X_{0i,a+1}\mid x]-x_{ia})/\sigma^2",
                lambda sites, i, a, v: formulas.tweedie(sites.field(i, a), sites.mean(i, a + 1), v),
            ),
            NegativeControl(
                "another-site",
                r"s_{ia} = (\mathrm{E}[X_{0j,a}\mid x]-x_{ia})/\sigma^2,\ j\neq i",
                lambda sites, i, a, v: formulas.tweedie(sites.field(i, a), sites.mean(1 - i, a), v),
            ),
            NegativeControl(
                "norm-of-noise",
                r"s_{ia} = (\mathrm{E}[X_{0ia}\mid x]-x_{ia})/(q\sigma^2)",
                lambda sites, i, a, v: _vector_tweedie(sites, i, a, _COMPONENTS * v),
            ),
        ),
    ),
    Identity(
        name="posterior-log-weight",
        title="Derivative of the posterior's log-weight: Proposition 2, the step between",
        statement=r"\partial_{x_j}\log q(y\mid x) = \frac{y_j-\mathrm{E}[X_{0j}\mid x]}{\sigma^2}",
        assumptions=(ANY_PRIOR, ANY_SIZE),
        source="paper, proof of Proposition 2",
        prover=_prove_log_weight,
        formula=lambda y, x, mean, v: (y - mean) / v,
        negative_controls=(
            NegativeControl("not-normalised", r"(y_j-x_j)/\sigma^2", lambda y, x, mean, v: (y - x) / v),
            NegativeControl(
                "wrong-sign", r"(\mathrm{E}[X_{0j}\mid x]-y_j)/\sigma^2", lambda y, x, mean, v: (mean - y) / v
            ),
        ),
    ),
    Identity(
        name="posterior-expectation",
        title="A posterior expectation, differentiated, is a posterior covariance",
        statement=r"\frac{\partial}{\partial x_j}\mathrm{E}[f(X_0)\mid x]"
        r" = \frac{1}{\sigma^2}\,\mathrm{Cov}\bigl(f(X_0),X_{0j}\mid x\bigr)",
        assumptions=(ANY_PRIOR, ANY_SIZE, "any f that grows at most like a polynomial"),
        source="paper, proof of Proposition 2; Georgii 2011",
        prover=_prove_expectation,
        formula=_expectation,
        negative_controls=(
            NegativeControl(
                "wrong-power",
                r"\mathrm{Cov}(f,X_{0j}\mid x)/\sigma^4",
                lambda together, alone, mean, v: _expectation(together, alone, mean, v**2),
            ),
            NegativeControl(
                "wrong-sign",
                r"-\mathrm{Cov}(f,X_{0j}\mid x)/\sigma^2",
                lambda together, alone, mean, v: -_expectation(together, alone, mean, v),
            ),
            NegativeControl(
                "not-centred",
                r"\mathrm{E}[f X_{0j}\mid x]/\sigma^2",
                lambda together, alone, mean, v: _expectation(together, alone, 0, v),
            ),
        ),
    ),
    Identity(
        name="response",
        title="The covariance identity, scalar sites",
        statement=formulas.RESPONSE_STATEMENT,
        assumptions=(ANY_PRIOR, ANY_SIZE),
        source="paper, equation (9); Georgii 2011",
        prover=formulas.prove_response(_GENERAL),
        formula=formulas.response,
        negative_controls=formulas.RESPONSE_CONTROLS,
    ),
    Identity(
        name="response-vector",
        title="The covariance identity, vector sites: Proposition 2, second part",
        statement=r"\frac{\partial s_i}{\partial x_j} = \frac{1}{\sigma^4}\,\mathrm{Cov}(X_{0i},X_{0j}\mid x)"
        r"-\frac{\delta_{ij}}{\sigma^2}\,I_q,\qquad x_i\in\mathbb{R}^q",
        assumptions=(ANY_PRIOR, "two sites of three components, which hold all patterns of equal indices"),
        source="paper, Proposition 2",
        prover=_prove_vector_response,
        formula=_vector_response,
        negative_controls=(
            NegativeControl(
                "missing-delta",
                r"\mathrm{Cov}(X_{0i},X_{0j}\mid x)/\sigma^4",
                lambda sites, i, a, j, b, v: sites.covariance(i, a, j, b) / v**2,
            ),
            NegativeControl(
                "ones-for-identity",
                r"\mathrm{Cov}(X_{0i},X_{0j}\mid x)/\sigma^4-\delta_{ij}\,\mathbf{1}\mathbf{1}^{\mathsf T}/\sigma^2",
                lambda sites, i, a, j, b, v: sites.covariance(i, a, j, b) / v**2 - sp.Integer(delta(i, j)) / v,
            ),
            NegativeControl(
                "delta-in-every-block",
                r"\mathrm{Cov}(X_{0i},X_{0j}\mid x)/\sigma^4-I_q/\sigma^2",
                lambda sites, i, a, j, b, v: sites.covariance(i, a, j, b) / v**2 - sp.Integer(delta(a, b)) / v,
            ),
            NegativeControl(
                "transposed-block",
                r"\mathrm{Cov}(X_{0j},X_{0i}\mid x)/\sigma^4-\delta_{ij}I_q/\sigma^2",
                lambda sites, i, a, j, b, v: _vector_response(sites, j, a, i, b, v),
            ),
        ),
    ),
    Identity(
        name="third-cumulant",
        title="The score, differentiated twice, is a third cumulant",
        statement=formulas.CUMULANT_STATEMENT,
        assumptions=(ANY_PRIOR, ANY_SIZE),
        source="paper, equation (9), differentiated once more; exponential families, Brown 1986",
        prover=formulas.prove_third_cumulant(_GENERAL),
        formula=formulas.third_cumulant,
        negative_controls=formulas.CUMULANT_CONTROLS,
    ),
    Identity(
        name="target-score",
        title="Target-score identity, mixed with denoising in any proportion",
        statement=r"s_v(x) = \mathrm{E}\Bigl[\lambda\,s_0(X_0)+(1-\lambda)\,\frac{X_0-x}{v}\,\Big|\,x\Bigr]",
        assumptions=(
            "a prior with a differentiable density that, times the Gaussian kernel, vanishes at infinity",
            "any λ that does not depend on the clean field, for example a function of σ and x",
            "any number of sites: one coordinate is named (decided for each of three)",
        ),
        source="De Bortoli et al. 2024, arXiv:2402.08667; Vincent 2011 for λ = 0",
        prover=_prove_target_score,
        formula=_target_score,
        negative_controls=(
            NegativeControl(
                "wrong-sign",
                r"-\lambda\,s_0(X_0)+(1-\lambda)(X_0-x)/v",
                lambda x, y, v, share: (-share, _target_score(x, y, v, share)[1]),
            ),
            NegativeControl(
                "shares-that-do-not-add-up",
                r"\lambda\,s_0(X_0)+(X_0-x)/v",
                lambda x, y, v, share: (share, (y - x) / v),
            ),
            NegativeControl(
                "clean-score-scaled",
                r"\lambda\,s_0(X_0)/v+(1-\lambda)(X_0-x)/v",
                lambda x, y, v, share: (share / v, _target_score(x, y, v, share)[1]),
            ),
            NegativeControl(
                "residual-for-target",
                r"\lambda\,s_0(X_0)+(1-\lambda)(x-X_0)/v",
                lambda x, y, v, share: (share, -_target_score(x, y, v, share)[1]),
            ),
        ),
    ),
)
