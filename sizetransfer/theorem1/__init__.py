r"""Theorem 1 measured: how far a local score error can carry the law of a patch, at every size.

The paper's theorem bounds the bounded-Lipschitz distance between the laws of a patch A under the exact and the
learned reverse diffusion by an initial error plus the drift error along the learned rollout, weighted by what A can
feel. Read in this order:

- :mod:`~sizetransfer.theorem1.quantities`: numbers labelled exact, certificate or estimate;
- :mod:`~sizetransfer.theorem1.distance`, :mod:`~sizetransfer.theorem1.patches`: the distance;
- :mod:`~sizetransfer.theorem1.fields`: patches of a field; Gaussian fields and linear operators on them are in
  :mod:`sizetransfer.numerics.gaussian`;
- :mod:`~sizetransfer.theorem1.weights`: influence weights and their budgets;
- :mod:`~sizetransfer.theorem1.certificates`: what a teacher may know to hold whatever the field;
- :mod:`~sizetransfer.theorem1.linear`, :mod:`~sizetransfer.theorem1.rollout`: linear scores, exactly;
- :mod:`~sizetransfer.theorem1.theorem`: the bound, exactly;
- :mod:`~sizetransfer.theorem1.monte_carlo`: the same by sampling, for any teacher with a smoothed score;
- :mod:`~sizetransfer.theorem1.api`: :func:`theorem1_bound`, for a teacher and a student.
"""

from sizetransfer.contracts.domain import Patch
from sizetransfer.theorem1.api import budget_is_uniform, gaussian_field, theorem1_bound
from sizetransfer.theorem1.certificates import certificate_of
from sizetransfer.theorem1.distance import Normal, TestFunction, bounded_lipschitz, optimal_test_function
from sizetransfer.theorem1.linear import FieldLaw, LinearScore, NotLinearError, linear_score
from sizetransfer.theorem1.monte_carlo import (
    GaussianInfluence,
    InfluenceTable,
    InfluenceWeights,
    PosteriorInfluence,
    RolloutErrors,
    influence_table,
    rollout_errors,
)
from sizetransfer.theorem1.patches import empirical_distance, empirical_line_distance, gaussian_distance
from sizetransfer.theorem1.quantities import Enclosure
from sizetransfer.theorem1.rollout import Rollout, log_levels
from sizetransfer.theorem1.theorem import Theorem1, gaussian_theorem1, initial_distance, integrated_budget, patch_budget
from sizetransfer.theorem1.weights import (
    DobrushinBound,
    covariance_weights,
    dobrushin_bound,
    gaussian_budget,
    gaussian_weights,
    ising_budget,
    ising_weights,
)

__all__ = [
    "DobrushinBound",
    "Enclosure",
    "FieldLaw",
    "GaussianInfluence",
    "InfluenceTable",
    "InfluenceWeights",
    "LinearScore",
    "Normal",
    "NotLinearError",
    "Patch",
    "PosteriorInfluence",
    "Rollout",
    "RolloutErrors",
    "TestFunction",
    "Theorem1",
    "bounded_lipschitz",
    "budget_is_uniform",
    "certificate_of",
    "covariance_weights",
    "dobrushin_bound",
    "empirical_distance",
    "empirical_line_distance",
    "gaussian_budget",
    "gaussian_distance",
    "gaussian_field",
    "gaussian_theorem1",
    "gaussian_weights",
    "influence_table",
    "initial_distance",
    "integrated_budget",
    "ising_budget",
    "ising_weights",
    "linear_score",
    "log_levels",
    "optimal_test_function",
    "patch_budget",
    "rollout_errors",
    "theorem1_bound",
]
