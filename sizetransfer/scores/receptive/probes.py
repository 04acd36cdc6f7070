"""Fields to probe a score with, and the sites that its numbers read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sizetransfer.contracts.domain import Domain, Lattice, Site
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.student import Student

FIELDS = 2
AMPLITUDE = 10.0
"""Change of the field outside the sites that are read, in standard deviations."""

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Change of a number that is taken for rounding, relative to the largest; one tenth in other precisions."""

_MOVE, _LEAST = 0.1, 0.02


@dataclass(frozen=True)
class Probe:
    """Random fields on one lattice at one noise level.

    Attributes:
        lattice: the sites.
        x: fields of the deviation that noisy fields have, ``B C *S``.
        sigma: noise levels, ``(B,)``.
        context: with random conditions where the student has some.
    """

    lattice: Lattice
    x: Tensor
    sigma: Tensor
    context: Context


def probe_at(student: Student, size: int, sigma: float, seed: int) -> Probe:
    """Fields for a student, in double precision."""
    field = student.field
    lattice = Lattice((size,) * field.dim, field.periodic, field.closed)
    like = torch.zeros((), dtype=torch.float64)
    generator = stream(seed, "receptive radius", size, repr(sigma))
    scale = (field.sigma_data**2 + sigma**2) ** 0.5
    x = scale * normal((FIELDS, field.channels, *lattice.shape), generator=generator, like=like)
    condition = None
    if field.condition_channels:
        condition = normal((FIELDS, field.condition_channels, *lattice.shape), generator=generator, like=like)
    return Probe(lattice, x, x.new_full((FIELDS,), sigma), Context(lattice, condition))


def named_sites(domain: Domain) -> list[Site]:
    """A corner, the middle, the opposite corner, and a neighbour of the first, which is on the other sublattice."""
    last = tuple(length - 1 for length in domain.shape)
    first = (0,) * len(last)
    return list(dict.fromkeys([first, domain.centre(), last, (*first[:-1], 1 % domain.shape[-1])]))


def drawn_sites(domain: Domain, count: int, generator: torch.Generator) -> list[Site]:
    """Sites at random places, none twice."""
    order = torch.randperm(domain.sites, generator=generator)[:count]
    return [tuple(int(index) for index in torch.unravel_index(number, domain.shape)) for number in order]


def probed_sites(lattice: Lattice, seed: int, drawn: int = 3) -> list[Site]:
    """Those with names and drawn ones: strides make sites unlike."""
    found = drawn_sites(lattice, drawn, stream(seed, "receptive radius", "sites"))
    return list(dict.fromkeys([*named_sites(lattice), *found]))


def read_sites(number: Tensor, x: Tensor) -> Bool[Tensor, "*size"]:
    """Sites of the field that a number has a derivative by, in any field and channel."""
    if not number.requires_grad:
        return torch.zeros(x.shape[2:], dtype=torch.bool)
    (rows,) = torch.autograd.grad(number, x, retain_graph=True, allow_unused=True, materialize_grads=True)
    return (rows != 0).any(1).any(0) | rows.isnan().any(1).any(0)


def weighted(values: Tensor) -> Tensor:
    """A sum with irrational weights, in which nothing cancels."""
    return (values.flatten() * irrational(values.numel(), values)).sum()


def irrational(count: int, like: Tensor) -> Float[Tensor, "count"]:
    """Weights with which no sum cancels."""
    return torch.arange(1, count + 1, dtype=like.dtype, device=like.device).sqrt()


def extent(read: Tensor, lattice: Lattice, site: Site) -> tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...]]:
    """Steps against and along each axis from a site to those that are read, and whether an axis is read whole."""
    steps = lattice.displacement(site)
    below, above, whole = [], [], []
    for axis, length in enumerate(lattice.shape):
        seen = steps[axis][read]
        low, high = (int(seen.min()), int(seen.max())) if len(seen) else (0, 0)
        below.append(max(0, -low))
        above.append(max(0, high))
        whole.append(len(seen) > 0 and len(set(seen.tolist())) == length)
    return tuple(below), tuple(above), tuple(whole)


def tolerance(values: Tensor) -> float:
    """What may be rounding in values of a score, in their own units."""
    return TOLERANCES.get(values.dtype, 0.1) * float(values.detach().abs().max())


@contextmanager
def moved_weights(module: nn.Module, seed: int, *, move: bool = True) -> Iterator[None]:
    """Within the block every weight is moved a little, in eval mode; afterwards all is as before."""
    training = {part: part.training for part in module.modules()}
    kept = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    kept_buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    try:
        module.eval()
        with torch.no_grad():
            for place, (name, weight) in enumerate(module.named_parameters() if move else ()):
                if weight.is_floating_point():
                    spread = _MOVE * float(kept[name].double().pow(2).mean().sqrt()) + _LEAST
                    noise = normal(weight.shape, generator=stream(seed, "moved weights", place), like=torch.zeros(()))
                    weight.add_(spread * noise.to(weight))
        yield
    finally:
        with torch.no_grad():
            for name, weight in module.named_parameters():
                weight.copy_(kept[name])
            for name, buffer in module.named_buffers():
                buffer.copy_(kept_buffers[name])
        for part, mode in training.items():
            part.training = mode
