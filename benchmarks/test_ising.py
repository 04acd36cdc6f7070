"""Exact Ising models: any field, no field, samples; the targets are those of docs/ising.md."""

from __future__ import annotations

import pytest
import torch

from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.ising import CRITICAL, IsingModel, zero_field
from sizetransfer.systems.ising.perfect import TorusSampler
from sizetransfer.systems.ising.rows import rows_of


@pytest.mark.parametrize("size", [8, 10])
@pytest.mark.benchmark(group="all means and one row of covariances, one field")
def test_row_of_covariances(benchmark, size):
    h = torch.randn(1, size, size, generator=stream("field", size), dtype=torch.float64)
    benchmark.pedantic(lambda: IsingModel(CRITICAL).covariance_rows(h, 0), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("length", [16, 64])
@pytest.mark.benchmark(group="all means and one covariance on a cylinder of circumference 16")
def test_cylinder(benchmark, length):
    h = torch.randn(1, length, 16, generator=stream("field", length), dtype=torch.float64)
    model = IsingModel(CRITICAL, "cylinder")
    benchmark.pedantic(lambda: (model.moments(h), model.covariance(h, (length // 2, 0))), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("ratio", [0.9, 1.0])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.benchmark(group="table of correlations without field")
def test_zero_field(benchmark, size, ratio):
    benchmark.pedantic(lambda: zero_field(ratio * CRITICAL, (size, size)), rounds=1)


@pytest.mark.parametrize("size", [8, 12])
@pytest.mark.benchmark(group="1000 perfect samples after set-up")
def test_samples(benchmark, size):
    sampler = TorusSampler(size, rows_of(size, CRITICAL, closed=True, device=torch.device("cpu")))
    benchmark.pedantic(lambda: sampler.draw(1000, stream("draws")), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.benchmark(group="best local score of one 8 x 8 field, by radius")
def test_local_score(benchmark, radius):
    import sizetransfer as st

    teacher = st.teacher("ising").double()
    sample = teacher.sample(1, 8, generator=stream("clean"))
    posterior, sigma = teacher.posterior(sample.context.domain), torch.ones(1, dtype=torch.float64)
    benchmark.pedantic(lambda: posterior.local_score(sample.x, sigma, radius), rounds=3, warmup_rounds=1)
