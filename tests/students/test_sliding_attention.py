"""Sliding attention: tiles against the textbook's masked attention, the exact window, and what is refused."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_rounding
from torch import Tensor

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import seeded_initialisation
from sizetransfer.students.sliding_attention import WindowAttention


def attention(dim: int, window: int, *, periodic: bool, tile: int | None = None) -> WindowAttention:
    with seeded_initialisation("tests", "attention"):
        layer = WindowAttention(8, heads=2, window=window, dim=dim, periodic=periodic, tile=tile)
        torch.nn.init.normal_(layer.bias)
    return layer


def masked_attention(layer: WindowAttention, hidden: Tensor, lattice: Lattice) -> Tensor:
    """The definition: all pairs of sites, those outside the window masked; empty sites around an open box."""
    window, dim = layer.window, layer.dim
    batch, shape = len(hidden), hidden.shape[1:-1]
    query, key, value = layer.projection(hidden).reshape(batch, -1, 3, layer.heads, 4).permute(2, 0, 3, 1, 4)
    sites = torch.cartesian_prod(*[torch.arange(length) for length in shape]).reshape(-1, dim)
    offsets = list(itertools.product(range(-window, window + 1), repeat=dim))
    logits = torch.full((batch, layer.heads, len(sites), len(offsets)), math.nan)
    values = torch.zeros(batch, layer.heads, len(sites), len(offsets), 4)
    for column, offset in enumerate(offsets):
        target = sites + torch.tensor(offset)
        wrapped = target % torch.tensor(shape)
        inside = torch.ones(len(sites)) if lattice.periodic else (target == wrapped).all(1).to(hidden)
        flat = (wrapped * torch.tensor([math.prod(shape[axis + 1 :]) for axis in range(dim)])).sum(1)
        product = (query * key[:, :, flat]).sum(-1) / 4**0.5
        logits[..., column] = product * inside + layer.bias[None, :, None, column]
        values[..., column, :] = value[:, :, flat] * inside[:, None]
    mixed = (F.softmax(logits, dim=-1)[..., None] * values).sum(-2)
    return layer.mixing(mixed.transpose(1, 2).reshape(batch, *shape, -1))


@pytest.mark.parametrize("tile", [1, 2, 3, 16])
@pytest.mark.parametrize("periodic", [True, False], ids=["torus", "box"])
@pytest.mark.parametrize(("dim", "length", "window"), [(1, 11, 2), (2, 7, 2), (2, 5, 1), (3, 4, 1)])
def test_tiles_give_the_attention_of_the_definition(
    dim: int, length: int, window: int, periodic: bool, tile: int, generator: torch.Generator
) -> None:
    if tile == 16 and dim == 3:
        tile = 4
    layer = attention(dim, window, periodic=periodic, tile=tile)
    hidden = torch.randn(2, *(length,) * dim, 8, generator=generator)
    expected = masked_attention(layer, hidden, Lattice.cubic(length, dim, periodic=periodic))
    assert_rounding(layer(hidden), expected)


def test_a_bias_at_the_wrong_place_is_noticed(generator: torch.Generator) -> None:
    layer = attention(2, 1, periodic=True)
    hidden = torch.randn(1, 6, 6, 8, generator=generator)
    expected = masked_attention(layer, hidden, Lattice.cubic(6, 2, periodic=True))
    with torch.no_grad():
        layer.bias.copy_(layer.bias.flip(1))
    assert (layer(hidden) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_large_field_needs_no_table_of_all_pairs(dtype: torch.dtype) -> None:
    student = st.student("sliding-attention", st.FieldInfo(dim=2), depth=1, width=8, heads=2).to(dtype)
    size = 192  # a table of all pairs would have 1.4e9 entries for each head
    x = torch.ones(1, 1, size, size, dtype=dtype)
    with torch.no_grad():
        score = student(x, x.new_ones(1), Context(Lattice.cubic(size, 2, periodic=True)))
    assert score.dtype == dtype
    assert score.isfinite().all()


def test_the_radius_is_depth_times_window() -> None:
    assert st.student("sliding-attention", st.FieldInfo(dim=2), depth=3, window=2).radius == 6


def test_a_window_larger_than_the_torus_is_refused() -> None:
    student = st.student("sliding-attention", st.FieldInfo(dim=1), window=3)
    x = torch.zeros(1, 1, 6)
    with pytest.raises(OracleError, match="at least 7 sites"):
        student(x, torch.ones(1), Context(Lattice.cubic(6, 1, periodic=True)))


def test_an_open_box_may_be_smaller_than_the_window() -> None:
    student = st.student("sliding-attention", st.FieldInfo(dim=1, periodic=False), window=3)
    x = torch.zeros(1, 1, 2)
    assert student(x, torch.ones(1), Context(Lattice.cubic(2, 1, periodic=False))).shape == x.shape


@pytest.mark.parametrize(
    ("field", "fields", "message"),
    [
        (st.FieldInfo(dim=2), {"width": 30, "heads": 4}, "multiple of heads"),
        (st.FieldInfo(dim=4), {}, "one to three dimensions"),
        (st.FieldInfo(dim=2, geometry="graph", periodic=False), {}, "graph"),
        (st.FieldInfo(dim=2), {"window": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_built_is_refused(field: st.FieldInfo, fields: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        st.student("sliding-attention", field, **fields)
