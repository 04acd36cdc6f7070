"""What a student accepts, and the form of its answers."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import SizetransferError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import student_check
from sizetransfer_verification.conformance.evidence import Evidence
from sizetransfer_verification.conformance.students.setting import answer, copied, direction
from sizetransfer_verification.conformance.subjects import StudentSubject

IGNORED = ("condition", "mask", "sigma", "walls")
"""What a student may declare to ignore."""

FEATURES = ("compile", "func", "second derivatives")
"""What of torch a student may declare to do without."""

NOISES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3)
"""Noise levels, in units of sigma_data, at which a score must be finite."""

# On a lattice of three dimensions, 2R + 1 sites an axis soon are more than a check of seconds can afford.
LARGEST_ACCEPTED = 3000


def _shaped(evidence: Evidence, score: object, x: Tensor) -> Tensor:
    evidence.holds(isinstance(score, Tensor), "the score", measured=type(score).__name__, allowed="a tensor")
    found = score if isinstance(score, Tensor) else x
    for name, got, expected in (
        ("shape", tuple(found.shape), tuple(x.shape)),
        ("dtype", found.dtype, x.dtype),
        ("device", found.device, x.device),
    ):
        evidence.holds(got == expected, f"{name} of the score", measured=str(got), allowed=str(expected))
    return found


@student_check(
    "The score has the shape, dtype and device of x, for every size and any batch, a batch of one included.",
    cause="squeeze() without an axis, a constant or a table in the default dtype, axes of a lattice taken as equal",
    level="api",
    space=CaseSpace(examples=10, largest=130, dtypes=("float64", "float32")),
)
def output_like_input(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    _shaped(evidence, answer(student, x, sigma, context), x)
    domain = context.domain
    if isinstance(domain, Lattice) and domain.dim > 1:
        shape = tuple(case.size + axis for axis in range(domain.dim))
        x = direction(x.new_empty(*x.shape[:2], *shape), case, "uneven")
        condition = (
            None
            if context.condition is None
            else torch.ones_like(x[:, :1]).expand(-1, context.condition.shape[1], *shape)
        )
        try:
            score = answer(student, x, sigma, Context(replace(domain, size=shape), condition))
        except SizetransferError:
            # Lattices of unequal axes may be refused, by name.
            return
        _shaped(evidence, score, x)


@student_check(
    "Every size of at least 2R + 1 is accepted, odd or even: every multiple of the declared translation period.",
    cause="undeclared strides, pooling or windows that divide the lattice; sizes refused that the training never had",
    level="api",
    space=CaseSpace(examples=5, batches=(1,), largest=40, dtypes=("float32",)),
)
def sizes_from_twice_the_radius(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    field, student = subject.field(case), subject.student(case)
    radius = student.radius if isinstance(student.radius, int) else 1
    # On a graph sizes count sites, so all of them hold whatever the radius is.
    period = 1 if field.geometry == "graph" else student.translation_period
    least = case.size if field.geometry == "graph" else period * -(-(2 * radius + 1) // period)
    for size in range(least, least + 3 * period, period):
        asked = replace(case, size=size)
        if size > least and subject.domain(asked).sites > LARGEST_ACCEPTED:
            return
        x, sigma, context = subject.inputs(asked)
        try:
            score = answer(student, x, sigma, context)
        except SizetransferError as error:
            what = f"size {size} of a student of radius {student.radius}"
            evidence.holds(False, what, measured=f"refused: {error.what}", allowed="a score")
        else:
            evidence.equal(score.isfinite(), torch.ones_like(x, dtype=torch.bool), f"finite numbers at size {size}")


@student_check(
    "A student declares the field that it was built for, and its radius: None, or an integer of at least zero.",
    cause="a radius computed with a float division, or a FieldInfo made anew from some of its fields",
    level="api",
    space=CaseSpace(examples=5, batches=(1,), largest=40),
)
def declarations(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, field = subject.student(case), subject.field(case)
    evidence.holds(isinstance(student.field, FieldInfo), "field", measured=repr(student.field), allowed="a FieldInfo")
    evidence.holds(student.field == field, "field", measured=str(student.field), allowed=str(field))
    radius: object = student.radius
    valid = radius is None or (isinstance(radius, int) and not isinstance(radius, bool) and radius >= 0)
    evidence.holds(valid, "radius", measured=f"{type(radius).__name__} {radius!r}", allowed="None, or an int >= 0")
    given: tuple[tuple[str, object, tuple[str, ...]], ...] = (
        ("ignores", student.ignores, IGNORED),
        ("unsupported", student.unsupported, FEATURES),
    )
    for name, declared, known in given:
        valid = isinstance(declared, frozenset) and declared <= set(known)
        evidence.holds(valid, name, measured=repr(declared), allowed=f"a frozenset of some of {', '.join(known)}")


@student_check(
    "The inputs are not changed: neither x nor sigma nor the context.",
    cause="an operation in place (x /= t, clamp_, mul_) on an argument or on a view of it",
    level="api",
    space=CaseSpace(examples=5, batches=(2, 1), largest=130),
)
def inputs_unchanged(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    x, sigma, context = subject.inputs(case)
    given, level, surroundings = x.clone(), sigma.clone(), copied(context)
    with torch.no_grad():
        subject.student(case)(given, level, surroundings)
    evidence.equal(given, x, "x after the call", source="the contract")
    evidence.equal(level, sigma, "sigma after the call", source="the contract")
    if context.condition is not None and surroundings.condition is not None:
        evidence.equal(surroundings.condition, context.condition, "condition after the call", source="the contract")


@student_check(
    "The layout of x in memory does not matter.",
    cause="view() where reshape() is meant, or strides read from x",
    level="api",
    space=CaseSpace(examples=5, batches=(2,), largest=130),
)
def any_memory_layout(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    scattered = torch.empty((*x.shape, 2), dtype=x.dtype, device=x.device)[..., 0].copy_(x)
    reversed_axes = torch.empty(tuple(reversed(x.shape)), dtype=x.dtype, device=x.device).permute(
        *reversed(range(x.ndim))
    )
    with torch.no_grad():
        expected = student(x.clone(), sigma.clone(), copied(context))
        for name, given in (("every second number", scattered), ("axes in reverse order", reversed_axes.copy_(x))):
            score = student(given, sigma.clone(), copied(context))
            evidence.close(score, expected, f"score of x stored with {name}", "value")


@student_check(
    "The score is finite at every noise level from a thousandth of sigma_data to a thousand times it.",
    cause="an exponential, a logarithm or a division by 1 - tanh that leaves the range of numbers",
    level="api",
    space=CaseSpace(examples=8, batches=(1,), largest=130, dtypes=("float64", "float32")),
)
def finite_at_every_noise(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student = subject.student(case)
    x, sigma, context = subject.inputs(replace(case, batch=len(NOISES)))
    unit = subject.field(case).sigma_data
    levels = unit * torch.tensor(NOISES).to(sigma)
    x = direction(x, case, "wide") * (unit**2 + levels**2).sqrt().reshape(-1, *(1,) * (x.ndim - 1))
    for name, given in (("a noisy field", x), ("a field of zeros", torch.zeros_like(x))):
        finite = answer(student, given, levels, context).isfinite().flatten(1).all(1)
        bad = ", ".join(f"{noise:g}" for noise, fine in zip(NOISES, finite.tolist(), strict=True) if not fine)
        what = f"score of {name} at noise {bad} times sigma_data"
        evidence.holds(not bad, what, measured="numbers that are not finite", allowed="finite numbers")


@student_check(
    "The score depends on the noise level, unless it is declared to ignore it.",
    cause="sigma is embedded and the embedding not used, or a fixed noise level stands in its place",
    level="api",
    space=CaseSpace(examples=5, batches=(2,), largest=130),
)
def depends_on_sigma(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    first, second = answer(student, x, sigma, context), answer(student, x, 2 * sigma, context)
    if "sigma" in student.ignores:
        evidence.equal(first, second, "score at twice the noise level, which is declared to be ignored")
        return
    apart = float((first - second).abs().max() / first.abs().max())
    evidence.at_least(apart, 1e-6, "relative change of the score at twice the noise level", source="the contract")
