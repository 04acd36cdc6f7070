"""The contract of listeners: they are told what happens, answer quickly, and change nothing."""

from __future__ import annotations

from sizetransfer_verification.conformance.listeners import clauses

__all__ = ["clauses"]
