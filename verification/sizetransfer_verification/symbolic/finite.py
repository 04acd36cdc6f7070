r"""Priors of finitely many atoms with symbolic positions and weights: what holds for formal moments, by explicit sums.

Here the density is :math:`\sum_kw_kE_k(x)`, and nothing but the derivative of each Gaussian weight is put in
(:class:`sizetransfer_verification.symbolic.posterior.Atoms`). Formulas and wrong versions are the general ones.
"""

from __future__ import annotations

from sizetransfer_verification.symbolic import formulas
from sizetransfer_verification.symbolic.posterior import Atoms
from sizetransfer_verification.symbolic.proof import Identity

_UP_TO_FOUR = [Atoms(atoms, dimension) for atoms in range(1, 5) for dimension in range(1, 4)]
_SYMBOLIC = "positions and weights are symbols; the weights need not add up to one"

IDENTITIES = (
    Identity(
        name="tweedie-atoms",
        title="Tweedie's formula for priors on atoms",
        statement=formulas.TWEEDIE_STATEMENT,
        assumptions=("1 to 4 atoms in dimension 1 to 3", _SYMBOLIC),
        source="paper, equation (7)",
        prover=formulas.prove_tweedie(_UP_TO_FOUR),
        formula=formulas.tweedie,
        negative_controls=formulas.TWEEDIE_CONTROLS,
    ),
    Identity(
        name="response-atoms",
        title="The covariance identity for priors on atoms",
        statement=formulas.RESPONSE_STATEMENT,
        assumptions=("1 to 4 atoms in dimension 1 to 3", _SYMBOLIC),
        source="paper, equation (9)",
        prover=formulas.prove_response(_UP_TO_FOUR),
        formula=formulas.response,
        negative_controls=formulas.RESPONSE_CONTROLS,
    ),
    Identity(
        name="third-cumulant-atoms",
        title="The third cumulant for priors on atoms",
        statement=formulas.CUMULANT_STATEMENT,
        assumptions=("1 to 4 atoms in dimension 1 to 3", _SYMBOLIC),
        source="paper, equation (9), differentiated once more",
        prover=formulas.prove_third_cumulant(_UP_TO_FOUR),
        formula=formulas.third_cumulant,
        negative_controls=formulas.CUMULANT_CONTROLS,
    ),
)
