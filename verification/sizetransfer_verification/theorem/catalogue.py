"""The list of claims about Theorem 1."""

from __future__ import annotations

from typing import Any

from sizetransfer_verification.theorem.claim import Claim
from sizetransfer_verification.theorem.gaussian_claims import gaussian_claims
from sizetransfer_verification.theorem.ising import ising_claims
from sizetransfer_verification.theorem.mixture_claims import mixture_claims


def claims() -> tuple[Claim[Any], ...]:
    """All claims: those that hold, then their careless versions."""
    found = (*gaussian_claims(), *mixture_claims(), *ising_claims())
    return tuple(sorted(found, key=lambda claim: claim.careless))
