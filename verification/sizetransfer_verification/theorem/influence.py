r"""The largest influence of a site on the law of a patch, over all test functions, for finite posteriors.

Given :math:`X_v = x`, the exact reverse process ends in
:math:`\sum_k w_k(x)\,N(a_k + \tfrac{v_m}v(x-a_k),\ v_m(1-\tfrac{v_m}v))` whatever the prior, with posterior weights
:math:`w_k` and atoms :math:`a_k`. Along a direction of the patch its derivative by :math:`x_i` is a signed density on
the line, and the supremum of :math:`\partial_i E[\varphi|x]` is its bounded-Lipschitz norm
(:mod:`~sizetransfer_verification.theorem.line`).
"""

from __future__ import annotations

import numpy as np

from sizetransfer.contracts.quantity import Quantity
from sizetransfer_verification.theorem.line import Array, density_norm, normal_density


def mixture_influence(means: Array, changes: Array, weights: Array, shift: float, std: float) -> Quantity:
    r"""Norm of :math:`\sum_k \dot w_k N(m_k, s^2) - \text{shift}\sum_k w_k N'(m_k, s^2)`.

    Args:
        means: m_k, ``(K,)``.
        changes: derivatives of the weights, which sum to zero, ``(K,)``.
        weights: w_k, ``(K,)``.
        shift: derivative of all means.
        std: s.
    """

    def density(y: Array) -> Array:
        apart = y[:, None] - means
        found: Array = (
            normal_density(apart, 0.0, std) @ changes
            + shift * (normal_density(apart, 0.0, std) * apart / std**2) @ weights
        )
        return found

    low, high = float(means.min()) - 8 * std, float(means.max()) + 8 * std
    points = int(np.clip(16 * (high - low) / std, 300, 3000))
    return density_norm(density, low, high, points)
