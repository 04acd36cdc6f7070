"""How torch computes within a block, whatever the caller has set, and that everything is put back.

Numbers of a training or a measurement must not depend on what the process around it does: a library that changes the
default dtype when it is imported, ``no_grad()`` around a call, a listener that draws random numbers. Within
:func:`arithmetic`

==============================  ======================================================================================
setting                         within the block
==============================  ======================================================================================
default dtype                   the one that is asked for
default device                  the processor: no ``torch.set_default_device`` and no ``with torch.device(...)``
grad mode, inference mode       gradients are on
autocast                        off
threads                         one, on a processor: sums over threads depend on their number
kernels                         those that torch chooses by itself: oneDNN, cuDNN and fused attention are on
float32 products                in float32: no TF32 and no bfloat16, on any backend
deterministic algorithms        not asked for, as torch comes
validation of distributions     as torch comes
global random generators        whatever the block does to them is undone: torch's, Python's and numpy's
==============================  ======================================================================================

Anomaly detection is left alone: it changes no number. So is flushing of denormal numbers, which torch cannot be asked
about.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils import _device

from sizetransfer.contracts.randomness import Label, mersenne_state, mersenne_words, stream_seed

T = TypeVar("T")
_Setting = tuple[Callable[[], Any], Callable[[Any], object]]


@contextmanager
def arithmetic(
    dtype: str | torch.dtype, device: str | torch.device = "cpu", *, generators: bool = True
) -> Iterator[None]:
    """Within the block, torch computes as any run does, whatever the caller has set; afterwards all is as it was.

    Args:
        dtype: of new tensors.
        device: on which the block computes; a processor uses one thread.
        generators: whether the states of the global random generators are put back too.
    """
    with undisturbed(generators=generators), torch.inference_mode(False):
        _DEVICE_MODES[1](_no_device(_DEVICE_MODES[0]()))
        torch.clear_autocast_cache()
        for (read, write), value in _standard(dtype, device):
            if read() != value:
                write(value)
        try:
            yield
        finally:
            torch.clear_autocast_cache()  # of weights as they were


@contextmanager
def undisturbed(*, generators: bool = True) -> Iterator[None]:
    """Whatever the block changes of the settings listed above is put back at its end.

    Args:
        generators: whether the states of the global random generators are put back too.
    """
    gradients = torch.is_grad_enabled()
    before = [(setting, setting[0]()) for setting in _SETTINGS]
    states = GeneratorStates.read() if generators else None
    try:
        with torch.inference_mode(torch.is_inference_mode_enabled()):
            torch.set_grad_enabled(gradients)
            yield
    finally:
        torch.set_grad_enabled(gradients)
        for (read, write), value in before:
            if read() != value:
                write(value)
        if states is not None:
            states.restore()


def in_steps(
    steps: Iterable[T],
    surroundings: Callable[[], AbstractContextManager[object]],
    own: GeneratorStates | None = None,
) -> Iterator[T]:
    """The items of an iterator whose code runs within ``surroundings``; what takes the items does not.

    With ``own``, the global generators start at these states, and go on, from item to item, where the iterator left
    them.
    """
    iterator = iter(steps)
    while True:
        with surroundings():
            if own is not None:
                own.restore()
            try:
                item = next(iterator)
            except StopIteration:
                return
            own = None if own is None else GeneratorStates.read()
        yield item


# --- global generators ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GeneratorStates:
    """States of the global generators of torch (processor, and graphics processors in use), Python and numpy."""

    torch_state: Tensor
    cuda_states: tuple[Tensor, ...]
    python_state: tuple[Any, ...]
    numpy_state: Any

    @classmethod
    def read(cls) -> GeneratorStates:
        """The states now."""
        cuda = tuple(generator.get_state() for generator in _cuda_generators())
        return cls(torch.default_generator.get_state(), cuda, random.getstate(), np.random.get_state(legacy=False))

    def restore(self) -> None:
        """Make them the states again."""
        torch.default_generator.set_state(self.torch_state)
        for generator, state in zip(_cuda_generators(), self.cuda_states, strict=False):
            generator.set_state(state)
        random.setstate(self.python_state)
        np.random.set_state(self.numpy_state)


def seed_generators(*labels: Label) -> None:
    """Start the global generators of torch, Python and numpy at named streams of their own.

    On the processor the name fills the whole state of each; a graphics processor keeps 64 bits of it.
    """
    torch.default_generator.set_state(mersenne_state("torch", *labels))
    for index, generator in enumerate(_cuda_generators()):
        generator.manual_seed(stream_seed("cuda", index, *labels))
    random.setstate((3, (*mersenne_words("python", *labels), 624), None))
    words = np.array(mersenne_words("numpy", *labels), dtype=np.uint32)
    np.random.set_state(("MT19937", words, 624, 0, 0.0))


def _cuda_generators() -> tuple[torch.Generator, ...]:
    return torch.cuda.default_generators if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]


# --- settings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _DeviceModes:
    """What decides the default device: torch's stack of modes, and what set_default_device put there."""

    stack: tuple[object, ...]
    default: object
    current: torch.device | None

    @classmethod
    def read(cls) -> _DeviceModes:
        default = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
        return cls(_mode_stack(), default, _device.CURRENT_DEVICE)

    def write(self) -> None:
        for _ in _mode_stack():
            _pop_mode()  # type: ignore[no-untyped-call]
        for mode in self.stack:
            _push_mode(mode)  # type: ignore[no-untyped-call]
        torch._GLOBAL_DEVICE_CONTEXT.device_context = self.default
        _device.CURRENT_DEVICE = self.current


def _mode_stack() -> tuple[object, ...]:
    return tuple(_get_current_function_mode_stack())  # type: ignore[no-untyped-call]


def _no_device(modes: _DeviceModes) -> _DeviceModes:
    if not modes.stack:
        return modes
    kept = tuple(mode for mode in modes.stack if not isinstance(mode, _device.DeviceContext))
    return _DeviceModes(kept, None, None)


def _autocast(kind: str) -> _Setting:
    return (lambda: torch.is_autocast_enabled(kind)), (lambda value: torch.set_autocast_enabled(kind, value))


def _precision(backend: str, operation: str) -> _Setting:
    return (
        lambda: torch._C._get_fp32_precision_getter(backend, operation),
        lambda value: torch._C._set_fp32_precision_setter(backend, operation, value),
    )


def _matmul_precision() -> str:
    """The old setting for all backends, which torch says only where no backend has been set otherwise since."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        before = [(write, read()) for read, write in _MATMUL]
        for write, _ in before:
            write("ieee")
        value = torch.get_float32_matmul_precision()
        for write, own in before:
            write(own)
        return value


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


_MATMUL: tuple[_Setting, ...] = _precision("cuda", "matmul"), _precision("mkldnn", "matmul")
_DTYPE: _Setting = torch.get_default_dtype, torch.set_default_dtype
_DEVICE_MODES: _Setting = _DeviceModes.read, _DeviceModes.write
_THREADS: _Setting = torch.get_num_threads, torch.set_num_threads
_ALIKE: tuple[tuple[_Setting, Any], ...] = (
    *((_autocast(kind), False) for kind in ("cpu", "cuda")),
    ((_deterministic, lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1])), (False, False)),
    (
        (
            lambda: torch.distributions.Distribution._validate_args,
            torch.distributions.Distribution.set_default_validate_args,
        ),
        __debug__,
    ),
    ((_matmul_precision, torch.set_float32_matmul_precision), "highest"),
    *(
        ((functools.partial(getattr, backend, name), functools.partial(setattr, backend, name)), value)
        for backend, name, value in (
            (torch.backends.mkldnn, "enabled", True),
            (torch.backends.cudnn, "enabled", True),
            (torch.backends.cudnn, "benchmark", False),
            (torch.backends.cudnn, "deterministic", False),
        )
    ),
    *(
        ((getattr(torch.backends.cuda, f"{name}_enabled"), getattr(torch.backends.cuda, f"enable_{name}")), True)
        for name in ("flash_sdp", "mem_efficient_sdp", "math_sdp", "cudnn_sdp")
    ),
)
"""Settings that are the same in every run, with their values."""
_BACKENDS: tuple[_Setting, ...] = tuple(
    _precision(*of)
    for of in (
        ("generic", "all"),
        ("cuda", "all"),
        ("cuda", "matmul"),
        ("cuda", "conv"),
        ("cuda", "rnn"),
        ("mkldnn", "all"),
        ("mkldnn", "matmul"),
        ("mkldnn", "conv"),
        ("mkldnn", "rnn"),
    )
)
"""How backends compute in float32; ``none`` leaves it to the entry above, and in the end to float32 itself."""
_SETTINGS: tuple[_Setting, ...] = (_DTYPE, _DEVICE_MODES, _THREADS, *(setting for setting, _ in _ALIKE), *_BACKENDS)


def _standard(dtype: str | torch.dtype, device: str | torch.device) -> Iterator[tuple[_Setting, Any]]:
    yield _DTYPE, getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if torch.device(device).type == "cpu":
        yield _THREADS, 1
    yield from _ALIKE
    for setting in _BACKENDS:
        value = setting[0]()
        yield setting, value if value in {"none", "ieee"} else "ieee"
