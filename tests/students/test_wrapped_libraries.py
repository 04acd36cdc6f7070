"""Models of public libraries by their own conventions, and stand-ins of the same call where they are not installed."""

from __future__ import annotations

import types

import pytest
import torch
from tolerances import assert_rounding
from torch import Tensor, nn

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.oracle import Context
from sizetransfer.students.wrapped import continuous_timestep, nearest_timestep, wrap_module

FIELD = st.FieldInfo(dim=2, sigma_data=0.5)
CONTEXT = Context(Lattice((8, 8), periodic=True))


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.4, 3.0])


class Unet(nn.Module):
    """Called as the U-Net of ``diffusers`` is: ``unet(sample, timestep).sample``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor) -> object:
        scale = 1 + timestep.reshape(-1, 1, 1, 1).to(sample) / 1000
        return types.SimpleNamespace(sample=self.conv(sample) * scale)


def unet() -> nn.Module:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
    ).double()


@pytest.mark.parametrize("build", [Unet, unet], ids=["stand-in", "diffusers"])
def test_a_unet_by_the_discrete_schedule(build) -> None:
    module = build().eval()
    x, sigma = inputs()
    student = wrap_module(
        module, field=FIELD, process="vp", timestep="ddpm-linear", inputs="sample=unit_x, timestep=timestep"
    )
    step = nearest_timestep("ddpm-linear")(sigma)
    noise = module(x * (1 + sigma.reshape(-1, 1, 1, 1) ** 2).rsqrt(), step).sample
    assert_rounding(student.eval()(x, sigma, CONTEXT), -noise / sigma.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("build", [Unet, unet], ids=["stand-in", "diffusers"])
def test_a_unet_by_the_preconditioning_of_the_library(build, prediction: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.5, prediction_type=prediction)
    module = build().eval()
    x, sigma = inputs()
    predicts = {"epsilon": "preconditioned", "v_prediction": "v"}[prediction]
    student = wrap_module(module, field=FIELD, process="edm", predicts=predicts).eval()
    for row, level in enumerate(sigma):
        seen = scheduler.precondition_inputs(x[row : row + 1], level)
        output = module(seen, scheduler.precondition_noise(level).reshape(1)).sample
        clean = scheduler.precondition_outputs(x[row : row + 1], output, level)
        score = student(x[row : row + 1], level.reshape(1), CONTEXT)
        assert_rounding(score, (clean - x[row : row + 1]) / level**2, condition=10)


class Schedule(nn.Module):
    """Called as a variance-preserving schedule of ``azula`` is."""

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = (-6.9 * t**2).exp()
        return alpha, (1 - alpha**2 + 1e-6).sqrt()


class Denoiser(nn.Module):
    """Called as a denoiser of ``azula`` is: ``denoiser(x_t, t).mean``."""

    def __init__(self, schedule: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.schedule = nn.Conv2d(1, 1, 3, padding=1), schedule

    def forward(self, x_t: Tensor, t: Tensor) -> object:
        alpha, sigma = self.schedule(t)
        c_in = (alpha**2 + sigma**2).rsqrt().reshape(-1, 1, 1, 1)
        return types.SimpleNamespace(mean=self.conv(c_in * x_t))


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.conv(x) * (1 + t.reshape(-1, 1, 1, 1))


def azula(kind: str) -> nn.Module:
    azula = pytest.importorskip("azula")
    schedule = azula.noise.VPSchedule()
    return getattr(azula.denoise, kind)(Backbone(), schedule)


@pytest.mark.parametrize("kind", ["stand-in", "KarrasDenoiser", "SimpleDenoiser"])
def test_a_denoiser_of_continuous_time(kind: str) -> None:
    module = Denoiser(Schedule()) if kind == "stand-in" else azula(kind)
    x, sigma = inputs()
    times = continuous_timestep(module.schedule)
    student = wrap_module(module, field=FIELD, process="vp", predicts="clean", timestep=times)
    t = times(sigma)
    alpha, beta = module.schedule(t)
    level = sigma.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(beta / alpha, sigma, rtol=1e-9, atol=0)
    clean = module(x * alpha.reshape(-1, 1, 1, 1), t).mean
    # Its alpha at that time is (1 + sigma^2)^(-1/2) up to the 1e-6 that its schedule adds to the variance.
    torch.testing.assert_close(student(x, sigma, CONTEXT), (clean - x) / level**2, rtol=1e-5, atol=1e-5)


def test_the_radius_of_a_unet_names_its_layers() -> None:
    found = st.radius(unet(), process="vp", timestep="ddpm-linear", sizes=(16, 17), sigmas=(0.3,))
    assert found.radius is None
    kinds = {fault.kind: fault for fault in found.faults}
    assert "normalises over space" in kinds["global"].text
    assert "pads with zeros" in kinds["padding"].text
    assert found.refused[0][0] == 17
