"""The short Python interface: teachers, students and measures by kind; experiments by name.

Everything here goes through the registry and the specifications, so that what it builds can be replayed from JSON.
"""

from sizetransfer.api.diagnosing import diagnose
from sizetransfer.api.kinds import chosen, experiment, measure, student, teacher
from sizetransfer.api.models import as_student, diagnose_model, radius
from sizetransfer.api.running import compare, default_directory, load, measure_run, open_run, run, write_report

__all__ = [
    "as_student",
    "chosen",
    "compare",
    "default_directory",
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
]
