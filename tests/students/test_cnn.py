"""Laws of the convolutional student in one to three dimensions, on tori and in open boxes, and a mutant for each."""

from __future__ import annotations

import itertools

import pytest
import torch
from tolerances import TOLERANCE, assert_rounding
from torch import Tensor, nn

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import seeded_initialisation, stream
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.scores.response import jacobian_row, student_score
from sizetransfer.students import convolutions
from sizetransfer.students.cnn import CNNStudent, CNNStudentSpec

SIGMA = 0.3

CASES = list(itertools.product([1, 2, 3], [True, False], [0, 1, 2]))
over_the_zoo = pytest.mark.parametrize(
    ("dim", "periodic", "blocks"), CASES, ids=[f"{d}d-{'torus' if p else 'box'}-{b}-blocks" for d, p, b in CASES]
)
over_domains = pytest.mark.parametrize(
    ("dim", "periodic"),
    list(itertools.product([1, 2, 3], [True, False])),
    ids=[f"{d}d-{'torus' if p else 'box'}" for d in (1, 2, 3) for p in (True, False)],
)


def randomise(student: CNNStudent) -> CNNStudent:
    """Give the output weights, which start at zero, random values."""
    generator = stream("tests", "output")
    with torch.no_grad():
        for parameter in student.output.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return student


def build(
    dim: int = 2,
    *,
    periodic: bool = True,
    blocks: int = 1,
    channels: int = 1,
    condition: str = "given",
    mutant: type[CNNStudent] = CNNStudent,
) -> CNNStudent:
    field = FieldInfo(dim=dim, channels=channels, periodic=periodic, condition_channels=1, sigma_data=1.3)
    spec = CNNStudentSpec(blocks=blocks, width=6, condition=condition)
    with seeded_initialisation("tests", "student"):
        student = mutant(spec, field)
    return randomise(student).double().eval()


def inputs(student: CNNStudent, length: int, batch: int = 2) -> tuple[Tensor, Context]:
    """Random fields and the sublattice as their condition."""
    domain = Lattice.cubic(length, student.field.dim, periodic=student.field.periodic)
    x = torch.randn(batch, student.field.channels, *domain.shape, generator=stream("tests", "x", length))
    sign = (2 * domain.parity() - 1).to(x)
    return x, Context(domain, condition=sign.expand(batch, 1, *domain.shape))


def evaluate(student: CNNStudent, x: Tensor, context: Context) -> Tensor:
    with torch.no_grad():
        return student(x, x.new_full((len(x),), SIGMA), context)


def translated(x: Tensor, step: int) -> Tensor:
    return x.roll((step,) * (x.ndim - 2), tuple(range(2, x.ndim)))


# --- radius -------------------------------------------------------------------------------------------------------


def largest_response_by_distance(student: CNNStudent, radius: int) -> Tensor:
    """Largest absolute Jacobian entry of the score at the central site, by Chebyshev distance, up to radius + 1."""
    x, context = inputs(student, 2 * radius + 4, batch=1)
    site = context.domain.centre()
    row = jacobian_row(student_score(student, SIGMA, context), x, site)[0].abs().amax(0)
    return torch.stack([row[context.domain.shell(site, distance)].max() for distance in range(radius + 2)])


@over_the_zoo
def test_the_radius_is_exactly_twice_the_blocks_plus_two(dim, periodic, blocks):
    student = build(dim, periodic=periodic, blocks=blocks)
    assert student.radius == 2 * blocks + 2
    response = largest_response_by_distance(student, student.radius)
    assert response[-1] == 0
    assert (response[:-1] > 0).all()


class _Normalised(CNNStudent):
    """A mutant whose blocks are normalised over space."""

    def __init__(self, spec, field):
        super().__init__(spec, field)
        self.norms = nn.ModuleList(nn.GroupNorm(1, spec.width) for _ in self.blocks)

    def _network(self, x, noise, context):
        hidden = self.input(convolutions.inputs(x, context, self.field, self.conditions))
        for block, norm in zip(self.blocks, self.norms, strict=True):
            hidden = block(norm(hidden), noise)
        return self.output(hidden)


class _GlobalMean(CNNStudent):
    """A mutant that subtracts the mean of the lattice."""

    def _network(self, x, noise, context):
        return super()._network(x - x.mean(tuple(range(2, x.ndim)), keepdim=True), noise, context)


@pytest.mark.parametrize("mutant", [_Normalised, _GlobalMean])
def test_a_mutant_that_couples_far_sites_breaks_the_radius(mutant):
    student = build(mutant=mutant)
    assert largest_response_by_distance(student, student.radius)[-1] > 0


def test_a_larger_radius_than_promised_is_caught():
    class Wider(CNNStudent):
        def _network(self, x, noise, context):
            return super()._network(x + translated(x, 1), noise, context)

    student = build(mutant=Wider)
    assert largest_response_by_distance(student, student.radius)[-1] > 0


# --- symmetry, batches, sizes -------------------------------------------------------------------------------------


ROUNDING = TOLERANCE["score"][torch.float64]


def equivariance_error(student: CNNStudent, step: int, length: int = 6) -> float:
    """Largest error of the moved field's score, as a share of the largest score."""
    x, context = inputs(student, length)
    score = evaluate(student, x, context)
    moved = evaluate(student, translated(x, step), context)
    return ((moved - translated(score, step)).abs().max() / score.abs().max()).item()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_translations_of_the_torus_commute_with_the_student(dim):
    sighted, blind = build(dim), build(dim, condition="none")
    assert equivariance_error(sighted, 2) < ROUNDING
    assert equivariance_error(blind, 2) < ROUNDING
    # A step along every axis changes the sublattice in odd dimensions only.
    odd = 1 if dim % 2 else 0
    assert equivariance_error(blind, 1) < ROUNDING
    assert (equivariance_error(sighted, 1) > 1e-3) == bool(odd)


def test_one_step_along_one_axis_changes_the_sublattice():
    x, context = inputs(build(), 6)
    for condition, invariant in (("given", False), ("none", True)):
        student = build(condition=condition)
        score = evaluate(student, x, context)
        error = (evaluate(student, x.roll(1, 2), context) - score.roll(1, 2)).abs().max() / score.abs().max()
        assert (error < ROUNDING) == invariant


@over_domains
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_row_alone_is_the_row_of_its_batch(dim, periodic, dtype):
    student = build(dim, periodic=periodic).to(dtype)
    x, context = inputs(student, 5, batch=3)
    x, context = x.to(dtype), context.to(x.to(dtype))
    sigma = torch.tensor([0.1, 0.5, 1.0], dtype=dtype)
    with torch.no_grad():
        together = student(x, sigma, context)
        alone = [student(x[i : i + 1], sigma[i : i + 1], context.rows(slice(i, i + 1))) for i in range(3)]
    assert together.dtype == dtype
    assert_rounding(torch.cat(alone), together)
    assert not torch.allclose(together[0], evaluate(student, x, context)[0], rtol=1e-3)


def test_a_mutant_that_mixes_rows_is_caught():
    class Mixed(CNNStudent):
        def _network(self, x, noise, context):
            return super()._network(x - x.mean(0, keepdim=True), noise, context)

    student = build(mutant=Mixed)
    x, context = inputs(student, 5)
    alone = evaluate(student, x[:1], context.rows(slice(0, 1)))
    assert (alone - evaluate(student, x, context)[:1]).abs().max() > 1e-3


@over_domains
def test_the_interior_does_not_know_the_size(dim, periodic):
    student = build(dim, periodic=periodic, blocks=0)
    (small, context), (large, wide) = inputs(student, 8, 1), inputs(student, 10, 1)
    placed = large.clone()
    shift = slice(2, 10)  # an even offset along every axis
    placed[(slice(None), slice(None), *(shift,) * dim)] = small
    radius = student.radius
    before = evaluate(student, small, context)[(..., *(slice(radius, 8 - radius),) * dim)]
    after = evaluate(student, placed, wide)[(..., *(slice(radius + 2, 10 - radius),) * dim)]
    assert_rounding(after, before)


@pytest.mark.parametrize("blocks", [0, 1])
def test_walls_of_a_box_are_seen_up_to_the_radius(blocks):
    """A field that is zero everywhere looks the same inside and outside; the student still sees where the box ends."""
    student = build(periodic=False, condition="none", blocks=blocks)
    x, context = inputs(student, 12, 1)
    score = evaluate(student, torch.zeros_like(x), context)[0, 0]
    inside = context.domain.bulk(student.radius)
    assert_rounding(score[inside], score[6, 6].expand(int(inside.sum())))
    for distance in range(1, student.radius + 1):
        assert (score[context.domain.wall_distance() == distance] - score[6, 6]).abs().min() > 1e-9


# --- masks --------------------------------------------------------------------------------------------------------


@over_domains
@pytest.mark.parametrize("channels", [1, 2])
def test_dead_sites_are_neither_seen_nor_scored(dim, periodic, channels):
    student = build(dim, periodic=periodic, channels=channels)
    x, context = inputs(student, 5)
    live = torch.rand(2, 1, *x.shape[2:], generator=stream("tests", "mask")) < 0.6
    masked = Context(context.domain, context.condition, live)
    score = evaluate(student, x, masked)
    dead = ~live.expand_as(x)
    assert (score[dead] == 0).all()
    assert (score[~dead] != 0).all()
    assert torch.equal(evaluate(student, torch.where(dead, 7.0, x), masked), score)
    assert not torch.equal(evaluate(student, x, context)[~dead], score[~dead])


# --- the form of the score ----------------------------------------------------------------------------------------


@over_the_zoo
def test_a_new_student_is_the_score_of_white_noise(dim, periodic, blocks):
    field = FieldInfo(dim=dim, periodic=periodic, condition_channels=1, sigma_data=1.3)
    student = CNNStudentSpec(blocks=blocks, width=6).build(field).double()
    x, context = inputs(student, 5)
    expected = -x / (SIGMA**2 + 1.3**2)
    assert_rounding(evaluate(student, x, context), expected)


@over_domains
def test_inputs_are_left_alone(dim, periodic):
    student = build(dim, periodic=periodic)
    x, context = inputs(student, 5)
    live = torch.ones(2, 1, *x.shape[2:], dtype=torch.bool)
    live[0, 0, 0] = False
    context = Context(context.domain, context.condition.clone(), live)
    sigma = torch.tensor([0.2, 0.4])
    kept = [value.clone() for value in (x, context.condition, live, sigma)]
    state = {name: value.clone() for name, value in student.state_dict().items()}
    student(x, sigma, context).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(kept, (x, context.condition, live, sigma), strict=True))
    assert all(torch.equal(value, state[name]) for name, value in student.state_dict().items())


def silent_parameters(student: CNNStudent) -> set[str]:
    """Parameters of which the gradient of a loss does not reach every output channel."""
    x, context = inputs(student, 5)
    student(x, torch.tensor([0.2, 0.4]), context).square().sum().backward()

    def reached(value: Tensor) -> bool:
        return value.grad is not None and bool(
            value.grad.flatten(1).any(1).all() if value.ndim > 1 else value.grad.all()
        )

    return {name for name, value in student.named_parameters() if not reached(value)}


@over_the_zoo
def test_the_gradient_reaches_every_parameter(dim, periodic, blocks):
    assert silent_parameters(build(dim, periodic=periodic, blocks=blocks)) == set()


def test_a_cut_gradient_is_caught():
    class Cut(CNNStudent):
        def _network(self, x, noise, context):
            return super()._network(x, noise.detach(), context)

    assert silent_parameters(build(mutant=Cut)) == {"embedding.network.0.weight", "embedding.network.0.bias"}


def test_the_noise_level_is_seen_beyond_the_preconditioning():
    student = build()
    x, context = inputs(student, 6)
    scaled = []
    for sigma in (0.1, 0.9):
        t = (sigma**2 + 1.3**2) ** 0.5
        score = student(x * t, x.new_full((2,), sigma), context)
        scaled.append(score * t + x)
    assert (scaled[0] - scaled[1]).abs().max() > 1e-3


def test_a_condition_is_seen_only_if_given():
    x, context = inputs(build(), 6)
    flipped = Context(context.domain, -context.condition)
    assert not torch.allclose(evaluate(build(), x, flipped), evaluate(build(), x, context))
    blind = build(condition="none")
    assert torch.equal(evaluate(blind, x, flipped), evaluate(blind, x, context))
    assert torch.equal(evaluate(blind, x, Context(context.domain)), evaluate(blind, x, context))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_torus_smaller_than_a_kernel_is_its_own_neighbour(dim):
    """On two sites to a side the score is that of the field repeated around the torus."""
    student = build(dim)
    x, context = inputs(student, 2, 1)
    repeated, wide = x.repeat(1, 1, *(4,) * dim), inputs(student, 8, 1)[1]
    first = (..., *(slice(0, 2),) * dim)
    assert_rounding(evaluate(student, repeated, wide)[first], evaluate(student, x, context))


@pytest.mark.parametrize("field", [{"blocks": -1}, {"width": 0}, {"condition": "sublattice"}, {"noise_frequencies": 0}])
def test_specifications_out_of_range_are_refused(field):
    with pytest.raises(SpecError, match="wrong field"):
        CNNStudentSpec.parse(field)


@pytest.mark.parametrize("channels", [None, 2])
def test_a_context_without_the_condition_is_refused_by_name(channels):
    student = build()
    x, context = inputs(student, 6)
    condition = None if channels is None else context.condition.expand(-1, channels, *context.domain.shape)
    with pytest.raises(OracleError, match="1 channels"):
        student(x, x.new_ones(len(x)), Context(context.domain, condition))


def test_dimensions_without_a_convolution_are_refused():
    with pytest.raises(SpecError, match="one to three dimensions"):
        CNNStudentSpec().build(FieldInfo(dim=4))
