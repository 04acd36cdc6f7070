r"""Ratios of second moments, of generated to exact fields: the consequence that a verdict weighs.

With :math:`\mu` the exact mean of a channel and v the variance of the noise that is left at the end, a field b of n
sites gives

- ``site_variance``: the mean of :math:`(x_i - \mu)^2` over sites, less v;
- ``nearest_covariance``: the mean of :math:`(x_i - \mu)(x_j - \mu)` over neighbours along the axes;
- ``zero_mode``: :math:`n(\bar x - \mu)^2 - v`, whose mean is S(0);
- ``smallest_wave``: :math:`|x_k|^2/n - v`, whose mean over the smallest wave vectors is S(k_min);

each a mean over channels. The ratio is the sum over generated fields divided by that over as many exact ones, or by the
exact value where it is known: that of the clean law, because v is taken off. Local marginals are the first two; the
last two, on tori without dead sites alone, are long-range order. Where neighbours are nearly uncorrelated, the second
ratio is 1 + (generated - exact) / variance. Where the mean is not known to be zero, it is that of
another set of exact fields, so that generated and exact ones are treated alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sizetransfer.contracts.records import Measurement
from sizetransfer.numerics.statistics import ratio
from sizetransfer.scores.references.consequence import UNCORRELATED

RATIOS = ("site_variance_ratio", "nearest_covariance_ratio", "zero_mode_ratio", "smallest_wave_ratio")
"""Names of the ratios, in the order of the moments; the last two are there on tori alone."""


def marginals(
    averages: Float[Tensor, "n channels parts"], mean: Float[Tensor, "channels"], sites: int, v: float
) -> Float[Tensor, "n moments"]:
    """The moments above of every field.

    Args:
        averages: mean, mean square, mean product of neighbours, and, on tori, ``|x_k|^2/n`` of the smallest waves.
        mean: of the exact field.
        sites: n, of a torus.
        v: variance of the noise that is left.
    """
    first, square, nearest, *waves = averages.unbind(-1)
    shift = mean**2 - 2 * mean * first
    moments = [square + shift - v, nearest + shift]
    if waves:
        moments += [sites * (first - mean) ** 2 - v, waves[0] - v]
    return torch.stack([one.mean(1) for one in moments], -1)


def ratios(
    generated: Float[Tensor, "n moments"],
    exact: Float[Tensor, "n moments"],
    known: Float[Tensor, "4"] | None,
    prefix: str = "",
) -> Iterator[Measurement]:
    """The ratios with their standard errors and the sums of every field."""
    seen = ~exact.isnan()  # a field without a live pair does not count
    below = exact.nan_to_num() if known is None else seen * known[: exact.shape[1]].to(exact)
    above = torch.where(seen, generated, 0.0)
    if bool(below[:, 1].sum().abs() < UNCORRELATED * below[:, 0].sum()):
        difference = above[:, 1] - below[:, 1]
        below = torch.cat([below[:, :1], below[:, :1], below[:, 2:]], 1)
        above = torch.cat([above[:, :1], below[:, :1] + difference[:, None], above[:, 2:]], 1)
    for index in range(generated.shape[1]):
        yield Measurement.of(prefix + RATIOS[index], ratio(above[:, index], below[:, index]))


def plain(part: str, value: float, n: int) -> Measurement:
    """A number without an error: a setting, or a choice."""
    return Measurement(part, value, 0.0 if math.isfinite(value) else math.nan, n)
