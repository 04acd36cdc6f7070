"""When does a local score model, trained on small lattices, work on large ones?

>>> import sizetransfer as st
>>> teacher = st.teacher("flow", preset="medium-range", seed=0)
>>> student = st.student("cnn", teacher.field, blocks=1)
>>> student.radius
4

Names are imported when they are first used: ``import sizetransfer`` itself imports no torch and changes no state.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sizetransfer.api import (
        compare,
        diagnose,
        diagnose_model,
        experiment,
        load,
        measure,
        measure_run,
        open_run,
        radius,
        run,
        student,
        teacher,
        write_report,
    )
    from sizetransfer.contracts.domain import Domain, Graph, Lattice
    from sizetransfer.contracts.errors import (
        ConformanceError,
        NonFiniteError,
        OracleError,
        PluginError,
        RunError,
        SizetransferError,
        SpecError,
    )
    from sizetransfer.contracts.events import Event
    from sizetransfer.contracts.oracle import (
        Context,
        Exactness,
        HasCovariance,
        HasDensity,
        HasLocalPosterior,
        HasPosterior,
        HasScore,
        HasSmoothedScore,
        Sample,
        Teacher,
    )
    from sizetransfer.contracts.parts import Part
    from sizetransfer.contracts.records import Measurement
    from sizetransfer.contracts.specs import (
        FieldInfo,
        MeasureSpec,
        NoiseSchedule,
        StudentSpec,
        TeacherSpec,
        TrainingSpec,
    )
    from sizetransfer.contracts.student import Student
    from sizetransfer.registry.hooks import hookimpl
    from sizetransfer.runs import Run
    from sizetransfer.runs.trials import EvaluationSpec, Experiment
    from sizetransfer.scores.training import train
    from sizetransfer.students.wrapped import continuous_timestep, nearest_timestep, wrap_module
    from sizetransfer.theorem1 import Theorem1, theorem1_bound

    __version__: str

__all__ = [
    "ConformanceError",
    "Context",
    "Domain",
    "EvaluationSpec",
    "Event",
    "Exactness",
    "Experiment",
    "FieldInfo",
    "Graph",
    "HasCovariance",
    "HasDensity",
    "HasLocalPosterior",
    "HasPosterior",
    "HasScore",
    "HasSmoothedScore",
    "Lattice",
    "MeasureSpec",
    "Measurement",
    "NoiseSchedule",
    "NonFiniteError",
    "OracleError",
    "Part",
    "PluginError",
    "Run",
    "RunError",
    "Sample",
    "SizetransferError",
    "SpecError",
    "Student",
    "StudentSpec",
    "Teacher",
    "TeacherSpec",
    "Theorem1",
    "TrainingSpec",
    "__version__",
    "compare",
    "continuous_timestep",
    "diagnose",
    "diagnose_model",
    "experiment",
    "hookimpl",
    "load",
    "measure",
    "measure_run",
    "nearest_timestep",
    "open_run",
    "radius",
    "run",
    "student",
    "teacher",
    "theorem1_bound",
    "train",
    "wrap_module",
    "write_report",
]

_MODULES = {
    "api": (
        "compare",
        "diagnose",
        "diagnose_model",
        "experiment",
        "load",
        "measure",
        "measure_run",
        "open_run",
        "radius",
        "run",
        "student",
        "teacher",
        "write_report",
    ),
    "theorem1": ("Theorem1", "theorem1_bound"),
    "contracts.domain": ("Domain", "Graph", "Lattice"),
    "contracts.errors": (
        "ConformanceError",
        "NonFiniteError",
        "OracleError",
        "PluginError",
        "RunError",
        "SizetransferError",
        "SpecError",
    ),
    "contracts.events": ("Event",),
    "runs": ("Run",),
    "registry.hooks": ("hookimpl",),
    "contracts.oracle": (
        "Context",
        "Exactness",
        "HasCovariance",
        "HasLocalPosterior",
        "HasDensity",
        "HasPosterior",
        "HasScore",
        "HasSmoothedScore",
        "Sample",
        "Teacher",
    ),
    "contracts.parts": ("Part",),
    "contracts.records": ("Measurement",),
    "contracts.specs": (
        "FieldInfo",
        "MeasureSpec",
        "NoiseSchedule",
        "StudentSpec",
        "TeacherSpec",
        "TrainingSpec",
    ),
    "contracts.student": ("Student",),
    "students.wrapped": ("continuous_timestep", "nearest_timestep", "wrap_module"),
    "scores.training": ("train",),
    "runs.trials": ("EvaluationSpec", "Experiment"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from sizetransfer.registry.plugins import core_version

        return core_version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
