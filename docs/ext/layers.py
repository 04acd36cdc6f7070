"""Measures the receptive radius of one small network a layer, and writes the table of docs/layers.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from checks import markdown
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx

    from sizetransfer.scores.receptive import RadiusReport

PAGE = "layers"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def insert(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the marker of the page."""
    if page == PAGE:
        source[0] = source[0].replace("<!-- layers -->", table())


class Between(nn.Module):
    """Two convolutions that go around the torus, and a layer in between."""

    def __init__(self, layer: nn.Module | None = None, mode: str = "circular") -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, padding_mode=mode)
        self.layer = layer or nn.SiLU()
        self.last = nn.Conv2d(4, 1, 3, padding=1, padding_mode=mode)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.last(self.layer(self.first(x)))


class Tokens(nn.Module):
    """Attention of every site to every site."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).movedim(1, -1)
        return self.attention(tokens, tokens, tokens)[0].movedim(-1, 1).reshape(x.shape)


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 4, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


def _sites(x: Tensor) -> Tensor:
    return torch.linspace(0, 1, x.shape[-1]).to(x)


ZOO: dict[str, Callable[[], nn.Module]] = {
    "two 3 × 3 convolutions, `padding_mode='circular'`": Between,
    "the same with zeros": lambda: Between(mode="zeros"),
    "the same, reflecting": lambda: Between(mode="reflect"),
    "dilation 4 in between": lambda: Between(
        nn.Conv2d(4, 4, 3, padding=4, dilation=4, padding_mode="circular"),
    ),
    "stride 2 and back": lambda: Between(
        nn.Sequential(nn.Conv2d(4, 4, 2, stride=2), nn.ConvTranspose2d(4, 4, 2, stride=2))
    ),
    "`BatchNorm2d` in eval": lambda: Between(nn.BatchNorm2d(4)),
    "`GroupNorm`": lambda: Between(nn.GroupNorm(2, 4)),
    "`InstanceNorm2d`": lambda: Between(nn.InstanceNorm2d(4)),
    "normalisation of channels, site by site": lambda: Between(
        Function(lambda x: nn.functional.layer_norm(x.movedim(1, -1), (4,)).movedim(-1, 1))
    ),
    "a mean over the field": lambda: Between(Function(lambda x: x + x.mean((2, 3), keepdim=True))),
    "a sum over the field": lambda: Between(Function(lambda x: x + x.sum((2, 3), keepdim=True) / 256)),
    "attention to all sites": lambda: Between(Tokens()),
    "coordinates between 0 and 1": lambda: Between(Function(lambda x: x + _sites(x))),
    "learned positions of 16 × 16": lambda: Between(Learned()),
}


def table() -> str:
    """One row a network: what the measurement says."""
    import sizetransfer as st
    from sizetransfer.contracts.randomness import seeded_initialisation

    rows = []
    for name, build in ZOO.items():
        with seeded_initialisation("layers", name):
            rows.append(_row(name, st.radius(build())))
    return markdown(("in the network", "radius", "period", "what is named"), rows)


def _row(name: str, found: RadiusReport) -> tuple[str, ...]:
    radius = "global" if found.radius is None else str(found.radius)
    period = "none" if found.translation_period is None else str(found.translation_period)
    said = [fault.text for fault in found.faults] + [f"Size {size} is refused." for size, _ in found.refused]
    return name, radius, period, " ".join(said) or "–"
