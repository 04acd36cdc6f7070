"""Every convention of a foreign model against the exact score of a Gaussian field."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ideal_models import Ideal
from tolerances import EPSILON, assert_rounding
from torch import Tensor, nn

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import ConformanceError, OracleError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.students.wrapped import PREDICTIONS, continuous_timestep, nearest_timestep, wrap_module
from sizetransfer.students.wrapped.schedules import NAMED

TEACHER = st.teacher("gaussian", dim=1, mass=0.5).double()
SIGMA_DATA = 0.5
SCALE, SHIFT = 0.81, 0.3


def inputs(size: int = 8) -> tuple[Tensor, Tensor, Context]:
    x = 2 * torch.randn(3, 1, size, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0.1, 0.7, 4.0]), Context(Lattice.cubic(size, 1, periodic=True))


def ideal(process: str, predicts: str, table: Tensor | None = None) -> Ideal:
    return Ideal(process, predicts, TEACHER, unit=SCALE, table=table, sigma_data=SIGMA_DATA)


def exact(x: Tensor, sigma: Tensor, context: Context) -> Tensor:
    return TEACHER.smoothed_score(x - SHIFT, sigma, context)


def table_through(sigma: Tensor) -> Tensor:
    """Alpha-bar of steps of which some have exactly the levels that are asked for."""
    levels = torch.cat([torch.logspace(-3, 3, 50, dtype=torch.float64), sigma / SCALE]).sort().values
    return 1 / (1 + levels**2)


@pytest.mark.parametrize(("process", "predicts"), list(itertools.product(("ve", "vp", "edm"), PREDICTIONS)))
def test_every_convention_is_the_exact_score(process: str, predicts: str) -> None:
    x, sigma, context = inputs()
    table = table_through(sigma)
    student = wrap_module(
        ideal(process, predicts, table),
        field=TEACHER.field,
        process=process,
        predicts=predicts,
        timestep=table if process == "vp" else None,
        scale=SCALE,
        shift=SHIFT,
        sigma_data=SIGMA_DATA,
    )
    # Clean and noise cancel: (D - u)/sigma^2 at sigma = 0.1 loses two digits and v two more.
    assert_rounding(student(x, sigma, context), exact(x, sigma, context), condition=100)


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("wrong", PREDICTIONS)
def test_another_prediction_is_another_score(predicts: str, wrong: str) -> None:
    if predicts == wrong:
        return
    x, sigma, context = inputs()
    options = {"field": TEACHER.field, "process": "edm", "sigma_data": SIGMA_DATA, "scale": SCALE, "shift": SHIFT}
    score = wrap_module(ideal("edm", predicts), predicts=wrong, **options)(x, sigma, context)
    assert (score - exact(x, sigma, context)).abs().max() > 0.05


def test_a_scale_left_out_is_another_score() -> None:
    x, sigma, context = inputs()
    score = wrap_module(ideal("ve", "noise"), field=TEACHER.field, predicts="noise", shift=SHIFT)(x, sigma, context)
    assert (score - exact(x, sigma, context)).abs().max() > 0.05


@pytest.mark.parametrize(
    ("scale", "options"),
    [
        ("unit", {}),
        ((SCALE,), {}),
        ("[-1, 1]", {"data_range": (SHIFT - SCALE, SHIFT + SCALE), "shift": 0.0}),
        ((-1.0, 1.0), {"data_range": (SHIFT - SCALE, SHIFT + SCALE), "shift": 0.0}),
    ],
)
def test_every_form_of_the_scale_is_the_same(scale: object, options: dict[str, object]) -> None:
    x, sigma, context = inputs()
    field = TEACHER.field.model_copy(update={"sigma_data": SCALE})
    asked = {"predicts": "noise", "shift": SHIFT, "scale": scale, **options}
    assert_rounding(
        wrap_module(ideal("ve", "noise"), field=field, **asked)(x, sigma, context), exact(x, sigma, context)
    )


def test_tables_of_torch_numpy_and_files_are_the_same(tmp_path) -> None:
    sigma = torch.logspace(-1, 1, 7)
    table = NAMED["cosine"]()
    np.save(tmp_path / "bar.npy", table.numpy())
    np.save(tmp_path / "single.npy", table.numpy().astype(">f4"))
    sources = [table, table.float(), table.numpy(), table.numpy().astype(np.float32), "cosine"]
    steps = [nearest_timestep(source)(sigma) for source in [*sources, tmp_path / "bar.npy", tmp_path / "single.npy"]]
    assert all(torch.equal(steps[0], other) for other in steps)


def test_named_tables_are_those_of_a_public_library() -> None:
    diffusers = pytest.importorskip("diffusers")
    schedules = {"ddpm-linear": "linear", "scaled-linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}
    ends = {"scaled-linear": {"beta_start": 0.00085, "beta_end": 0.012}}
    for name, theirs in schedules.items():
        table = diffusers.DDPMScheduler(1000, beta_schedule=theirs, **ends.get(name, {})).alphas_cumprod
        # a product of up to 1000 factors in single precision
        torch.testing.assert_close(NAMED[name]().float(), table, rtol=1000 * EPSILON[torch.float32], atol=0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (torch.linspace(1e-4, 0.02, 10), "betas"),
        (torch.ones(1), "shape"),
        (torch.linspace(2.0, 0.1, 5), "other numbers"),
        ("dppm-linear", "ddpm-linear"),
        ("missing.npy", "does not exist"),
        (3.0, "float"),
    ],
)
def test_what_is_no_table_is_refused(table: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        wrap_module(nn.Identity(), field=TEACHER.field, process="vp", timestep=table)


def test_levels_outside_the_schedule_are_refused() -> None:
    x, _, context = inputs()
    student = wrap_module(ideal("vp", "noise", NAMED["cosine"]()), field=TEACHER.field, process="vp", timestep="cosine")
    low, high = student.sigma_range
    for sigma in (0.3 * low, 3 * high):
        with pytest.raises(OracleError, match="not trained at this noise level"):
            student(x, torch.full((3,), sigma), context)
    limited = wrap_module(
        ideal("ve", "noise"), field=TEACHER.field, predicts="noise", sigma_range=(0.5, 2.0), scale=2.0
    )
    assert limited.sigma_range == (1, 4)
    limited(x, torch.full((3,), 3.0), context)
    with pytest.raises(OracleError, match=r"between 0\.5 and 2"):
        limited(x, torch.full((3,), 0.7), context)


def test_continuous_times_give_their_noise_levels() -> None:
    schedule = lambda t: ((-6.9 * t**2).exp(), (1 - (-13.8 * t**2).exp() + 1e-6).sqrt())  # noqa: E731
    sigma = torch.logspace(-2, 2, 9)
    alpha, beta = schedule(continuous_timestep(schedule)(sigma))
    torch.testing.assert_close(beta / alpha, sigma, rtol=1e-9, atol=0)
    with pytest.raises(OracleError, match="not trained"):
        continuous_timestep(schedule)(torch.tensor([1e6]))


def test_scales_that_differ_between_channels_are_refused_with_the_reason() -> None:
    with pytest.raises(SpecError, match="one noise level of the field is several"):
        wrap_module(nn.Identity(), field=st.FieldInfo(dim=1, channels=2), scale=(1.0, 2.0))


class Layered(nn.Module):
    """A convolution in the layout and precision that it is given."""

    def __init__(self, layout: str, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.layout = layout
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular", dtype=torch.float64).to(dtype)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.layout == "no-channels":
            return self.conv(x[:, None])[:, 0]
        return self.conv(x.movedim(-1, 1)).movedim(1, -1) if self.layout == "channels-last" else self.conv(x)


@pytest.mark.parametrize("layout", ["channels-last", "no-channels"])
def test_layouts_are_turned_there_and_back(layout: str) -> None:
    wanted = wrap_module(Layered("channels-first"), field=TEACHER.field)(*inputs())
    assert torch.equal(wrap_module(Layered(layout), field=TEACHER.field, layout=layout)(*inputs()), wanted)


def test_another_layout_is_named_with_the_cure() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x.movedim(1, -1)

    with pytest.raises(ConformanceError, match="layout: channels-last"):
        wrap_module(Last(), field=TEACHER.field)(*inputs())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_modules_of_another_precision_are_called_in_their_own(dtype: torch.dtype) -> None:
    x, sigma, context = inputs()
    score = wrap_module(Layered("channels-first", dtype), field=TEACHER.field)(x, sigma, context)
    assert score.dtype == x.dtype
    exact = wrap_module(Layered("channels-first"), field=TEACHER.field)(x, sigma, context)
    torch.testing.assert_close(score, exact, rtol=8 * torch.finfo(dtype).eps, atol=8 * torch.finfo(dtype).eps)


def test_a_module_that_casts_inside_works_where_it_is_said() -> None:
    class Casts(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x.float()

    x, sigma, context = inputs()
    with pytest.raises(ConformanceError, match="casts: true"):
        wrap_module(Casts(), field=TEACHER.field)(x, sigma, context)
    assert torch.equal(wrap_module(Casts(), field=TEACHER.field, casts=True)(x, sigma, context), x.float().double())


def test_channels_in_another_order_are_put_back() -> None:
    class Weighted(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x * torch.tensor([1.0, 2.0, 3.0])[:, None]

    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    student = wrap_module(Weighted(), field=st.FieldInfo(dim=1, channels=3), channel_order=(2, 0, 1))
    score = student(x, torch.ones(2), Context(Lattice.cubic(5, 1, periodic=True)))
    assert_rounding(score, x * torch.tensor([2.0, 3.0, 1.0])[:, None])


def test_answers_of_public_libraries_are_taken() -> None:
    class Answer:
        def __init__(self, **content: Tensor) -> None:
            self.__dict__.update(content)

    for name in ("sample", "mean"):

        class Told(nn.Module):
            def forward(self, x: Tensor, sigma: Tensor, name: str = name) -> object:
                return Answer(**{name: -x})

        x, sigma, context = inputs()
        assert torch.equal(wrap_module(Told(), field=TEACHER.field)(x, sigma, context), -x)
