"""Named random streams: every number drawn comes from a generator that the caller can name and repeat.

A stream is addressed by labels, for example ``stream(seed, "training", step)``. Its seed is a hash of the
labels, so streams are independent of the order in which they are used: a trial resumed at step 700 draws
what an uninterrupted trial draws at step 700, and no generator state has to be saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def stream_seed(*labels: int | str) -> int:
    """Return the 63-bit seed of the stream with these labels (SHA-256 of their representation)."""
    digest = hashlib.sha256(repr(labels).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(*labels: int | str) -> torch.Generator:
    """Return a new CPU generator at the start of the stream with these labels."""
    return torch.Generator().manual_seed(stream_seed(*labels))


def batches(total: int, batch: int, *labels: int | str) -> Iterator[tuple[int, torch.Generator]]:
    """Split ``total`` draws into batches of at most ``batch``, each with a stream of its own named by its index."""
    for index, start in enumerate(range(0, total, batch)):
        yield min(batch, total - start), stream(*labels, index)


def normal(shape: Sequence[int], *, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw standard normal numbers of ``shape`` with the dtype and device of ``like``.

    They are drawn on the generator's own device and then moved, so that a CPU generator gives the same
    numbers whatever device the computation runs on.
    """
    draws = torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=like.dtype)
    return draws.to(like.device)


@contextmanager
def seeded_initialisation(*labels: int | str) -> Iterator[None]:
    """Within the block, modules built with torch's default initialisers draw from a named stream.

    torch's initialisers read the global CPU generator; its state is put back when the block ends.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(*labels))
        yield
