"""Laws of the field given ports and types, over a zoo: inverse, Jacobian, density, score, locality."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hard_valid_zoo import ZOO, build, sample, spec
from tolerances import assert_rounding
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.randomness import stream
from sizetransfer.numerics.layers import power_law_kernel
from sizetransfer.systems.hard_valid import HardValidTeacher, ValidPorts, ValidState, library
from sizetransfer.systems.hard_valid.field import ConditionalCoupling, Given, LocalNetwork, OccupiedSmoother

# Relative errors that rounding explains, by dtype.
INVERSE_TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
SCORE_TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4}
DTYPES = [torch.float64, torch.float32]
over_the_zoo = pytest.mark.parametrize("name", ZOO)


def relative(error: Tensor, reference: Tensor) -> float:
    return (error.norm() / reference.norm()).item()


# --- inverse and log-determinant ----------------------------------------------------------------------------------


def inverse_error(teacher: HardValidTeacher) -> float:
    fields = sample(teacher)
    state = teacher.state(fields)
    z, _ = teacher.to_latent(fields)
    x, _ = teacher.from_latent(z, state)
    back, _ = teacher.to_latent(fields.with_x(x))
    return max(relative(x - fields.x, fields.x), relative(back - z, z))


@over_the_zoo
@pytest.mark.parametrize("dtype", DTYPES)
def test_latent_fields_and_fields_determine_each_other(name, dtype):
    assert inverse_error(build(name, dtype)) < INVERSE_TOLERANCE[dtype]


def log_det_error(teacher: HardValidTeacher, size: int) -> float:
    """Against the full Jacobian on the occupied sites, forwards and backwards, over the fields of a batch."""
    fields, errors = sample(teacher, size, 2), []
    latent, backward = teacher.to_latent(fields)
    given = teacher.field_law.given(teacher.state(fields))
    _, forward = teacher.field_law(latent, given)
    for row, z in enumerate(latent):
        one = given.rows(slice(row, row + 1))
        jacobian = torch.autograd.functional.jacobian(lambda z, one=one: teacher.field_law(z[None], one)[0][0], z)
        live = one.live[0].bool().expand_as(z).flatten()
        matrix = jacobian.reshape(z.numel(), z.numel())[live][:, live]
        exact = torch.linalg.slogdet(matrix).logabsdet
        errors += [abs(forward[row] - exact), abs(backward[row] - exact)]
    return max(errors).item()


@over_the_zoo
def test_the_log_determinant_is_that_of_the_full_jacobian_on_occupied_sites(name):
    assert log_det_error(build(name), 4) < 1e-11


class WithoutDeterminant(ConditionalCoupling):
    """Forgets the log-determinant of half of its sites."""

    def inverse(self, y, given):
        x, log_det = super().inverse(y, given)
        return x, 0.5 * log_det


class WithScaleOnly(ConditionalCoupling):
    """Undoes the scale before the shift."""

    def inverse(self, y, given):
        scale, shift = self._scale_and_shift(y, given)
        return y * (-scale).exp() - shift, scale.flatten(1).sum(1)


class SelfSeeing(OccupiedSmoother):
    """A smoother that sees the sublattice that it updates: its log-determinant is not zero."""

    def _update(self, x, given):
        return self.gain * torch.tanh(x) * given.live


def changed(name: str, layer: type) -> HardValidTeacher:
    """A teacher whose layers of the base class behave as those of the broken one."""
    teacher = spec(name).build().double()
    for module in teacher.field_law.layers:
        if isinstance(module, layer.__mro__[1]):
            module.__class__ = layer
    return teacher


def test_wrong_determinants_and_inverses_are_caught():
    assert log_det_error(changed("local", WithoutDeterminant), 4) > 0.01
    assert inverse_error(changed("local", WithScaleOnly)) > 1e-3
    assert log_det_error(changed("linear smoother", SelfSeeing), 2) > 0.1


@pytest.mark.parametrize("correction", [False, True])
def test_a_smoother_alone_has_no_log_determinant(correction):
    teacher = spec("medium", flow_depth=0, correction=0.5 if correction else 0.0).build().double()
    fields = sample(teacher)
    assert torch.equal(teacher.to_latent(fields)[1], torch.zeros(2))
    assert log_det_error(teacher, 4) < 1e-12


# --- layers -------------------------------------------------------------------------------------------------------


def random_weights() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(3))


@pytest.mark.parametrize(("channels", "outputs"), [(1, 2), (2, 4), (3, 1)])
def test_the_network_is_two_convolutions(channels, outputs):
    network = LocalNetwork(
        random_weights(), channels=channels, outputs=outputs, width=5, embedding=4, gain=0.3
    ).double()
    x = torch.randn(2, channels, 3, 4, 5, generator=stream(0))
    embedding = torch.randn(2, 4, 3, 4, 5, generator=stream(1))
    inner = network.inner[:, : 27 * channels].reshape(5, 3, 3, 3, channels).movedim(-1, 1)
    outer = network.outer.reshape(3, 3, 3, outputs, 5).permute(3, 4, 0, 1, 2)
    site_by_site = F.conv3d(embedding, network.inner[:, 27 * channels :, None, None, None])
    expected = 0.3 * F.conv3d(torch.tanh(F.conv3d(x, inner, padding=1) + site_by_site), outer, padding=1)
    torch.testing.assert_close(network(x, embedding), expected, rtol=1e-12, atol=1e-13)
    mirrored = 0.3 * F.conv3d(torch.tanh(F.conv3d(x, inner.flip(2), padding=1) + site_by_site), outer, padding=1)
    assert relative(network(x, embedding) - mirrored, mirrored) > 0.01


def test_the_smoother_averages_the_occupied_sites_of_the_other_sublattice():
    """Against the definition, site by site."""
    live = (torch.rand(1, 1, 4, 6, 4, generator=stream(2)) < 0.3).double()
    x = torch.randn(1, 1, 4, 6, 4, generator=stream(3)) * live
    given = Given(live, torch.zeros(1, 1, 4, 6, 4), power_law_kernel(3, 1.5, 3)[None, None].double())
    smoother = OccupiedSmoother(parity=1, gain=0.7, nonlinear=True, correction=None)
    result, log_det = smoother(x, given)
    lattice = Lattice((4, 6, 4), periodic=False)
    expected, parity = x.clone(), lattice.parity()
    for site in (live[0, 0] > 0).nonzero().tolist():
        distance = lattice.distance(tuple(site), "euclidean")
        others = (live[0, 0] > 0) & (parity == 0) & (distance <= 3)
        if parity[tuple(site)] == 1 and others.any():
            weights = distance[others] ** -1.5
            expected[0, 0, *site] += 0.7 * torch.tanh((weights * x[0, 0][others]).sum() / weights.sum())
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(result, x)
    assert log_det.item() == 0


def test_a_lonely_site_is_left_as_it_is():
    live = torch.zeros(1, 1, 6, 6, 6)
    live[0, 0, 0, 0, 0] = live[0, 0, 5, 5, 4] = 1
    given = Given(live, torch.zeros(1, 1, 6, 6, 6), power_law_kernel(1, 1.0, 3)[None, None].double())
    x = live * 3
    for parity in (0, 1):
        result, _ = OccupiedSmoother(parity=parity, gain=1.0, nonlinear=True, correction=None)(x, given)
        assert torch.equal(result, x)


# --- density and score --------------------------------------------------------------------------------------------


def integral(teacher: HardValidTeacher) -> float:
    """Of the density of the two fields of a box with a single edge, by the trapezoidal rule, which is exact here."""
    codes = library(2).patterns[library(2).classes == 1][4].reshape(2, 2, 2)
    types = torch.where(codes != 0, 1 + codes % 2, 0)
    line = torch.linspace(-9, 9, 121)
    points = torch.cartesian_prod(line, line)
    x = torch.zeros(len(points), 1, 2, 2, 2)
    x[:, 0, *(codes != 0).nonzero().T] = points
    labels = {"ports": codes.expand(len(points), 2, 2, 2), "types": types.expand(len(points), 2, 2, 2)}
    state = ValidState(ValidPorts(labels["ports"]), labels["types"], teacher.spec.types)
    density = teacher.log_density(Sample(x, teacher.context(state), labels)).exp()
    return (density.sum() * (line[1] - line[0]) ** 2).item()


@pytest.mark.parametrize("name", ["local", "before, correction", "two types, one theme", "white"])
def test_the_density_given_ports_and_types_integrates_to_one(name):
    assert integral(build(name)) == pytest.approx(1, abs=1e-6)


def test_a_density_without_its_determinant_does_not_integrate_to_one():
    assert abs(integral(changed("local", WithoutDeterminant)) - 1) > 1e-3


def observed_order(teacher: HardValidTeacher) -> float:
    """Slope of the error of central differences in the step, ports and types being fixed, both in logarithms."""
    fields = sample(teacher, 4, 8, "order")
    score = teacher.score(fields)
    direction = torch.randn(fields.x.shape, generator=stream("tests", "directions")) * fields.context.mask
    slope = (score * direction).flatten(1).sum(1)
    steps = torch.logspace(-2.2, -1.2, 6)

    def difference(step: Tensor) -> Tensor:
        ends = [teacher.log_density(fields.with_x(fields.x + sign * step * direction)) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * step)

    errors = torch.stack([(difference(step) - slope).norm() for step in steps])
    centred = steps.log() - steps.log().mean()
    return ((centred * errors.log()).sum() / centred.square().sum()).item()


NONLINEAR = [name for name in ZOO if name not in ("linear smoother", "white")]


@pytest.mark.parametrize("name", NONLINEAR)
def test_the_score_is_the_gradient_of_the_density_to_second_order_in_the_step(name):
    assert 1.8 < observed_order(build(name)) < 2.2


class Louder(HardValidTeacher):
    """A score that is five per cent too large."""

    def score(self, sample):
        return 1.05 * super().score(sample)


def test_a_wrong_score_has_no_order():
    assert observed_order(Louder(spec("medium")).double()) < 0.5


def test_the_score_of_a_linear_field_is_minus_its_precision_times_the_field():
    teacher = build("linear smoother")
    fields = sample(teacher, 4, 1)
    given = teacher.field_law.given(teacher.state(fields))
    live = given.live.flatten().bool()
    jacobian = torch.autograd.functional.jacobian(lambda z: teacher.field_law(z, given)[0], torch.zeros_like(fields.x))
    jacobian = jacobian.reshape(64, 64)[live][:, live]
    expected = -torch.linalg.solve(jacobian @ jacobian.T, fields.x.flatten()[live])
    torch.testing.assert_close(teacher.score(fields).flatten()[live], expected, rtol=1e-6, atol=1e-6)


@over_the_zoo
def test_samples_and_scores_are_exactly_zero_on_empty_sites(name):
    fields = sample(build(name), 4, 3)
    empty = ~fields.context.mask.expand_as(fields.x)
    score = build(name).score(fields)
    assert (fields.x[empty] == 0).all()
    assert (score[empty] == 0).all()
    assert (fields.x[~empty] != 0).all()
    assert (score[~empty] != 0).all()


@over_the_zoo
def test_single_and_double_precision_agree(name):
    double, single = build(name), build(name, torch.float32)
    fields = sample(double, 4, 3)
    exact, rounded = double.score(fields), single.score(fields.with_x(fields.x.float()))
    assert rounded.dtype == torch.float32
    assert relative(rounded.double() - exact, exact) < SCORE_TOLERANCE[torch.float32]
    density = single.log_density(fields.with_x(fields.x.float()))
    assert relative(density.double() - double.log_density(fields), double.log_density(fields)) < 1e-5


def test_the_score_is_differentiable_where_asked_and_leaves_no_graph_elsewhere():
    teacher = build("medium")
    fields = sample(teacher)
    before = fields.x.clone()
    assert not teacher.score(fields).requires_grad
    assert teacher.score(fields.with_x(fields.x.clone().requires_grad_())).requires_grad
    assert torch.equal(fields.x, before)
    assert fields.x.grad is None
    assert not teacher.log_density(fields).requires_grad


def test_the_density_of_white_noise_is_that_of_the_occupied_sites():
    teacher = build("white")
    fields = sample(teacher)
    live = fields.context.mask.flatten(1).sum(1)
    expected = -0.5 * fields.x.square().flatten(1).sum(1) - 0.5 * math.log(2 * math.pi) * live
    torch.testing.assert_close(teacher.log_density(fields), expected)
    torch.testing.assert_close(teacher.score(fields), -fields.x)


# --- one rule at every size, blocks that move ---------------------------------------------------------------------


def placed(fields: Sample, teacher: HardValidTeacher, size: int, corner: tuple[int, int, int]) -> Sample:
    """The fields with their ports and types inside a larger empty box."""
    inner = tuple(slice(start, start + fields.x.shape[-1]) for start in corner)

    def put(values: Tensor) -> Tensor:
        result = values.new_zeros(*values.shape[:-3], *(size,) * 3)
        result[..., *inner] = values
        return result

    labels = {name: put(label) for name, label in fields.labels.items()}
    state = ValidState(ValidPorts(labels["ports"]), labels["types"], teacher.spec.types)
    return Sample(put(fields.x), teacher.context(state), labels)


def densities(function: Callable[[HardValidTeacher, Sample], Tensor], name: str, *places: tuple) -> list[Tensor]:
    teacher = build(name)
    fields = sample(teacher, 4, 2, "placed")
    return [function(teacher, placed(fields, teacher, size, corner)) for size, corner in places]


PLACES = [(12, (4, 4, 4)), (12, (4, 6, 4)), (18, (6, 8, 10)), (12, (4, 5, 4)), (12, (0, 4, 4))]


@pytest.mark.parametrize("name", ["local", "medium", "before, correction"])
def test_the_field_does_not_know_the_box_or_even_translations_but_sublattice_and_walls(name):
    first, even, larger, odd, at_the_wall = densities(lambda t, f: t.log_density(f), name, *PLACES)
    assert_rounding(even, first, "density")
    assert_rounding(larger, first, "density")
    assert relative(odd - first, first) > 1e-6
    assert relative(at_the_wall - first, first) > 1e-6


def test_ports_and_types_do_not_know_the_box_or_translations_by_two_blocks():
    ports = densities(lambda t, f: t.log_probability_ports(f), "local", (12, (4, 4, 4)), (12, (2, 4, 8)))
    torch.testing.assert_close(ports[0], ports[1])
    places = [(12, (4, 4, 4)), (12, (4, 8, 0)), (20, (8, 8, 12)), (12, (6, 4, 4))]
    types = densities(lambda t, f: t.log_probability_types(f), "local", *places)
    torch.testing.assert_close(types[0], types[1])
    torch.testing.assert_close(types[0], types[2])
    assert relative(types[3] - types[0], types[0]) > 1e-3


def reach(name: str, **changes: object) -> int:
    """Largest Chebyshev distance at which the score of a site answers to another."""
    teacher = spec(name, **changes).build().double()
    fields = sample(teacher, 12, 1, "reach")
    site = tuple(fields.context.mask[0, 0, 4:8, 4:8, 4:8].nonzero()[0].add(4).tolist())
    x = fields.x.clone().requires_grad_()
    (row,) = torch.autograd.grad(teacher.score(fields.with_x(x))[0, 0, *site], x)
    return int(fields.context.domain.distance(site)[row[0, 0] != 0].max())


def test_the_response_ends_where_the_layers_do():
    alone = {"flow_depth": 0, "smoother_depth": 1}
    # There and back again: twice the cutoff of one layer.
    assert reach("local", **alone) <= 2
    assert 2 < reach("medium", **alone) <= 6
    assert reach("local", flow_depth=1, smoother_depth=0) <= 8
