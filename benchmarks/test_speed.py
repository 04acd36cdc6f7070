"""Costs of the parts of a run: samples, scores, training steps, evaluation, and starting up."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.randomness import stream


@pytest.fixture(scope="module", params=["short-range-simple", "medium-range", "long-range-stress"])
def teacher(request):
    return st.teacher("flow", preset=request.param).frozen()


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.benchmark(group="sample of 8 fields")
def test_sample(benchmark, teacher, size):
    benchmark(lambda: teacher.sample(8, size, generator=stream(0)))


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.benchmark(group="clean score of 8 fields")
def test_score(benchmark, teacher, size):
    sample = teacher.sample(8, size, generator=stream(0))
    benchmark(teacher.score, sample)


@pytest.mark.parametrize("objective", ["denoising", "mixed"])
@pytest.mark.parametrize("blocks", [1, 3, 5])
@pytest.mark.benchmark(group="5 training steps, batch 8, 32 x 32")
def test_training(benchmark, blocks, objective):
    teacher = st.teacher("flow", preset="medium-range").frozen()
    training = st.TrainingSpec(size=32, steps=5, batch=8, objective=objective)
    student = st.student("cnn", teacher.field, blocks=blocks, width=32)
    benchmark.pedantic(lambda: st.train(teacher, student, training, seed=0), rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.benchmark(group="student on one field")
def test_evaluation(benchmark, size):
    teacher = st.teacher("flow", preset="medium-range").frozen()
    student = st.student("cnn", teacher.field, blocks=3, width=32).eval()
    sample = teacher.sample(1, size, generator=stream(0))
    sigma = torch.full((1,), 0.05)
    with torch.no_grad():
        benchmark(student, sample.x, sigma, sample.context)


@pytest.mark.parametrize(
    "arguments", [["-c", "pass"], ["-c", "import sizetransfer"], ["-m", "sizetransfer", "--help"]], ids=" ".join
)
@pytest.mark.benchmark(group="starting up, beside an empty interpreter")
def test_start(benchmark, arguments):
    run = [sys.executable, *arguments]
    benchmark.pedantic(lambda: subprocess.run(run, check=True, capture_output=True), rounds=5, warmup_rounds=1)
