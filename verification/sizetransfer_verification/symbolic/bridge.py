r"""The exact reverse kernel, and what a rollout feels of an earlier change: posterior covariances.

Symbols: v the variance of the noise now, :math:`v_m<v` at the end;
:math:`u_v(x)=\mathrm{E}[\varphi(X_{v_m})\mid X_v=x]` along the exact reverse process. Given the clean field too,
:math:`X_{v_m}` is Gaussian with a mean that is linear in x and in the clean field, which is all that these proofs need
beside formal moments.
"""

from __future__ import annotations

import itertools

import sympy as sp

from sizetransfer_verification.symbolic.algebra import delta
from sizetransfer_verification.symbolic.general import ANY_PRIOR, ANY_SIZE
from sizetransfer_verification.symbolic.posterior import FormalMoments
from sizetransfer_verification.symbolic.proof import Equations, Formula, Identity, NegativeControl

_V, _V_END = sp.symbols("v v_m", positive=True)


def _prove_bridge(formula: Formula) -> Equations:
    """g_vm(z - y) g_{v-vm}(x - z) = g_v(x - y) N(z; mean, variance): the exponents, and the squared prefactors."""
    x, y, z = sp.symbols("x y z")
    mean, variance = formula(x, y, _V, _V_END)
    left = (z - y) ** 2 / _V_END + (x - z) ** 2 / (_V - _V_END)
    yield "exponents", left - (x - y) ** 2 / _V - (z - mean) ** 2 / variance
    yield "prefactors", 1 / (_V_END * (_V - _V_END)) - 1 / (_V * variance)


def _bridge(x: sp.Expr, y: sp.Expr, v: sp.Expr, v_end: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    return y + v_end / v * (x - y), v_end * (1 - v_end / v)


def _slopes() -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """How fast the bridge's mean moves with x and with y, and the bridge's variance."""
    x, y = sp.symbols("x y")
    mean, variance = _bridge(x, y, _V, _V_END)
    return sp.diff(mean, x), sp.diff(mean, y), variance


def _prove_gradient(formula: Formula) -> Equations:
    """psi(x, y) = E[phi | X_v = x, X_0 = y] depends on x through the mean of the bridge: d psi/dx = (slope) E[d phi].

    The second way goes through the noisy law at the end of the clock: the derivative of u is the covariance of phi
    with X_vm, divided by v - vm. Given X_0 = y, X_vm is the mean of the bridge plus noise, and by Stein's lemma the
    covariance of phi with that noise is (variance) E[d phi].
    """
    along_x, along_y, variance = _slopes()
    for inside in (True, False):
        functions = {"psi": {0: {"dphi": along_x if inside else sp.Integer(0)}}}
        moments = FormalMoments("general prior", 2, variance=_V, functions=functions)
        psi, slope = moments.expectation(of="psi"), moments.expectation(of="dphi") * int(inside)
        covariance = moments.expectation(0, of="psi") - psi * moments.expectation(0)
        claim = formula(slope, covariance, _V, _V_END)
        where = "in the patch" if inside else "outside the patch"
        yield f"site {where}", moments.derivative(psi, 0) - claim
        through_end = (along_y * covariance + variance * slope) / (_V - _V_END)
        yield f"site {where}, through the end", through_end - claim


def _gradient(slope: sp.Expr, covariance: sp.Expr, v: sp.Expr, v_end: sp.Expr) -> sp.Expr:
    return v_end / v * slope + covariance / v


def _prove_flow_jacobian(formula: Formula) -> Equations:
    """The mean of the bridge, averaged over the posterior and differentiated."""
    moments = FormalMoments("general prior", 2, variance=_V)
    for a, i in itertools.product(range(2), repeat=2):
        mean, _ = _bridge(moments.x[a], moments.expectation(a), _V, _V_END)
        claim = formula(delta(a, i), moments.covariance(a, i), _V, _V_END)
        yield f"a={a}, i={i}", moments.derivative(mean, i) - claim


def _flow_jacobian(same: int, covariance: sp.Expr, v: sp.Expr, v_end: sp.Expr) -> sp.Expr:
    return v_end / v * same + (1 - v_end / v) * covariance / v


def _prove_one_step(formula: Formula) -> Equations:
    """In two ways: from the law at v', and from the clean law by the bridge."""
    end = FormalMoments("prior at v'", 1, variance=_V - _V_END)
    yield "from the law at v'", end.expectation(0) - formula(end.x[0], end.score(0), _V, _V_END)
    clean = FormalMoments("clean prior", 1, variance=_V)
    mean, _ = _bridge(clean.x[0], clean.expectation(0), _V, _V_END)
    yield "from the clean law", mean - formula(clean.x[0], clean.score(0), _V, _V_END)


IDENTITIES = (
    Identity(
        name="reverse-bridge",
        title="The exact reverse kernel, given the clean field, is a Gaussian bridge",
        statement=r"X_{v_m}\mid X_v=x,\,X_0=y\ \sim\ "
        r"N\Bigl(y+\frac{v_m}{v}(x-y),\ v_m\Bigl(1-\frac{v_m}{v}\Bigr)I\Bigr)",
        assumptions=(ANY_PRIOR, "any number of sites: the kernels are products over coordinates", "v > v_m > 0"),
        source="Ho, Jain, Abbeel 2020, equation (6), in the variance clock",
        prover=_prove_bridge,
        formula=_bridge,
        negative_controls=(
            NegativeControl(
                "mean-exchanged",
                r"x+\tfrac{v_m}{v}(y-x)",
                lambda x, y, v, v_end: (_bridge(y, x, v, v_end)[0], _bridge(x, y, v, v_end)[1]),
            ),
            NegativeControl(
                "variance-without-memory", r"v_m", lambda x, y, v, v_end: (_bridge(x, y, v, v_end)[0], v_end)
            ),
            NegativeControl(
                "variance-of-one-step",
                r"(v-v_m)(1-v_m/v)",
                lambda x, y, v, v_end: (_bridge(x, y, v, v_end)[0], (v - v_end) * (1 - v_end / v)),
            ),
        ),
    ),
    Identity(
        name="reverse-one-step-mean",
        title="The exact mean of one reverse step",
        statement=r"\mathrm{E}[X_{v'}\mid X_v=x] = x+(v-v')\,s_v(x)",
        assumptions=(ANY_PRIOR, "any number of sites: one coordinate is named", "v > v' > 0"),
        source="paper, equation (7) at v', and the bridge",
        prover=_prove_one_step,
        formula=lambda x, score, v, v_end: x + (v - v_end) * score,
        negative_controls=(
            NegativeControl("clean-field", r"x+v\,s_v(x)", lambda x, score, v, v_end: x + v * score),
            NegativeControl(
                "half-a-step", r"x+\tfrac12(v-v')\,s_v(x)", lambda x, score, v, v_end: x + (v - v_end) * score / 2
            ),
            NegativeControl("wrong-sign", r"x-(v-v')\,s_v(x)", lambda x, score, v, v_end: x - (v - v_end) * score),
        ),
    ),
    Identity(
        name="reverse-gradient",
        title="The derivative of the reverse semigroup is a posterior covariance",
        statement=r"\partial_iu_v = \frac{v_m}{v}\,1\{i\in A\}\,\mathrm{E}[\partial_i\varphi\mid x]"
        r"+\frac1v\,\mathrm{Cov}(\tilde\varphi,X_{0i}\mid x),\qquad"
        r"\tilde\varphi(y)=\mathrm{E}[\varphi(X_{v_m,A})\mid X_v=x,X_0=y]",
        assumptions=(
            ANY_PRIOR,
            "any differentiable φ of the patch A that grows at most like a polynomial, with its derivatives",
            "any number of sites: one is named, in the patch or outside",
            "the reverse bridge; for the second way Stein's lemma",
        ),
        source="the reverse bridge, differentiated; makes Assumption 4 of the paper a statement on covariances",
        prover=_prove_gradient,
        formula=_gradient,
        negative_controls=(
            NegativeControl(
                "missing-slope",
                r"\tfrac1v\,\mathrm{Cov}(\tilde\varphi,X_{0i}\mid x)",
                lambda slope, covariance, v, v_end: _gradient(sp.Integer(0), covariance, v, v_end),
            ),
            NegativeControl(
                "wrong-power",
                r"\tfrac{v_m}{v}\mathrm{E}[\partial_i\varphi\mid x]"
                r"+\tfrac1{v^2}\mathrm{Cov}(\tilde\varphi,X_{0i}\mid x)",
                lambda slope, covariance, v, v_end: _gradient(slope, covariance / v, v, v_end),
            ),
            NegativeControl(
                "slope-exchanged",
                r"(1-\tfrac{v_m}{v})\mathrm{E}[\partial_i\varphi\mid x]"
                r"+\tfrac1v\mathrm{Cov}(\tilde\varphi,X_{0i}\mid x)",
                lambda slope, covariance, v, v_end: (1 - v_end / v) * slope + covariance / v,
            ),
            NegativeControl(
                "ratio-counted-twice",
                r"\tfrac{v_m}{v}\mathrm{E}[\partial_i\varphi\mid x]"
                r"+\tfrac1v(1-\tfrac{v_m}{v})\mathrm{Cov}(\tilde\varphi,X_{0i}\mid x)",
                lambda slope, covariance, v, v_end: _gradient(slope, (1 - v_end / v) * covariance, v, v_end),
            ),
        ),
    ),
    Identity(
        name="reverse-flow-jacobian",
        title="The mean Jacobian of an exact rollout",
        statement=r"\mathrm{E}\Bigl[\frac{\partial X_{v_m}}{\partial X_v}\Big|\,x\Bigr]"
        r" = \frac{v_m}{v}\,I+\frac1v\Bigl(1-\frac{v_m}{v}\Bigr)\mathrm{Cov}(X_0\mid x)",
        assumptions=(ANY_PRIOR, ANY_SIZE, "the rollout may be differentiated under its expectation"),
        source="reverse-gradient for φ(x) = x; paper, Assumption 4",
        prover=_prove_flow_jacobian,
        formula=_flow_jacobian,
        negative_controls=(
            NegativeControl(
                "missing-ratio",
                r"\tfrac{v_m}{v}I+\tfrac1v\mathrm{Cov}(X_0\mid x)",
                lambda same, covariance, v, v_end: v_end / v * same + covariance / v,
            ),
            NegativeControl(
                "missing-identity",
                r"\tfrac1v(1-\tfrac{v_m}{v})\mathrm{Cov}(X_0\mid x)",
                lambda same, covariance, v, v_end: _flow_jacobian(0, covariance, v, v_end),
            ),
            NegativeControl(
                "wrong-power",
                r"\tfrac{v_m}{v}I+\tfrac1{v^2}(1-\tfrac{v_m}{v})\mathrm{Cov}(X_0\mid x)",
                lambda same, covariance, v, v_end: _flow_jacobian(same, covariance / v, v, v_end),
            ),
        ),
    ),
)
