r"""Linear references: what the best linear filter of a radius knows of a teacher's score, without any training.

For any smooth density :math:`E[s\,x^T] = -1` (Stein). So among the linear filters of a set B of sites around i the one
nearest to the score at i, and its relative squared error, are

.. math:: \hat s_i = -[C_{BB}^{-1}(x_B - \mu_B)]_i, \qquad
   e^2 = \frac{E\,|\hat s_i - s_i|^2}{E\,s_i^2} = 1 - \frac{(C_{BB}^{-1})_{ii}}{E\,s_i^2},

with mean :math:`\mu` and covariance C of the field. At noise variance v everything holds of the noisy field: C + v
and :math:`s_v`; in terms of the denoiser it is the regression :math:`(C_{BB} + v)^{-1} C_{Bi}`, so that the
covariance alone decides the filter, and no score has to be known. For a Gaussian field with B the whole lattice the
error is zero.

- Conditions: every value of the condition at the centre, a sublattice say, has a covariance and a filter of its own.
- Channels: blocks; :math:`(C_{BB}^{-1})_{ii}` is a matrix between the channels of the site.
- Dead sites hold a zero and have no score. Then :math:`E[s_i x_j] = -p_i\delta_{ij}` with the share :math:`p_i` of
  centres that are live, the filter is :math:`-p_i C_{BB}^{-1} e_i`, and the error is
  :math:`1 - p_i^2 (C_{BB}^{-1})_{ii} / E s_i^2`. Noise is on live sites alone. A filter that sees the mask is fitted to
  live centres, where p = 1.

The covariance is estimated from fields (:mod:`~sizetransfer.scores.references.moments`), or exact where the teacher
knows it. The error within the fields of the estimate is optimistic; errors here are cross-fitted
(:mod:`~sizetransfer.scores.references.errors`). What a linear score generates on a torus has a closed form
(:mod:`~sizetransfer.scores.references.consequence`). All is of second order: a student may beat its filter where the
law is not Gaussian.
"""

from __future__ import annotations

from sizetransfer.scores.references.classes import Sight
from sizetransfer.scores.references.errors import LinearReference, linear_references, squared_errors
from sizetransfer.scores.references.filters import LinearFilter
from sizetransfer.scores.references.moments import Moments, estimate_moments, exact_moments

__all__ = [
    "LinearFilter",
    "LinearReference",
    "Moments",
    "Sight",
    "estimate_moments",
    "exact_moments",
    "linear_references",
    "squared_errors",
]
