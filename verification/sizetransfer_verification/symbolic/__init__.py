"""Symbolic proofs: the identities that the numbers of this benchmark rest on, each decided exactly by sympy.

Every identity comes with negative controls, wrong versions that the same prover must refute::

    from sizetransfer_verification.symbolic import check, identities

    for identity in identities():
        result = check(identity)
        print(identity.name, result.passed, result.seconds)

Importing this needs no sympy; :func:`identities` does.
"""

from __future__ import annotations

from importlib import import_module

from sizetransfer_verification.requirements import require
from sizetransfer_verification.symbolic.proof import Identity, NegativeControl, Proof, Result, check

_FAMILIES = {
    "general": "Any prior",
    "finite": "Priors on atoms",
    "gaussian": "Gaussian priors",
    "ising": "Ising models",
    "reverse": "The reverse process",
    "bridge": "The exact reverse kernel",
    "locality": "Clean scores",
    "flows": "Layers of the flow",
}

__all__ = ["Identity", "NegativeControl", "Proof", "Result", "check", "families", "identities"]


def identities() -> tuple[Identity, ...]:
    """All identities, family by family.

    Raises:
        PluginError: sympy is not installed.
    """
    return tuple(identity for family in families().values() for identity in family)


def families() -> dict[str, tuple[Identity, ...]]:
    """The identities by the title of their family.

    Raises:
        PluginError: sympy is not installed.
    """
    require("sympy", "Proving identities")
    return {title: import_module(f"{__name__}.{module}").IDENTITIES for module, title in _FAMILIES.items()}
