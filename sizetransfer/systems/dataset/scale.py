r"""The scale of data: mean and deviation of each channel, measured on the training fields.

.. math:: \mu_c = \frac1n\sum x_c, \qquad s_c^2 = \frac1n\sum (x_c - \mu_c)^2, \qquad
    \sigma_d^2 = \frac1C\sum_c s_c^2

over live sites of at most ``SCANNED`` numbers in ``BLOCKS`` blocks, spread over all training fields where there are
more. Sums of parts are joined as Chan, Golub and LeVeque (1983) do, so that a mean far from zero costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sizetransfer.contracts.errors import SpecError
from sizetransfer.systems.dataset.contents import Fields
from sizetransfer.systems.dataset.splitting import Region

SCANNED = 2**26
"""Numbers that the scale is measured from, at most."""

BLOCKS = 2**13
"""Fields, or parts of large fields, that it is measured from, at most."""

SLAB = 2**22
"""Numbers that are in memory at a time."""


@dataclass(frozen=True)
class Scale:
    """Scale of the fields in the units of the files.

    Attributes:
        mean, deviation: of each channel.
        share: of the training fields' numbers that were looked at.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    share: float

    @property
    def pooled(self) -> float:
        """Root of the mean variance of the channels."""
        return math.sqrt(sum(one**2 for one in self.deviation) / len(self.deviation))


def measured(files: Sequence[Fields], regions: Sequence[Region]) -> Scale:
    """Measure the scale of some regions.

    Raises:
        SpecError: a number is not finite, with file, sample and channel; or a channel does not vary.
    """
    channels = files[0].numbers.channels
    slabs = [slab for region in regions for slab in _slabs(region, channels)]
    numbers = channels * sum(math.prod(slab.size) for slab in slabs)
    kept = _some(slabs, numbers)
    count, mean, squares = (np.zeros(channels) for _ in range(3))
    for slab in kept:
        file = files[slab.file]
        x = file.numbers.window(slab.row, slab.low, slab.high)
        live = file.live(slab.row, slab.low, slab.high)
        require_finite(file, slab, x, live)
        values = x.reshape(channels, -1) if live is None else x[:, live[0]]
        count, mean, squares = _joined((count, mean, squares), values)
    deviation = np.sqrt(squares / np.maximum(count, 1))
    _require_variation(files, mean, deviation)
    looked = channels * sum(math.prod(slab.size) for slab in kept)
    return Scale(tuple(mean.tolist()), tuple(deviation.tolist()), looked / numbers)


def _slabs(region: Region, channels: int) -> Iterator[Region]:
    """The region cut along its first axis into parts of at most ``SLAB`` numbers, but for single layers."""
    layer = channels * math.prod(region.size[1:])
    thick = max(1, SLAB // layer)
    for start in range(0, region.size[0], thick):
        low = (region.low[0] + start, *region.low[1:])
        yield Region(region.file, region.row, low, (min(thick, region.size[0] - start), *region.size[1:]))


def _some(slabs: Sequence[Region], numbers: int) -> Sequence[Region]:
    """All slabs, or some that are evenly spaced, where all would be too many numbers."""
    kept = max(1, min(BLOCKS, len(slabs) * SCANNED // numbers))
    if kept >= len(slabs):
        return slabs
    return [slabs[len(slabs) * place // kept] for place in range(kept)]


_Sums = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _joined(sums: _Sums, values: NDArray[np.float64]) -> _Sums:
    """Count, mean, and sum of squares about it, with further values ``(C, n)``."""
    count, mean, squares = sums
    more = values.shape[1]
    if not more:
        return sums
    own = values.mean(1)
    total, step = count + more, own - mean
    inside = squares + np.square(values - own[:, None]).sum(1)
    return total, mean + step * more / total, inside + step**2 * count * more / total


def require_finite(file: Fields, region: Region, x: NDArray[np.float64], live: NDArray[np.bool_] | None) -> None:
    """Refuse numbers ``(C, *S)`` that are not finite at live sites.

    Raises:
        SpecError: with file, sample, channel and site.
    """
    wrong = ~np.isfinite(x) if live is None else ~np.isfinite(x) & live
    if not wrong.any():
        return
    channel, *site = (int(place) for place in np.argwhere(wrong)[0])
    where = tuple(a + b for a, b in zip(site, region.low, strict=True))
    raise SpecError(
        "A number of the data set is not finite.",
        where=f"{file.numbers.stored.label}, sample {region.row}, channel {channel}, site {where}",
        expected="finite numbers on live sites",
        got=f"{x[(channel, *site)]} ({int(wrong.sum())} of {wrong.size} here are not finite)",
        fix="leave the sample out, or call such sites dead with mask:",
    )


def _require_variation(files: Sequence[Fields], mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
    rounding = 64 * np.finfo(np.float64).eps * np.abs(mean)
    for channel in np.flatnonzero(deviation <= rounding):
        raise SpecError(
            "A channel of the data set does not vary.",
            where=f"{', '.join(one.numbers.stored.label for one in files)}, channel {channel}",
            expected="a positive standard deviation",
            got=f"the value {mean[channel]:.6g} on every live site that was looked at",
            fix="leave the channel out, give it as condition:, or correct layout:",
        )
