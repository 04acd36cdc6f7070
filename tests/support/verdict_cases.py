"""Made-up evidence for the verdict, with one number for each thing that it may say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.numerics.statistics import root_ratio
from sizetransfer.verdict import (
    CLEAN,
    CellEvidence,
    Consequence,
    LargerStudent,
    LawChange,
    Reference,
    ScoreError,
    TrainingEvidence,
)


def close(value, relative=0.005, n=32):
    """A number known to half a per cent."""
    return Quantity.estimated(value, relative * value, n)


def errors(values, sigma=CLEAN):
    """Errors by size; a bare value is known to half a per cent."""
    numbers = {size: value if isinstance(value, Quantity) else close(value) for size, value in values.items()}
    return tuple(ScoreError(sigma, size, number) for size, number in numbers.items())


def bare(values, *, null=0.6, asked=None, larger=(), radius=4, seed=0):
    """A record without references: errors by size, the first of them the training size, and a null error."""
    size = min(values)
    training = TrainingEvidence(seed, errors(values), (Reference(CLEAN, size, null=Quantity(null)),), larger)
    return CellEvidence("teacher", "student", radius, size, tuple(asked or values), (training,))


def good(**changes):
    """A student that transfers, with all that the rule asks for; changes are of the cell."""
    reference = Reference(CLEAN, 32, null=Quantity(0.6), linear=Quantity(0.25), best=Quantity(0.24))
    consequence = Consequence(64, "closed form", Quantity(0.99), Quantity(0.98), {"S(0)": Quantity(0.97)}, 20.0, 20.0)
    training = TrainingEvidence(0, errors({32: 0.26, 64: 0.262}), (reference,), (), (consequence,))
    cell = CellEvidence("teacher", "student", 4, 32, (32, 64), (training,), correlation_squared=Quantity(9.0))
    return replace(cell, **changes)


def good_training(**changes):
    """The same with changes of its training."""
    return good(trainings=(replace(good().trainings[0], **changes),))


def with_reference(**changes):
    """The same with changes of its reference."""
    return good_training(references=(replace(good().trainings[0].references[0], **changes),))


def with_consequence(**changes):
    """The same with changes of what it generates."""
    return good_training(consequences=(replace(good().trainings[0].consequences[0], **changes),))


def larger_student(values, name="wide", radius=8):
    """A student of larger radius with errors by size."""
    return LargerStudent(name, radius, errors(values))


def law(variance=1.0, nearest=1.0, zero_mode=1.0, size=64):
    """How the law itself changes."""
    return (LawChange(size, Quantity(variance), Quantity(nearest), Quantity(zero_mode)),)


def gaussian_row(radius, variance, nearest, zero_mode, score_error):
    """The best score of a radius on a Gaussian torus of 64 sites: what it generates, and its worst score error."""
    made = (Consequence(64, "closed form", Quantity(variance), Quantity(nearest), {"S(0)": Quantity(zero_mode)}),)
    known = Quantity(score_error)
    reference = Reference(CLEAN, 32, null=Quantity(0.6), irreducible=known)
    pair = (ScoreError(CLEAN, 32, known), ScoreError(CLEAN, 64, known))
    training = TrainingEvidence(0, pair, (reference,), (), made)
    return CellEvidence(
        "gaussian",
        "optimal-local",
        radius,
        32,
        (32, 64),
        (training,),
        best_of_radius=made,
        correlation_squared=Quantity(4.0),
    )


def fields(generator, error, n, sites=64, name=""):
    """A relative error measured on n fields."""
    a = error**2 * generator.chisquare(sites, n) / sites
    return root_ratio(a, np.ones(n), fields=name)
