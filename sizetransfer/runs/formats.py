"""What must stand in the files of a run: a stranger can seal what no run writes.

A shape is a type, a tuple of shapes of which one must fit, a list with the shape of every item, a mapping with the
shapes of the values that must be there, or may be where the name ends in ``?``, or a function that says whether a value
fits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from sizetransfer.contracts.records import Record
from sizetransfer.runs.keys import KEY


def fits(data: object, shape: object) -> bool:
    """Whether ``data`` has a shape.

    Example:
        >>> fits({"steps": 3, "more": "?"}, {"steps": int}), fits({"steps": True}, {"steps": int}), fits({}, {"a": int})
        (True, False, False)
    """
    if isinstance(shape, Mapping):
        return isinstance(data, Mapping) and all(_member(data, name, one) for name, one in shape.items())
    if isinstance(shape, list):
        return isinstance(data, list) and all(fits(item, shape[0]) for item in data)
    if isinstance(shape, tuple):
        return any(fits(data, one) for one in shape)
    if isinstance(shape, type):
        return _is(data, shape)
    return bool(shape(data)) if callable(shape) else data is shape


def _member(data: Mapping[str, Any], name: str, shape: object) -> bool:
    there = name.removesuffix("?")
    return fits(data[there], shape) if there in data else name.endswith("?")


def _is(data: object, kind: type) -> bool:
    if kind is int:
        return isinstance(data, int) and not isinstance(data, bool) and abs(data) < 2**63
    if kind is float:
        return isinstance(data, float) or _is(data, int)
    return isinstance(data, kind)


def _key(data: object) -> bool:
    return isinstance(data, str) and re.fullmatch(KEY, data) is not None


def _digest(data: object) -> bool:
    return isinstance(data, str) and re.fullmatch(r"[0-9a-f]{64}", data) is not None


def _moment(data: object) -> bool:
    try:
        return isinstance(data, str) and datetime.fromisoformat(data).tzinfo is not None
    except ValueError:
        return False


def _seconds(data: object) -> bool:
    return _is(data, float) and isinstance(data, int | float) and math.isfinite(data)


def _texts(data: object) -> bool:
    return isinstance(data, Mapping) and all(isinstance(value, str) for value in data.values())


COLUMNS = tuple(field.name for field in fields(Record))
DTYPES = {
    "radius": "Int64",
    **dict.fromkeys(("seed", "train_size", "size", "n"), "int64"),
    **dict.fromkeys(("sigma", "coordinate", "value", "standard_error"), "float64"),
    **dict.fromkeys(("experiment", "teacher", "student", "measure", "part"), "str"),
}
"""Types of the columns in a table of records."""

Shape = Mapping[str, Any]

TRAINING: Shape = {
    "key": _key,
    **dict.fromkeys(("specification", "label", "device", "torch", "processor"), str),
    "spec": dict,
    "versions": _texts,
    "sources": ({}, dict.fromkeys(("modules", "distributions", "files"), _texts)),
    "created": _moment,
    **dict.fromkeys(("seconds", "training_seconds"), _seconds),
    "step_seconds": (_seconds, None),
    **dict.fromkeys(("steps", "training_sites", "parameters", "training_score_calls"), int),
    "radius": (int, None),
    "radius_not_held?": (str, None),
    "digests": dict.fromkeys(("student.safetensors", "student.json", "training.csv"), _digest),
}
"""Of ``training.json``."""

MEASUREMENT: Shape = {
    "created": _moment,
    "seconds": _seconds,
    "score_calls": int,
    "records": [
        {
            **dict.fromkeys(("experiment", "teacher", "student", "measure", "part"), str),
            "radius": (int, None),
            **dict.fromkeys(("seed", "train_size", "size", "n"), int),
            **dict.fromkeys(("sigma", "coordinate", "value", "standard_error"), float),
        }
    ],
    "sums": list,
}
"""Of the file of a measurement."""

MANIFEST: Shape = {
    "experiment": str,
    "complete": bool,
    "store": (str, None),
    "reused": {
        **dict.fromkeys(("trainings", "measurements"), int),
        **dict.fromkeys(("oldest", "newest"), (_moment, None)),
        "computed_with": [str],
    },
    "renewed": [{"trial": _key, "label": str, "changes": [str]}],
    "trials": [
        {
            "trial": _key,
            "seed": int,
            **dict.fromkeys(("label", "teacher", "student", "status"), str),
            **dict.fromkeys(("steps?", "training_sites?", "parameters?", "training_score_calls?"), int),
            **dict.fromkeys(("seconds?", "training_seconds?"), _seconds),
            "step_seconds?": (_seconds, None),
            **dict.fromkeys(("radius_not_held?", "torch?", "processor?"), (str, None)),
            "created?": (_moment, None),
            "measurements?": {"done": int, "of": int},
        }
    ],
    "failures": [{"trial": _key, "label": str, "error": str, "measure?": str, "size?": int}],
    "skipped": [dict.fromkeys(("label", "measure", "reason"), str)],
    "notes?": lambda data: isinstance(data, Mapping) and all(fits(one, [str]) for one in data.values()),
    "digests": lambda data: isinstance(data, Mapping) and all(fits(one, [_digest]) for one in data.values()),
}
"""Of ``manifest.json``."""
