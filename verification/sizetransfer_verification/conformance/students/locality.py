"""What a score depends on: the same rule at every site and size, and nothing beyond the declared radius."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from sizetransfer.contracts.domain import Graph, Lattice, Site
from sizetransfer.contracts.oracle import Context
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import student_check
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.students.setting import (
    CLOSED,
    GRAPH,
    LARGEST,
    LOCAL,
    WALLS,
    answer,
    around,
    at,
    differentiable,
    direction,
    graph_of,
    influences,
    lattice_of,
    probes,
    radius_of,
    require,
    spacious,
    spread,
    walled,
)
from sizetransfer_verification.conformance.subjects import GRAPH_SIZES, StudentSubject
from sizetransfer_verification.conformance.tolerances import tolerance


@student_check(
    "Along closed axes, of a torus or a cylinder, the score moves with the field and its condition, by multiples of "
    "the declared translation period.",
    cause="zero padding where the torus goes on, an absolute position, axes taken in the wrong order",
    needs=(CLOSED,),
    space=CaseSpace(examples=9, batches=(2,), largest=300, smallest=4),
)
def translation_equivariance(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    closed = around(subject, case)
    require(bool(closed), "The field lives on no lattice with a closed axis.")
    student, period = subject.student(case), subject.student(case).translation_period
    size = case.size if period == 1 else period * max(2, math.ceil(case.size / period))
    x, sigma, context = subject.inputs(replace(case, size=size))
    axes = tuple(axis + 2 for axis in closed)
    draws = torch.randint(1, max(2, size // period), (len(axes),), generator=case.generator("translation"))
    shifts = tuple(int(period * draw) for draw in draws)
    moved = context
    if context.condition is not None:
        moved = replace(context, condition=context.condition.roll(shifts, axes))
    expected = answer(student, x, spread(sigma), context).roll(shifts, axes)
    score = answer(student, x.roll(shifts, axes), spread(sigma), moved)
    evidence.close(score, expected, f"score of the field translated by {shifts}", "value")


def _relabelled(graph: Graph, order: Tensor, generator: torch.Generator) -> Graph:
    """The graph whose site i is the site ``order[i]`` of the other; its edges come in another order and direction."""
    edges = order.argsort()[graph.edges.cpu()]
    edges = edges[torch.randperm(len(edges), generator=generator)]
    swap = torch.rand(len(edges), 1, generator=generator) < 0.5
    edges = torch.where(swap, edges.flip(1), edges)
    positions = None if graph.positions is None else graph.positions[order]
    return Graph(graph.count, edges, positions, graph.box)


@student_check(
    "On a graph the score does not depend on the numbers of the sites, nor on order and direction of the edges.",
    cause="messages along an edge in one direction only, or a feature made from the index of a site",
    needs=(GRAPH,),
    space=CaseSpace(examples=6, batches=(2,), largest=90),
)
def relabelling_equivariance(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, (x, sigma, context) = subject.student(case), subject.inputs(case)
    graph = graph_of(context.domain)
    order = torch.randperm(graph.count, generator=case.generator("order"))
    condition = None if context.condition is None else context.condition[..., order]
    other = Context(_relabelled(graph, order, case.generator("edges")), condition)
    expected = answer(student, x, spread(sigma), context)[..., order]
    evidence.close(
        answer(student, x[..., order], spread(sigma), other), expected, "score on the relabelled graph", "value"
    )


@student_check(
    "Outside the declared radius the Jacobian of the score is zero, exactly.",
    cause="a layer more than was counted, a normalisation or a mean over space, padding that wraps around an open box",
    needs=(LOCAL,),
    space=CaseSpace(examples=8, batches=(1, 2), largest=130),
)
def nothing_beyond_the_radius(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    radius = radius_of(subject, case)
    student, (x, sigma, context) = subject.student(case), subject.inputs(spacious(subject, case, radius + 1))
    x.requires_grad_()
    score = differentiable(student, x, sigma, context, evidence)
    sites = probes(context.domain, case, student.translation_period)
    weights = direction(x.new_empty(x.shape[1]), case, "channels")
    for site, influence in zip(sites, influences(score, x, sites, weights), strict=True):
        beyond = influence[context.domain.distance(site).to(x.device) > radius]
        largest = float(beyond.max()) if beyond.numel() else 0.0
        what = f"influence on the score at {site} of sites farther than the radius {radius}"
        evidence.holds(
            largest == 0, what, measured=f"up to {largest:.3g}", allowed="zero", source="the declared radius"
        )


@student_check(
    "The declared radius is reached: some score depends on a site that far away.",
    cause="a radius that is counted too large, or a layer that is never called",
    needs=(LOCAL,),
    space=CaseSpace(examples=5, batches=(1,), largest=130),
)
def radius_is_reached(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    radius = radius_of(subject, case)
    student, (x, sigma, context) = subject.student(case), subject.inputs(spacious(subject, case, radius))
    x.requires_grad_()
    score = differentiable(student, x, sigma, context, evidence)
    sites = probes(context.domain, case, student.translation_period)
    weights = direction(x.new_empty(x.shape[1]), case, "channels")
    found = 0.0
    for site, influence in zip(sites, influences(score, x, sites, weights), strict=True):
        shell = influence[context.domain.distance(site).to(x.device) == radius]
        found = max(found, float(shell.max()) if shell.numel() else 0.0)
    what = f"largest influence of sites at distance {radius}"
    evidence.holds(found > 0, what, measured=f"{found:.3g}", allowed="more than zero", source="the declared radius")


def _window(centre: Site, radius: int) -> tuple[slice, ...]:
    return tuple(slice(index - radius, index + radius + 1) for index in centre)


def _pasted(into: Tensor, centre: Site, patch: Tensor, origin: Site, radius: int) -> Tensor:
    """``into``, with what surrounds ``origin`` in ``patch`` around ``centre``."""
    result = into.clone()
    at(result, _window(centre, radius)).copy_(at(patch, _window(origin, radius)))
    return result


@student_check(
    "The same patch of the field gives the same score at its centre, on lattices (or graphs) of different size.",
    cause="something that depends on the size: a division by L, a table of positions, a mean over the lattice",
    needs=(LOCAL,),
    space=CaseSpace(examples=5, batches=(2,), largest=40),
)
def same_patch_same_score(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    student, radius = subject.student(case), radius_of(subject, case)
    require(not student.reads_domain, "The student declares that it reads the domain beyond its radius.")
    if subject.field(case).geometry == "graph":
        return _same_ball_same_score(subject, case, evidence)
    period = student.translation_period
    sizes = [period * math.ceil(max(case.size, 2 * radius + 2) / period)]
    sizes.append(sizes[0] + period * math.ceil(4 / period))
    dim = subject.field(case).dim
    require(sizes[1] ** dim <= LARGEST, f"It takes {sizes[1]}^{dim} sites, more than {LARGEST}.")
    near, far = sizes[0] // 2, sizes[0] // 2 + period * ((sizes[1] // 2 - sizes[0] // 2) // period)
    origin, centre = (near,) * dim, (far,) * dim
    x, sigma, context = subject.inputs(replace(case, size=sizes[0]))
    wide, _, around = subject.inputs(replace(case, size=sizes[1], seed=case.seed + 100))
    wide = _pasted(wide, centre, x, origin, radius)
    if context.condition is not None and around.condition is not None:
        around = replace(around, condition=_pasted(around.condition, centre, context.condition, origin, radius))
    expected = answer(student, x, spread(sigma), context)
    score = answer(student, wide, spread(sigma), around)
    what = f"score at the centre of a patch on {sizes[1]} sites along each axis instead of {sizes[0]}"
    got, wanted = at(score, centre), at(expected, origin)
    evidence.close(got, wanted, what, "value", scale=float(expected.abs().max()))
    return None


def _same_ball_same_score(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    """On a graph: cut out a ball wider by one hop than the radius, so that all degrees within the radius are kept."""
    student, radius = subject.student(case), radius_of(subject, case)
    for size in GRAPH_SIZES:
        if size < case.size or not subject.accepts(replace(case, size=size)):
            continue
        x, sigma, context = subject.inputs(replace(case, size=size))
        graph = graph_of(context.domain)
        site = case.site(graph, "centre")
        inside = graph.ball(site, radius + 1)
        if not inside.all():
            break
    else:
        raise NotApplicableError(f"No graph of up to {GRAPH_SIZES[-1]} sites is wider than the radius {radius}.")
    chosen = inside.nonzero().flatten()
    number = inside.cumsum(0) - 1
    edges = number[graph.edges[inside[graph.edges].all(1)]]
    ball = Graph(len(chosen), edges, None if graph.positions is None else graph.positions[chosen], graph.box)
    cut = Context(ball, None if context.condition is None else context.condition[..., chosen])
    expected = answer(student, x, spread(sigma), context)
    score = answer(student, x[..., chosen], spread(sigma), cut)
    what = f"score at the centre of a ball of {len(chosen)} of {graph.count} sites"
    got, wanted = score[..., int(number[site])], expected[..., site[0]]
    evidence.close(got, wanted, what, "value", scale=float(expected.abs().max()))


@student_check(
    "In an open box and at the ends of a cylinder a wall is no field of zeros: a score near it differs, unless walls "
    "are declared to be ignored.",
    cause="the field is padded with zeros once, and nothing tells a site outside from one where the field is zero",
    needs=(WALLS, LOCAL),
    space=CaseSpace(examples=2, batches=(1,), largest=10, noises=(1.0,)),
)
def walls_are_seen(subject: StudentSubject, case: Case, evidence: Evidence) -> None:
    axes = walled(subject, case)
    require(bool(axes), "The field has no wall.")
    axis = axes[0]
    student, radius = subject.student(case), radius_of(subject, case)
    require(radius > 0, "A student of radius zero sees no wall.")
    wide = replace(case, size=2 * radius + 3)
    require(subject.domain(wide).sites <= LARGEST, f"It takes more than {LARGEST} sites.")
    x, sigma, context = subject.inputs(wide)
    lattice = lattice_of(context.domain)
    centre = lattice.centre()
    wall = (*centre[:axis], 0, *centre[axis + 1 :])
    score = at(answer(student, x, sigma, context), wall)
    # The surroundings of the site at the wall, moved to the centre; zeros where the wall was.
    steps = centre[axis]
    far = answer(student, _moved(x, lattice, axis, steps), sigma, _moved_context(context, lattice, axis, steps))
    expected = at(far, centre)
    scale = float(far.abs().max())
    if "walls" in student.ignores:
        evidence.close(score, expected, "score at a wall that is declared to be ignored", "value", scale=scale)
        return
    apart = float((score - expected).abs().max()) / scale
    least = 10 * tolerance(case.dtype, "value")
    evidence.at_least(apart, least, "relative change of the score by a wall", source="ten times the rounding of values")


def _moved(values: Tensor, lattice: Lattice, axis: int, steps: int) -> Tensor:
    """Move by ``steps`` along an axis of the lattice; zeros come in."""
    result, kept = torch.zeros_like(values), lattice.size[axis] - steps
    result.narrow(axis + 2, steps, kept).copy_(values.narrow(axis + 2, 0, kept))
    return result


def _moved_context(context: Context, lattice: Lattice, axis: int, steps: int) -> Context:
    condition = context.condition
    return replace(context, condition=None if condition is None else _moved(condition, lattice, axis, steps))
