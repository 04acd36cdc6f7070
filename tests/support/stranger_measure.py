"""A third party's plugin, whole: a measure with values by distance and by noise level, and a figure of its own.

Nothing in it is about reports but the one figure that it registers. It is installed by the tests as a distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from sizetransfer.registry.hooks import hookimpl


@hookimpl
def register_measures(register):
    import torch

    from sizetransfer.contracts.noise import perturb
    from sizetransfer.contracts.oracle import HasSmoothedScore, draw_fields
    from sizetransfer.contracts.parts import Part, relative_error
    from sizetransfer.contracts.randomness import stream
    from sizetransfer.contracts.records import Measurement
    from sizetransfer.contracts.specs import MeasureSpec
    from sizetransfer.numerics.statistics import mean, root_ratio

    class EchoSpec(MeasureSpec):
        """How far the score of noisy fields is like itself, and its error."""

        kind: Literal["echo"] = "echo"
        requires: ClassVar[tuple[type, ...]] = (HasSmoothedScore,)
        parts: ClassVar[Mapping[str, Part]] = {
            "likeness": Part("response", "likeness of the score at a distance", "distance", "1/field²"),
            "off": relative_error("error of the echo", "noise"),
        }
        fields: int = 8

        def measure(self, teacher, student, size, *, sigma, seed):
            for level in (0.3, 1.0):
                generator = stream(seed, "echo", size, repr(level))
                sample = draw_fields(teacher, self.fields, size, generator=generator)
                levels = sample.x.new_full((self.fields,), level)
                x, _ = perturb(sample.x, levels, generator=generator)
                with torch.no_grad():
                    exact = teacher.smoothed_score(x, levels, sample.context)
                    learned = student(x, levels, sample.context)
                squares = [one.square().flatten(1).mean(1) for one in (learned - exact, exact)]
                yield Measurement.of("off", root_ratio(*squares), level)
            for distance in range(4):
                shifted = learned.roll(distance, dims=2)
                yield Measurement.of("likeness", mean((learned * shifted).flatten(1).mean(1)), float(distance))

    register(EchoSpec)


@hookimpl
def register_figures(register):
    register("echo-bars", echo_bars)


def echo_bars(data):
    """Bars of the likeness at the largest distance."""
    from sizetransfer.drawing import Drawing, Omitted, new_figure

    rows = data.values("echo", "likeness", coordinate=3.0)
    if rows.empty:
        return Omitted("echo-bars", "no likeness was measured")
    figure = new_figure(4.0, 3.0)
    figure.subplots().bar(range(len(rows)), rows["value"])
    return Drawing("echo-bars", "Bars of the echo", "One bar a student and size.", figure)
