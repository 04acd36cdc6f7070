"""Memory of scores and students grows linearly with the number of sites, and a 1024 x 1024 torus fits 8 GiB.

Peak memory is a property of a process, so each measurement is a process of its own.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

GIBIBYTE = 2**30

PROGRAM = r"""
import re, resource, sys
from pathlib import Path
import torch
import sizetransfer as st
from sizetransfer.contracts.randomness import stream

torch.set_num_threads(1)
teacher = st.teacher("flow", preset="medium-range").frozen()
student = st.student("cnn", teacher.field, blocks=3, width=64)
task, size = sys.argv[1], int(sys.argv[2])
sample = teacher.sample(1, size, generator=stream(0))
if task == "score":
    teacher.score(sample)
elif task == "student":
    with torch.no_grad():
        student(sample.x, sample.x.new_full((1,), 0.05), sample.context)
elif task == "quadratic":  # the broken object: every pair of sites, at a size where that is still affordable
    torch.ones(size * size // 16, size * size // 16).sum()
status = Path("/proc/self/status")
if status.exists():  # the resource counter would begin with the memory of the process that started this one
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1)) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def peak_memory(task: str, size: int) -> int:
    """Peak resident memory, in bytes, of a process that does ``task`` on one torus of ``size`` x ``size``."""
    command = [sys.executable, "-c", PROGRAM, task, str(size)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def growth(task: str, size: int, baseline: int) -> float:
    """Factor by which the memory above ``baseline`` grows when the side of the torus doubles."""
    small, large = (peak_memory(task, length) - baseline for length in (size, 2 * size))
    return large / small


@pytest.fixture(scope="module")
def baseline() -> int:
    return peak_memory("nothing", 2)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["score", "student"])
def test_memory_is_linear_in_the_number_of_sites_and_a_large_torus_fits(task, baseline):
    # Four times the sites: a factor of four, with room for the allocator's granularity.
    assert growth(task, 512, baseline) < 5
    assert peak_memory(task, 1024) < 8 * GIBIBYTE


@pytest.mark.slow
def test_quadratic_memory_is_noticed(baseline):
    assert growth("quadratic", 256, baseline) > 8
