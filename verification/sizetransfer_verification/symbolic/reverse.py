r"""The reverse process: its laws, Kolmogorov's backward equation, the dual generator.

Symbols: :math:`v=\sigma^2` the variance clock, running down to :math:`v_m`; :math:`\tau=v_x-v` the time of the reverse
process :math:`dX=s_v(X)\,d\tau+dB`; :math:`u_v(x)=\mathrm{E}[\varphi(X_{v_m})\mid X_v=x]` along it. Every noisy law is
the convolution of an earlier one with a Gaussian kernel, so that formal moments reach here too, with :math:`p_{v_m}`
for the prior and the variance :math:`w=v-v_m`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from sizetransfer_verification.symbolic.general import ANY_PRIOR
from sizetransfer_verification.symbolic.posterior import FormalMoments
from sizetransfer_verification.symbolic.proof import Equations, Formula, Identity, NegativeControl

_W = sp.Symbol("w", positive=True)
_DIMENSIONS = (1, 2, 3)
_CLOCK = "v > v_m ≥ 0 are symbols: any variance-exploding schedule is a change of this clock"
_BOUNDED = "dimension 1 to 3; each coordinate enters alone, and enters alike"


@dataclass(frozen=True)
class _Flow:
    """A noisy law and a conditional expectation, as functions of the clock."""

    moments: FormalMoments

    def expectation(self) -> sp.Expr:
        """u, the expectation of any function of the earlier field."""
        return self.moments.expectation(of="phi")

    def gradient(self, expression: sp.Expr) -> list[sp.Expr]:
        """The derivatives of an expression along all coordinates."""
        return [self.moments.derivative(expression, i) for i in range(len(self.moments.x))]

    def laplacian(self, expression: sp.Expr) -> sp.Expr:
        """The sum of the second derivatives of an expression."""
        parts = enumerate(self.gradient(expression))
        return sp.Add(*(self.moments.derivative(part, i) for i, part in parts))


def _flows() -> list[_Flow]:
    return [_Flow(FormalMoments(f"dimension {d}", d, variance=_W)) for d in _DIMENSIONS]


def _prove_heat(formula: Formula) -> Equations:
    for flow in _flows():
        density = flow.moments.integral()
        claim = formula(flow.laplacian(density), len(flow.moments.x))
        yield flow.moments.name, flow.moments.derivative_in_variance(density) - claim


def _prove_churn(formula: Formula) -> Equations:
    """The Fokker–Planck equation in tau = v_x - v; the current of the drift is (gain) times the gradient of p."""
    churn = sp.Symbol("lambda")
    for flow in _flows():
        density = flow.moments.integral()
        gain, diffusion = formula(churn)
        current = [gain * flow.moments.score(i) * density for i in range(len(flow.moments.x))]
        divergence = sp.Add(*(flow.moments.derivative(part, i) for i, part in enumerate(current)))
        right = -divergence + diffusion / 2 * flow.laplacian(density)
        yield flow.moments.name, -flow.moments.derivative_in_variance(density) - right


def _prove_backward(formula: Formula) -> Equations:
    for flow in _flows():
        u = flow.expectation()
        drift = sp.Add(*(flow.moments.score(i) * part for i, part in enumerate(flow.gradient(u))))
        claim = formula(drift, flow.laplacian(u))
        yield flow.moments.name, flow.moments.derivative_in_variance(u) - claim


def _prove_dual(formula: Formula) -> Equations:
    """Jets: the derivatives of u are symbols. The backward equation of the exact process takes d u/d tau away."""
    gain = sp.Symbol("h")
    for dimension in (*_DIMENSIONS, 4):
        score, learned, slope = (sp.symbols(f"{name}_:{dimension}") for name in ("s", "t", "u"))
        laplacian = sp.Add(*(sp.Symbol(f"u_{i}{i}") for i in range(dimension)))
        exact, other = (_generator(gain, drift, slope, laplacian) for drift in (score, learned))
        claim = formula(gain, score, learned, slope)
        yield f"dimension {dimension}: difference", other - exact - claim
        in_time = -exact
        yield f"dimension {dimension}: along the learned process", in_time + other - claim


def _generator(gain: sp.Expr, drift: Sequence[sp.Expr], slope: Sequence[sp.Expr], laplacian: sp.Expr) -> sp.Expr:
    return gain * (sp.Add(*(b * part for b, part in zip(drift, slope, strict=True))) + laplacian / 2)


def _dual(gain: sp.Expr, score: Sequence[sp.Expr], learned: Sequence[sp.Expr], slope: Sequence[sp.Expr]) -> sp.Expr:
    return gain * sp.Add(*((t - s) * part for s, t, part in zip(score, learned, slope, strict=True)))


IDENTITIES = (
    Identity(
        name="heat-equation",
        title="The noisy law in the variance clock",
        statement=r"\partial_v p_v = \tfrac12\Delta p_v",
        assumptions=(ANY_PRIOR, _BOUNDED),
        source="paper, equations (1) and (2)",
        prover=_prove_heat,
        formula=lambda laplacian, dimension: laplacian / 2,
        negative_controls=(
            NegativeControl("missing-half", r"\Delta p_v", lambda laplacian, dimension: laplacian),
            NegativeControl("wrong-sign", r"-\tfrac12\Delta p_v", lambda laplacian, dimension: -laplacian / 2),
        ),
    ),
    Identity(
        name="churn-marginals",
        title="Reverse processes of any churn have the same marginals",
        statement=r"dX=\tfrac{1+\lambda^2}{2}\,s_v\,d\tau+\lambda\,dB:\qquad"
        r"\partial_\tau p = -\nabla\!\cdot\!\bigl(\tfrac{1+\lambda^2}{2}\,s_vp\bigr)+\tfrac{\lambda^2}{2}\Delta p",
        assumptions=(ANY_PRIOR, _BOUNDED, _CLOCK),
        source="paper, equation (10); Song et al. 2021, arXiv:2011.13456 (λ = 0); Karras et al. 2022",
        prover=_prove_churn,
        formula=lambda churn: ((1 + churn**2) / 2, churn**2),
        negative_controls=(
            NegativeControl(
                "drift-of-the-reverse-equation",
                r"s_v\,d\tau+\lambda\,dB",
                lambda churn: (sp.Integer(1), churn**2),
            ),
            NegativeControl(
                "churn-for-its-square",
                r"\tfrac{1+\lambda}{2}\,s_v\,d\tau+\lambda\,dB",
                lambda churn: ((1 + churn) / 2, churn**2),
            ),
        ),
    ),
    Identity(
        name="backward-kolmogorov",
        title="Kolmogorov's backward equation of the exact reverse process",
        statement=r"\partial_v u_v = s_v\cdot\nabla u_v+\tfrac12\Delta u_v,\qquad"
        r"u_v(x)=\mathrm{E}[\varphi(X_{v_m})\mid X_v=x]",
        assumptions=(ANY_PRIOR, "any φ that grows at most like a polynomial", _BOUNDED, _CLOCK),
        source="paper, Assumption 2; Anderson 1982",
        prover=_prove_backward,
        formula=lambda drift, laplacian: drift + laplacian / 2,
        negative_controls=(
            NegativeControl(
                "wrong-sign-of-the-drift",
                r"-s_v\cdot\nabla u_v+\tfrac12\Delta u_v",
                lambda drift, laplacian: -drift + laplacian / 2,
            ),
            NegativeControl(
                "missing-half", r"s_v\cdot\nabla u_v+\Delta u_v", lambda drift, laplacian: drift + laplacian
            ),
            NegativeControl(
                "drift-of-the-flow",
                r"\tfrac12s_v\cdot\nabla u_v+\tfrac12\Delta u_v",
                lambda drift, laplacian: drift / 2 + laplacian / 2,
            ),
        ),
    ),
    Identity(
        name="dual-generator",
        title="The generators of the learned and the exact process differ by the drift error",
        statement=r"(\hat L-L)\,u = \delta b\cdot\nabla u = \partial_\tau u+\hat Lu,\qquad"
        r"L=g^2\bigl(s\cdot\nabla+\tfrac12\Delta\bigr),\quad \delta b=g^2(\hat s-s)",
        assumptions=(
            "dimension 1 to 4; derivatives of u, both scores and g² = dv/dt are symbols",
            "both processes have the same noise; u solves the backward equation of the exact process",
        ),
        source="paper, Proposition 3 and Theorem 1",
        prover=_prove_dual,
        formula=_dual,
        negative_controls=(
            NegativeControl(
                "wrong-sign",
                r"-\delta b\cdot\nabla u",
                lambda gain, score, learned, slope: _dual(gain, learned, score, slope),
            ),
            NegativeControl(
                "missing-coefficient",
                r"(\hat s-s)\cdot\nabla u",
                lambda gain, score, learned, slope: _dual(sp.Integer(1), score, learned, slope),
            ),
            NegativeControl(
                "one-coordinate",
                r"\delta b_1\,\partial_1u",
                lambda gain, score, learned, slope: _dual(gain, score[:1], learned[:1], slope[:1]),
            ),
        ),
    ),
)
