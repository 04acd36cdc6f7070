r"""Attention within a Chebyshev window that slides over the lattice.

In every layer each site i attends to the sites j of its window, :math:`d(i, j)\le w` in Chebyshev distance, with a
learned bias for each relative position (Liu et al. 2021, arXiv:2103.14030; windows that slide instead of tiling the
field, Hassani et al. 2023, arXiv:2204.07143):

.. math:: a_{ij} = \operatorname{softmax}_j\bigl(q_i\cdot k_j/\sqrt{d_h} + b_{j-i}\bigr),\qquad
   h_i \leftarrow h_i + W\sum_j a_{ij} v_j .

Everything else acts on each site alone, so the radius is :math:`R = \text{depth}\times w`. Beyond walls stand
empty sites, whose keys and values are zero: attention sees how far the walls are.

Queries are taken a tile at a time, each tile with the keys within w of it: a dense product that torch's
``scaled_dot_product_attention`` computes, with memory linear in the number of sites. Tiles change the order of
additions, nothing else; tiles of one site are the textbook form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from sizetransfer.contracts.domain import pad
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import FieldInfo, StudentSpec
from sizetransfer.contracts.student import Student
from sizetransfer.students.conditions import condition_channels
from sizetransfer.students.convolutions import NoiseEmbedding, require_dimension
from sizetransfer.students.geometry import require_geometry

TILES = {1: 16, 2: 4, 3: 3}
"""Sites along each axis of a tile of queries, by dimension; benchmarks/test_attention.py compares others."""

BIAS_SPREAD = 2.0
"""Standard deviation of the initial biases: each head then puts most of its weight on a few neighbours."""


class SlidingAttentionSpec(StudentSpec):
    """Attention in a sliding window of radius depth * window, on tori and in open boxes of one to three dimensions."""

    kind: Literal["sliding-attention"] = "sliding-attention"
    depth: int = Field(4, ge=1, description="layers of attention; the receptive radius is depth * window")
    window: int = Field(1, ge=1, description="Chebyshev radius of the window of one layer")
    width: int = Field(32, ge=1, description="channels; a multiple of heads")
    heads: int = Field(4, ge=1, description="heads of attention")
    condition: Literal["given", "none"] = Field(
        "given", description="whether the context's condition channels (the sublattice, say) are seen"
    )
    noise_frequencies: int = Field(6, ge=1, description="octaves of the noise embedding")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> SlidingAttentionSpec:
        if self.width % self.heads:
            raise SpecError(
                "The heads do not divide the channels.",
                where="sliding-attention, width and heads",
                expected="width a multiple of heads",
                got=f"width {self.width}, heads {self.heads}",
                fix=f"take width {self.heads * math.ceil(self.width / self.heads)}",
            )
        return self

    def build(self, field: FieldInfo) -> SlidingAttentionStudent:
        require_geometry(self, field)
        require_dimension(self.kind, field)
        return SlidingAttentionStudent(self, field)


class SlidingAttentionStudent(Student):
    """Score network of sliding-window attention, of exact radius depth * window (see the module's formula).

    Raises:
        OracleError: from ``forward``, for a torus on which the window would meet itself.
    """

    def __init__(self, spec: SlidingAttentionSpec, field: FieldInfo) -> None:
        super().__init__(field, radius=spec.depth * spec.window)
        self.spec = spec
        self.conditions = field.condition_channels if spec.condition == "given" else 0
        self.ignores = frozenset() if spec.condition == "given" else frozenset({"condition"})
        self.embedding = NoiseEmbedding(spec.noise_frequencies, spec.width)
        self.input = nn.Linear(field.channels + self.conditions, spec.width)
        self.layers = nn.ModuleList(_Layer(spec, field) for _ in range(spec.depth))
        self.output = nn.Linear(spec.width, field.channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, x: Float[Tensor, "batch channels *size"], sigma: Float[Tensor, "batch"], context: Context
    ) -> Float[Tensor, "batch channels *size"]:
        self._check(x.shape[2:])
        noise = self.embedding(sigma)
        score = self.precondition(lambda scaled: self._network(scaled, noise, context), x, sigma)
        return score if context.mask is None else score * context.mask

    def _network(self, x: Tensor, noise: Tensor, context: Context) -> Tensor:
        live = x if context.mask is None else x * context.mask
        inputs = [live, *condition_channels(context, self.conditions, like=x)]
        hidden = self.input(torch.cat(inputs, dim=1).movedim(1, -1))
        for layer in self.layers:
            hidden = layer(hidden, noise)
        result: Tensor = self.output(F.silu(hidden))
        return result.movedim(-1, 1)

    def _check(self, shape: Sequence[int]) -> None:
        around = [length for length, closed in zip(shape, self.field.closed_axes, strict=True) if closed]
        if around and min(around) < 2 * self.spec.window + 1:
            raise OracleError(
                "The window does not fit the lattice: a site would attend to another one twice.",
                where="sliding-attention, window",
                expected=f"at least {2 * self.spec.window + 1} sites along each closed axis",
                got="x".join(map(str, shape)),
                fix="take a larger lattice, or a smaller window and more layers",
            )


class _Layer(nn.Module):
    """Attention in the window, then a perceptron on each site; both modulated by the noise level."""

    def __init__(self, spec: SlidingAttentionSpec, field: FieldInfo) -> None:
        super().__init__()
        self.attention = WindowAttention(
            spec.width, heads=spec.heads, window=spec.window, dim=field.dim, periodic=field.closed_axes
        )
        self.norms = nn.ModuleList(nn.LayerNorm(spec.width, elementwise_affine=False) for _ in range(2))
        self.modulation = nn.Linear(spec.width, 4 * spec.width)
        self.perceptron = nn.Sequential(
            nn.Linear(spec.width, 2 * spec.width), nn.SiLU(), nn.Linear(2 * spec.width, spec.width)
        )

    def forward(self, hidden: Tensor, noise: Tensor) -> Tensor:
        """Map ``B *S W`` to ``B *S W``."""
        modulation = self.modulation(noise).reshape(len(noise), *(1,) * (hidden.ndim - 2), -1)
        scale, shift, next_scale, next_shift = modulation.chunk(4, dim=-1)
        hidden = hidden + self.attention(self.norms[0](hidden) * (1 + scale) + shift)
        update: Tensor = self.perceptron(self.norms[1](hidden) * (1 + next_scale) + next_shift)
        return hidden + update


class WindowAttention(nn.Module):
    """Multi-head attention of every site to its window (see the module's formula).

    Args:
        width: channels, a multiple of ``heads``.
        heads: heads.
        window: Chebyshev radius w of the window.
        dim: axes of the lattice.
        periodic: whether the axes are closed, all alike or one by one; beyond walls are empty sites.
        tile: sites along each axis of a tile of queries; no influence on the result beyond rounding.
    """

    index: Tensor

    def __init__(
        self, width: int, *, heads: int, window: int, dim: int, periodic: bool | Sequence[bool], tile: int | None = None
    ) -> None:
        super().__init__()
        self.heads, self.window, self.dim, self.periodic = heads, window, dim, periodic
        self.tile = TILES[dim] if tile is None else tile
        self.projection = nn.Linear(width, 3 * width)
        self.mixing = nn.Linear(width, width)
        # Heads that begin with different neighbours learn local filters much faster than heads that begin with means.
        self.bias = nn.Parameter(BIAS_SPREAD * torch.randn(heads, (2 * window + 1) ** dim))
        self.register_buffer("index", relative_index(self.tile, window, dim), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map ``B *S W`` to ``B *S W``."""
        query, key, value = self.projection(hidden).movedim(-1, 1).chunk(3, dim=1)
        shape = hidden.shape[1:-1]
        queries, keys, values = self._tiles(query, 0), self._tiles(key, self.window), self._tiles(value, self.window)
        # One column more, of minus infinity, for the keys of a tile that lie outside the window of a query.
        outside = self.bias.new_full((self.heads, 1), -math.inf)
        bias = torch.cat([self.bias, outside], dim=1)[:, self.index]
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias[None].to(query))
        result: Tensor = self.mixing(self._untile(mixed, shape, len(hidden)))
        return result

    def _tiles(self, field: Tensor, reach: int) -> Tensor:
        """Cut ``B W *S`` into tiles, each with ``reach`` sites around it: ``(B tiles, heads, sites, W / heads)``."""
        tiles = [math.ceil(length / self.tile) for length in field.shape[2:]]
        field = pad(field, reach, periodic=self.periodic)
        missing = [count * self.tile + 2 * reach - length for count, length in zip(tiles, field.shape[2:], strict=True)]
        # The last tile may reach over the edge; what stands there is cut away, or outside every window that is kept.
        field = F.pad(field, [entry for end in reversed(missing) for entry in (0, end)])
        for axis in range(2, 2 + self.dim):
            field = field.unfold(axis, self.tile + 2 * reach, self.tile)
        batch, width = field.shape[:2]
        field = field.reshape(batch, self.heads, width // self.heads, math.prod(tiles), -1)
        return field.permute(0, 3, 1, 4, 2).flatten(0, 1)

    def _untile(self, rows: Tensor, shape: Sequence[int], batch: int) -> Tensor:
        """Put tiles of ``(B tiles, heads, sites, W / heads)`` together to ``B *S W``."""
        tiles = [math.ceil(length / self.tile) for length in shape]
        field = rows.transpose(1, 2).reshape(batch, *tiles, *(self.tile,) * self.dim, -1)
        order = [0, *itertools.chain(*((1 + axis, 1 + self.dim + axis) for axis in range(self.dim))), field.ndim - 1]
        field = field.permute(order).reshape(batch, *(count * self.tile for count in tiles), -1)
        return field[(slice(None), *(slice(length) for length in shape))]


def relative_index(tile: int, window: int, dim: int) -> Tensor:
    """For each query and key of a tile, the relative position's column in the table of biases.

    Returns:
        Integers of shape ``(tile ** dim, (tile + 2 * window) ** dim)``; ``(2 * window + 1) ** dim`` where the key is
        outside the query's window.
    """
    queries = torch.cartesian_prod(*[torch.arange(tile)] * dim).reshape(-1, dim)
    keys = torch.cartesian_prod(*[torch.arange(tile + 2 * window)] * dim).reshape(-1, dim)
    relative = keys[None] - queries[:, None]
    span = 2 * window + 1
    inside = ((relative >= 0) & (relative < span)).all(-1)
    column = (relative * torch.tensor([span**axis for axis in reversed(range(dim))])).sum(-1)
    return torch.where(inside, column, torch.tensor(span**dim))
