"""The contract of students, clause by clause: importing this package registers its checks, in this order."""

from __future__ import annotations

from sizetransfer_verification.conformance.students import interface  # isort: skip
from sizetransfer_verification.conformance.students import repetition  # isort: skip
from sizetransfer_verification.conformance.students import context  # isort: skip
from sizetransfer_verification.conformance.students import rows  # isort: skip
from sizetransfer_verification.conformance.students import locality  # isort: skip
from sizetransfer_verification.conformance.students import derivatives  # isort: skip
from sizetransfer_verification.conformance.students import learning  # isort: skip
from sizetransfer_verification.conformance.students import memory  # isort: skip
from sizetransfer_verification.conformance.students import thorough  # isort: skip

__all__ = ["context", "derivatives", "interface", "learning", "locality", "memory", "repetition", "rows", "thorough"]
