r"""Error of a student's low-noise score against the exact clean score, at every size.

.. math:: \mathrm{RelRMSE}_L = \sqrt{\frac{E\,\|s_\theta(x, \sigma_{\min}) - s_0(x)\|^2}{E\,\|s_0(x)\|^2}},
   \qquad x \sim p_L

(paper eq. (16)). The student estimates the *smoothed* score, so even a perfect one keeps a floor of the size of
:math:`s_{\sigma_{\min}} - s_0`: it vanishes with :math:`\sigma_{\min}` and is below 0.01 at 0.05 for the short- and
medium-range families.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from sizetransfer.oracle import HasScore, Sample, Teacher
from sizetransfer.randomness import batches
from sizetransfer.records import Measurement, root_ratio
from sizetransfer.response import require_finite, student_score, teacher_score
from sizetransfer.specs import MeasureSpec
from sizetransfer.student import Student


class CleanScoreSpec(MeasureSpec):
    """Relative root-mean-square error of the low-noise score against the exact clean score (paper eq. (16)).

    Parts: ``relative_rmse``; ``rmse``, the absolute error per live component; ``teacher_rms``, the size of the exact
    score per live component; ``field_std``, the root mean square of the field. Errors are over independent fields.
    """

    kind: Literal["clean-score"] = "clean-score"
    requires: ClassVar[tuple[type, ...]] = (HasScore,)
    fields: int = Field(16, ge=2, description="independent fields at each size")
    batch: int = Field(8, ge=1, description="fields evaluated at a time; bounds the memory")

    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one size; see :meth:`sizetransfer.specs.MeasureSpec.measure`."""
        squared = [
            _squared(teacher, student, teacher.sample(batch, size, generator=generator), sigma)
            for batch, generator in batches(self.fields, self.batch, seed, "clean-score", size)
        ]
        error, score, field = require_finite(torch.cat(squared, dim=1), f"clean-score at size {size}")
        yield root_ratio(error, score, "relative_rmse")
        one = torch.ones_like(error)
        yield root_ratio(error, one, "rmse")
        yield root_ratio(score, one, "teacher_rms")
        yield root_ratio(field, one, "field_std")


def _squared(teacher: Teacher, student: Student, sample: Sample, sigma: float) -> Float[Tensor, "3 batch"]:
    """Mean squares over live components of the error, of the exact score and of the field, for each field."""
    exact = teacher_score(teacher, sample)(sample.x)
    with torch.no_grad():
        estimate = student_score(student, sigma, sample.context)(sample.x)
    live = torch.ones_like(sample.x) if sample.context.mask is None else sample.context.mask.expand_as(sample.x)
    counts = live.flatten(1).sum(1)
    return torch.stack([(live * v.square()).flatten(1).sum(1) / counts for v in (estimate - exact, exact, sample.x)])
