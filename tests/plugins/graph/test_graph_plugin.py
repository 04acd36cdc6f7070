"""The distribution: what it registers, what importing it changes, and training through the core."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.specs import TrainingSpec
from sizetransfer.registry import default_registry
from sizetransfer.scores.training import train

pytest.importorskip("sizetransfer_graph", reason="the distribution sizetransfer-graph is not installed")

GLOBAL_STATE = """
import torch
def state():
    return (
        torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled(), torch.get_float32_matmul_precision(),
        torch.distributions.Distribution._validate_args, torch.jit._state._enabled.enabled,
        torch.random.get_rng_state().sum().item(),
    )
"""


def run(code: str, **environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_listing_students_imports_neither_library_and_building_them_changes_nothing() -> None:
    code = (
        GLOBAL_STATE
        + "import sys\nimport sizetransfer as st\nfrom sizetransfer.registry import default_registry\n"
        + "kinds = default_registry().kinds('student')\n"
        + "assert kinds['equivariant'].distribution == kinds['message-passing'].distribution == 'sizetransfer-graph'\n"
        + "print([name for name in ('torch_geometric', 'e3nn') if name in sys.modules])\n"
        + "field = st.FieldInfo(geometry='graph', dim=3, channels=3, components='vector', periodic=False)\n"
        + "before = state()\n"
        + "for kind in kinds:\n"
        + "    if kinds[kind].distribution == 'sizetransfer-graph': st.student(kind, field, depth=1)\n"
        + "print([name for name in ('torch_geometric', 'e3nn') if name in sys.modules])\n"
        + "assert state() == before, (before, state())\n"
    )
    # Warnings are errors there: importing the libraries gives none.
    assert run(code).splitlines() == ["[]", "['torch_geometric', 'e3nn']"]


def test_without_the_plugin_the_error_says_what_to_install() -> None:
    code = (
        "import sizetransfer as st\n"
        "try:\n    st.student('equivariant', st.FieldInfo(dim=3))\n"
        "except st.SpecError as error:\n    print(error)\n"
    )
    assert "pip install sizetransfer-graph" in run(code, SIZETRANSFER_PLUGINS="none")


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_the_experiment_is_there(preset: str) -> None:
    assert "crystal" in default_registry().experiments()
    experiment = st.load("crystal", preset=preset)
    assert experiment.training.size == 128
    assert max(experiment.evaluation.sizes) == {"quick": 2000, "paper": 10000}[preset]
    assert {spec.kind for spec in experiment.students.values()} == {"message-passing", "equivariant"}


@pytest.mark.parametrize(("kind", "steps"), [("message-passing", 150), ("equivariant", 60)])
def test_training_lowers_the_error_on_a_larger_graph(kind: str, steps: int) -> None:
    teacher = st.teacher("gaussian-graph", preset="harmonic-crystal").double()
    student = st.student(kind, teacher.field, depth=1, width=8).double()
    larger = teacher.sample(2, 120, generator=torch.Generator().manual_seed(1))
    sigma = torch.full((2,), 0.2)

    def error() -> float:
        with torch.no_grad():
            difference = student(larger.x, sigma, larger.context) - teacher.smoothed_score(
                larger.x, sigma, larger.context
            )
        return float(difference.square().mean())

    before = error()
    spec = TrainingSpec(size=40, steps=steps, batch=4, objective="mixed", learning_rate=1e-2, ema_half_life=5)
    train(teacher, student, spec, seed=0)
    assert error() < 0.25 * before
