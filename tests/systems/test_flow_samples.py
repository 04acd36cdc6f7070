"""What flow teachers draw and tell; their weights are the same on every machine and come from the seed alone."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from flow_zoo import ZOO, build, sample, spec

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.systems.flow.teacher import FlowTeacher, FlowTeacherSpec

over_the_zoo = pytest.mark.parametrize("name", ZOO)


@over_the_zoo
def test_samples_follow_their_generator(name):
    teacher = build(name, torch.float32)
    first, second, other = (teacher.sample(3, 4, generator=stream(seed)) for seed in (1, 1, 2))
    assert first.x.shape == (3, 1, 4, 4)
    assert first.x.dtype == torch.float32
    assert torch.equal(first.x, second.x)
    assert not torch.equal(first.x, other.x)
    assert not first.x.requires_grad
    assert not first.labels


def test_samples_are_latent_normals_pushed_forward():
    teacher = build("medium-range")
    latent = normal((2, 1, 8, 8), generator=stream(5), like=torch.zeros(()))
    fields = teacher.sample(2, 8, generator=stream(5))
    torch.testing.assert_close(teacher.pull_back(fields.x)[0], latent, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_context_tells_the_sublattice(dtype):
    teacher = build("medium-range", dtype)
    context = teacher.sample(2, 4, generator=stream(0)).context
    sign = torch.tensor([[-1, 1, -1, 1], [1, -1, 1, -1]] * 2, dtype=dtype)
    assert context.condition.dtype == dtype
    assert torch.equal(context.condition, sign.expand(2, 1, 4, 4))
    assert context.mask is None
    assert context.domain.periodic
    assert context.domain.shape == (4, 4)
    assert teacher.field.condition_channels == 1


def digest(teacher: FlowTeacher) -> str:
    """Of the bytes of every weight; the anchor of dtype and device is none."""
    weights = hashlib.sha256()
    for name, buffer in teacher.named_buffers():
        if name != "_anchor":
            weights.update(buffer.numpy().tobytes())
    return weights.hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("short-range-simple", "ff0909eb72427f09"),
        ("short-range-structured", "17260fd005e172cf"),
        ("medium-range", "726fe7c5a43de094"),
        ("long-range-stress", "13825428f26d07a7"),
    ],
)
def test_weights_are_the_same_on_every_machine(name, expected):
    teacher = spec(name).build()
    assert all(buffer.dtype == torch.float32 for buffer in teacher.buffers())
    assert digest(teacher) == expected


def test_the_law_is_the_same_on_every_machine():
    """The density of one field, whatever the presets are: weights, layers and their order."""
    teacher = FlowTeacherSpec(
        seed=5,
        pre_flow_depth=2,
        smoother_depth=3,
        cutoff=3,
        gain=0.8,
        coupling_gain=0.3,
        mean_mode={"strength": 2.0, "exponent": 1.5, "reference_size": 4},
    )
    x = torch.linspace(-1, 1, 36).sin().reshape(1, 1, 6, 6) * torch.linspace(0.5, 1.5, 6)
    built = teacher.build().double()
    assert built.log_density(Sample(x, built.context(1, 6))).item() == pytest.approx(-39.2981760527, rel=1e-9)


def test_the_scale_is_the_same_on_every_machine():
    teacher = FlowTeacherSpec(smoother_depth=3, cutoff=5, gain=1.2, coupling_gain=0.02).build()
    assert teacher.field.sigma_data == 1.12


def test_weights_come_from_the_seed_alone():
    state = torch.get_rng_state()
    try:
        torch.manual_seed(1)
        before = torch.get_rng_state()
        torch.set_default_dtype(torch.float32)
        first = spec("medium-range").build()
        assert torch.equal(torch.get_rng_state(), before)
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(2)
        second, other = spec("medium-range").build(), spec("medium-range", seed=1).build()
    finally:
        torch.set_rng_state(state)
    assert digest(first) == digest(second) != digest(other)
    assert first.field == second.field
    assert not list(first.parameters())


def test_sigma_data_is_the_scale_of_the_field_at_the_reference_size():
    for name in ("short-range-structured", "medium-range", "long-range-stress"):
        teacher = build(name, torch.float32)
        spread = sample(teacher, 16, 64).x.square().mean((1, 2, 3))
        error = spread.std().item() * math.sqrt(2 / 64)  # the estimate rests on 64 other fields
        assert abs(spread.mean().item() - teacher.field.sigma_data**2) < 5 * error + 0.02


@pytest.mark.parametrize(("alias", "name"), list(FlowTeacherSpec.aliases.items()))
def test_the_papers_code_keys_name_its_families(alias, name):
    assert FlowTeacherSpec.parse({"preset": alias, "seed": 3}) == FlowTeacherSpec.parse({"preset": name, "seed": 3})


def test_presets_have_the_papers_depths_and_cutoffs():
    """Protocol, two-dimensional FDLF: the values that the paper prints."""
    printed = {
        "short-range-simple": (1, 1, 0, None),
        "short-range-structured": (1, 1, 1, 1),
        "medium-range": (2, 2, 3, 5),
        "long-range-stress": (2, 2, 6, 8),
    }
    assert set(FlowTeacherSpec.presets) == set(printed)
    for name, (pre_flow, flow, smoother, cutoff) in printed.items():
        of_preset = spec(name)
        assert (of_preset.pre_flow_depth, of_preset.flow_depth, of_preset.smoother_depth) == (pre_flow, flow, smoother)
        assert cutoff is None or of_preset.cutoff == cutoff
        assert of_preset.nonlinear
        assert (of_preset.mean_mode is not None) == (name == "long-range-stress")


def test_wrong_fields_and_presets_name_the_nearest():
    with pytest.raises(SpecError, match="medium-range"):
        FlowTeacherSpec.parse({"preset": "medium-rang"})
    with pytest.raises(SpecError, match="coupling_gain"):
        FlowTeacherSpec.parse({"couplng_gain": 0.1})
