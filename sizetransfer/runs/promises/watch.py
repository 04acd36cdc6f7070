"""Every call of a teacher and a student within a block is checked, and the scores that are asked for are counted.

A call is let through unchecked where its tensors have no values to look at: inside ``torch.func`` transformations,
where torch compiles or traces, and on fake, meta or sparse tensors. Calls that an object makes of its own methods are
its own affair. Copies that are made of an object within the block are not watched.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sizetransfer.contracts.oracle import Context, Teacher
from sizetransfer.contracts.student import Student
from sizetransfer.runs.promises.answers import (
    Inputs,
    Place,
    count_of,
    finite,
    plain,
    require_finite,
    require_nothing_dead,
    require_sample,
    require_tensor,
)


@dataclass
class Watch:
    """What a watched block counts.

    Attributes:
        score_calls: fields for which the teacher's clean or smoothed score was asked.
    """

    score_calls: int = 0


@contextmanager
def watched(teacher: Teacher, student: Student | None) -> Iterator[Watch]:
    """Within the block, hold every answer of the teacher and the student to their contracts.

    Answers have the shape, batch, dtype and device that were asked for; samples and scores are finite where the
    field is (a student in training mode is left to the check of the loss, which knows the step); a sample fits its
    context; nothing is on dead sites; inputs, and the answer before, stay as they are. After the block both are as
    they were.

    Args:
        teacher: its ``sample, resample, score, smoothed_score``, posteriors, ``log_density`` and ``energy``.
        student: its ``forward``; none: the teacher alone.

    Raises:
        ConformanceError: from the call that breaks a promise.

    Example:
        >>> import sizetransfer as st
        >>> from sizetransfer.contracts.randomness import stream
        >>> teacher = st.teacher("gaussian", dim=1)
        >>> with watched(teacher, None) as watch:
        ...     score = teacher.score(teacher.sample(8, 16, generator=stream(0)))
        >>> watch.score_calls
        8
    """
    watch = Watch()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_intercepted(teacher, {"sample": _drawn, "resample": _redrawn, **_ANSWERS}, watch))
        if student is not None:
            stack.enter_context(_intercepted(student, {"forward": _Answer(_of_field, _like, "a score")}, Watch()))
        yield watch


@dataclass(frozen=True)
class _Question:
    """The fields that a call is about, and their surroundings."""

    x: Tensor
    context: Context
    sigma: Tensor | None = None
    labels: Mapping[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        named = {"x": self.x, "sigma": self.sigma, "condition": self.context.condition, "mask": self.context.mask}
        yield from ((name, value) for name, value in named.items() if isinstance(value, Tensor))
        yield from ((f"labels[{name!r}]", value) for name, value in self.labels.items())

    def __str__(self) -> str:
        return count_of(len(self.x), self.x.shape[2:])


def _named(names: tuple[str, ...], arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[Any, ...]:
    given = {**dict(zip(names, arguments, strict=False)), **keywords}
    return tuple(given[name] for name in names)


def _of_sample(arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> _Question:
    (sample,) = _named(("sample",), arguments, keywords)
    return _Question(sample.x, sample.context, labels=dict(sample.labels))


def _of_field(arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> _Question:
    x, sigma, context = _named(("x", "sigma", "context"), arguments, keywords)
    return _Question(x, context, sigma)


def _like(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)


def _rows(x: Tensor) -> tuple[int, ...]:
    return (len(x),)


def _site(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape[:2])


def _pairs(x: Tensor) -> tuple[int, ...]:
    return (*x.shape[:2], *x.shape[1:])


_Asked = Callable[[tuple[Any, ...], Mapping[str, Any]], _Question]

_Arguments = tuple[Any, ...]
_Check = Callable[[Any, str, Callable[..., Any], _Arguments, dict[str, Any]], Any]


@dataclass(frozen=True)
class _Answer:
    """Asks a method that returns one tensor, and checks it; only scores must be finite.

    Attributes:
        asked: makes of the arguments what it is asked about.
        shape: of its answer, by the field that it is asked about.
        what: the name of its answer.
    """

    asked: _Asked
    shape: Callable[[Tensor], tuple[int, ...]]
    what: str

    def __call__(
        self, owner: nn.Module, name: str, method: Callable[..., Any], arguments: _Arguments, keywords: dict[str, Any]
    ) -> Any:
        try:
            question = self.asked(arguments, keywords)
            place = Place(owner, name, str(question))
            inputs = Inputs(question.tensors())
        except (KeyError, AttributeError, TypeError):
            return method(*arguments, **keywords)  # It was called wrongly; what it says of that is better.
        result = method(*arguments, **keywords)
        inputs.require_unchanged(place)
        self._require(result, question, place, inputs)
        return result

    def _require(self, result: object, question: _Question, place: Place, inputs: Inputs) -> None:
        x = question.x
        answer = require_tensor(result, place, self.what, self.shape(x), like=x, dtypes=_dtypes(place.owner, x))
        if self.what != "a score":
            return
        mask = question.context.mask
        if isinstance(place.owner, Student) and "mask" in place.owner.ignores:
            mask = None
        learning = isinstance(place.owner, Student) and place.owner.training
        if not learning and not finite(answer) and inputs.finite():
            require_finite(answer, place, self.what)
        require_nothing_dead(answer, mask, place, self.what)


_ANSWERS: Mapping[str, _Answer] = {
    "score": _Answer(_of_sample, _like, "a score"),
    "smoothed_score": _Answer(_of_field, _like, "a score"),
    "log_density": _Answer(_of_sample, _rows, "a log-density"),
    "energy": _Answer(_of_sample, _rows, "an energy"),
    "posterior_mean": _Answer(_of_field, _like, "a posterior mean"),
    "posterior_covariance": _Answer(_of_field, _pairs, "a posterior covariance"),
    "local_posterior_mean": _Answer(_of_field, _site, "a posterior mean"),
    "local_posterior_covariance": _Answer(_of_field, _pairs, "a posterior covariance"),
}


def _dtypes(owner: nn.Module, x: Tensor) -> tuple[torch.dtype, ...]:
    """That of the field; of a student also that of autocast, where it is on."""
    if isinstance(owner, Student) and torch.is_autocast_enabled(x.device.type):
        return (x.dtype, torch.get_autocast_dtype(x.device.type))
    return (x.dtype,)


def _drawn(
    owner: Teacher, name: str, method: Callable[..., Any], arguments: _Arguments, keywords: dict[str, Any]
) -> Any:
    result = method(*arguments, **keywords)
    batch, size = _named(("batch", "size"), arguments, keywords)
    shape = owner.domain(size).shape
    place = Place(owner, name, count_of(batch, shape))
    return require_sample(result, place, owner.field, batch, shape, owner.anchor)


def _redrawn(
    owner: Teacher, name: str, method: Callable[..., Any], arguments: _Arguments, keywords: dict[str, Any]
) -> Any:
    question = _of_sample(arguments, keywords)
    place, inputs = Place(owner, name, str(question)), Inputs(question.tensors())
    result = method(*arguments, **keywords)
    inputs.require_unchanged(place)
    return require_sample(result, place, owner.field, len(question.x), tuple(question.x.shape[2:]), question.x)


class _Watched:
    """A method of an object in a watched block; a copy of the object gets the method itself."""

    def __init__(self, owner: nn.Module, name: str, check: _Check, own: threading.local, watch: Watch) -> None:
        self.owner, self.name, self.check, self.own, self.watch = owner, name, check, own, watch
        self.method = getattr(owner, name)
        self.before: weakref.ref[Tensor] | None = None

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        if torch.compiler.is_compiling() or getattr(self.own, "inside", False):
            return self.method(*arguments, **keywords)
        self.own.inside = True
        try:
            result = self._asked(arguments, keywords)
        finally:
            self.own.inside = False
        if self.name in ("score", "smoothed_score"):
            self.watch.score_calls += len(result)
        return result

    def _asked(self, arguments: _Arguments, keywords: dict[str, Any]) -> Any:
        if _unwatchable():
            return self.method(*arguments, **keywords)
        earlier = _Earlier(self.before)
        result = self.check(self.owner, self.name, self.method, arguments, keywords)
        earlier.require_unchanged(Place(self.owner, self.name))
        self.before = _reference(result)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.method, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.owner, self.name)


class _Earlier:
    """The answer before, if it is still in use: a buffer that the next call writes to would change it."""

    def __init__(self, reference: weakref.ref[Tensor] | None) -> None:
        self.answer = None if reference is None else reference()
        self.version = None if self.answer is None else self.answer._version

    def require_unchanged(self, place: Place) -> None:
        if self.answer is not None and self.answer._version != self.version:
            raise place.broken(
                "changes an answer that it gave before.",
                expected="answers that later calls leave alone",
                got="the call before and this one write to the same memory",
                fix="return a tensor of its own: buffer.clone()",
            )


def _reference(result: object) -> weakref.ref[Tensor] | None:
    watchable = isinstance(result, Tensor) and plain(result) and not result.is_inference()
    return weakref.ref(result) if isinstance(result, Tensor) and watchable else None


def _unwatchable() -> bool:
    """Whether torch traces, transforms or dispatches to a mode: there, tensors stand for values that are not there."""
    if torch._C._get_tracing_state() is not None or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    return torch._C._len_torch_dispatch_stack() > 0


@contextmanager
def _intercepted(owner: nn.Module, checks: Mapping[str, _Check], watch: Watch) -> Iterator[None]:
    """Put checked methods before those that the object has; afterwards its own are back."""
    own, attributes = threading.local(), vars(owner)
    names = [name for name in checks if callable(getattr(owner, name, None))]
    before = {name: attributes[name] for name in names if name in attributes}
    attributes.update({name: _Watched(owner, name, checks[name], own, watch) for name in names})
    try:
        yield
    finally:
        for name in names:
            attributes.pop(name, None)
        attributes.update(before)
