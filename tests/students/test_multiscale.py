"""Students of many scales: their filters against the definition, and what stays the same when the lattice grows."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import assert_rounding
from torch import Tensor

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import stream
from sizetransfer.students.spectral import mirrored, yukawa_bank
from sizetransfer.students.unet import repeat

KINDS = {"unet": {"width": 6, "levels": 2}, "spectral": {"width": 6, "ranges": 4}}


def build(kind: str, *, dim: int = 2, periodic: bool = True, **fields: object) -> st.Student:
    """A student whose weights, the output's too, are random."""
    field = st.FieldInfo(dim=dim, periodic=periodic, condition_channels=1, sigma_data=1.2)
    student = st.student(kind, field, **(KINDS[kind] | fields)).eval()
    generator = stream("tests", "weights")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return student


def score(student: st.Student, x: Tensor, condition: Tensor | None = None) -> Tensor:
    condition = torch.zeros_like(x) if condition is None else condition
    context = Context(Lattice(tuple(x.shape[2:]), periodic=student.field.periodic), condition)
    with torch.no_grad():
        return student(x, x.new_full((len(x),), 0.4), context)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("periodic", [True, False], ids=["torus", "box"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_fields_of_every_dimension(kind: str, dim: int, periodic: bool, generator: torch.Generator) -> None:
    student = build(kind, dim=dim, periodic=periodic)
    x = torch.randn(2, 1, *(8,) * dim, generator=generator)
    both, first = score(student, x), score(student, x[:1])
    assert_rounding(both[:1], first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_periodic_field_has_the_same_score_on_its_multiple(kind: str, generator: torch.Generator) -> None:
    """The field repeated on a torus of twice the size is the same infinite field; nothing may refer to L."""
    student = build(kind)
    x = torch.randn(1, 1, 8, 8, generator=generator)
    assert_rounding(score(student, x.repeat(1, 1, 2, 2)), score(student, x).repeat(1, 1, 2, 2))


def test_a_mean_that_is_a_sum_would_be_noticed(generator: torch.Generator) -> None:
    student = build("unet")
    x = torch.randn(1, 1, 8, 8, generator=generator)
    expected = score(student, x).repeat(1, 1, 2, 2)
    token = student.token

    class Sum(torch.nn.Module):
        def forward(self, hidden: Tensor) -> Tensor:
            return token(hidden * hidden[0, 0].numel())

    student.token = Sum()
    assert (score(student, x.repeat(1, 1, 2, 2)) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_far_sites_are_seen(kind: str, generator: torch.Generator) -> None:
    student = build(kind, blocks=1)
    x = torch.randn(1, 1, 32, generator=generator)
    student = build(kind, dim=1, blocks=1)
    moved = x.clone()
    moved[..., 16] += 1.0
    assert (score(student, moved) - score(student, x))[..., 0].abs().min() > 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_mean_the_score_of_far_sites_changes_less(kind: str, generator: torch.Generator) -> None:
    name = {"unet": "mean_token", "spectral": "mean"}[kind]
    x = torch.randn(1, 1, 256, generator=generator)
    moved = x.clone()
    moved[..., 128] += 1.0
    seen = []
    for given in (True, False):
        student = build(kind, dim=1, blocks=1, **{name: given})
        seen.append(float((score(student, moved) - score(student, x))[..., 0].abs().max()))
    assert seen[1] < seen[0] / 10


def test_yukawa_kernels_decay_and_sum_to_one() -> None:
    """In one dimension the kernel is tanh(k/2) e^{-k r} with 2 sinh(k/2) = 1/l, on the infinite lattice."""
    size, ranges = 256, 3
    bank = yukawa_bank((size,), ranges, mean=False, like=torch.zeros(()))
    kernels = torch.fft.irfft(bank, n=size)
    for power in range(ranges):
        rate = 2 * math.asinh(0.5 / 2**power)
        expected = math.tanh(rate / 2) * torch.exp(-rate * torch.arange(20.0))
        torch.testing.assert_close(kernels[power, :20], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(kernels.sum(1), torch.ones(ranges), rtol=0, atol=1e-12)


def test_the_mean_is_a_filter_of_the_bank() -> None:
    bank = yukawa_bank((6, 7), 1, mean=True, like=torch.zeros(()))
    x = torch.randn(6, 7, generator=stream("tests", "mean"))
    filtered = torch.fft.irfftn(torch.fft.rfftn(x) * bank[-1], s=(6, 7))
    assert_rounding(filtered, x.mean().expand(6, 7), condition=float(x.abs().max() / x.mean().abs()))


def test_mirror_images_have_no_flux_through_the_walls() -> None:
    x = torch.arange(4.0).reshape(1, 1, 4)
    assert mirrored(x, [2]).flatten().tolist() == [0, 1, 2, 3, 3, 2, 1, 0]


def test_repeating_inverts_averaging_of_blocks() -> None:
    coarse = torch.randn(1, 2, 3, 5, generator=stream("tests", "blocks"))
    assert_rounding(torch.nn.functional.avg_pool2d(repeat(coarse), 2), coarse)


def test_a_size_that_the_blocks_do_not_divide_is_refused() -> None:
    with pytest.raises(OracleError, match="multiples of 4 sites"):
        score(build("unet"), torch.zeros(1, 1, 8, 6))


def test_the_unet_moves_with_whole_blocks_only(generator: torch.Generator) -> None:
    student = build("unet")
    x = torch.randn(1, 1, 8, 8, generator=generator)
    expected = score(student, x)
    whole = score(student, x.roll(4, dims=2)).roll(-4, dims=2)
    assert_rounding(whole, expected)
    assert student.translation_period == 4
    assert (score(student, x.roll(1, dims=2)).roll(-1, dims=2) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("field", "message"), [(st.FieldInfo(dim=4), "one to three"), (st.FieldInfo(dim=2, geometry="graph"), "graph")]
)
def test_what_cannot_be_built_is_refused(kind: str, field: st.FieldInfo, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        st.student(kind, field)
