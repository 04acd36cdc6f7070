"""What a run's numbers may depend on beside its specification: versions, code, machine, device."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from sizetransfer.contracts.errors import RunError

_RECORDED = ("torch", "numpy", "pandas", "pyarrow", "pydantic", "safetensors")


def choose_device(name: str) -> str:
    """The torch device to use: ``auto`` takes a CUDA device if there is one.

    Raises:
        RunError: there is no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise RunError(
            f"The device {name!r} cannot be used.",
            where="device",
            expected="auto, cpu, or an accelerator that torch finds",
            got=str(error).strip().splitlines()[0],
            fix="use --device auto",
        ) from error
    return str(torch.device(name))


def describe(device: str) -> dict[str, Any]:
    """Versions, git state, machine and device, as JSON."""
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _RECORDED},
        "git": {"source": _source_state(), "working_directory": git_state(Path.cwd())},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "device": device,
        "device_name": device_name(device),
        "threads_per_trial": 1 if device == "cpu" else torch.get_num_threads(),
        "not_deterministic": not_deterministic(device),
    }


def fingerprint(device: str) -> dict[str, str]:
    """What numbers may depend on in their last digits and no key holds: torch and processor."""
    return {"torch": torch.__version__, "device": device, "processor": device_name(device)}


def device_name(device: str) -> str:
    """The name of the accelerator, or the model and the instruction set of the processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})"


def not_deterministic(device: str) -> list[str]:
    """What may differ between two computations of the same trial on the same machine."""
    if device == "cpu":
        return []
    return [
        f"convolutions and sums on {device}: the order of additions, and so the last bits, may vary between runs",
    ]


def git_state(directory: Path) -> dict[str, Any] | None:
    """Commit of the repository that ``directory`` is in and whether it has local changes; nothing without one."""
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "modified": bool(_git(directory, "status", "--porcelain", "--untracked-files=no"))}


def _source_state() -> dict[str, Any] | None:
    # An installed package may lie in an environment inside somebody's repository without being part of it.
    here = Path(__file__)
    tracked = _git(here.parent, "ls-files", "--error-unmatch", here.name)
    return None if tracked is None else git_state(here.parent)


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@functools.cache
def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
