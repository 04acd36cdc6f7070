r"""Theorem 1 under property tests: a search for solvable processes that refute it.

A :class:`Claim` sets a truth against a bound for every :class:`Configuration` of a strategy. :func:`search` draws
configurations, guided towards a large truth over bound, and shrinks the first that refutes the claim. True claims must
stand; careless versions of them (a weight missing, half the noise, the wrong law) must fall, or the search proves
nothing.

- :mod:`~.gaussian`, :mod:`~.gaussian_claims`: Gaussian fields with linear students, biased and truncated, by
  dense algebra;
- :mod:`~.mixture`, :mod:`~.mixture_claims`: finite-support priors with nonlinear students, by quadrature;
- :mod:`~.ising`: small Ising models, whose posteriors are enumerated, for the influence certificates;
- :mod:`~.line`, :mod:`~.influence`: the bounded-Lipschitz norm on the line.
"""

from __future__ import annotations

from sizetransfer_verification.theorem.catalogue import claims
from sizetransfer_verification.theorem.claim import Claim, Comparison, Configuration, read_configuration
from sizetransfer_verification.theorem.gaussian import GaussianConfiguration
from sizetransfer_verification.theorem.gaussian_claims import GaussianInfluenceConfiguration
from sizetransfer_verification.theorem.ising import IsingConfiguration
from sizetransfer_verification.theorem.mixture import MixtureConfiguration
from sizetransfer_verification.theorem.search import Search, search

__all__ = [
    "Claim",
    "Comparison",
    "Configuration",
    "GaussianConfiguration",
    "GaussianInfluenceConfiguration",
    "IsingConfiguration",
    "MixtureConfiguration",
    "Search",
    "claims",
    "read_configuration",
    "search",
]
