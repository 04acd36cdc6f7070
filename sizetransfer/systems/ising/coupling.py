"""How users write a coupling: in itself, or in units of the critical one."""

from __future__ import annotations

from pydantic import Field, model_validator

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import Spec
from sizetransfer.systems.ising.infinite import CRITICAL


class IsingCoupling(Spec):
    """Coupling of nearest neighbours; the critical one where nothing is said."""

    beta: float | None = Field(None, allow_inf_nan=False, description="coupling of each bond; or beta_over_critical")
    beta_over_critical: float | None = Field(
        None, allow_inf_nan=False, description="coupling in units of ln(1 + sqrt 2) / 2, the critical one; or beta"
    )

    @model_validator(mode="after")
    def _said_once(self) -> IsingCoupling:
        if self.beta is not None and self.beta_over_critical is not None:
            raise SpecError(
                "The coupling is given twice.",
                where="beta, beta_over_critical",
                expected="one of them",
                got=f"beta = {self.beta:g}, beta_over_critical = {self.beta_over_critical:g}",
                fix="leave out one of the two, or the preset that gives it",
            )
        return self

    @property
    def coupling(self) -> float:
        """The coupling of each bond."""
        if self.beta is not None:
            return self.beta
        return CRITICAL * (1.0 if self.beta_over_critical is None else self.beta_over_critical)
