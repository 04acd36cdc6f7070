"""Settings of the whole suite: shapes checked at run time, double precision, one thread, repeatable examples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

# The modules whose annotations carry tensor shapes; the hook must be there before they are imported.
_SHAPED = ["students", *(f"numerics.{name}" for name in ("chains", "gaussian", "layers", "shells"))]
_MEASURES = Path(__file__).parents[1] / "sizetransfer" / "measures"
_SHAPED += [f"measures.{path.stem}" for path in sorted(_MEASURES.glob("[!_]*.py"))]  # not their figures
_SHAPED += [f"contracts.{name}" for name in ("gradients", "noise", "oracle", "student")]
_SHAPED += [f"scores.{name}" for name in ("training", "response", "sampling", "tiling", "posterior")]
_SHAPED += ["systems.dataset", "systems.flow.teacher", "systems.gaussian", "systems.phi4"]
_HARD_VALID = ("blocks", "directions", "encoding", "field", "labels", "motifs", "ports", "teacher", "validity")
_SHAPED += [f"systems.hard_valid.{name}" for name in _HARD_VALID]
_SHAPED += [f"systems.ising.{name}" for name in ("teacher", "student", "zero_field_measure")]
# Of Theorem 1, what has tensors in its signatures; checking its scalar inner loops would take minutes.
_SHAPED += [f"theorem1.{name}" for name in ("patches", "weights", "linear", "theorem", "monte_carlo", "api")]
jaxtyping.install_import_hook([f"sizetransfer.{name}" for name in _SHAPED], "shape_checks.check")

os.environ.setdefault("MPLBACKEND", "Agg")
hypothesis.settings.register_profile("sizetransfer", derandomize=True, deadline=None)
hypothesis.settings.load_profile("sizetransfer")


def _global_state() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "gradients enabled": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "validation of distributions": torch.distributions.Distribution._validate_args,
        "float32 matmul precision": torch.get_float32_matmul_precision(),
    }


def _restore(state: dict[str, object]) -> None:
    torch.set_default_dtype(state["default dtype"])
    torch.set_num_threads(state["threads"])
    torch.set_grad_enabled(state["gradients enabled"])
    torch.use_deterministic_algorithms(state["deterministic algorithms"])
    torch.autograd.set_detect_anomaly(state["anomaly detection"])
    torch.distributions.Distribution.set_default_validate_args(state["validation of distributions"])
    torch.set_float32_matmul_precision(state["float32 matmul precision"])


@pytest.fixture(scope="session", autouse=True)
def _double_precision_on_one_thread() -> Iterator[None]:
    before = _global_state()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    yield
    _restore(before)


@pytest.fixture(autouse=True)
def unchanged_global_state(_double_precision_on_one_thread: None) -> Iterator[None]:
    """Fail a test that leaves torch's global state changed, and put the state back for the tests after it."""
    before = _global_state()
    yield
    after = _global_state()
    if after != before:
        _restore(before)
        changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
        pytest.fail(f"the test changed torch's global state (before, after): {changed}")


@pytest.fixture
def generator() -> torch.Generator:
    """A generator at the start of a fixed stream."""
    return torch.Generator().manual_seed(20260609)
