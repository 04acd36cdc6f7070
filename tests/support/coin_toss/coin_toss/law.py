r"""Independent coins on a ring: the exact score of noisy fields.

Every site is 1 with probability :math:`e^h / (2 \cosh h)`, else -1. With noise of variance :math:`v = \sigma^2`,
:math:`E[x_i | x] = \tanh(x_i / v + h)`, and by Tweedie's formula

.. math:: s_i(x) = \frac{\tanh(x_i / v + h) - x_i}{v},

which no other site enters: a student of any radius can learn it, and the same at every size.
"""

import math
from typing import Literal

import torch
from pydantic import Field

from sizetransfer import FieldInfo, Sample, Teacher, TeacherSpec
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, Exactness
from sizetransfer.contracts.randomness import uniform


class CoinsSpec(TeacherSpec):
    """Independent coins on a ring."""

    kind: Literal["coins"] = "coins"
    tilt: float = Field(0.0, description="h: half the logarithm of the odds of heads")

    def build(self) -> "Coins":
        """Construct the law."""
        return Coins(self)


class Coins(Teacher):
    """Independent coins (see the module's formula)."""

    draws_fields_apart = True
    translation_period = 1

    def __init__(self, spec: CoinsSpec) -> None:
        super().__init__(FieldInfo(dim=1, periodic=True, sigma_data=1 / math.cosh(spec.tilt)))
        self.spec = spec
        self.even = spec.tilt == 0
        self.exactness = {"sample": Exactness(), "smoothed_score": Exactness()}

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        """Draw fields."""
        self.check_size(size)
        heads = 1 / (1 + math.exp(-2 * self.spec.tilt))
        coins = uniform((batch, 1, size), generator=generator, like=self.anchor) < heads
        return Sample(2 * coins.to(self.anchor) - 1, Context(self.domain(size)))

    def smoothed_score(self, x: torch.Tensor, sigma: torch.Tensor, context: Context) -> torch.Tensor:
        """Score of noisy fields, of the shape of `x`; levels that are not positive are refused."""
        if not bool((sigma > 0).all()):
            raise OracleError(
                "A noise level is not positive.",
                where="coins, smoothed_score",
                expected="sigma > 0",
                got=str(float(sigma.min())),
                fix="leave clean fields to measures that ask for the clean score",
            )
        v = expand(sigma, x) ** 2
        score = (torch.tanh(x / v + self.spec.tilt) - x) / v
        return score if context.mask is None else score * context.mask
