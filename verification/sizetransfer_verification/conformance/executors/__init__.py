"""The contract of executors: they decide where and when trials run, never what numbers they give."""

from __future__ import annotations

from sizetransfer_verification.conformance.executors import clauses

__all__ = ["clauses"]
