"""The question for one model that exists, on given fields: are its units right, and what limits it?"""

from __future__ import annotations

from sizetransfer.diagnosis.model.findings import ModelFindings, ModelLevel, diagnose_model
from sizetransfer.diagnosis.model.units import LevelCheck, UnitFinding, UnitReport, check_units

__all__ = [
    "LevelCheck",
    "ModelFindings",
    "ModelLevel",
    "UnitFinding",
    "UnitReport",
    "check_units",
    "diagnose_model",
]
