"""The contract of teachers, clause by clause; importing this package registers the checks in their order."""

from __future__ import annotations

from sizetransfer_verification.conformance.teachers import interface  # isort: skip
from sizetransfer_verification.conformance.teachers import density  # isort: skip
from sizetransfer_verification.conformance.teachers import smoothed  # isort: skip
from sizetransfer_verification.conformance.teachers import brute_force  # isort: skip
from sizetransfer_verification.conformance.teachers import statistics  # isort: skip

__all__ = ["brute_force", "density", "interface", "smoothed", "statistics"]
