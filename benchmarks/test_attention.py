"""Sliding attention in tiles beside what one would otherwise write, and the cost of each student of the same size."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from sizetransfer.contracts.domain import Lattice, pad
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.registry import default_registry
from sizetransfer.students.sliding_attention import WindowAttention, relative_index

WIDTH, HEADS, WINDOW = 32, 4, 2
FIELD = FieldInfo(dim=2)
# About 35 000 parameters each, as in the quick preset of the experiment `architectures`.
STUDENTS = {
    "cnn R=4": {"kind": "cnn", "blocks": 1, "width": 40},
    "cnn R=8": {"kind": "cnn", "blocks": 3, "width": 24},
    "sliding-attention R=4": {"kind": "sliding-attention", "depth": 4, "window": 1, "width": 28, "heads": 7},
    "sliding-attention R=8": {"kind": "sliding-attention", "depth": 4, "window": 2, "width": 28, "heads": 7},
    "message-passing R=4": {"kind": "message-passing", "depth": 4, "width": 32},
    "message-passing R=8": {"kind": "message-passing", "depth": 8, "width": 22},
    "unet": {"kind": "unet", "levels": 2, "width": 18},
    "spectral": {"kind": "spectral", "blocks": 2, "width": 24},
}


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float32, generator=torch.Generator().manual_seed(0))


def layer(tile: int | None = None) -> WindowAttention:
    return WindowAttention(WIDTH, heads=HEADS, window=WINDOW, dim=2, periodic=True, tile=tile).float()


def split(attention: WindowAttention, hidden: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values of shape ``B W *S``."""
    return attention.projection(hidden).movedim(-1, 1).chunk(3, dim=1)


def in_tiles(attention: WindowAttention, hidden: Tensor) -> Tensor:
    return attention(hidden)


def unfolded(attention: WindowAttention, hidden: Tensor) -> Tensor:
    """Every site's window copied out, one query each."""
    batch, height, width = hidden.shape[:3]
    span = 2 * WINDOW + 1

    def windows(field: Tensor) -> Tensor:
        field = pad(field, WINDOW, periodic=True).unfold(2, span, 1).unfold(3, span, 1)
        field = field.reshape(batch, HEADS, WIDTH // HEADS, height * width, span * span)
        return field.permute(0, 3, 1, 4, 2).flatten(0, 1)

    query, key, value = split(attention, hidden)
    rows = query.reshape(batch, HEADS, WIDTH // HEADS, -1, 1).permute(0, 3, 1, 4, 2).flatten(0, 1)
    mixed = F.scaled_dot_product_attention(rows, windows(key), windows(value), attn_mask=attention.bias[None, :, None])
    return attention.mixing(mixed.reshape(batch, height, width, WIDTH))


def dense(attention: WindowAttention, hidden: Tensor) -> Tensor:
    """Every site attends to every other one, most of them masked: memory quadratic in the number of sites."""
    batch, height, width = hidden.shape[:3]
    rows = [
        part.reshape(batch, HEADS, WIDTH // HEADS, height * width).transpose(2, 3) for part in split(attention, hidden)
    ]
    mixed = F.scaled_dot_product_attention(*rows, attn_mask=dense_bias(attention, height))
    return attention.mixing(mixed.transpose(1, 2).reshape(batch, height, width, WIDTH))


def dense_bias(attention: WindowAttention, size: int) -> Tensor:
    """The learned bias within the window and minus infinity elsewhere, ``heads x sites x sites``."""
    span = 2 * WINDOW + 1
    sites = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    steps = (sites[None] - sites[:, None] + WINDOW) % size
    column = torch.where((steps < span).all(-1), steps[..., 0] * span + steps[..., 1], span * span)
    outside = attention.bias.new_full((HEADS, 1), -math.inf)
    return torch.cat([attention.bias, outside], dim=1)[:, column]


FORMS = {"tiles": in_tiles, "unfolded": unfolded, "dense": dense}


def check_forms() -> None:
    """The three forms are one function; a comparison of speed means nothing otherwise."""
    attention, hidden = layer(), draw(2, 12, 12, WIDTH)
    with torch.no_grad():
        torch.nn.init.normal_(attention.bias, generator=torch.Generator().manual_seed(1))
        expected = in_tiles(attention, hidden)
        for form in FORMS.values():
            torch.testing.assert_close(form(attention, hidden), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.benchmark(group="one layer of attention in 5 x 5 windows and its gradients, one field")
def test_forms(benchmark, form, size):
    check_forms()
    if form == "dense" and size > 32:
        pytest.skip("4096 x 4096 weights for each head and field")
    attention, hidden = layer(), draw(1, size, size, WIDTH)
    benchmark(lambda: torch.autograd.grad(FORMS[form](attention, hidden).square().sum(), [*attention.parameters()]))
    benchmark.extra_info["sites"] = size**2


def flexible(attention: WindowAttention, size: int) -> Callable[[Tensor], Tensor]:
    """The same layer by torch's ``flex_attention``, compiled with a mask of blocks; on a processor forwards only."""
    span = 2 * WINDOW + 1

    def steps(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return (key // size - query // size + WINDOW) % size, (key % size - query % size + WINDOW) % size

    def inside(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        down, right = steps(query, key)
        return (down < span) & (right < span)

    def biased(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        down, right = steps(query, key)
        return score + bias[head, down.clamp(max=span - 1) * span + right.clamp(max=span - 1)]

    torch._dynamo.reset()  # each size is another mask, and the compiler keeps few of them
    bias = attention.bias.detach()
    blocks = create_block_mask(inside, None, None, size**2, size**2, device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)

    def forward(hidden: Tensor) -> Tensor:
        rows = [
            part.reshape(len(hidden), HEADS, WIDTH // HEADS, size**2).transpose(2, 3).contiguous()
            for part in split(attention, hidden)
        ]
        mixed = compiled(*rows, score_mod=biased, block_mask=blocks)
        return attention.mixing(mixed.transpose(1, 2).reshape(len(hidden), size, size, WIDTH))

    return forward


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("form", ["tiles", "flex"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.benchmark(group="one layer of attention in 5 x 5 windows forwards, one field")
def test_flex(benchmark, form, size):
    attention, hidden = layer(), draw(1, size, size, WIDTH)
    with torch.no_grad():
        forward = flexible(attention, size) if form == "flex" else attention
        torch.testing.assert_close(forward(hidden), attention(hidden), rtol=1e-4, atol=1e-4)
        benchmark(forward, hidden)
    benchmark.extra_info["sites"] = size**2


@pytest.mark.parametrize("tile", [1, 2, 4, 8, 16])
@pytest.mark.benchmark(group="tiles of several sizes: one layer and its gradients, 4 fields of 32 x 32")
def test_tiles(benchmark, tile):
    attention, hidden = layer(tile), draw(4, 32, 32, WIDTH)
    assert len(relative_index(tile, WINDOW, 2)) == tile**2
    benchmark(lambda: torch.autograd.grad(attention(hidden).square().sum(), [*attention.parameters()]))


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.benchmark(group="a student's forward and backward pass, 4 fields of 24 x 24")
def test_students(benchmark, name):
    registry = default_registry()
    kind = str(STUDENTS[name]["kind"])
    if kind not in registry.kinds("student"):
        pytest.skip(f"{kind} is not installed")
    student = registry.lookup("student", kind).parse(STUDENTS[name]).build(FIELD).float()
    x, sigma, context = draw(4, 1, 24, 24), torch.full((4,), 0.3, dtype=torch.float32), Context(Lattice((24, 24)))
    parameters = list(student.parameters())
    benchmark(lambda: torch.autograd.grad(student(x, sigma, context).square().sum(), parameters, allow_unused=True))
    benchmark.extra_info["parameters"] = sum(parameter.numel() for parameter in parameters)
    benchmark.extra_info["sites"] = x.numel()
