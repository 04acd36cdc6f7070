r"""Independent samples, divided into those that are trained on and those that are held out.

A *region* is a part of one sample that no other region overlaps: a whole sample, or one of the blocks that it is cut
into. Regions belong to one side of the split as a whole; fields are the regions themselves, or, of crops, windows of
the size that is asked for within a region. Blocks of side b have g sites between them,

.. math:: [k(b + g),\; k(b + g) + b) \quad\text{along each axis,}

so that no two sites of different regions are nearer than g + 1 steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Split
from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.dataset.contents import Fields, Size

if TYPE_CHECKING:
    from sizetransfer.systems.dataset.spec import SplitSpec

FEWEST_HELD_OUT = 2
"""Independent held-out fields without which there is no standard error."""


@dataclass(frozen=True)
class Region:
    """A part of a sample.

    Attributes:
        file: number of the file.
        row: number of the sample in it.
        low: its first site along each axis.
        size: its sites along each axis.
    """

    file: int
    row: int
    low: Size
    size: Size

    def tiles(self, side: int) -> list[Region]:
        """The windows of this side that it is cut into, side by side."""
        counts = [length // side for length in self.size]
        steps = itertools.product(*(range(count) for count in counts))
        return [self.window(tuple(side * step for step in at), side) for at in steps]

    def window(self, offset: Sequence[int], side: int) -> Region:
        """The window of this side whose first site is so far from the region's."""
        low = tuple(a + b for a, b in zip(self.low, offset, strict=True))
        return Region(self.file, self.row, low, (side,) * len(self.size))

    @property
    def high(self) -> Size:
        """The site behind its last one along each axis."""
        return tuple(a + b for a, b in zip(self.low, self.size, strict=True))


Parts = dict[Split, tuple[Region, ...]]


def divided(files: Sequence[Fields], spec: SplitSpec, seed: int) -> Parts:
    """Divide all samples; those of one size together.

    Args:
        files: of the data set.
        spec: how.
        seed: chooses samples and blocks.

    Raises:
        SpecError: nothing is left on one side.
    """
    parts: dict[Split, list[Region]] = {"training": [], "held out": []}
    for size in sorted({one.numbers.size for one in files}):
        own = [(number, one) for number, one in enumerate(files) if one.numbers.size == size]
        whole = [region for number, one in own if one.held_out for region in samples_of(number, one)]
        given = [(number, one) for number, one in own if not one.held_out]
        if whole:
            parts["held out"] += whole
            parts["training"] += [region for number, one in given for region in _regions(number, one, spec)]
        else:
            training, held_out = _divided(given, spec, seed, size)
            parts["training"] += training
            parts["held out"] += held_out
    _require_both(parts, files)
    return {name: tuple(regions) for name, regions in parts.items()}


def samples_of(number: int, file: Fields) -> list[Region]:
    """All samples of a file, whole."""
    size = file.numbers.size
    return [Region(number, row, (0,) * len(size), size) for row in range(file.count)]


def _regions(number: int, file: Fields, spec: SplitSpec) -> list[Region]:
    samples = samples_of(number, file)
    if spec.block is None:
        return samples
    side, stride = spec.block, spec.block + spec.gap
    starts = [range(0, length - side + 1, stride) for length in file.numbers.size]
    return [sample.window(at, side) for sample in samples for at in itertools.product(*starts)]


def _divided(
    files: Sequence[tuple[int, Fields]], spec: SplitSpec, seed: int, size: Size
) -> tuple[list[Region], list[Region]]:
    if spec.by == "sequence":
        pairs = [_sequence(samples_of(number, one), spec) for number, one in files]
        return [a for first, _ in pairs for a in first], [b for _, second in pairs for b in second]
    regions = [region for number, one in files for region in _regions(number, one, spec)]
    count = _held_out(len(regions), spec.held_out)
    _require(len(regions), count, files, spec)
    order = stream(seed, "split of a data set", *size)
    chosen = set(_shuffled(len(regions), order)[:count].tolist())
    first = [region for number, region in enumerate(regions) if number not in chosen]
    return first, [regions[number] for number in sorted(chosen)]


def _shuffled(count: int, generator: object) -> NDArray[np.int64]:
    import torch

    from sizetransfer.contracts.randomness import uniform

    like = torch.zeros((), dtype=torch.float64)
    numbers = uniform((count,), generator=generator, like=like)  # type: ignore[arg-type]
    found: NDArray[np.int64] = numbers.argsort(stable=True).numpy()
    return found


def _held_out(count: int, share: float) -> int:
    """So many of the regions are held out: the share, at least two, and never all."""
    return min(max(FEWEST_HELD_OUT, round(share * count)), count - 1)


def _sequence(samples: Sequence[Region], spec: SplitSpec) -> tuple[list[Region], list[Region]]:
    start = len(samples) - _held_out(len(samples), spec.held_out)
    return list(samples[: max(0, start - spec.gap)]), list(samples[start:])


def _require(count: int, held_out: int, files: Iterable[tuple[int, Fields]], spec: SplitSpec) -> None:
    if held_out >= FEWEST_HELD_OUT:
        return
    what = f"blocks of {spec.block} sites" if spec.block else "samples"
    raise SpecError(
        "There are too few independent fields to hold some out.",
        where=", ".join(one.numbers.stored.label for _, one in files),
        expected=f"at least {FEWEST_HELD_OUT + 1} {what} of a size",
        got=str(count),
        fix="lower split.block or split.gap"
        if spec.block
        else "give more samples; cut one large image with boundary: crop and split: {by: blocks, block: ...}; or give "
        "held_out_files",
    )


def _require_both(parts: dict[Split, list[Region]], files: Sequence[Fields]) -> None:
    for name, regions in parts.items():
        if not regions:
            raise SpecError(
                f"The split leaves no {name} field.",
                where=", ".join(one.numbers.stored.label for one in files),
                expected="fields on both sides",
                got=f"{sum(one.count for one in files)} samples",
                fix="lower split.gap or split.held_out, or give more samples",
            )
