"""When does a local score model, trained on small lattices, work on large ones?

>>> import sizetransfer as st
>>> teacher = st.teacher("flow", preset="medium-range", seed=0)
>>> student = st.student("cnn", teacher.field, blocks=1)
>>> student.radius
4

Names are imported when they are first used: ``import sizetransfer`` itself imports no torch and changes no state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sizetransfer.contracts.lazy import names_of

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
    from sizetransfer.contracts.gradients import ScoreOfDensity, density_and_score
    from sizetransfer.contracts.oracle import (
        Certificate,
        Context,
        Division,
        Exactness,
        HasCertificate,
        HasConditionalSamples,
        HasCovariance,
        HasCovarianceSpectrum,
        HasDensity,
        HasEnergy,
        HasLatent,
        HasLocalPosterior,
        HasPosterior,
        HasReach,
        HasScore,
        HasSiteClasses,
        HasSmoothedScore,
        Sample,
        SiteClasses,
        Teacher,
    )
    from sizetransfer.contracts.parts import Part
    from sizetransfer.contracts.quantity import Quantity
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
    from sizetransfer.teachers.functions import oracle_from_functions
    from sizetransfer.theorem1 import Theorem1, theorem1_bound

    __version__: str

__all__ = [
    "Certificate",
    "ConformanceError",
    "Context",
    "Division",
    "Domain",
    "EvaluationSpec",
    "Event",
    "Exactness",
    "Experiment",
    "FieldInfo",
    "Graph",
    "HasCertificate",
    "HasConditionalSamples",
    "HasCovariance",
    "HasCovarianceSpectrum",
    "HasDensity",
    "HasEnergy",
    "HasLatent",
    "HasLocalPosterior",
    "HasPosterior",
    "HasReach",
    "HasScore",
    "HasSiteClasses",
    "HasSmoothedScore",
    "Lattice",
    "MeasureSpec",
    "Measurement",
    "NoiseSchedule",
    "NonFiniteError",
    "OracleError",
    "Part",
    "PluginError",
    "Quantity",
    "Run",
    "RunError",
    "Sample",
    "ScoreOfDensity",
    "SiteClasses",
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
    "density_and_score",
    "diagnose",
    "diagnose_model",
    "experiment",
    "hookimpl",
    "load",
    "measure",
    "measure_run",
    "nearest_timestep",
    "open_run",
    "oracle_from_functions",
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
    "contracts.gradients": ("ScoreOfDensity", "density_and_score"),
    "contracts.oracle": (
        "Certificate",
        "Context",
        "Division",
        "Exactness",
        "HasCertificate",
        "HasConditionalSamples",
        "HasCovariance",
        "HasCovarianceSpectrum",
        "HasDensity",
        "HasEnergy",
        "HasLatent",
        "HasLocalPosterior",
        "HasPosterior",
        "HasReach",
        "HasScore",
        "HasSiteClasses",
        "HasSmoothedScore",
        "Sample",
        "SiteClasses",
        "Teacher",
    ),
    "contracts.parts": ("Part",),
    "contracts.quantity": ("Quantity",),
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
    "teachers.functions": ("oracle_from_functions",),
    "scores.training": ("train",),
    "runs.trials": ("EvaluationSpec", "Experiment"),
}
_lazy = names_of(__name__, _MODULES)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from sizetransfer.registry.plugins import core_version

        return core_version()
    value: object = _lazy(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
