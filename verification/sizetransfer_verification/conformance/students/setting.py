"""How the checks ask a student: on copies, at noise levels that differ, on domains as wide as a check needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Domain, Graph, Lattice, Site
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import normal
from sizetransfer.contracts.student import Student
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.check import Need
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.subjects import GRAPH_SIZES, StudentSubject

LARGEST = 40_000
"""Sites of the largest domain on which a radius is measured."""


def some_field(what: str, holds: Callable[[StudentSubject, int], bool]) -> Need[StudentSubject]:
    """The need for a field (by its position) of which something holds."""
    return Need(what, lambda subject: any(holds(subject, member) for member in range(len(subject.fields))))


CLOSED = some_field("a field with a closed axis", lambda subject, member: bool(around(subject, Case(member=member))))
WALLS = some_field("a field with a wall", lambda subject, member: bool(walled(subject, Case(member=member))))
GRAPH = some_field("a field on a graph", lambda subject, member: subject.fields[member].geometry == "graph")
CONDITION = some_field(
    "a field with condition channels", lambda subject, member: subject.fields[member].condition_channels > 0
)
LOCAL = some_field("a declared radius", lambda subject, member: subject.student(Case(member=member)).radius is not None)
PARAMETERS = Need[StudentSubject](
    "trainable parameters", lambda subject: any(value.requires_grad for value in subject.example.parameters())
)
SPECIFICATION = Need[StudentSubject](
    "a specification, not a function that builds the student", lambda subject: subject.spec is not None
)


def around(subject: StudentSubject, case: Case) -> tuple[int, ...]:
    """The closed axes of the lattice that the case's field lives on: all of a torus, one of a cylinder."""
    field = subject.field(case)
    closed = field.closed_axes if field.geometry == "lattice" else ()
    return tuple(axis for axis, is_closed in enumerate(closed) if is_closed)


def on_torus(subject: StudentSubject, case: Case) -> bool:
    """Whether the case's field lives on a torus."""
    field = subject.field(case)
    return field.geometry == "lattice" and field.periodic


def walled(subject: StudentSubject, case: Case) -> tuple[int, ...]:
    """The axes with walls of the lattice that the case's field lives on: all of an open box, some of a cylinder."""
    field = subject.field(case)
    closed = field.closed_axes if field.geometry == "lattice" else ()
    return tuple(axis for axis, is_closed in enumerate(closed) if not is_closed)


def require(condition: bool, reason: str) -> None:
    """Leave the case out.

    Raises:
        NotApplicableError: the condition does not hold.
    """
    if not condition:
        raise NotApplicableError(reason)


def copied(context: Context) -> Context:
    """The same context in tensors of its own."""
    return replace(
        context,
        condition=None if context.condition is None else context.condition.clone(),
        mask=None if context.mask is None else context.mask.clone(),
    )


def answer(student: Student, x: Tensor, sigma: Tensor, context: Context) -> Tensor:
    """The score; of copies, so that a student that changes its inputs fails in the check of that alone."""
    with torch.no_grad():
        result: Tensor = student(x.clone(), sigma.clone(), copied(context))
    return result


def differentiable(student: Student, x: Tensor, sigma: Tensor, context: Context, evidence: Evidence) -> Tensor:
    """The score of copies, with its graph back to ``x``.

    Raises:
        ViolationError: it has none.
    """
    with torch.enable_grad():
        result: Tensor = student(x.clone(), sigma.clone(), copied(context))
    what = "the score is differentiable by the field"
    evidence.holds(result.requires_grad, what, measured="a score without gradient", allowed="one with a gradient")
    return result


def spread(sigma: Tensor) -> Tensor:
    """Noise levels that differ from row to row."""
    factors = torch.tensor([1.0, 3.0, 0.3, 0.7, 2.0]).to(sigma)
    return sigma * factors.repeat(len(sigma) // len(factors) + 1)[: len(sigma)]


def radius_of(subject: StudentSubject, case: Case) -> int:
    """The radius that the student of the case declares.

    Raises:
        NotApplicableError: none.
    """
    radius = subject.student(case).radius
    if not isinstance(radius, int):
        raise NotApplicableError("The student declares no radius.")
    return radius


def spacious(subject: StudentSubject, case: Case, steps: int) -> Case:
    """The case, on a domain where some site is ``steps`` steps from the corner (site 0 of a graph), if need be larger.

    Raises:
        NotApplicableError: that takes too many sites.
    """
    field = subject.field(case)
    if field.geometry == "graph":
        for size in GRAPH_SIZES:
            if size >= case.size and int(subject.domain(replace(case, size=size)).distance((0,)).max()) >= steps:
                return replace(case, size=size)
        raise NotApplicableError(f"No graph of up to {GRAPH_SIZES[-1]} sites is {steps} hops wide.")
    size = max(case.size, 2 * steps if field.periodic else steps + 1)
    if not subject.accepts(replace(case, size=size)):
        size = max(size, 2 * radius_of(subject, case) + 2)
    require(size**field.dim <= LARGEST, f"It takes {size}^{field.dim} sites, more than {LARGEST}.")
    return replace(case, size=size)


def probes(domain: Domain, case: Case, period: int = 1) -> list[Site]:
    """Two opposite corners, the centre, a drawn site, and some sites of a cell where the student has a coarser grid."""
    last = tuple(length - 1 for length in domain.shape)
    found = [(0,) * len(last), last, domain.centre(), case.site(domain, "probe")]
    found += [case.site(domain, "cell", index) for index in range(12 if period > 1 else 0)]
    return list(dict.fromkeys(found))


def at(values: Tensor, site: Sequence[int | slice]) -> Tensor:
    """``values`` of shape ``(B, C, *S)`` at a site, or in a window given by slices."""
    index: tuple[Any, ...] = (..., *site)
    return values[index]


def influences(score: Tensor, x: Tensor, sites: list[Site], weights: Tensor) -> list[Tensor]:
    """How much each site of ``x`` influences the score at each of ``sites``: sums of ``|J_ij|``, shape ``*S``.

    Args:
        score: a function of ``x`` with its graph, shape ``(B, C, *S)``.
        x: shape ``(B, C, *S)``.
        sites: sites of the score.
        weights: of the channels of the score, shape ``(C,)``.
    """
    found = []
    for site in sites:
        (row,) = torch.autograd.grad((at(score, site) @ weights).sum(), x, retain_graph=True, materialize_grads=True)
        found.append(row.abs().sum((0, 1)))
    return found


def direction(like: Tensor, case: Case, *labels: int | str) -> Tensor:
    """Normal numbers of the shape of ``like``."""
    return normal(like.shape, generator=case.generator(*labels), like=torch.zeros((), dtype=torch.float64)).to(like)


def lattice_of(domain: Domain) -> Lattice:
    """The domain, which the field says is a lattice.

    Raises:
        NotApplicableError: it is not.
    """
    if not isinstance(domain, Lattice):
        raise NotApplicableError("The field does not live on a lattice.")
    return domain


def graph_of(domain: Domain) -> Graph:
    """The domain, which the field says is a graph.

    Raises:
        NotApplicableError: it is not.
    """
    if not isinstance(domain, Graph):
        raise NotApplicableError("The field does not live on a graph.")
    return domain
