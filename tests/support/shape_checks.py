"""The type checker that the suite puts behind jaxtyping's tensor shapes."""

from __future__ import annotations

from collections.abc import Callable

from beartype import beartype
from beartype.roar import BeartypeDecorHintPep673Exception


def check(function: Callable[..., object]) -> Callable[..., object]:
    """Check arguments and results of ``function``, unless it is annotated with ``Self``.

    jaxtyping decorates methods one by one, and beartype knows what ``Self`` is only when it decorates the class.
    """
    try:
        return beartype(function)
    except BeartypeDecorHintPep673Exception:
        return function
