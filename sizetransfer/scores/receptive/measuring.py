"""The measurement: sites that are read, on several lattices, and what breaks between them."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sizetransfer.contracts.domain import Lattice, Site
from sizetransfer.contracts.errors import SizetransferError, SpecError
from sizetransfer.contracts.student import Student
from sizetransfer.scores.receptive.layers import global_fault, layer_reaches, unlike_layer
from sizetransfer.scores.receptive.probes import (
    AMPLITUDE,
    FIELDS,
    Probe,
    extent,
    moved_weights,
    probe_at,
    probed_sites,
    read_sites,
    tolerance,
    weighted,
)
from sizetransfer.scores.receptive.report import Fault, RadiusReport, Reach

FIRST = {1: 32, 2: 16, 3: 8}
LARGEST = {1: 512, 2: 64, 3: 16}
"""Sites along an axis of the smallest and of the largest lattice that is looked at where no sizes are given."""


def measure_radius(
    student: Student,
    sizes: Sequence[int] = (),
    sigmas: Sequence[float] = (0.1, 1.0, 10.0),
    *,
    name: str = "",
    moved: bool = True,
    seed: int = 0,
) -> RadiusReport:
    """Measure from where a score reads, and what in it depends on the place, the size or the rest of the batch.

    Args:
        student: on a lattice; its weights are as before afterwards.
        sizes: lattices; by default one of even and one of odd size, doubled until the score reads no axis whole.
        sigmas: noise levels.
        name: what to call it.
        moved: move the weights a little before, so that layers that begin at zero hide nothing.
        seed: names fields, sites and moves.

    Raises:
        SpecError: fields on a graph, or no size that the module takes.
    """
    started = time.perf_counter()
    if student.field.geometry != "lattice":
        raise SpecError(
            "The radius is measured on lattices.",
            where="radius",
            expected="a student of fields on a lattice",
            got=student.field.geometry,
            fix="use the conformance suite for a graph: sizetransfer verify",
        )
    with torch.inference_mode(False):
        own = _in_double(student, sigmas[0], sizes, seed)
        with moved_weights(own, seed, move=moved):
            return _measured(own, sizes, sigmas, name or type(student).__name__, started, moved=moved, seed=seed)


def _in_double(student: Student, sigma: float, sizes: Sequence[int], seed: int) -> Student:
    """A copy in double precision, or the student itself where it cannot be copied or does not run so."""
    try:
        double = copy.deepcopy(student).double()
        size = sizes[0] if sizes else FIRST[min(3, student.field.dim)]
        probe = probe_at(double, size, sigma, seed)
        with torch.no_grad():
            double.eval()(probe.x, probe.sigma, probe.context)
    except Exception:  # of somebody's module, which may hold what cannot be copied, or cast inside
        return student
    return double


@dataclass(frozen=True)
class _Found:
    """What one lattice at one noise level shows: the reach, and whether a detached path reads beyond it."""

    reach: Reach
    detached: bool


def _measured(
    student: Student,
    sizes: Sequence[int],
    sigmas: Sequence[float],
    name: str,
    started: float,
    *,
    moved: bool,
    seed: int,
) -> RadiusReport:
    found: list[_Found] = []
    refused: list[tuple[int, str]] = []
    for pair in _lattices(student, sizes):
        for size in pair:
            try:
                found += [_reach(student, size, sigma, seed) for sigma in sigmas]
            except SizetransferError as error:
                refused.append((size, error.what))
        if found and (not any(found[-1].reach.whole) or _jumps(student, found, sigmas[-1], seed)):
            break
    if not found:
        raise _no_size(refused)
    return _report(student, found, refused, name, started, moved=moved, seed=seed)


def _jumps(student: Student, found: Sequence[_Found], sigma: float, seed: int) -> bool:
    """Whether one layer leads from a quarter of the lattice to all of it, on the second pair of sizes."""
    size = found[-1].reach.size
    if size < 2 * FIRST[min(3, student.field.dim)]:
        return False
    layers = layer_reaches(student, probe_at(student, size, sigma, seed))
    before = itertools.takewhile(lambda layer: not any(layer.whole), layers)
    return max((max(*layer.below, *layer.above) for layer in before), default=0) < size // 4


def _lattices(student: Student, sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    if sizes:
        yield tuple(sizes)
        return
    dim = min(3, student.field.dim)
    size = FIRST[dim]
    while size <= LARGEST[dim]:
        yield size, size + 1
        size *= 2


def _no_size(refused: Sequence[tuple[int, str]]) -> SpecError:
    return SpecError(
        "The module runs on none of the sizes.",
        where="radius, sizes",
        expected="a size that it takes",
        got="; ".join(f"{size}: {why}" for size, why in refused[:2]),
        fix="say with --inputs what the module is called with, with --channels and --dim what its fields are, or "
        "with --size which sizes it takes",
    )


def _reach(student: Student, size: int, sigma: float, seed: int) -> _Found:
    """The union over probed sites."""
    probe = probe_at(student, size, sigma, seed)
    x = probe.x.clone().requires_grad_()
    with torch.enable_grad():
        score = student(x, probe.sigma, probe.context)
    sites = probed_sites(probe.lattice, seed)
    extents, detached = [], False
    for site in sites:
        at_site: tuple[slice | int, ...] = (slice(None), slice(None), *site)
        with torch.enable_grad():
            read = read_sites(weighted(score[at_site]), x)
        beyond = _beyond(student, probe, score.detach(), site, read)
        detached = detached or beyond is not None
        extents.append(extent(read if beyond is None else read | beyond, probe.lattice, site))
    below, above = (tuple(map(max, zip(*(each[side] for each in extents), strict=True))) for side in (0, 1))
    whole = tuple(map(any, zip(*(each[2] for each in extents), strict=True)))
    return _Found(Reach(size, sigma, below, above, whole), detached)


def _beyond(student: Student, probe: Probe, score: Tensor, site: Site, read: Tensor) -> Tensor | None:
    """Sites that the score at one depends on without a derivative, as far as the farthest such distance; or none."""
    distance = probe.lattice.distance(site)
    if not bool((~read).any()) or not _responds(student, probe, score, site, ~read):
        return None
    for step in range(int(distance.max()), 0, -1):
        if _responds(student, probe, score, site, ~read & (distance >= step)):
            return distance <= step
    return distance <= 0


def _responds(student: Student, probe: Probe, score: Tensor, site: Site, where: Tensor) -> bool:
    with torch.no_grad():
        other = student(torch.where(where, probe.x + AMPLITUDE * probe.x.std(), probe.x), probe.sigma, probe.context)
    at_site: tuple[slice | int, ...] = (slice(None), slice(None), *site)
    change = (other - score)[at_site].abs().max().nan_to_num(nan=math.inf)
    return float(change) > max(_rounding(student, score), _rounding(student, other))


def _rounding(student: nn.Module, values: Tensor) -> float:
    """Tolerance by the coarsest precision that takes part."""
    dtypes = [weight.dtype for weight in student.parameters() if weight.is_floating_point()]
    coarsest = max([values.dtype, *dtypes], key=lambda dtype: torch.finfo(dtype).eps)
    return tolerance(values.to(coarsest) if coarsest != values.dtype else values)


# --- what breaks ------------------------------------------------------------------------------------------------------


def _report(
    student: Student,
    found: Sequence[_Found],
    refused: Sequence[tuple[int, str]],
    name: str,
    started: float,
    *,
    moved: bool,
    seed: int,
) -> RadiusReport:
    largest = max(one.reach.size for one in found)
    there = [one.reach for one in found if one.reach.size == largest]
    below, above = (
        tuple(map(max, zip(*(getattr(r, side) for r in there), strict=True))) for side in ("below", "above")
    )
    everywhere = any(any(r.whole) for r in there)
    radius = None if everywhere else max(*below, *above)
    sigma = there[len(there) // 2].sigma
    layers = layer_reaches(student, probe_at(student, largest, sigma, seed))
    faults = [_detached()] if any(one.detached for one in found) else []
    if everywhere and not (faults and not any(any(layer.whole) for layer in layers)):
        faults = [global_fault(student, layers), *faults]
    period, placed = _translations(student, found, sigma, seed, radius)
    faults += placed
    faults += _with_the_size(student, found, sigma, seed, fine=not placed)
    faults += _rows(student, there[0].size, sigma, seed)
    faults += _declared(student, radius)
    sites = len(probed_sites(Lattice((largest,) * student.field.dim), seed))
    return RadiusReport(
        name=name,
        radius=radius,
        below=below,
        above=above,
        translation_period=period,
        reaches=tuple(one.reach for one in found),
        layers=layers,
        faults=tuple(faults),
        refused=tuple(refused),
        moved=moved,
        sites=sites,
        fields=FIELDS,
        seconds=time.perf_counter() - started,
    )


def _detached() -> Fault:
    return Fault(
        "global",
        "",
        "A path that is detached from the gradient reads farther than the derivatives: look for detach(), no_grad() or "
        "item() around a mean or a normalisation.",
    )


def _translations(
    student: Student, found: Sequence[_Found], sigma: float, seed: int, radius: int | None
) -> tuple[int | None, list[Fault]]:
    """The smallest translation that the score moves with, and the fault where there is none."""
    even = [one.reach.size for one in found if one.reach.size % 2 == 0]
    if not all(student.field.closed_axes) or not even:
        return None, []
    size = max(even)
    shift = 1
    while shift < size:
        if not bool(_unmoved(student, size, sigma, shift, seed).any()):
            return shift, []
        shift *= 2
    shift //= 2
    where = _unmoved(student, size, sigma, shift, seed)
    reach = size // 4 if radius is None else radius
    inside = Lattice((size,) * student.field.dim, periodic=False).wall_distance()
    inside = torch.minimum(inside, inside.roll((shift,) * inside.ndim, tuple(range(inside.ndim)))) > reach
    layer = unlike_layer(student, size, sigma, shift, seed)
    return None, [_placed(layer, seam=not bool((where & inside).any()) and bool(inside.any()))]


def _placed(layer: tuple[str, nn.Module] | None, *, seam: bool) -> Fault:
    name, part = layer if layer is not None else ("", None)
    by = f" from layer {name} ({type(part).__name__}) on" if part is not None else ""
    mode = getattr(part, "padding_mode", None)
    if seam or mode not in {None, "circular"}:
        how = f", which pads with {mode}" if mode not in {None, "circular"} else ""
        text = f"At the seam of a torus the score is another rule{by}{how}: pad around (padding_mode='circular')."
        return Fault("padding", name, text)
    text = (
        f"The score depends on where in the lattice the field is{by}: look for positions, or strides without a period."
    )
    return Fault("position", name, text)


def _unmoved(student: Student, size: int, sigma: float, shift: int, seed: int) -> Tensor:
    """Sites whose score does not move with the field, ``*S``."""
    probe = probe_at(student, size, sigma, seed)
    axes = tuple(range(2, probe.x.ndim))
    with torch.no_grad():
        first = student(probe.x, probe.sigma, probe.context)
        context = probe.context
        if context.condition is not None:
            context = replace(context, condition=context.condition.roll((shift,) * len(axes), axes))
        second = student(probe.x.roll((shift,) * len(axes), axes), probe.sigma, context)
    apart = (second - first.roll((shift,) * len(axes), axes)).abs() > _rounding(student, first)
    somewhere: Tensor = apart.any(1).any(0)
    return somewhere


def _with_the_size(student: Student, found: Sequence[_Found], sigma: float, seed: int, *, fine: bool) -> list[Fault]:
    """Whether a field that is repeated along every axis has the score repeated."""
    if not fine or not all(student.field.closed_axes) or student.field.condition_channels:
        return []
    probe = probe_at(student, min(one.reach.size for one in found), sigma, seed)
    times = (1, 1, *(2,) * probe.lattice.dim)
    twice = Lattice(tuple(2 * length for length in probe.lattice.shape))
    with torch.no_grad():
        try:
            small = student(probe.x, probe.sigma, probe.context).repeat(times)
            large = student(probe.x.repeat(times), probe.sigma, replace(probe.context, domain=twice))
        except SizetransferError:
            return []
    change = float((large - small).abs().max())
    if change <= _rounding(student, small):
        return []
    share = change / float(small.abs().max())
    text = f"The score depends on the size itself: a field repeated along every axis has another score, by {share:.2g}."
    return [Fault("size", "", text)]


def _rows(student: Student, size: int, sigma: float, seed: int) -> list[Fault]:
    probe = probe_at(student, size, sigma, seed)
    other = torch.cat([probe.x[:1], probe.x[1:] + AMPLITUDE * probe.x.std()])
    with torch.no_grad():
        first = student(probe.x, probe.sigma, probe.context)[0]
        change = (student(other, probe.sigma, probe.context)[0] - first).abs().max()
    if float(change) <= _rounding(student, first):
        return []
    return [Fault("batch", "", "The score of a field depends on the others of its batch: look for a mean over it.")]


def _declared(student: Student, radius: int | None) -> list[Fault]:
    if student.radius is None or (radius is not None and radius <= student.radius):
        return []
    measured = "the whole field" if radius is None else f"sites at {radius} steps"
    return [Fault("declared", "", f"The declared radius is {student.radius}, and the score reads {measured}.")]
