"""What an answer of a teacher or student must be like, and the errors where it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sizetransfer.contracts.errors import ConformanceError
from sizetransfer.contracts.oracle import Sample, Teacher
from sizetransfer.contracts.specs import FieldInfo


@dataclass(frozen=True)
class Place:
    """Whose answer it is, to what.

    Attributes:
        owner: the teacher or student.
        method: the name of what was called.
        fields: how many fields of which size it was asked about.
    """

    owner: nn.Module
    method: str
    fields: str = ""

    def __str__(self) -> str:
        called = f"{name_of(self.owner)}.{self.method}"
        return f"{called}, {self.fields}" if self.fields else called

    @property
    def role(self) -> str:
        """``teacher`` or ``student``."""
        return "teacher" if isinstance(self.owner, Teacher) else "student"

    def broken(self, what: str, *, expected: str, got: str, fix: str) -> ConformanceError:
        """The error that says so; ``what`` goes on after the words ``The teacher`` or ``The student``."""
        return ConformanceError(f"The {self.role} {what}", where=str(self), expected=expected, got=got, fix=fix)


def name_of(owner: nn.Module) -> str:
    """The class of a teacher or student, and of the module that it wraps."""
    inner = vars(owner).get("_modules", {}).get("module")
    return type(owner).__name__ + (f"({type(inner).__name__})" if isinstance(inner, nn.Module) else "")


def count_of(batch: int, shape: Sequence[int]) -> str:
    """``8 fields of 32 x 32 sites``."""
    return f"{batch} field{'s' if batch != 1 else ''} of {' x '.join(map(str, shape))} sites"


def plain(values: Tensor) -> bool:
    """Whether a tensor has values that can be looked at: no fake, meta or sparse one, and no subclass."""
    return type(values) in (Tensor, nn.Parameter) and values.layout == torch.strided and values.device.type != "meta"


def require_tensor(
    values: object, place: Place, what: str, shape: Sequence[int], *, like: Tensor, dtypes: Sequence[torch.dtype]
) -> Tensor:
    """Return ``values``, a tensor of that shape, of one of the dtypes, on the device of ``like``.

    Raises:
        ConformanceError: it is not.
    """
    if not isinstance(values, Tensor):
        got, fix = type(values).__name__, "return a torch tensor"
        raise place.broken(f"returns {what} that is no tensor.", expected="a tensor", got=got, fix=fix)
    if tuple(values.shape) != tuple(shape):
        raise place.broken(
            f"returns {what} of the wrong shape.",
            expected=f"shape {tuple(shape)}",
            got=f"shape {tuple(values.shape)}",
            fix="return one row for every field that was asked for; a single row would be taken for all of them",
        )
    if values.dtype not in dtypes:
        raise place.broken(
            f"returns {what} of the wrong dtype.",
            expected=" or ".join(map(str, dtypes)),
            got=str(values.dtype),
            fix="compute in any precision, and convert the result",
        )
    if values.device != like.device:
        raise place.broken(
            f"returns {what} on the wrong device.",
            expected=str(like.device),
            got=str(values.device),
            fix="keep constants as buffers, which move with the module, and convert the result",
        )
    return values


def finite(values: Tensor) -> bool:
    """Whether no number is infinite or NaN; true where there are none to look at."""
    # Infinities and NaN survive a sum, which is cheaper than a comparison of each; a sum may also overflow by itself.
    return not plain(values) or bool(values.detach().sum().isfinite()) or bool(values.isfinite().all())


def require_finite(values: Tensor, place: Place, what: str) -> None:
    """Hold ``values`` of shape ``(B, ...)`` to be finite.

    Raises:
        ConformanceError: with how many are not, and in which row first.
    """
    if finite(values):
        return
    wrong = ~values.detach().isfinite()
    first = int(wrong.flatten(1).any(1).nonzero()[0]) if wrong.ndim > 1 else int(wrong.nonzero()[0])
    raise place.broken(
        f"returns {what} that is not finite.",
        expected="finite numbers",
        got=f"{int(wrong.sum())} of {wrong.numel()} numbers infinite or NaN, the first in row {first}",
        fix="look for a division by zero or an overflow; of a trained student, look at its training history",
    )


def require_nothing_dead(values: Tensor, mask: Tensor | None, place: Place, what: str) -> None:
    """Hold ``values`` of shape ``(B, C, *S)`` to be zero where the mask calls a site dead.

    Raises:
        ConformanceError: with how many sites are not.
    """
    if mask is None or not plain(values) or not plain(mask):
        return
    wrong = (values.detach() != 0) & ~mask
    if wrong.any():
        raise place.broken(
            f"returns {what} on dead sites.",
            expected="exactly zero where the mask is false",
            got=f"{int(wrong.sum())} numbers that are not zero, the first in row {int(wrong.nonzero()[0, 0])}",
            fix="multiply by the mask; its true sites are the live ones",
        )


def require_sample(
    sample: object, place: Place, field: FieldInfo, batch: int, shape: Sequence[int], like: Tensor
) -> Sample:
    """Return ``sample``: ``batch`` finite fields on ``shape`` whose context and labels fit.

    Args:
        sample: what the teacher returned.
        place: of whom.
        field: what the teacher declares of its fields.
        batch: fields asked for.
        shape: ``*S``.
        like: a tensor of the dtype and device that the fields must have.

    Raises:
        ConformanceError: it is not.
    """
    if not isinstance(sample, Sample):
        raise place.broken("returns no sample.", expected="a Sample", got=type(sample).__name__, fix="return a Sample")
    x = require_tensor(sample.x, place, "a field", (batch, field.channels, *shape), like=like, dtypes=(like.dtype,))
    _require_context(sample, place, field)
    for name, values in sample.labels.items():
        what = f"the label {name!r}"
        require_tensor(values, place, what, (batch, *shape), like=x, dtypes=(torch.int64,))
    require_finite(x, place, "a field")
    require_nothing_dead(x, sample.context.mask, place, "a field")
    return sample


def _require_context(sample: Sample, place: Place, field: FieldInfo) -> None:
    x, context = sample.x, sample.context
    batch, shape = len(x), tuple(x.shape[2:])
    if tuple(context.domain.shape) != shape:
        raise place.broken(
            "returns a field that is not on the domain of its context.",
            expected=f"a domain of shape {shape}",
            got=f"a domain of shape {tuple(context.domain.shape)}",
            fix="give the context the domain of that size",
        )
    if (context.condition is None) != (field.condition_channels == 0):
        raise place.broken(
            "declares another condition than it returns.",
            expected=f"field.condition_channels = {field.condition_channels}: none where it is zero",
            got="no condition" if context.condition is None else f"shape {tuple(context.condition.shape)}",
            fix="set condition_channels of the field, or condition of the context",
        )
    if context.condition is not None:
        wanted = (batch, field.condition_channels, *shape)
        require_tensor(context.condition, place, "a condition", wanted, like=x, dtypes=(x.dtype,))
        require_finite(context.condition, place, "a condition")
    if context.mask is not None:
        require_tensor(context.mask, place, "a mask", (batch, 1, *shape), like=x, dtypes=(torch.bool,))


class Inputs:
    """Tensors that a call is given, with copies of their values from before it.

    Version counters alone miss a change through ``.data``, a view in numpy or an inference tensor; a copy misses
    nothing, and takes less memory than any layer of a network that reads the field.

    Args:
        tensors: by name; what has no values to look at is left out.
    """

    def __init__(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        seen = [(name, values) for name, values in tensors if plain(values)]
        self._kept = [(name, values, values.detach().clone(), values.requires_grad) for name, values in seen]

    def finite(self) -> bool:
        """Whether all that are numbers with a point were finite."""
        return all(finite(copy) for _, _, copy, _ in self._kept)

    def require_unchanged(self, place: Place) -> None:
        """Hold them to have the values that they had.

        Raises:
            ConformanceError: by the name of the first that has not.
        """
        for name, values, copy, wanted_gradient in self._kept:
            if not equal(values, copy):
                raise place.broken(
                    f"changes its input {name}.",
                    expected="inputs that stay as they are",
                    got=_difference(values, copy),
                    fix="work on a copy: x = x + y instead of x += y",
                )
            if values.requires_grad != wanted_gradient:
                raise place.broken(
                    f"changes its input {name}.",
                    expected=f"requires_grad = {wanted_gradient}, as before",
                    got=f"requires_grad = {values.requires_grad}",
                    fix="use x.detach().requires_grad_(), which is another tensor",
                )


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one shape, dtype, device and the same values, NaN being equal to NaN."""
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    a, b = a.detach(), b.detach()
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def _difference(values: Tensor, copy: Tensor) -> str:
    if values.shape != copy.shape:
        return f"shape {tuple(values.shape)} instead of {tuple(copy.shape)}"
    if values.dtype != copy.dtype or values.device != copy.device:
        return f"{values.dtype} on {values.device} instead of {copy.dtype} on {copy.device}"
    return f"{int((values.detach() != copy).sum())} of {copy.numel()} numbers changed"
