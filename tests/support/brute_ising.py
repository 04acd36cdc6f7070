"""Ising models by enumeration of all configurations: the independent route of the tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Enumerated:
    """One field: log Z, means ``(H, W)``, covariances ``(H, W, H, W)``, and the law of all ``2^N`` states."""

    log_partition: Tensor
    mean: Tensor
    covariance: Tensor
    probabilities: Tensor
    spins: Tensor


def enumerate_spins(h: Tensor, beta: float, boundary: str = "torus") -> Enumerated:
    height, width = h.shape
    bits = torch.arange(2 ** (height * width))[:, None] >> torch.arange(height * width) & 1
    flat = 1.0 - 2.0 * bits.double()
    spins = flat.reshape(-1, height, width)
    down, right = spins * spins.roll(-1, 1), spins * spins.roll(-1, 2)
    if boundary != "torus":
        down = down[:, :-1]
    if boundary == "open":
        right = right[..., :-1]
    exponents = beta * (down.sum((1, 2)) + right.sum((1, 2))) + flat @ h.double().flatten()
    log_partition = exponents.logsumexp(0)
    p = (exponents - log_partition).exp()
    mean = p @ flat
    apart = flat - mean
    covariance = (apart * p[:, None]).T @ apart
    return Enumerated(log_partition, mean.reshape(h.shape), covariance.reshape(*h.shape, *h.shape), p, spins)
