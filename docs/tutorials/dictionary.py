"""From phi^4 in hopping form to the teacher phi4, and back."""

import math


def field_factor(kappa):
    """The teacher's field over that of the hopping form: sqrt(2 kappa)."""
    return math.sqrt(2 * kappa)


def teacher_couplings(kappa, coupling, dim=2):
    """mass2 and quartic of the teacher phi4 with the same law."""
    return {"mass2": (1 - 2 * coupling) / kappa - 2 * dim, "quartic": coupling / kappa**2}


def hopping_couplings(mass2, quartic, dim=2):
    """kappa and lambda of the hopping form with the same law: the way back.

    From kappa (mass2 + 2 dim) = 1 - 2 lambda and lambda = quartic kappa^2.
    """
    linear = mass2 + 2 * dim
    if quartic == 0:
        return 1 / linear, 0.0
    kappa = (math.sqrt(linear**2 + 8 * quartic) - linear) / (4 * quartic)
    return kappa, quartic * kappa**2
