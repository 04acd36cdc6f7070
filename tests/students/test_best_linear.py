"""The best linear student: fitted once, stored like weights, local, and the optimum of Gaussian fields."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.domain import Graph
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import TrainingSpec
from sizetransfer.scores.references import exact_moments
from sizetransfer.scores.training import train
from sizetransfer.students.best_linear import BestLinearSpec
from sizetransfer_verification.conformance import StudentSubject, run_checks

TEACHERS = {
    "torus": ("gaussian", 8, {"dim": 2, "mass": 0.3}),
    "crystal": ("gaussian", 8, {"preset": "harmonic-crystal"}),
    "sublattices": ("flow", 8, {"preset": "medium-range"}),
    "graph": ("gaussian-graph", 10, {"edges": [[i, (i + 1) % 10] for i in range(10)], "mass": 0.4}),
    "open box with dead sites": ("hard-valid", 4, {"preset": "local"}),
}


def fitted(name: str, *, radius: int | None = 1, fields: int = 60, dtype: torch.dtype = torch.float64):
    kind, size, options = TEACHERS[name]
    teacher = st.teacher(kind, **options).to(dtype)
    student = st.student("best-linear", teacher.field, radius=radius, fields=fields).to(dtype)
    result = train(teacher, student, TrainingSpec(size=size, steps=5), seed=3)
    assert result.steps == 0
    return teacher, student, size


def ask(teacher, student, size: int, sigma: float = 0.5, seed: int = 1):
    sample = teacher.sample(3, size, generator=stream(seed))
    return sample, student(sample.x, sample.x.new_full((3,), sigma), sample.context)


def test_many_fields_of_a_gaussian_teacher_give_the_exact_best_score():
    teacher, student, size = fitted("torus", fields=4000)
    sample, score = ask(teacher, student, size)
    best = exact_moments(teacher, size).filter(1).score(sample.x, sample.x.new_full((3,), 0.5), sample.context)
    white = -sample.x / (0.25 + teacher.field.sigma_data**2)
    assert (score - best).square().mean() < 1e-4 * best.square().mean()
    assert (white - best).square().mean() > 0.02 * best.square().mean()


@pytest.mark.parametrize("name", TEACHERS)
def test_moments_are_stored_and_loaded_like_weights(name):
    teacher, student, size = fitted(name)
    sample, score = ask(teacher, student, size)
    kind, _, options = TEACHERS[name]
    other = st.student("best-linear", st.teacher(kind, **options).field, radius=1).double()
    untrained = other(sample.x, sample.x.new_full((3,), 0.5), sample.context)
    other.load_state_dict(student.state_dict())
    loaded = other(sample.x, sample.x.new_full((3,), 0.5), sample.context)
    assert torch.equal(loaded, score)
    assert not torch.equal(untrained, score)
    assert torch.equal(copy.deepcopy(student)(sample.x, sample.x.new_full((3,), 0.5), sample.context), score)


@pytest.mark.parametrize("name", TEACHERS)
def test_the_jacobian_beyond_the_radius_is_exactly_zero(name):
    teacher, student, size = fitted(name)
    sample = teacher.sample(1, size, generator=stream(2))
    domain, level = sample.context.domain, sample.x.new_full((1,), 0.5)
    live = torch.ones(domain.shape, dtype=torch.bool) if sample.context.mask is None else sample.context.mask[0, 0]
    site = tuple(live.nonzero()[0].tolist())

    def centre(x):
        return student(x, level, sample.context)[(0, 0, *site)]

    row = torch.autograd.functional.jacobian(centre, sample.x)[0, 0]
    seen = domain.ball(site, 1) & live
    assert (row[~seen] == 0).all()
    assert row[site] != 0
    assert int((row != 0).sum()) > 1


def test_precision_of_the_moments_outlives_the_dtype_of_the_module():
    teacher, student, size = fitted("torus")
    sample, score = ask(teacher, student, size)
    single = copy.deepcopy(student).float()
    assert all(buffer.dtype in {torch.float64, torch.int64} for buffer in single.buffers())
    rough = single(sample.x.float(), torch.full((3,), 0.5), sample.context)
    assert rough.dtype == torch.float32
    assert (rough - score).abs().max() < 1e-5


def test_fields_fold_and_levels_are_answered_row_by_row():
    teacher, student, size = fitted("sublattices")
    sample = teacher.sample(4, 12, generator=stream(4))
    levels = torch.tensor([0.1, 1.0, 0.1, 3.0], dtype=torch.float64)
    together = student(sample.x, levels, sample.context)
    for row in range(4):
        alone = sample.rows(slice(row, row + 1))
        assert torch.allclose(student(alone.x, levels[row : row + 1], alone.context)[0], together[row], atol=1e-12)
    assert student.ignores == frozenset()  # behind a wall it takes the mean, which is not zero
    assert size != 12


class Fitted(BestLinearSpec):
    """The student, fitted to a Gaussian teacher of the same fields before it is asked anything."""

    def build(self, field):
        student = super().build(field)
        student.fit(st.teacher("gaussian", dim=field.dim, channels=field.channels, mass=0.3), 12, seed=0)
        return student


def test_a_fitted_student_keeps_the_contract():
    fields = (st.FieldInfo(dim=2), st.FieldInfo(dim=1, channels=2))
    subject = StudentSubject(Fitted(radius=1, fields=50), fields=fields, name="fitted")
    assert run_checks(subject, level="api").raise_if_failed().comparisons > 50


def test_a_seed_decides_the_fit():
    (_, one, _), (_, two, _) = fitted("torus"), fitted("torus")
    assert torch.equal(one.products, two.products)
    teacher = st.teacher("gaussian", dim=2, mass=0.3).double()
    other = st.student("best-linear", teacher.field, radius=1, fields=60).double()
    other.fit(teacher, 8, seed=4)
    assert not torch.equal(one.products, other.products)


def test_without_a_radius_it_sees_the_whole_torus():
    teacher, student, size = fitted("torus", radius=None, fields=4000)
    sample, score = ask(teacher, student, size)
    exact = teacher.smoothed_score(sample.x, sample.x.new_full((3,), 0.5), sample.context)
    assert (score - exact).square().mean() < 1e-2 * exact.square().mean()
    larger = teacher.sample(2, 12, generator=stream(5))
    assert student(larger.x, larger.x.new_full((2,), 0.5), larger.context).isfinite().all()


def test_graphs_of_another_size_and_fields_without_an_answer_are_refused():
    _, student, _ = fitted("graph")
    other = st.teacher("gaussian-graph", edges=[[0, 1], [1, 2]], mass=0.4).double()
    sample = other.sample(1, 3, generator=stream(6))
    with pytest.raises(OracleError, match="knows that graph alone"):
        student(sample.x, sample.x.new_ones(1), sample.context)
    own = fitted("graph")[0].sample(2, 10, generator=stream(6))
    level = own.x.new_ones(2)
    swapped = torch.tensor([5, 1, 2, 3, 4, 0, 6, 7, 8, 9])  # the ring with other numbers: as many sites, other edges
    for edges in (swapped[own.context.domain.edges], own.context.domain.edges[1:]):
        with pytest.raises(OracleError, match="knows that graph alone"):
            student(own.x, level, Context(Graph(10, edges)))
    with pytest.raises(OracleError, match="a mask"):
        student(own.x, level, replace(own.context, mask=torch.ones_like(own.x, dtype=torch.bool)))
    reordered = Graph(10, own.context.domain.edges.flip(0).flip(1))
    assert torch.equal(student(own.x, level, Context(reordered)), student(own.x, level, own.context))
    with pytest.raises(SpecError, match="give a radius"):
        st.student("best-linear", st.FieldInfo(dim=2, periodic=False), radius=None)
    with pytest.raises(SpecError, match="fewer dimensions"):
        st.student("best-linear", st.FieldInfo(dim=4))


def test_before_the_fit_it_is_the_best_score_of_white_noise():
    teacher = st.teacher("gaussian", dim=1, mass=0.5)
    student = st.student("best-linear", teacher.field)
    x = torch.ones(1, 1, 8)
    score = student(x, torch.full((1,), 2.0), Context(teacher.domain(8)))
    assert score.flatten()[0].item() == pytest.approx(-1 / (4 + teacher.field.sigma_data**2))


def test_an_experiment_fits_stores_and_measures_it(tmp_path):
    experiment = st.experiment(
        {
            "name": "linear",
            "teachers": {"field": {"kind": "gaussian", "dim": 1, "mass": 0.5}},
            "students": {"linear": {"kind": "best-linear", "radius": 2, "fields": 200}},
            "training": {"size": 16, "steps": 3},
            "evaluation": {"sizes": [16, 32], "measures": {"score": {"kind": "clean-score", "fields": 4}}},
        }
    )
    first = st.run(experiment, tmp_path / "run", report=False, executor="local", workers=1)
    again = st.run(experiment, tmp_path / "run", report=False, executor="local", workers=1)
    errors = first.records[first.records["part"] == "relative_rmse"]["value"]
    assert (errors < 0.2).all()
    assert len(errors) == 2
    assert again.records["value"].tolist() == first.records["value"].tolist()


def test_diagnose_fits_a_student_that_is_only_specified():
    teacher = {"kind": "gaussian", "dim": 1, "mass": 0.4}
    found = st.diagnose(teacher, {"kind": "best-linear", "radius": 4}, sizes=(32,), sigmas=(0.5,))
    (error,) = found.errors
    assert error.training.value < 0.05
