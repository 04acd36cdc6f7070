"""How users write a coupling: in itself, or in units of the critical one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from sizetransfer.errors import SpecError
from sizetransfer.ising.infinite import CRITICAL
from sizetransfer.specs import Spec


class IsingCoupling(Spec):
    """Coupling of nearest neighbours; the critical one where nothing is said."""

    beta: float | None = Field(None, allow_inf_nan=False, description="coupling of each bond; or beta_over_critical")
    beta_over_critical: float | None = Field(
        None, allow_inf_nan=False, description="coupling in units of ln(1 + sqrt 2) / 2, the critical one; or beta"
    )

    @model_validator(mode="before")
    @classmethod
    def _critical_where_silent(cls, data: Any) -> Any:
        silent = isinstance(data, Mapping) and data.get("beta") is None and data.get("beta_over_critical") is None
        return {**data, "beta_over_critical": 1.0} if silent else data

    @model_validator(mode="after")
    def _said_once(self) -> IsingCoupling:
        if self.beta is not None and self.beta_over_critical is not None:
            raise SpecError(
                "The coupling is given twice.",
                where="beta, beta_over_critical",
                expected="one of them",
                got=f"beta = {self.beta:g}, beta_over_critical = {self.beta_over_critical:g}",
                fix="leave out one of the two",
            )
        return self

    @property
    def coupling(self) -> float:
        """The coupling of each bond."""
        return self.beta if self.beta is not None else CRITICAL * float(self.beta_over_critical or 0)
