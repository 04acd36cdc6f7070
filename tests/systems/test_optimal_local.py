"""The best local score against dense linear algebra: the optimum of its radius, with an error that falls to nothing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from dense_gaussian import best_local, graph_precision, jacobian, lattice_precision, noisy_covariance
from tolerances import assert_rounding

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context, Teacher
from sizetransfer.scores.references import best_filter
from sizetransfer.systems.gaussian import student as optimal_local

TOLERANCE = 1e-10
THREE = ((2.0, 0.5, -0.3), (0.5, 1.0, 0.2), (-0.3, 0.2, 1.5))
TREE = [[0, 1], [2, 0], [1, 3], [1, 4], [4, 5], [5, 6], [6, 0]]
SIGMA = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
# Fields of the teacher, fields that the student needs, size, radius; the last but one ball goes around the torus.
CASES = {
    "ring": ({"dim": 1, "mass": 0.3}, {"mass": 0.3}, 9, 2),
    "site-alone": ({"dim": 2, "mass": 0.3}, {"mass": 0.3}, 4, 0),
    "plane": ({"dim": 2, "mass": 0.3}, {"mass": 0.3}, 6, 2),
    "channels": ({"dim": 2, "channels": 3, "coupling": THREE}, {"mass": 0.5, "coupling": THREE}, 5, 1),
    "volume": ({"dim": 3, "mass": 0.3}, {"mass": 0.3}, 4, 1),
    "crystal": ({"preset": "harmonic-crystal"}, {"preset": "harmonic-crystal"}, 5, 1),
    "around-the-torus": ({"dim": 2, "mass": 0.3}, {"mass": 0.3}, 4, 3),
    "graph": ({"edges": TREE, "channels": 3, "coupling": THREE}, {"mass": 0.5, "coupling": THREE}, 7, 1),
}


def build(fields: dict) -> Teacher:
    return st.teacher("gaussian-graph" if "edges" in fields else "gaussian", **fields).double()


def dense(teacher, size: int) -> torch.Tensor:
    spec = teacher.spec
    coupling = spec.channel_matrix(spec.channels)
    if spec.kind == "gaussian-graph":
        return graph_precision(size, spec.edges, spec.mass, coupling)
    coupling = None if spec.springs else coupling
    return lattice_precision(size, spec.dim, spec.mass, coupling=coupling, springs=spec.springs)


def balls(teacher, size: int, radius: int) -> list[torch.Tensor]:
    domain = teacher.domain(size)
    sites = itertools.product(*(range(length) for length in domain.shape))
    return [domain.ball(site, radius).flatten().nonzero().flatten() for site in sites]


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    teacher_fields, student_fields, size, radius = request.param
    teacher = build(teacher_fields)
    student = st.student("optimal-local", teacher.field, radius=radius, reference="lattice", **student_fields)
    return teacher, student, size


def matrix_of(student, context: Context, sigma: float) -> torch.Tensor:
    shape = (student.field.channels, *context.domain.shape)
    return jacobian(lambda x: student(x, torch.tensor([sigma]), context), shape)


def largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())


def excess(matrix: torch.Tensor, noisy: torch.Tensor) -> float:
    """Mean squared error of the linear score ``matrix`` on noisy fields, summed over components."""
    error = matrix + torch.linalg.inv(noisy)
    return float(((error @ noisy) * error).sum())


def test_it_is_the_score_of_the_balls_marginal(case, generator):
    teacher, student, size = case
    channels = teacher.field.channels
    context = teacher.context(3, size)
    x = torch.randn(3, channels, *context.domain.shape, generator=generator)
    score = student(x, SIGMA, context)
    for row, sigma in enumerate(SIGMA.tolist()):
        noisy = noisy_covariance(dense(teacher, size), sigma)
        exact = best_local(noisy, balls(teacher, size, student.radius), channels)
        assert largest(score[row].flatten() - exact @ x[row].flatten()) < TOLERANCE


def test_nothing_outside_the_radius_is_felt(case):
    teacher, student, size = case
    matrix = matrix_of(student, teacher.context(1, size), 1.0)
    sites = teacher.domain(size).sites
    blocks = matrix.reshape(teacher.field.channels, sites, teacher.field.channels, sites).abs().sum((0, 2))
    for site, ball in enumerate(balls(teacher, size, student.radius)):
        outside = torch.ones(sites, dtype=torch.bool)
        outside[ball] = False
        assert (blocks[site][outside] == 0).all()
        assert (blocks[site][ball] > 0).all()


def test_a_ball_that_holds_the_whole_lattice_gives_the_exact_score(generator):
    teacher = build({"dim": 2, "mass": 0.3})
    student = st.student("optimal-local", teacher.field, mass=0.3, radius=3, reference="lattice")
    x, context = torch.randn(3, 1, 5, 5, generator=generator), teacher.context(3, 5)
    assert largest(student(x, SIGMA, context) - teacher.smoothed_score(x, SIGMA, context)) < TOLERANCE


@pytest.mark.parametrize("sigma", [0.2, 1.0, 3.0])
def test_it_beats_the_truncated_kernel_and_every_other_filter(case, sigma, generator):
    teacher, student, size = case
    noisy = noisy_covariance(dense(teacher, size), sigma)
    matrix = matrix_of(student, teacher.context(1, size), sigma)
    best = excess(matrix, noisy)
    seen = matrix != 0
    truncated = torch.where(seen, -torch.linalg.inv(noisy), 0.0)
    if not seen.all():
        assert excess(truncated, noisy) > best * (1 + 1e-6)
    for scale in (1e-3, 0.1, 1.0):
        step = torch.where(seen, scale * torch.randn(matrix.shape, generator=generator), 0.0)
        cost = float(((step @ noisy) * step).sum())
        # No mixed term: the error of the best score is orthogonal to every function of the ball.
        assert excess(matrix + step, noisy) - best == pytest.approx(cost, rel=1e-6, abs=1e-9)


def test_a_truncated_kernel_is_told_from_the_best_score():
    teacher = build({"dim": 2, "mass": 0.3})
    noisy = noisy_covariance(dense(teacher, 6), 1.0)
    truncated = torch.where(best_local(noisy, balls(teacher, 6, 1), 1) != 0, -torch.linalg.inv(noisy), 0.0)
    assert largest(truncated - best_local(noisy, balls(teacher, 6, 1), 1)) > 1e-2


@pytest.mark.parametrize(("mass", "sigma"), [(0.5, 1.0), (0.05, 0.5), (0.05, 2.0), (2.0, 4.0)])
def test_the_error_falls_with_the_radius_to_nothing(mass, sigma):
    teacher = build({"dim": 1, "mass": mass})
    size = 41
    noisy = noisy_covariance(dense(teacher, size), sigma)
    whole = float(torch.linalg.inv(noisy).trace())
    errors = []
    for radius in range(21):
        student = st.student("optimal-local", teacher.field, mass=mass, radius=radius, reference="lattice")
        errors.append(excess(matrix_of(student, teacher.context(1, size), sigma), noisy) / whole)
    assert all(after < before or after < 1e-13 for before, after in itertools.pairwise(errors))
    assert errors[-1] < 1e-12
    assert errors[0] > 1e-6


def error_length(mass: float, sigma: float) -> float:
    """Length over which the error of the best score falls by e, on a long ring."""
    teacher = build({"dim": 1, "mass": mass})
    near, far = 2 * max(2, round(sigma)), 3 * max(2, round(sigma))
    covariance = lambda sites: teacher.covariance(1024, sites)  # noqa: E731
    power = -teacher.response(torch.tensor([sigma]), teacher.context(1, 1024), (0,))[0, 0, 0, 0]
    level = torch.tensor([sigma])
    gaps = [power - optimal_local.best_filter(Lattice((1024,)), r, covariance).power(level)[0] for r in (near, far)]
    # The mean squared error falls twice as fast as the error.
    return 2 * (far - near) / float((gaps[0] / gaps[1]).log())


def test_the_radius_that_is_needed_grows_as_the_noise_and_no_further_than_the_correlation_length():
    lengths = torch.tensor([error_length(0.002, sigma) for sigma in (2.0, 4.0, 8.0)])
    slopes = (lengths[1:] / lengths[:-1]).log2()
    assert ((slopes - 1).abs() < 0.1).all(), slopes
    for mass, sigma in ((0.5, 1.0), (0.5, 8.0), (0.002, 4.0)):
        exact = 1 / (2 * math.asinh(0.5 * math.sqrt(mass**2 + sigma**-2)))
        assert error_length(mass, sigma) == pytest.approx(exact, rel=0.1)


def test_the_filter_of_infinite_volume_is_one_for_all_sizes(generator):
    field = build({"dim": 2}).field
    student = st.student("optimal-local", field, mass=0.5, radius=2)
    x = torch.randn(1, 1, 9, 9, generator=generator)
    large = torch.zeros(1, 1, 20, 20)
    large[..., :9, :9] = x
    scores = [
        student(fields, torch.ones(1), Context(Lattice(tuple(fields.shape[2:]))))[..., 2:7, 2:7]
        for fields in (x, large)
    ]
    assert_rounding(scores[1], scores[0])


def test_filters_of_finite_lattices_approach_it_as_the_correlations_do():
    teacher = build({"dim": 1, "mass": 0.5})
    infinite = st.student("optimal-local", teacher.field, mass=0.5, radius=2)

    def kernel(student, size: int) -> torch.Tensor:
        x = torch.zeros(1, 1, size)
        x[..., size // 2] = 1
        score = student(x, torch.ones(1), teacher.context(1, size))
        return score[..., size // 2 - 2 : size // 2 + 3]

    own = st.student("optimal-local", teacher.field, mass=0.5, radius=2, reference="lattice")
    sizes = torch.tensor([16.0, 24.0, 32.0, 40.0])
    differences = [largest(kernel(own, int(size)) - kernel(infinite, int(size))) for size in sizes]
    rates = -torch.tensor([math.log(b / a) for a, b in itertools.pairwise(differences)]) / 8
    assert (rates - 2 * math.asinh(0.25)).abs().max() < 0.01, rates
    fixed = st.student("optimal-local", teacher.field, mass=0.5, radius=2, reference=24)
    assert torch.equal(kernel(fixed, 24), kernel(own, 24))
    assert_rounding(kernel(fixed, 40), kernel(own, 24))


def test_rows_alone_give_the_rows_of_a_batch_and_single_precision_agrees(case, generator):
    teacher, student, size = case
    context = teacher.context(3, size)
    x = torch.randn(3, teacher.field.channels, *context.domain.shape, generator=generator)
    score = student(x, SIGMA, context)
    for row in range(3):
        one = slice(row, row + 1)
        assert_rounding(student(x[one], SIGMA[one], context), score[one])
    single = student(x.float(), SIGMA.float(), context)
    assert single.dtype == torch.float32
    assert largest(single - score) < 1e-5 * largest(score)


def test_it_has_no_weights_and_is_refused_where_it_is_not_known(monkeypatch):
    field = build({}).field
    student = st.student("optimal-local", field, radius=1, mass=0.5)
    assert not list(student.parameters())
    assert not student.state_dict()
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(OracleError, match="tori and on graphs"):
        student(x, torch.ones(1), Context(Lattice((4, 4), periodic=False)))
    monkeypatch.setattr(best_filter, "LARGEST_BALL", 8)
    with pytest.raises(OracleError, match="lower the radius"):
        st.student("optimal-local", field, radius=1, mass=0.45)(x, torch.ones(1), Context(Lattice((4, 4))))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"radius": -1}, "radius"),
        ({"mass": 0}, "mass"),
        ({"coupling": [[0.0]]}, "positive eigenvalues"),
        ({"coupling": [[1.0, 0.0], [0.0, 1.0]]}, "1 x 1 numbers"),
        ({"springs": {}}, "channels: 2"),
        ({"radius": 4, "reference": 8}, "at least 2 * radius + 1 = 9"),
        ({"reference": "finite"}, "reference"),
    ],
)
def test_wrong_specifications_are_refused(fields, message):
    with pytest.raises(SpecError) as caught:
        st.student("optimal-local", st.FieldInfo(dim=2), **fields)
    assert message in str(caught.value)


def test_more_than_three_dimensions_are_refused():
    with pytest.raises(SpecError, match="one to three dimensions"):
        st.student("optimal-local", st.FieldInfo(dim=4))
