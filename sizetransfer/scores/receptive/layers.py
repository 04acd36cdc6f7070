"""Layers of a module, followed by hooks: from where each reads, and what a translation does to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sizetransfer.contracts.domain import Lattice, Site
from sizetransfer.contracts.student import Student
from sizetransfer.scores.receptive.probes import Probe, extent, probe_at, read_sites, tolerance, weighted
from sizetransfer.scores.receptive.report import Fault, LayerReach

_ATTENTION = ("attention", "attn", "transformer")


@contextmanager
def recorded(student: nn.Module) -> Iterator[list[tuple[str, nn.Module, Tensor]]]:
    """Within the block every layer's output is kept, in the order of the calls."""
    found: list[tuple[str, nn.Module, Tensor]] = []

    def keep(name: str) -> object:
        def hook(layer: nn.Module, _: object, output: object) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor) and first.is_floating_point():
                found.append((name, layer, first))

        return hook

    leaves = [(name, part) for name, part in student.named_modules() if name and _is_layer(part)]
    handles = [part.register_forward_hook(keep(name.removeprefix("module."))) for name, part in leaves]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _is_layer(part: nn.Module) -> bool:
    """Whether a module is called as one: it has no parts, or does not call them."""
    return isinstance(part, nn.MultiheadAttention) or not any(part.children())


def layer_reaches(student: Student, probe: Probe) -> tuple[LayerReach, ...]:
    """From where the output of every layer reads, at the middle of the lattice."""
    x = probe.x.clone().requires_grad_()
    site = probe.lattice.centre()
    rows = []
    with torch.enable_grad(), recorded(student) as outputs:
        student(x, probe.sigma, probe.context)
        for name, layer, output in outputs:
            here = _at(output, probe.lattice, site)
            if here is None or not here.requires_grad:
                continue
            read = read_sites(weighted(here), x)
            if bool(read.any()):
                below, above, whole = extent(read, probe.lattice, site)
                rows.append(LayerReach(name, type(layer).__name__, below, above, whole))
    return tuple(rows)


def _at(output: Tensor, lattice: Lattice, site: Site) -> Tensor | None:
    """The numbers of a layer's output at a site of the field; all of them where it has no sites of its own."""
    shape, dim = output.shape, lattice.dim
    if output.ndim == dim + 2:
        for axes in (range(2, dim + 2), range(1, dim + 1)):  # channels first, or last
            lengths = [shape[axis] for axis in axes]
            if all(length <= 2 * full and length > 1 for length, full in zip(lengths, lattice.shape, strict=True)):
                places = [i * n // full for i, n, full in zip(site, lengths, lattice.shape, strict=True)]
                index: list[slice | int] = [slice(None)] * output.ndim
                for axis, place in zip(axes, places, strict=True):
                    index[axis] = place
                return output[tuple(index)]
    if output.ndim == 3 and lattice.sites in shape[1:]:
        flat = 0
        for place, length in zip(site, lattice.shape, strict=True):
            flat = flat * length + place
        return output[:, flat] if shape[1] == lattice.sites else output[:, :, flat]
    return output if output.ndim >= 2 else None


def global_fault(student: Student, layers: tuple[LayerReach, ...]) -> Fault:
    """The layer from which on the whole field is read, and what kind of layer that is."""
    first = next((layer for layer in layers if any(layer.whole)), None)
    if first is None:
        return Fault(
            "global",
            "",
            "The score of a site reads the whole field, and no layer does so by itself: look for a mean, a Fourier "
            "transform or a solve outside the layers.",
        )
    parts = dict(student.named_modules())
    path = next((name for name in parts if name.removeprefix("module.") == first.name), "")
    how = _how(parts, path, first.type)
    others = [other for other in layers if (other.type, any(other.whole)) == (first.type, True) and other != first]
    more = f"; {len(others)} more of its kind follow" if others and how != _UNKNOWN else ""
    text = f"The score of a site reads the whole field from layer {first.name} ({first.type}) on: {how}{more}."
    return Fault("global", first.name, text)


_UNKNOWN = "what leads into it reads every site, by a mean, a Fourier transform or a flattening in its parent"


def _how(parts: dict[str, nn.Module], path: str, kind: str) -> str:
    above = [".".join(path.split(".")[:end]) for end in range(1, path.count(".") + 2)]
    types = [type(parts[name]).__name__ for name in above if name in parts]
    if any(word in kind.lower() for word in _ATTENTION):
        return "it attends to every site"
    if "norm" in kind.lower():
        return "it normalises over space, by statistics of the field that change with the size"
    if "pool" in kind.lower():
        return "it pools over the field"
    if any(word in name.lower() for name in types for word in _ATTENTION):
        return "it is behind attention to every site"
    return _UNKNOWN


def unlike_layer(student: Student, size: int, sigma: float, shift: int, seed: int) -> tuple[str, nn.Module] | None:
    """The first layer whose output does not move with the field around the torus."""
    probe = probe_at(student, size, sigma, seed)
    axes = tuple(range(2, probe.x.ndim))
    moved = probe.x.roll((shift,) * len(axes), axes)
    outputs = []
    with torch.no_grad():
        for x in (probe.x, moved):
            with recorded(student) as found:
                student(x, probe.sigma, probe.context)
            outputs.append(found)
    for (name, layer, first), (_, _, second) in zip(*outputs, strict=True):
        lengths = first.shape[2:]
        if len(lengths) != len(axes) or any(shift * n % size for n in lengths):
            continue
        back = second.roll([-shift * n // size for n in lengths], axes)
        if float((back - first).abs().max()) > tolerance(first):
            return name, layer
    return None
