r"""Named random streams: every number drawn has a name, and depends on nothing but that name.

A stream is addressed by labels, for example ``stream(seed, "training", step)``. Its numbers are a function of

    (labels, number of the field, number of the draw, element of the field)

and of nothing else: neither of what was drawn before under other names, nor of how many fields are drawn at a time. A
trial resumed at step 700 draws what an uninterrupted trial draws at step 700, a field is the same in a batch of one and
of a hundred, and no generator state has to be saved.

The function is Philox4x32-10, ten rounds of a keyed bijection of four words of 32 bits (Salmon, Moraes, Dror, Shaw,
Parallel random numbers: as easy as 1, 2, 3, SC 2011, https://doi.org/10.1145/2063384.2063405). With the words
:math:`h_0, h_1, \ldots` of the SHA-256 of the labels, its key is :math:`(h_0, h_1)` and its counter

=====  =========================================================================================================
word   content
=====  =========================================================================================================
0      block of four elements
1      twice the number of the draw, among draws of as many elements; plus one for the words that add precision (below)
2      number of the field
3      :math:`h_2` xor the number of elements of a field; for draws that all fields share :math:`h_3`
=====  =========================================================================================================

so that two names share numbers only where 96 bits of SHA-256 agree. The computation is in integers of 64 bits, whose
products wrap modulo :math:`2^{64}`: they are equal on every device. Every element has a word of 32 bits, and in double
precision a second one, which refines it: a draw in double precision is that in single precision, seen more sharply.
Draws of one shape are computed several at a time, the more the more there have been: most of the time of a short one
goes into calling torch.

- Uniform numbers are :math:`k\,2^{-53}` (float64) or :math:`k\,2^{-24}` (float32), 0 included and 1 not: exact, and
  equal on every device.
- Normal numbers are those of Box and Muller (1958), :math:`\sqrt{-2\ln u}\,(\cos\theta, \sin\theta)`, computed in the
  precision that is asked for; u has 32 bits below one half in float32 and 64 in float64, so the tails reach
  :math:`6.7` and :math:`9.5` standard deviations: beyond them lies less than :math:`2^{-33}` and :math:`2^{-65}` of the
  law. Devices agree to rounding.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
# Blocks computed together, whose words stay in a processor's cache; and so few that they cost hardly more than one.
_BLOCKS_TOGETHER, _BLOCKS_AT_ONCE = 2**13, 2**9
# State of torch's Mersenne twister: a header of 24 bytes that begins with the seed, then 624 words in 64 bits each.
_HEADER, _WORDS = 24, 624

Label = int | str


def stream_seed(*labels: Label) -> int:
    """Return the 63-bit seed of the stream with these labels (SHA-256 of their representation)."""
    return int.from_bytes(_digest(labels)[:8], "big") >> 1


def _digest(labels: Sequence[Label]) -> bytes:
    return hashlib.sha256(repr(tuple(labels)).encode()).digest()


class Stream(torch.Generator):
    """A named stream of random numbers, for one field or for several.

    It is a ``torch.Generator`` of the processor, whose own state is seeded with the whole name, so that code that knows
    nothing of streams draws from it as from any other. :func:`normal`, :func:`uniform` and :func:`integers` give each
    field, along the first axis of what is drawn, numbers of its own that do not depend on the others; a number of
    shape ``()`` is shared by all of them.

    Args:
        labels: the name.
        first: number of the field in the first row.
        count: number of fields; none: as many as there are rows.
        total: number of fields of this name that are drawn in all; none: it is not said.
        root: labels of the stream that this one branches off; none: it is no branch.

    Attributes:
        labels, first, count, total: the arguments.
        root: labels of the stream that this one, through however many branches, comes from.
        draws: draws made so far.

    Example:
        >>> like = torch.zeros(())
        >>> eight = normal((8, 2), generator=stream("example"), like=like)
        >>> two = normal((2, 2), generator=stream("example").fields(3, 2), like=like)
        >>> bool((eight[3:5] == two).all())
        True
    """

    def __new__(cls, *labels: Label, **_: object) -> Self:
        return super().__new__(cls, "cpu")  # type: ignore[call-arg]

    def __init__(
        self,
        *labels: Label,
        first: int = 0,
        count: int | None = None,
        total: int | None = None,
        root: tuple[Label, ...] | None = None,
    ) -> None:
        self.labels, self.first, self.count, self.draws = labels, first, count, 0
        self.total, self.root = total, labels if root is None else root
        self._next: dict[int, int] = {}
        self._from = 0
        self._ahead: dict[_Kind, tuple[int, Tensor]] = {}
        *key, self._own, self._shared = struct.unpack(">4I", _digest(labels)[:16])
        self._key = key[0], key[1]
        self.set_state(mersenne_state(*labels, first=first))

    def fields(self, start: int, count: int) -> Stream:
        """The stream of some of the fields, counted from the first of these; their next draw is that of this stream."""
        part = Stream(*self.labels, first=self.first + start, count=count, total=self.total, root=self.root)
        part.draws, part._next, part._from = self.draws, dict(self._next), self._from
        return part

    def at(self, draw: int) -> Stream:
        """This stream, whose next draw of every number of elements is the one with this number."""
        if draw <= self._from:
            self._ahead.clear()  # their takers may have changed them
        self._next, self._from = {}, draw
        return self

    def branch(self, label: Label = "branch") -> Stream:
        """Another stream of the same fields, named by the label and by the draws made so far; it counts as a draw."""
        self.draws += 1
        labels = (*self.labels, label, self.draws)
        return Stream(*labels, first=self.first, count=self.count, total=self.total, root=self.root)

    def repeated(self, times: int) -> Stream:
        """A branch in which every field stands for so many rows, one after another: chains of one field, say."""
        self.draws += 1
        count = None if self.count is None else times * self.count
        return Stream(*self.labels, "repeated", times, self.draws, first=times * self.first, count=count)

    def _draw(self, finish: _Finish, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        """The next numbers of this shape, from those that were computed ahead where there are any."""
        self._check(shape)
        width = math.prod(shape[1:]) if shape else _SHARED
        draw = self._next.get(width, self._from)
        self._next[width], self.draws = draw + 1, self.draws + 1
        kind = finish, shape, device, dtype
        start, values = self._ahead.get(kind, (0, None))
        if values is None or not start <= draw < start + len(values):
            start, values = draw, self._computed(kind, draw, 0 if values is None else 4 * len(values))
            self._ahead[kind] = start, values
        return values[draw - start]

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape and self.count not in {None, shape[0]}:
            raise ValueError(
                f"A stream of {self.count} fields cannot give numbers of shape {shape}: the first axis must be that of "
                f"the fields, {self.count} long; draw other numbers from a stream of another name, or as shape ()"
            )

    def _computed(self, kind: _Kind, draw: int, ahead: int) -> Tensor:
        """Numbers of this draw and of some that follow, as the first axis: ``ahead`` if these are not too many."""
        finish, shape, device, dtype = kind
        rows, width = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
        first, name = (self.first, self._own ^ width) if shape else (0, self._shared)
        blocks, parts = -(-width // 4), 2 if dtype == torch.float64 else 1
        if rows * blocks == 0:
            return torch.empty((1, *shape), dtype=dtype, device=device)
        at_once, at_most = (limit // (rows * blocks) for limit in (_BLOCKS_AT_ONCE, _BLOCKS_TOGETHER))
        ahead = max(1, at_once, min(ahead, at_most))
        # Kept for later calls, so they must not be tensors of an inference mode that this call is in.
        with torch.inference_mode(False), torch.no_grad():
            draws = torch.arange(2 * draw, 2 * (draw + ahead), 3 - parts, device=device)
            found = [
                finish(_split(_philox(some, draws, fields, name, self._key), parts), dtype)
                for fields, some in _chunks(first, rows, blocks, device)
            ]
            return _joined(found, rows, 4 * blocks)[..., :width].reshape(ahead, *shape).contiguous()


_SHARED = -1
"""Stands for the number of elements of a draw that all fields share."""
_Finish = Callable[[Tensor, torch.dtype], Tensor]
"""Words ``2 2 D P B n`` of D draws, with P - 1 further words to refine them, to numbers ``D B 4n``."""
_Kind = tuple[_Finish, tuple[int, ...], torch.device, torch.dtype]


def stream(*labels: Label) -> Stream:
    """Return a new stream with these labels, at its start: of the fields 0, 1, 2, ..., one for each row."""
    return Stream(*labels)


def batches(total: int, batch: int, *labels: Label) -> Iterator[tuple[int, Stream]]:
    """Split ``total`` fields into batches of at most ``batch``, each with the stream of its own fields.

    The numbers of a field do not depend on ``batch``.
    """
    for start in range(0, total, batch):
        count = min(batch, total - start)
        yield count, Stream(*labels, first=start, count=count, total=total)


# --- draws ------------------------------------------------------------------------------------------------------------


def normal(shape: Sequence[int], *, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw standard normal numbers of ``shape`` with the dtype and device of ``like``.

    A :class:`Stream` gives every row along the first axis the numbers of its own field, and computes on the device of
    ``like``. Another generator draws on its own device, whose numbers are then moved, so that a CPU generator gives the
    same numbers whatever device the computation runs on.
    """
    if not isinstance(generator, Stream):
        return torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    return generator._draw(_normals, tuple(shape), like.device, kind).to(like.dtype)


def uniform(
    shape: Sequence[int], *, generator: torch.Generator, like: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw numbers uniform on [0, 1) on the device of ``like``, with its dtype or the one given; see :func:`normal`."""
    dtype = dtype or like.dtype
    if not isinstance(generator, Stream):
        return torch.rand(tuple(shape), generator=generator, device=generator.device, dtype=dtype).to(like.device)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    return generator._draw(_uniforms, tuple(shape), like.device, kind).to(dtype)


def integers(high: int, shape: Sequence[int], *, generator: torch.Generator, like: Tensor) -> Tensor:
    """Draw integers uniform on 0, ..., ``high - 1`` (int64) on the device of ``like``; see :func:`normal`.

    Those of a stream are ``floor(high * u)`` with u of 53 bits: probabilities err by less than ``high * 2**-53``.
    """
    if not isinstance(generator, Stream):
        return torch.randint(high, tuple(shape), generator=generator, device=generator.device).to(like.device)
    return (high * uniform(shape, generator=generator, like=like, dtype=torch.float64)).long()


def fields_of(generator: torch.Generator, start: int, count: int) -> torch.Generator:
    """The stream of some of the fields; a generator that knows no fields goes on as it is."""
    return generator.fields(start, count) if isinstance(generator, Stream) else generator


def branch_of(generator: torch.Generator, label: Label) -> torch.Generator:
    """A branch of a stream; a generator that knows no fields goes on as it is."""
    return generator.branch(label) if isinstance(generator, Stream) else generator


def repeated_rows(generator: torch.Generator, times: int) -> torch.Generator:
    """The stream of so many rows for each field; a generator that knows no fields goes on as it is."""
    return generator.repeated(times) if isinstance(generator, Stream) else generator


def _split(words: Tensor, parts: int) -> Tensor:
    """Words ``2 2 DP B n`` of all draws and their refinements as ``2 2 D P B n``."""
    return words.reshape(2, 2, -1, parts, *words.shape[3:])


def _joined(chunks: list[Tensor], rows: int, width: int) -> Tensor:
    """Chunks of some rows each, or of some columns of one row each."""
    if len(chunks) == 1:
        return chunks[0]
    if chunks[0].shape[2] == width:
        return torch.cat(chunks, 1)
    return torch.cat(chunks, 2).reshape(1, rows, width)


def _uniforms(words: Tensor, dtype: torch.dtype) -> Tensor:
    leading = words[:, :, :, 0]
    if dtype == torch.float64:
        return _in_order((leading << 21 | words[:, :, :, 1] >> 11).double().mul_(2.0**-53))
    return _in_order((leading >> 8).to(dtype).mul_(2.0**-24))


def _normals(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Box and Muller: the first of each pair of words gives the radius, the second the angle."""
    (radii, angles), turn = words[:, :, :, 0].unbind(), 2 * math.pi
    if dtype == torch.float64:
        u = (words[0, :, :, 1].double() + 0.5).mul_(2.0**-32).add_(radii).mul_(2.0**-32)
        theta = (angles << 21 | words[1, :, :, 1] >> 11).double().mul_(turn * 2.0**-53)
    else:
        u = (radii.to(dtype) + 0.5).mul_(2.0**-32)
        theta = angles.to(dtype).mul_(turn * 2.0**-32)
    radius = u.log_().mul_(-2).sqrt_()
    return _in_order(torch.stack((radius * theta.cos(), theta.sin_().mul_(radius))))


def _in_order(values: Tensor) -> Tensor:
    """Numbers ``2 2 D B n`` of the pairs' members, pairs, draws, fields and blocks as ``D B 4n``."""
    return values.permute(2, 3, 4, 1, 0).flatten(2)


# --- Philox -----------------------------------------------------------------------------------------------------------


def _chunks(first: int, rows: int, blocks: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers of fields ``B`` and of blocks ``n`` to compute together: some rows, or a part of one."""
    together = max(1, _BLOCKS_TOGETHER // blocks)
    for start in range(first, first + rows, together):
        fields = torch.arange(start, min(start + together, first + rows), device=device)
        for begin in range(0, blocks, _BLOCKS_TOGETHER):
            yield fields, torch.arange(begin, min(begin + _BLOCKS_TOGETHER, blocks), device=device)


def _philox(blocks: Tensor, draws: Tensor, fields: Tensor, name: int, key: tuple[int, int]) -> Tensor:
    """Philox4x32-10 of the counters (block, draw, field, name): words ``2 2 D B n``, int64 below ``2**32``.

    The entries ``[0, 0], [1, 0], [0, 1], [1, 1]`` are the words 0, 3, 2 and 1 of Salmon et al.: the first axis is that
    of the members of a pair, the second that of the pairs.
    """
    keys = [tuple((k + index * w) & _WORD for k, w in zip(key, _WEYL, strict=True)) for index in range(_ROUNDS)]
    m0, m1 = _MULTIPLIERS
    p0, p1 = blocks * m0, fields[:, None] * m1
    # Two rounds in which a block has met neither draw nor field; upper halves are left in where a mask follows.
    x, y = ((p1 >> 32) ^ keys[0][0] ^ draws[:, None, None]) & _WORD, ((p0 >> 32) ^ (name ^ keys[0][1])) & _WORD
    q0, q1 = x * m0, y * m1
    words = torch.empty(2, 2, len(draws), len(fields), len(blocks), dtype=torch.int64, device=blocks.device)
    state, product = words
    state[0], state[1] = (q1 >> 32) ^ (p1 ^ keys[1][0]), (q0 >> 32) ^ (p0 ^ keys[1][1])
    state &= _WORD
    product[0], product[1] = q0, q1
    _full_rounds(state, product, keys[2:])
    words &= _WORD
    return words


def _full_rounds(state: Tensor, product: Tensor, keys: Sequence[tuple[int, ...]]) -> None:
    """An even number of rounds in place: words 0 and 2, and products whose lower halves are the words 3 and 1."""
    device, shape = state.device, (-1, 2, 1, 1, 1)
    multipliers = torch.tensor(_MULTIPLIERS, device=device).reshape(shape)[0]
    each = torch.tensor(keys, device=device).reshape(shape).unbind()
    (first, second), following, upper = state.unbind(), torch.empty_like(product), torch.empty_like(product)
    (of_first, of_second), (next_of_first, next_of_second) = product.unbind(), following.unbind()
    upper_of_first, upper_of_second = upper.unbind()
    for key in each:
        torch.mul(state, multipliers, out=following)
        torch.bitwise_right_shift(following, 32, out=upper)
        torch.bitwise_xor(upper_of_second, of_second, out=first)
        torch.bitwise_xor(upper_of_first, of_first, out=second)
        state ^= key
        state &= _WORD
        product, following = following, product
        of_first, of_second, next_of_first, next_of_second = next_of_first, next_of_second, of_first, of_second


# --- generators that are not ours -------------------------------------------------------------------------------------


def mersenne_words(*labels: Label, first: int = 0) -> tuple[int, ...]:
    """The 624 words of 32 bits that SHAKE-256 makes of the labels: the whole state of a Mersenne twister."""
    return struct.unpack(f"<{_WORDS}I", _shake(labels, first))


def _shake(labels: Sequence[Label], first: int) -> bytes:
    return hashlib.shake_256(repr((tuple(labels), first)).encode()).digest(4 * _WORDS)


def mersenne_state(*labels: Label, first: int = 0) -> Tensor:
    """The state of a torch generator of the processor that these words start."""
    state = _template().clone()
    state[:8] = torch.tensor([stream_seed(*labels, first)], device="cpu").view(torch.uint8)
    words = torch.frombuffer(bytearray(_shake(labels, first)), dtype=torch.uint8)
    state[_HEADER : _HEADER + 8 * _WORDS].reshape(_WORDS, 8)[:, :4] = words.reshape(_WORDS, 4)
    return state


@functools.cache
def _template() -> Tensor:
    return torch.Generator("cpu").manual_seed(0).get_state()


@contextmanager
def seeded_initialisation(*labels: Label) -> Iterator[None]:
    """Within the block, modules built with torch's default initialisers draw from a named stream.

    torch's initialisers read the global CPU generator; its state is put back when the block ends.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(mersenne_state(*labels))
        yield
