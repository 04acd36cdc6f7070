"""Any torch module as a student: every prediction and input against the exact score, and modules that break."""

from __future__ import annotations

import pytest
import torch
from tolerances import assert_rounding
from torch import Tensor, nn

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import ConformanceError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.students.wrapped import QUANTITIES, ModuleSpec, nearest_timestep, parse_inputs, wrap_module

FIELD = st.FieldInfo(dim=1, sigma_data=1.5)


def inputs(batch: int = 2, size: int = 6) -> tuple[Tensor, Tensor, Context]:
    x = torch.randn(batch, 1, size, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0.3, 2.0])[:batch], Context(Lattice.cubic(size, 1, periodic=True))


def white_score(x: Tensor, sigma: Tensor) -> Tensor:
    """The score of white noise of unit variance with the noise added."""
    return -x / (1 + sigma.reshape(-1, 1, 1) ** 2)


class White(nn.Module):
    """Knows white noise, and answers with the prediction asked for."""

    def __init__(self, predicts: str = "score") -> None:
        super().__init__()
        self.predicts = predicts

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.reshape(-1, 1, 1)
        score = white_score(x, sigma)
        return {"score": score, "clean": x + level**2 * score, "noise": -level * score}[self.predicts]


@pytest.mark.parametrize("predicts", ["score", "clean", "noise"])
def test_every_prediction_is_the_same_score(predicts: str) -> None:
    x, sigma, context = inputs()
    student = wrap_module(White(predicts), field=FIELD, predicts=predicts)
    assert_rounding(student(x, sigma, context), white_score(x, sigma))


def test_the_wrong_prediction_is_another_score() -> None:
    x, sigma, context = inputs()
    student = wrap_module(White("clean"), field=FIELD, predicts="noise")
    assert (student(x, sigma, context) - white_score(x, sigma)).abs().max() > 0.1


class Told(nn.Module):
    """Records what it is called with."""

    def forward(self, *positional: Tensor, **named: Tensor) -> Tensor:
        self.positional, self.named = positional, named
        return torch.zeros(2, 1, 6)


def test_inputs_are_the_documented_formulas() -> None:
    x, sigma, context = inputs()
    condition = torch.ones(2, 3, 6)
    told = Told()
    names = [name for name in QUANTITIES if name != "mask"]
    field = FIELD.model_copy(update={"condition_channels": 3})
    student = wrap_module(told, field=field, inputs=", ".join(names), timestep=lambda level: 7 * level)
    student(x, sigma, Context(context.domain, condition))
    level = sigma.reshape(-1, 1, 1)
    expected = {
        "x": x,
        "scaled_x": x / (level**2 + 2.25).sqrt(),
        "unit_x": x / (level**2 + 1).sqrt(),
        "sigma": sigma,
        "log_sigma": sigma.log(),
        "noise_label": sigma.log() / 4,
        "variance": sigma.square(),
        "timestep": 7 * sigma,
        "condition": condition,
    }
    assert names == list(expected)
    for name, value in zip(names, told.positional, strict=True):
        assert_rounding(value, expected[name])


def test_inputs_go_by_keyword_where_one_is_given() -> None:
    x, sigma, context = inputs()
    told = Told()
    wrap_module(told, field=FIELD, inputs="x, noise = sigma")(x, sigma, context)
    assert len(told.positional) == 1
    assert torch.equal(told.named["noise"], sigma)


def test_what_the_module_is_not_told_is_declared() -> None:
    assert wrap_module(White(), field=FIELD).ignores == {"condition", "mask"}
    assert wrap_module(Told(), field=FIELD, inputs="x, sigma, condition").ignores == {"mask"}


def test_dead_sites_get_no_score() -> None:
    x, sigma, context = inputs()
    mask = torch.arange(6).remainder(2).bool().expand(2, 1, 6)
    score = wrap_module(White(), field=FIELD)(x, sigma, Context(context.domain, mask=mask))
    assert not score[~mask].any()
    assert_rounding(score[mask], white_score(x, sigma)[mask])


def test_the_nearest_timestep_has_the_nearest_noise_level() -> None:
    alphas = torch.linspace(0.999, 0.01, 50)
    levels = ((1 - alphas) / alphas).sqrt()
    assert torch.equal(nearest_timestep(alphas)(levels * 1.001), torch.arange(50))


class Pair(nn.Module):
    def forward(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, str]:
        return white_score(x, sigma), "more"


def test_the_first_item_of_a_tuple_is_the_prediction() -> None:
    x, sigma, context = inputs()
    assert torch.equal(wrap_module(Pair(), field=FIELD)(x, sigma, context), white_score(x, sigma))


BREAKS = {
    "no tensor": (lambda x, sigma: "text", "returns no tensor"),
    "another shape": (lambda x, sigma: x[..., :-1], "not like the field"),
    "another dtype": (lambda x, sigma: x.float(), "another dtype"),
    "an exception": (lambda x, sigma: x @ x, "failed: RuntimeError"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_module_that_breaks_is_named(name: str) -> None:
    function, message = BREAKS[name]

    class Broken(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> object:
            return function(x, sigma)

    with pytest.raises(ConformanceError, match=message) as caught:
        wrap_module(Broken(), field=FIELD)(*inputs())
    assert "wrap_module(Broken)" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": "x, sgima"}, "no input 'sgima'"),
        ({"inputs": "noise=sigma, x"}, "behind a keyword"),
        ({"predicts": "epsilon"}, "no prediction 'epsilon'"),
        ({"inputs": "x, timestep"}, "nothing says which"),
    ],
)
def test_what_is_asked_wrongly_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        wrap_module(White(), field=FIELD, **fields)


def test_parsing_keeps_the_order() -> None:
    assert parse_inputs(" x ,sigma, c = condition") == (("", "x"), ("", "sigma"), ("c", "condition"))


def test_a_module_can_be_named_in_a_specification() -> None:
    student = st.student("module", FIELD, factory="torch.nn:Identity", inputs="x", predicts="clean", radius=0)
    x, sigma, context = inputs()
    assert student.radius == 0
    assert not student(x, sigma, context).any()
    assert ModuleSpec.parse(ModuleSpec(factory="torch.nn:Identity").to_json()).factory == "torch.nn:Identity"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("torch.nn:Nothing", "cannot be imported"),
        ("no_such_package:f", "cannot be imported"),
        ("torch:pi", "no factory"),
        ("torch:zeros_like", "builds no torch module"),
    ],
)
def test_a_factory_that_is_none_is_refused(factory: str, message: str) -> None:
    arguments = {"input": torch.zeros(1)} if "zeros" in factory else {}
    with pytest.raises(SpecError, match=message):
        st.student("module", FIELD, factory=factory, arguments=arguments)


def test_a_public_backbone_runs_on_every_size_that_it_takes() -> None:
    """A U-Net of a public library for images: noise prediction of a variance-preserving model with 1000 steps."""
    diffusers = pytest.importorskip("diffusers")
    module = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    steps = diffusers.DDPMScheduler(num_train_timesteps=1000).alphas_cumprod
    student = wrap_module(
        module.double(),
        field=st.FieldInfo(dim=2),
        inputs="unit_x, timestep",
        predicts="noise",
        timestep=nearest_timestep(steps),
    ).eval()
    for size in (8, 16):
        x = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(size))
        sigma = torch.tensor([0.1, 3.0])
        score = student(x, sigma, Context(Lattice.cubic(size, 2, periodic=True)))
        assert score.shape == x.shape
        level = sigma.reshape(-1, 1, 1, 1)
        step = nearest_timestep(steps)(sigma)
        noise = module(x / (1 + level**2).sqrt(), step).sample
        assert_rounding(score, -noise / level)
