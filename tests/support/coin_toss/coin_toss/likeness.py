"""A measure: its parts say along which axis they go, and the report does the rest."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch

from sizetransfer import MeasureSpec
from sizetransfer.contracts.noise import perturb
from sizetransfer.contracts.oracle import HasSmoothedScore, draw_fields
from sizetransfer.contracts.parts import Part, relative_error
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.numerics.statistics import mean, root_ratio

LEVELS = (0.5, 1.0)
"""Noise levels."""


class CoinLikenessSpec(MeasureSpec):
    """Error of the score at two noise levels, and how like itself the student's score is at a distance."""

    kind: Literal["coin-likeness"] = "coin-likeness"
    requires: ClassVar[tuple[type, ...]] = (HasSmoothedScore,)
    parts: ClassVar[Mapping[str, Part]] = {
        "likeness": Part("response", "likeness of the score at a distance", "distance", "1/field²"),
        "off": relative_error("error of the score of coins", "noise"),
    }
    fields: int = 16

    def measure(self, teacher, student, size: int, *, sigma: float, seed: int) -> Iterator[Measurement]:
        """Yield the numbers, each with its standard error over the fields."""
        for level in LEVELS:
            generator = stream(seed, "coin-likeness", size, repr(level))
            sample = draw_fields(teacher, self.fields, size, generator=generator)
            levels = sample.x.new_full((self.fields,), level)
            x, _ = perturb(sample.x, levels, generator=generator)
            with torch.no_grad():
                exact = teacher.smoothed_score(x, levels, sample.context)
                learned = student(x, levels, sample.context)
            squares = [one.square().flatten(1).mean(1) for one in (learned - exact, exact)]
            yield Measurement.of("off", root_ratio(*squares), level)
        for distance in range(3):
            shifted = learned.roll(distance, dims=2)
            yield Measurement.of("likeness", mean((learned * shifted).flatten(1).mean(1)), float(distance))
