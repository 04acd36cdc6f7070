r"""The variance-exploding noise and its conventions.

Symbols (paper §2, eq. (1)–(3)): :math:`x_\sigma = x_0 + \sigma\xi`, :math:`\xi\sim N(0, I)`;
:math:`v = \sigma^2` is the variance clock. Training draws :math:`\log\sigma` uniformly between
:math:`\log\sigma_{\min}` and :math:`\log\sigma_{\max}`. Networks are told the noise through
:math:`c(\sigma) = \tfrac14\log\sigma`, expanded in sines and cosines.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.randomness import normal, uniform
from sizetransfer.contracts.specs import NoiseSchedule


def draw_sigma(
    schedule: NoiseSchedule, batch: int, *, generator: torch.Generator, like: Tensor
) -> Float[Tensor, "batch"]:
    """Draw ``batch`` noise levels, log-uniform on the schedule, with the dtype and device of ``like``."""
    unit = uniform((batch,), generator=generator, like=like)
    low, high = math.log(schedule.sigma_min), math.log(schedule.sigma_max)
    return torch.exp(low + (high - low) * unit)


def sigma_grid(schedule: NoiseSchedule, levels: int, *, dtype: torch.dtype = torch.float64) -> Float[Tensor, "levels"]:
    """Return ``levels`` noise levels from ``sigma_max`` down to ``sigma_min``, equally spaced in log."""
    low, high = math.log(schedule.sigma_min), math.log(schedule.sigma_max)
    return torch.linspace(high, low, levels, dtype=dtype).exp()


def expand(sigma: Float[Tensor, "batch"], like: Tensor) -> Tensor:
    """Give ``sigma`` trailing axes of length one so that it multiplies ``like`` of shape ``B C *S``."""
    return sigma.reshape(-1, *(1,) * (like.ndim - 1))


def perturb(
    x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], *, generator: torch.Generator
) -> tuple[Float[Tensor, "batch channels *size"], Float[Tensor, "batch channels *size"]]:
    """Return ``(x + sigma * xi, xi)`` with standard normal ``xi`` (paper eq. (1))."""
    noise = normal(x.shape, generator=generator, like=x)
    return x + expand(sigma, x) * noise, noise


def fourier_features(sigma: Float[Tensor, "batch"], frequencies: int) -> Float[Tensor, "batch features"]:
    r"""Sines and cosines of :math:`2^k\pi\, c(\sigma)`, :math:`c = \tfrac14\log\sigma`, k below ``frequencies``."""
    octaves = 2.0 ** torch.arange(frequencies, dtype=sigma.dtype, device=sigma.device)
    phase = 0.25 * sigma.log()[:, None] * octaves * math.pi
    return torch.cat([phase.sin(), phase.cos()], dim=1)
