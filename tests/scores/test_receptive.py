"""The measured receptive radius: of known architectures, and of each layer that does not transfer, named."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import Tensor, nn

import sizetransfer as st
from sizetransfer.contracts.errors import SpecError
from sizetransfer.students.wrapped import wrap_module

PLANE = st.FieldInfo(dim=2)


class Net(nn.Module):
    """Convolutions, with a layer in between, whose last weights are zero."""

    def __init__(self, mode: str = "circular", between: nn.Module | None = None, kernel: int = 3) -> None:
        super().__init__()
        options = {"padding": kernel // 2, "padding_mode": mode}
        self.first = nn.Conv2d(1, 4, kernel, **options)
        self.between = between or nn.SiLU()
        self.last = nn.Conv2d(4, 1, kernel, **options)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


class OneSided(nn.Module):
    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x + x.roll(2, 2).square() + x.roll(-1, 3)


class Stride(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 4, 2, stride=2), nn.ConvTranspose2d(4, 1, 2, stride=2)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.up(self.down(x).tanh())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.out = nn.Linear(1, 4), nn.MultiheadAttention(4, 1, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        tokens = self.embed(x.flatten(2).movedim(1, -1))
        return self.out(self.mix(tokens, tokens, tokens)[0]).movedim(-1, 1).reshape(x.shape)


class Function(nn.Module):
    """A convolution and something done to its output."""

    def __init__(self, function) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
        self.function = function

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.function(x, self.conv(x))


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x + self.pool(x).expand_as(x)


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 1, 16, 16))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x + self.table


LOCAL = {
    "two convolutions": (Net(), 2),
    "wide convolutions": (Net(kernel=5), 4),
    "batch normalisation in eval": (Net(between=nn.BatchNorm2d(4)), 2),
    "a point": (nn.Conv2d(1, 1, 1), 0),
    "strides": (Stride(), 1),
}


@pytest.mark.parametrize("case", LOCAL)
def test_local_modules_have_their_radius_and_no_fault(case: str) -> None:
    module, radius = LOCAL[case]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = st.radius(module, inputs="x" if isinstance(module, nn.Conv2d) else "x, sigma")
    assert (found.radius, found.faults) == (radius, ())
    assert found.translation_period == (2 if case == "strides" else 1)
    assert [size for size, _ in found.refused] == ([17] if case == "strides" else [])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_weights_that_begin_at_zero_hide_nothing() -> None:
    assert st.radius(Net()).radius == 2
    assert st.radius(Net(), moved=False).radius == 0


def test_every_axis_and_direction_has_its_own_number() -> None:
    found = st.radius(OneSided())
    assert (found.below, found.above) == ((2, 0), (0, 1))
    assert found.radius == 2


def _normalised(x: Tensor, y: Tensor) -> Tensor:
    return y / x.detach().std((1, 2, 3), keepdim=True)


FAULTS = {
    "group normalisation": (Net(between=nn.GroupNorm(2, 4)), "global", "between", "normalises over space"),
    "instance normalisation": (Net(between=nn.InstanceNorm2d(4)), "global", "between", "normalises over space"),
    "pooling": (Pooled(), "global", "pool", "pools over the field"),
    "attention": (Attention(), "global", "mix", "attention|attends"),
    "a mean": (Function(lambda x, y: y - x.mean((2, 3), keepdim=True)), "global", "", "no layer does so by itself"),
    "a detached mean": (Function(_normalised), "global", "", "detached from the gradient"),
    "zero padding": (Net("zeros"), "padding", "first", "pads with zeros"),
    "reflecting padding": (Net("reflect"), "padding", "first", "pads with reflect"),
    "positions": (Function(lambda x, y: y + torch.linspace(0, 1, x.shape[-1]).to(x)), "position", "", "where in the"),
    "a size": (Function(lambda x, y: y * x.shape[-1]), "size", "", "depends on the size itself"),
    "the batch": (Function(lambda x, y: y - x.mean((0, 2, 3), keepdim=True)), "batch", "", "others of its batch"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_every_fault_is_named_with_its_layer(case: str) -> None:
    module, kind, layer, words = FAULTS[case]
    found = st.radius(module)
    texts = {fault.kind: fault for fault in found.faults if kind == fault.kind}
    assert kind in texts, found.text()
    assert texts[kind].layer.startswith(layer)
    matching = [fault for fault in found.faults if fault.kind == kind]
    assert any(re.search(words, fault.text) for fault in matching)


def test_a_declared_radius_is_held() -> None:
    found = st.radius(wrap_module(Net(), field=PLANE, radius=1))
    assert [fault.kind for fault in found.faults] == ["declared"]


def test_learned_positions_are_refused_on_other_sizes_with_their_words() -> None:
    found = st.radius(Positions())
    assert found.refused[0][0] == 17
    assert "must match" in found.refused[0][1]


@pytest.mark.parametrize("kind", ["cnn", "sliding-attention", "best-linear"])
def test_students_of_the_product_have_the_radius_that_they_declare(kind: str) -> None:
    student = st.student(kind, PLANE, **({"radius": 2} if kind == "best-linear" else {}))
    if kind == "best-linear":
        student.fit(st.teacher("gaussian", dim=2, mass=0.5), 16, seed=0)
    found = st.radius(student)
    assert found.radius == student.radius
    assert not found.faults


def test_a_lattice_smaller_than_the_ball_is_grown() -> None:
    found = st.radius(Net(kernel=11))
    assert found.radius == 10
    assert {reach.size for reach in found.reaches} == {16, 17, 32, 33}


def test_layers_are_followed() -> None:
    found = st.radius(Net(between=nn.SiLU()))
    assert [(layer.name, layer.above) for layer in found.layers] == [
        ("first", (1, 1)),
        ("between", (1, 1)),
        ("last", (2, 2)),
    ]


def test_the_report_is_plain_data_and_text() -> None:
    found = st.radius(Net("zeros"))
    assert json.loads(json.dumps(found.to_json()))["radius"] == 2
    text = found.text(layers=True)
    assert "receptive radius 2" in text
    assert "Conv2d" in text


def test_what_runs_nowhere_is_refused() -> None:
    with pytest.raises(SpecError, match="runs on none of the sizes"):
        st.radius(nn.Conv2d(3, 3, 1), inputs="x")


def test_a_module_of_one_precision_is_measured_in_it() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return self.conv(x.float()).float()

    found = st.radius(Single().float(), casts=True)
    assert (found.radius, found.faults) == (1, ())
