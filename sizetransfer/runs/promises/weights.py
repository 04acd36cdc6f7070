"""Weights stay what training has left: whatever changes them within a block is named, and undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sizetransfer.contracts.errors import ConformanceError
from sizetransfer.runs.promises.answers import equal, name_of


@contextmanager
def weights_unchanged(module: nn.Module) -> Iterator[None]:
    """Within the block nothing changes the parameters, the buffers or the mode of a student or teacher.

    Values, dtype, device, ``requires_grad`` and ``training`` count; plain attributes and buffers that are not stored,
    such as caches, do not.
    Afterwards everything is as before, also where the block changed it or raised. It takes a copy of the weights.

    Args:
        module: any torch module.

    Raises:
        ConformanceError: after the block, by the name of what it changed.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> with weights_unchanged(layer):
        ...     answer = layer(torch.ones(1, 1))
    """
    kept = Weights(module)
    try:
        yield
    except BaseException:
        kept.put_back()
        raise
    changes = kept.changes()
    if changes:
        kept.put_back()
        raise ConformanceError(
            "The weights have changed, which only training may do; they are put back.",
            where=f"{name_of(module)}.{changes[0][0]}" + (f" and {len(changes) - 1} more" if changes[1:] else ""),
            expected="parameters, buffers and modes as they were before",
            got=changes[0][1],
            fix="work on a copy (copy.deepcopy), and keep what a forward pass remembers out of buffers",
        )


class Weights:
    """What a module holds at one moment: tensors by name with their values, submodules and their modes."""

    def __init__(self, module: nn.Module) -> None:
        self._modules = [(name, part, _Part(part)) for name, part in module.named_modules()]

    def changes(self) -> list[tuple[str, str]]:
        """What is no longer as it was: names, and what became of them."""
        return [
            (f"{prefix}.{name}" if prefix else name, text)
            for prefix, part, kept in self._modules
            for name, text in kept.changes(part)
        ]

    def put_back(self) -> None:
        """Make everything what it was."""
        for _, part, kept in self._modules:
            kept.put_back(part)


class _Part:
    """The same for one submodule alone."""

    def __init__(self, part: nn.Module) -> None:
        self.registers = {name: _stored(part, name) for name in ("_parameters", "_buffers", "_modules")}
        self.training = part.training
        tensors = {**self.registers["_parameters"], **self.registers["_buffers"]}
        self.values = {
            name: (value, value.detach().clone(), value.requires_grad)
            for name, value in tensors.items()
            if value is not None and not is_lazy(value)
        }

    def changes(self, part: nn.Module) -> Iterator[tuple[str, str]]:
        for register, members in self.registers.items():
            now = _stored(part, register)
            yield from ((name, "it is gone") for name in members if name not in now)
            yield from ((name, "it is new") for name in now if name not in members)
        for name, (_, copy, wanted_gradient) in self.values.items():
            value = getattr(part, name, None)
            if isinstance(value, Tensor):
                yield from ((name, text) for text in _changes(value, copy, wanted_gradient))
        if part.training != self.training:
            yield "training", f"training = {part.training} instead of {self.training}"

    def put_back(self, part: nn.Module) -> None:
        for register, members in self.registers.items():
            held = vars(part)[register]
            for name in set(_stored(part, register)) - set(members):
                del held[name]
            held.update(members)
        for value, copy, wanted_gradient in self.values.values():
            _restore(value, copy)
            if value.requires_grad != wanted_gradient:
                value.requires_grad_(wanted_gradient)
        part.training = self.training


def _stored(part: nn.Module, register: str) -> dict[str, Any]:
    """The members of a module without the buffers that a state dict leaves out."""
    passing = part._non_persistent_buffers_set if register == "_buffers" else set()
    return {name: value for name, value in vars(part)[register].items() if name not in passing}


def _changes(value: Tensor, copy: Tensor, wanted_gradient: bool) -> Iterator[str]:
    if _kind(value) != _kind(copy):
        yield f"{_kind(value)} instead of {_kind(copy)}"
    elif not equal(value, copy):
        yield f"{int((value.detach() != copy).sum())} of {copy.numel()} numbers changed"
    elif value.requires_grad != wanted_gradient:
        yield f"requires_grad = {value.requires_grad} instead of {wanted_gradient}"


def _kind(value: Tensor) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)} on {value.device}"


def _restore(value: Tensor, copy: Tensor) -> None:
    """Write the old values where they were, so that tied weights stay tied."""
    if equal(value, copy):
        return
    if _kind(value) != _kind(copy):
        value.data = copy
        return
    with torch.inference_mode(value.is_inference()), torch.no_grad():
        value.copy_(copy)
