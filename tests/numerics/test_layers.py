"""Laws of invertible layers, over a zoo of layers in one to three dimensions, on tori and in open boxes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from tolerances import assert_rounding
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError
from sizetransfer.numerics.layers import (
    AdditiveSmoother,
    AffineCoupling,
    ExactBuffer,
    Layer,
    MeanMode,
    SymmetricConvolution,
    power_law_kernel,
    sublattice,
)
from sizetransfer.systems.flow.teacher import FlowTeacherSpec
from sizetransfer.systems.hard_valid import HardValidTeacherSpec

# Relative errors that rounding explains, by dtype; the layers below amplify it less than tenfold.
INVERSE_TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}
LOG_DET_TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
DTYPES = [torch.float64, torch.float32]


def coupling(dim: int, parity: int = 0, *, periodic: bool = True, channels: int = 1, clip: float = 1.0) -> Layer:
    random = np.random.Generator(np.random.PCG64(7))
    return AffineCoupling(
        random, parity=parity, clip=clip, dim=dim, channels=channels, width=8, gain=0.7, periodic=periodic
    )


def smoother(dim: int, parity: int = 0, *, cutoff: int = 2, nonlinear: bool = True, periodic: bool = True) -> Layer:
    return AdditiveSmoother(
        parity=parity, cutoff=cutoff, power=1.0, gain=1.2, nonlinear=nonlinear, dim=dim, periodic=periodic
    )


def mean_mode(strength: float = 4.0, exponent: float = 1.0) -> Layer:
    return MeanMode(strength=strength, exponent=exponent, reference_size=16)


# name: (layer, shape of the field)
ZOO: dict[str, tuple[Callable[[], Layer], tuple[int, ...]]] = {
    "coupling, 1d torus": (lambda: coupling(1), (1, 6)),
    "coupling, torus, even sublattice": (lambda: coupling(2), (1, 4, 4)),
    "coupling, torus, odd sublattice": (lambda: coupling(2, 1), (1, 4, 4)),
    "coupling, torus, two channels": (lambda: coupling(2, channels=2), (2, 4, 4)),
    "coupling, torus, tight clip": (lambda: coupling(2, clip=0.05), (1, 4, 4)),
    "coupling, open box": (lambda: coupling(2, periodic=False), (1, 4, 4)),
    "coupling, odd open box": (lambda: coupling(2, periodic=False), (1, 3, 5)),
    "coupling, 3d torus": (lambda: coupling(3), (1, 4, 4, 2)),
    "coupling, 3d open box": (lambda: coupling(3, 1, periodic=False, channels=2), (2, 3, 2, 3)),
    "smoother, 1d torus": (lambda: smoother(1, cutoff=1), (1, 8)),
    "smoother, torus": (lambda: smoother(2), (1, 4, 4)),
    "smoother, torus, odd sublattice": (lambda: smoother(2, 1), (1, 4, 4)),
    "smoother, torus, linear": (lambda: smoother(2, nonlinear=False), (1, 4, 4)),
    "smoother, torus, cutoff beyond the lattice": (lambda: smoother(2, cutoff=9), (1, 4, 4)),
    "smoother, open box, two channels": (lambda: smoother(2, periodic=False), (2, 4, 4)),
    "smoother, 3d torus": (lambda: smoother(3, cutoff=3), (1, 4, 2, 4)),
    "smoother, 3d open box": (lambda: smoother(3, periodic=False), (1, 3, 2, 3)),
    "mean mode, torus": (mean_mode, (1, 4, 4)),
    "mean mode, two channels": (lambda: mean_mode(exponent=2.0), (2, 4, 4)),
    "mean mode, negative": (lambda: mean_mode(-0.9, 0.5), (1, 4, 4)),
    "mean mode, 3d": (mean_mode, (1, 2, 3, 4)),
}
over_the_zoo = pytest.mark.parametrize("name", ZOO)


def build(name: str, dtype: torch.dtype = torch.float64, batch: int = 2) -> tuple[Layer, Tensor]:
    make, shape = ZOO[name]
    x = torch.randn(batch, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return make().to(dtype), x


def relative(error: Tensor, reference: Tensor) -> float:
    return (error.norm() / reference.norm()).item()


def log_determinant(layer: Layer, x: Tensor) -> float:
    """Of the full Jacobian at one field, shape ``C *S``."""
    jacobian = torch.autograd.functional.jacobian(lambda field: layer(field[None])[0][0], x)
    return torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet.item()


def inverse_error(layer: Layer, x: Tensor) -> float:
    y, _ = layer(x)
    back, _ = layer.inverse(y)
    forth, _ = layer(layer.inverse(x)[0])
    return max(relative(back - x, x), relative(forth - x, x))


def log_det_errors(layer: Layer, x: Tensor) -> list[float]:
    """Of forward and inverse, against the full Jacobian, for every row of the batch."""
    y, forward = layer(x)
    _, inverse = layer.inverse(y)
    exact = torch.tensor([log_determinant(layer, row) for row in x])
    errors = [(log_det.double() - exact).abs() / exact.abs().clamp_min(1.0) for log_det in (forward, inverse)]
    return torch.cat(errors).tolist()


@over_the_zoo
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_inverse_undoes_the_layer(name, dtype):
    layer, x = build(name, dtype)
    assert layer(x)[0].dtype == dtype
    assert inverse_error(layer, x) < INVERSE_TOLERANCE[dtype]


@over_the_zoo
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_log_determinant_is_that_of_the_full_jacobian(name, dtype):
    layer, x = build(name, dtype)
    assert max(log_det_errors(layer, x)) < LOG_DET_TOLERANCE[dtype]


@over_the_zoo
def test_the_layer_moves_the_field_and_leaves_its_input_alone(name):
    layer, x = build(name)
    before = x.clone()
    y, log_det = layer(x)
    layer.inverse(x)
    assert torch.equal(x, before)
    assert relative(y - x, x) > 1e-3
    assert log_det.shape == (2,)


@over_the_zoo
def test_rows_of_a_batch_do_not_mix(name):
    layer, x = build(name)
    rows = [layer(row[None]) for row in x]
    y, log_det = layer(x)
    assert_rounding(torch.cat([row for row, _ in rows]), y)
    assert_rounding(torch.cat([row for _, row in rows]), log_det, "density")


@pytest.mark.parametrize("name", [name for name in ZOO if "mean" not in name])
def test_only_one_sublattice_is_updated_from_the_other(name):
    layer, x = build(name)
    updated = sublattice(x, layer.parity).bool().expand_as(x)
    y, _ = layer(x)
    assert torch.equal(y[~updated], x[~updated])
    # What is added to, or multiplies, a site of A does not depend on the other sites of A.
    moved = torch.where(updated, x + 1, x)
    again, log_det = layer(moved)
    scale = (again - y)[updated]
    assert (scale > 0).all()
    torch.testing.assert_close(scale.log().sum(), log_det.sum(), rtol=1e-9, atol=1e-9)


class WrongSign(AffineCoupling):
    """The inverse forgets to undo the scale."""

    def inverse(self, y):
        scale, shift = self._scale_and_shift(y)
        return (y - shift) * scale.exp(), scale.flatten(1).sum(1)


class SelfCoupling(AdditiveSmoother):
    """The smoother sees the sites that it updates."""

    def _update(self, x):
        kernel = self.kernel()
        return self.gain * SymmetricConvolution.apply(x, kernel[None, None], self.periodic) * sublattice(x, self.parity)


class ForgottenChannels(MeanMode):
    """The log-determinant of one channel, whatever their number."""

    def _log_det(self, x, amplitude):
        return x.new_full((x.shape[0],), math.log1p(amplitude))


def test_broken_layers_are_caught():
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    random = np.random.Generator(np.random.PCG64(7))
    options = {"parity": 0, "dim": 2, "periodic": True}
    wrong_sign = WrongSign(random, **options, clip=1.0, channels=1, width=8, gain=0.7).double()
    assert inverse_error(wrong_sign, x[:, :1]) > 1e-3
    kernel = torch.full((3, 3), 1 / 9.0)
    self_coupling = SelfCoupling(**options, cutoff=1, power=1.0, gain=1.2, nonlinear=False).double()
    self_coupling.kernel = ExactBuffer(kernel).double()
    assert inverse_error(self_coupling, x[:, :1]) > 1e-3
    assert max(log_det_errors(self_coupling, x[:, :1])) > 1e-3
    forgotten = ForgottenChannels(strength=4.0, exponent=1.0, reference_size=16)
    assert inverse_error(forgotten, x) < 1e-12
    assert max(log_det_errors(forgotten, x)) > 1e-1


# --- the symmetric convolution ------------------------------------------------------------------------------------


@pytest.mark.parametrize("periodic", [True, False], ids=["torus", "box"])
@pytest.mark.parametrize(("size", "cutoff"), [((7,), 2), ((6, 4), 1), ((4, 4), 5), ((3, 2, 4), 2)], ids=str)
def test_the_symmetric_convolution_is_its_definition(size, cutoff, periodic):
    kernel = power_law_kernel(cutoff, 1.0, len(size)).double()
    lattice = Lattice(size, periodic)
    x = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(3))
    expected = torch.zeros_like(x)
    for step in (kernel > 0).nonzero().tolist():
        for site in torch.ones(size).nonzero().tolist():
            target = [a + b - cutoff for a, b in zip(site, step, strict=True)]
            if periodic:
                target = [a % n for a, n in zip(target, size, strict=True)]
            if all(0 <= a < n for a, n in zip(target, size, strict=True)):
                expected[(slice(None), 0, *site)] += kernel[tuple(step)] * x[(slice(None), 0, *target)]
    result = SymmetricConvolution.apply(x, kernel[None, None], lattice.periodic)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("periodic", [True, False], ids=["torus", "box"])
@pytest.mark.parametrize(("size", "cutoff"), [((5,), 2), ((4, 4), 5), ((3, 2, 2), 1)], ids=str)
def test_the_backward_pass_of_the_symmetric_convolution_is_its_gradient_twice_over(size, cutoff, periodic):
    kernel = power_law_kernel(cutoff, 1.0, len(size)).double()[None, None]
    x = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda field: SymmetricConvolution.apply(field, kernel, periodic), x)
    cube = lambda field: SymmetricConvolution.apply(field**3, kernel, periodic)  # noqa: E731
    assert torch.autograd.gradgradcheck(cube, x)


def test_a_kernel_that_is_not_even_breaks_the_symmetric_backward_pass():
    kernel = power_law_kernel(1, 1.0, 2).double()
    kernel[0, 1] *= 2
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(5)).requires_grad_()
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(lambda field: SymmetricConvolution.apply(field, kernel[None, None], True), x)


# --- kernels and amplitudes by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("cutoff", [1, 2, 5])
@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_kernel_weights_follow_the_power_law(dim, cutoff, power):
    kernel = power_law_kernel(cutoff, power, dim)
    assert kernel.dtype == torch.float64
    weights = {}
    for place in torch.ones(kernel.shape).nonzero().tolist():
        step = [a - cutoff for a in place]
        distance = math.sqrt(sum(a * a for a in step))
        if sum(step) % 2 and distance <= cutoff:
            weights[tuple(place)] = distance**-power
    total = sum(weights.values())
    expected = torch.zeros(kernel.shape)
    for place, weight in weights.items():
        expected[place] = weight / total
    torch.testing.assert_close(kernel, expected, rtol=1e-14, atol=1e-16)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_kernel_is_rounded_once_to_the_precision_of_its_layer(dtype):
    """Also in a layer that was in another precision before."""
    smoother = AdditiveSmoother(parity=0, cutoff=3, power=1.0, gain=1.0, nonlinear=False, dim=2, periodic=True)
    exact = power_law_kernel(3, 1.0, 2)
    for layer in (smoother, smoother.double().float().to(dtype)):
        layer.to(dtype)
        assert layer.kernel().dtype == dtype
        assert torch.equal(layer.kernel(), exact.to(dtype))


@pytest.mark.parametrize("kind", ["flow", "hard-valid"])
def test_kernels_of_teachers_in_double_precision_are_those_of_double_precision(kind):
    smoothers = {"flow": FlowTeacherSpec(smoother_depth=1, cutoff=3), "hard-valid": HardValidTeacherSpec(cutoff=3)}
    teacher = smoothers[kind].build().double()
    kernels = [module() for module in teacher.modules() if isinstance(module, ExactBuffer)]
    assert len(kernels) == 1
    dim = kernels[0].squeeze().ndim
    assert torch.equal(kernels[0].squeeze(), power_law_kernel(3, smoothers[kind].power, dim))
    assert not torch.equal(kernels[0], kernels[0].float().double())


@pytest.mark.parametrize(
    ("size", "exponent", "expected"),
    [((16, 16), 1.0, 4.0), ((64, 64), 1.0, 16.0), ((64, 64), 2.0, 64.0), ((64, 64), 0.0, 4.0), ((4, 16), 1.0, 2.0)],
)
def test_the_mean_mode_grows_with_the_lattice_by_its_power(size, exponent, expected):
    layer = mean_mode(exponent=exponent)
    assert layer.amplitude(size) == pytest.approx(expected, rel=1e-14)
    x = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(6))
    y, log_det = layer(x)
    torch.testing.assert_close(y - x, (expected * x.mean()).expand_as(x), rtol=1e-12, atol=1e-12)
    assert log_det.item() == pytest.approx(math.log(1 + expected), rel=1e-14)


def test_a_mean_mode_that_is_not_invertible_is_refused():
    layer = mean_mode(-0.9)
    layer(torch.ones(1, 1, 16, 16))
    with pytest.raises(OracleError, match="not invertible") as caught:
        layer(torch.ones(1, 1, 32, 32))
    assert caught.value.got == "-1.8"


def test_a_coupling_bounds_its_log_scale():
    layer = coupling(2, clip=0.05).double()
    x = 100 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(7))
    shifted, _ = layer(x + sublattice(x, 0))
    scale = (shifted - layer(x)[0])[sublattice(x, 0).bool()].log()
    assert scale.abs().max() <= 0.05 * (1 + 1e-9)
    assert scale.abs().max() > 0.049
