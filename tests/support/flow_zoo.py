"""The zoo of flow teachers that laws are tried on: the four presets and variants of them."""

from __future__ import annotations

from functools import cache

import torch

from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.flow.teacher import FlowTeacher, FlowTeacherSpec

LINEAR_GAUSSIAN = {"pre_flow_depth": 0, "flow_depth": 0, "smoother_depth": 3, "cutoff": 2, "nonlinear": False}
ZOO: dict[str, dict[str, object]] = {
    "short-range-simple": {"preset": "short-range-simple"},
    "short-range-structured": {"preset": "short-range-structured"},
    "medium-range": {"preset": "medium-range"},
    "long-range-stress": {"preset": "long-range-stress"},
    "medium-range, another seed": {"preset": "medium-range", "seed": 11},
    "linear smoother": {"preset": "short-range-structured", "nonlinear": False, "cutoff": 2, "smoother_depth": 2},
    "strong couplings": {"preset": "short-range-simple", "coupling_gain": 0.5, "clip": 0.3, "width": 5},
    "steep mean mode": {
        "preset": "short-range-simple",
        "mean_mode": {"strength": 1.0, "exponent": 1.5, "reference_size": 2},
    },
    "linear Gaussian": LINEAR_GAUSSIAN,
    "zero depth": {"pre_flow_depth": 0, "flow_depth": 0},
}


def spec(name: str, **changes: object) -> FlowTeacherSpec:
    return FlowTeacherSpec.parse({"kind": "flow", **ZOO[name], **changes})


@cache
def build(name: str, dtype: torch.dtype = torch.float64) -> FlowTeacher:
    return spec(name).build().to(dtype).frozen()


def sample(teacher: FlowTeacher, size: int, batch: int = 2, *labels: int | str) -> Sample:
    return teacher.sample(batch, size, generator=stream("tests", batch, size, *labels))
