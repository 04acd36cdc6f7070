"""The zoo of hard-valid teachers that laws are tried on: the three families and variants, with narrow conditioners."""

from __future__ import annotations

from functools import cache

import torch

from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.randomness import stream
from sizetransfer.systems.hard_valid import HardValidTeacher, HardValidTeacherSpec

NARROW = {"width": 6, "embedding": 3, "coupling_gain": 0.4, "flow_depth": 2}
ZOO: dict[str, dict[str, object]] = {
    "local": {"preset": "local", **NARROW},
    "medium": {"preset": "medium", **NARROW},
    "wide": {"preset": "wide", **NARROW},
    "another seed": {"preset": "medium", **NARROW, "seed": 5},
    "two channels": {"preset": "local", **NARROW, "channels": 2, "flow_depth": 1},
    "before, correction": {"preset": "medium", **NARROW, "pre_flow_depth": 1, "correction": 0.7},
    "linear smoother": {"preset": "medium", **NARROW, "flow_depth": 0, "nonlinear": False},
    "tight clip": {"preset": "local", **NARROW, "clip": 0.1, "power": 2.0},
    "two types, one theme": {"preset": "local", **NARROW, "types": 2, "themes": 1, "type_depth": 3},
    "white": {"preset": "local", "flow_depth": 0, "smoother_depth": 0},
}


def spec(name: str, **changes: object) -> HardValidTeacherSpec:
    return HardValidTeacherSpec.parse({"kind": "hard-valid", **ZOO[name], **changes})


@cache
def build(name: str, dtype: torch.dtype = torch.float64) -> HardValidTeacher:
    return spec(name).build().to(dtype).frozen()


def sample(teacher: HardValidTeacher, size: int = 4, batch: int = 2, *labels: int | str) -> Sample:
    return teacher.sample(batch, size, generator=stream("tests", batch, size, *labels))
