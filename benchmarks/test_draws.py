"""Costs of random numbers beside torch's own generator, and of what a training step enters."""

from __future__ import annotations

import pytest
import torch

from sizetransfer.contracts.arithmetic import arithmetic, seed_generators, undisturbed
from sizetransfer.contracts.randomness import normal, stream

SHAPES = [(8,), (8, 1, 16, 16), (8, 1, 32, 32), (8, 1, 512, 512)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


@shapes
@dtypes
@pytest.mark.benchmark(group="normal numbers: torch's generator, the first draw of a stream, and one of many")
def test_torch(benchmark, shape, dtype):
    generator, like = torch.Generator(), torch.zeros((), dtype=dtype)
    benchmark(lambda: normal(shape, generator=generator, like=like))


@shapes
@dtypes
@pytest.mark.benchmark(group="normal numbers: torch's generator, the first draw of a stream, and one of many")
def test_first_draw(benchmark, shape, dtype):
    like = torch.zeros((), dtype=dtype)
    benchmark(lambda: normal(shape, generator=stream("benchmark"), like=like))


@shapes
@dtypes
@pytest.mark.benchmark(group="normal numbers: torch's generator, the first draw of a stream, and one of many")
def test_one_draw_of_many(benchmark, shape, dtype):
    one, like = stream("benchmark"), torch.zeros((), dtype=dtype)
    benchmark(lambda: normal(shape, generator=one, like=like))


@pytest.mark.benchmark(group="what a training step enters")
def test_stream(benchmark):
    benchmark(lambda: stream("fields", 0))


@pytest.mark.benchmark(group="what a training step enters")
def test_seeding_the_global_generators(benchmark):
    with undisturbed():
        benchmark(lambda: seed_generators("modules", 0))


@pytest.mark.parametrize("generators", [True, False], ids=["with generators", "without"])
@pytest.mark.parametrize(
    "block", [undisturbed, lambda **named: arithmetic("float32", **named)], ids=["undisturbed", "arithmetic"]
)
@pytest.mark.benchmark(group="what a training step enters")
def test_entering(benchmark, block, generators):
    def enter():
        with block(generators=generators):
            pass

    benchmark(enter)
