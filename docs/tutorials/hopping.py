"""Samples of phi^4 in hopping form, as a user of lattice field theory has them: a checkerboard Metropolis.

S = sum_x [-2 kappa sum_mu phi_x phi_{x+mu} + phi_x^2 + lambda (phi_x^2 - 1)^2], p ~ exp(-S), on L x L tori.
"""

import numpy as np


def action(phi, kappa, coupling):
    """S of every field, of shape (n, L, L)."""
    hops = phi * (np.roll(phi, 1, 1) + np.roll(phi, 1, 2))
    site = phi**2 + coupling * (phi**2 - 1) ** 2
    return (-2 * kappa * hops + site).sum((1, 2))


def metropolis(n, size, kappa, coupling, sweeps, seed, width=1.5):
    """The last fields of n independent chains; all even sites are updated at once, then all odd ones."""
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(n, size, size)).astype(np.float32)
    even = np.indices((size, size)).sum(0) % 2 == 0
    for _ in range(sweeps):
        for sites in (even, ~even):
            around = sum(np.roll(phi, step, axis) for step in (1, -1) for axis in (1, 2))[:, sites]
            old = phi[:, sites]
            new = old + width * (2 * rng.random(old.shape, dtype=np.float32) - 1)
            change = -2 * kappa * around * (new - old) + (new**2 - old**2) * (1 + coupling * (new**2 + old**2 - 2))
            accepted = rng.exponential(size=old.shape) > change
            phi[:, sites] = np.where(accepted, new, old)
        phi *= rng.choice([-1, 1], size=(n, 1, 1))  # S is even: the sign of a field costs nothing
    return phi
