"""The split of a student's error into locality and training, against dense linear algebra and closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from dense_gaussian import best_local, graph_precision, lattice_precision, noisy_covariance
from tolerances import inverse_rounding

import sizetransfer as st
from sizetransfer.contracts.errors import NonFiniteError
from sizetransfer.contracts.oracle import HasCovariance, HasSmoothedScore
from sizetransfer.contracts.student import Student
from sizetransfer.measures.locality import LocalitySpec

SIGNIFICANCE = 5.0
EDGES = [[0, 1], [2, 0], [1, 3], [1, 4], [4, 5], [5, 6], [6, 0], [6, 7], [7, 8], [8, 9], [9, 2]]
TWO = ((2.0, 0.5), (0.5, 1.0))
SIZES = {"torus": 6, "crystal": 5, "graph": 10}
NEEDED = {"torus": {"mass": 0.3}, "crystal": {"preset": "harmonic-crystal"}, "graph": {"mass": 0.4, "coupling": TWO}}


def build(name: str):
    if name == "graph":
        return st.teacher("gaussian-graph", edges=EDGES, mass=0.4, channels=2, coupling=TWO).double()
    return st.teacher("gaussian", dim=2, **NEEDED[name]).double()


def dense(name: str, sigma: float) -> torch.Tensor:
    """C + sigma^2."""
    if name == "graph":
        precision = graph_precision(10, EDGES, 0.4, torch.tensor(TWO))
    else:
        spec = build(name).spec
        precision = lattice_precision(SIZES[name], 2, spec.mass, springs=spec.springs)
    return noisy_covariance(precision, sigma)


def gap(name: str, radius: int, sigma: float) -> float:
    """Mean squared error per component of the best score of the radius, from its matrix."""
    teacher, noisy = build(name), dense(name, sigma)
    domain = teacher.domain(SIZES[name])
    sites = itertools.product(*(range(length) for length in domain.shape))
    balls = [domain.ball(site, radius).flatten().nonzero().flatten() for site in sites]
    error = best_local(noisy, balls, teacher.field.channels) + torch.linalg.inv(noisy)
    return float(((error @ noisy) * error).sum()) / len(noisy)


def power(name: str, sigma: float) -> float:
    return float(torch.linalg.inv(dense(name, sigma)).diagonal().mean())


class Scaled(Student):
    """The score of another student, louder by a share; it may declare another radius."""

    def __init__(self, student: Student, share: float, radius: int | None) -> None:
        super().__init__(student.field, radius=radius)
        self.student = student
        self.share = share

    def forward(self, x, sigma, context):
        return (1 + self.share) * self.student(x, sigma, context)


class Whole(Student):
    """The teacher's own score."""

    def __init__(self, teacher) -> None:
        super().__init__(teacher.field, radius=None)
        self.teacher = teacher

    def forward(self, x, sigma, context):
        return self.teacher.smoothed_score(x, sigma, context)


def best(name: str, radius: int) -> Student:
    return st.student("optimal-local", build(name).field, radius=radius, reference="lattice", **NEEDED[name])


def table(name: str, student: Student, *, seed: int = 1, **fields) -> dict:
    spec = LocalitySpec(**{"sigmas": (0.5, 1.5), "fields": 200, "batch": 100, **fields})
    rows = list(spec.measure(build(name), student, SIZES[name], sigma=0.5, seed=seed))
    return {(row.part, row.coordinate): row for row in rows}


def rounding(name: str, sigma: float) -> float:
    """Of a gap: the difference of two diagonals of inverses, here and in the measure."""
    return 4 * inverse_rounding(dense(name, sigma))


@pytest.mark.parametrize("name", SIZES)
def test_irreducible_errors_agree_with_dense_linear_algebra(name):
    # Relative errors are roots of gaps, and the root of a gap that is rounding is 1e8 times as large: what is known to
    # rounding is the square.
    rows = table(name, best(name, 1), radii=(0, 1, 2), fields=2)
    whole, allowed = power(name, 0.5), rounding(name, 0.5)
    for radius in (0, 1, 2):
        exact = gap(name, radius, 0.5)
        assert rows["gap", radius].value == pytest.approx(exact, rel=0, abs=allowed)
        assert rows["relative_gap", radius].value ** 2 == pytest.approx(exact / whole, rel=0, abs=allowed / whole)
        assert rows["gap", radius].standard_error == 0
    for sigma in (0.5, 1.5):
        whole, allowed = power(name, sigma), rounding(name, sigma)
        square = rows["locality_error", sigma].value ** 2
        assert square == pytest.approx(gap(name, 1, sigma) / whole, rel=0, abs=allowed / whole)


@pytest.mark.parametrize("name", SIZES)
def test_the_best_student_lost_nothing_in_training(name):
    rows = table(name, best(name, 1))
    for sigma in (0.5, 1.5):
        assert rows["training_error", sigma].value < 1e-10
        assert rows["locality_share", sigma].value == pytest.approx(1)
        measured, exact = rows["student_error", sigma], rows["locality_error", sigma].value
        assert abs(measured.value - exact) < SIGNIFICANCE * measured.standard_error
        assert measured.standard_error < 0.1 * exact


@pytest.mark.parametrize("name", SIZES)
def test_the_squared_error_is_locality_and_training_without_a_mixed_term(name):
    # 12 comparisons at 5 standard errors, 200 fields each: a false alarm in 100000 runs, and a fixed seed.
    rows = table(name, Scaled(best(name, 1), 0.2, radius=1))
    for sigma in (0.5, 1.5):
        irreducible, whole = gap(name, 1, sigma), power(name, sigma)
        # The best score is orthogonal to its error, so its own mean square is what the gap leaves.
        training = 0.2 * math.sqrt((whole - irreducible) / whole)
        student = math.sqrt(irreducible / whole + training**2)
        share = irreducible / (irreducible + training**2 * whole)
        for part, exact in (("training_error", training), ("student_error", student), ("locality_share", share)):
            measured = rows[part, sigma]
            assert abs(measured.value - exact) < SIGNIFICANCE * measured.standard_error, part
            assert measured.standard_error < 0.05 * exact


def test_a_student_that_sees_more_than_it_says_breaks_the_split():
    rows = table("torus", Scaled(best("torus", 2), 0.0, radius=0))
    split = math.hypot(rows["locality_error", 1.5].value, rows["training_error", 1.5].value)
    assert split > 2 * rows["student_error", 1.5].value


def test_a_global_student_has_no_locality_error():
    teacher = build("torus")
    rows = table("torus", Scaled(Whole(teacher), 0.1, radius=None))
    for sigma in (0.5, 1.5):
        assert rows["locality_error", sigma].value == 0
        assert rows["locality_share", sigma].value == 0
        assert rows["training_error", sigma].value == rows["student_error", sigma].value
        assert rows["student_error", sigma].value == pytest.approx(0.1, rel=0.1)
    assert math.isnan(table("torus", Whole(teacher))["locality_share", 0.5].value)


def test_by_default_the_split_is_at_the_noise_of_the_evaluation():
    rows = table("torus", best("torus", 1), sigmas=(), fields=2)
    assert [key for key in rows if key[0] == "student_error"] == [("student_error", 0.5)]


def test_the_batch_does_not_change_the_law_and_the_seed_names_the_fields():
    student = Scaled(best("torus", 1), 0.2, radius=1)
    first, again, other = (table("torus", student, seed=seed, fields=20)["student_error", 0.5] for seed in (1, 1, 2))
    assert first == again
    assert first.value != other.value


def test_a_score_that_is_not_finite_stops_it():
    with pytest.raises(NonFiniteError, match="locality at size 6"):
        table("torus", Scaled(best("torus", 1), math.nan, radius=1), fields=2)


def test_teachers_without_a_covariance_are_passed_over():
    flow = st.teacher("flow", preset="short-range-simple")
    assert LocalitySpec.requires == (HasCovariance, HasSmoothedScore)
    assert not any(isinstance(flow, protocol) for protocol in LocalitySpec.requires)


@pytest.mark.slow
def test_an_experiment_holds_trained_and_best_students_side_by_side(tmp_path):
    experiment = st.experiment(
        {
            "name": "locality",
            "teachers": {
                "field": {"kind": "gaussian", "preset": "free-field"},
                "flow": {"kind": "flow", "preset": "short-range-simple"},
            },
            "students": {
                "best": {"kind": "optimal-local", "radius": 2, "reference": "lattice"},
                "trained": {"kind": "cnn", "blocks": 0, "width": 8},
            },
            "training": {"size": 8, "steps": 20},
            "evaluation": {
                "sizes": [8, 12],
                "measures": {"locality": {"kind": "locality", "fields": 4, "sigmas": [0.5]}},
            },
        }
    )
    run = st.run(experiment, tmp_path / "run", executor="serial", device="cpu", report=False)
    assert not run.failures
    records = run.records
    assert set(records.teacher) == {"field"}
    shares = records[records.part == "locality_share"].set_index(["student", "size"]).value
    assert (shares["best"] > 1 - 1e-6).all()
    assert (shares["trained"] < 0.5).all()
