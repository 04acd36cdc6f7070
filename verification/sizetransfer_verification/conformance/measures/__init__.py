"""The contract of measures: what they declare, what they give, and what they leave alone."""

from __future__ import annotations

from sizetransfer_verification.conformance.measures import interface, numbers, promises

__all__ = ["interface", "numbers", "promises"]
