"""Theorem 1 with several channels and on graphs: it holds, its three forms agree, and careless versions are refuted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from gaussian_cases import draw_case
from matrix_cases import draw_matrix_case, to_blocks
from torch import Tensor

import sizetransfer as st
from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.student import Student
from sizetransfer.numerics import gaussian
from sizetransfer.numerics.bases import Sites, Waves
from sizetransfer.numerics.gaussian import GaussianField
from sizetransfer.theorem1 import (
    FieldLaw,
    LinearScore,
    NotLinearError,
    Rollout,
    Theorem1,
    gaussian_budget,
    gaussian_field,
    gaussian_theorem1,
    gaussian_weights,
    integrated_budget,
    linear_score,
    rollout,
    theorem,
    theorem1_bound,
)
from sizetransfer.theorem1.fields import components_of

FEW, MANY = 96, 320
# Sums of a few hundred products of numbers of size one.
AGREEMENT = 1e-9
TWO = ((2.0, 0.5), (0.5, 1.0))
EDGES = [[0, 1], [1, 2], [2, 3], [1, 3]]


def refuted(result: Theorem1) -> bool:
    assert result.truth is not None
    return result.truth.lower > result.bound.value


def hold(cases: range) -> list[float]:
    """Check Theorem 1 on these cases; return bound over truth where the bound is below two and the truth not zero."""
    ratios = []
    for index in cases:
        result = draw_matrix_case(index).dense()
        truth = result.truth
        assert truth is not None
        assert not refuted(result), (index, result)
        if truth.lower > 1e-8 and result.bound.value < 2:
            ratios.append(result.bound.value / truth.upper)
    return ratios


def test_theorem_1_holds_on_graphs_and_with_channels_and_is_not_idle():
    ratios = hold(range(FEW))
    assert len(ratios) > FEW / 2
    assert np.quantile(ratios, 0.5) < 8


@pytest.mark.slow
def test_theorem_1_holds_on_many_more():
    assert len(hold(range(FEW, FEW + MANY))) > MANY / 2


# --- Three forms of one computation -------------------------------------------------------------------------------


def assert_same(first: Theorem1, second: Theorem1) -> None:
    assert first.truth is not None
    assert second.truth is not None
    for one, other in (
        (first.drift.value, second.drift.value),
        (first.initial.value, second.initial.value),
        (first.truth.upper, second.truth.upper),
    ):
        assert one == pytest.approx(other, rel=1e-7, abs=AGREEMENT)


@pytest.mark.parametrize("index", [i for i in range(2 * 16) if i % 4 > 1])
def test_fourier_blocks_agree_with_dense_matrices(index):
    case = draw_matrix_case(index)
    blocks, dense = case.in_blocks(), case.dense()
    assert_same(blocks, dense)
    assert blocks.budget.value == pytest.approx(dense.budget.value, rel=1e-9)


def dense_of(spectra: Tensor, dim: int) -> Tensor:
    """Circulant matrices of spectra ``(V, *S)``."""
    shape = spectra.shape[1:]
    identity = torch.eye(math.prod(shape)).reshape(-1, *shape)
    axes = list(range(-dim, 0))
    return torch.fft.ifftn(spectra[:, None] * torch.fft.fftn(identity, dim=axes), dim=axes).real.flatten(2).mT


@pytest.mark.parametrize("index", range(28))
def test_the_fast_path_of_one_channel_agrees_with_blocks_and_matrices(index):
    case = draw_case(index)
    if case.spectrum.numel() > 81:
        case = next(c for c in map(draw_case, range(index + 28, 1000, 28)) if c.spectrum.numel() <= 81)
    dim, shape = case.spectrum.ndim, case.spectrum.shape
    bias = case.score.bias
    channel = None if bias is None else lambda v: bias(v).expand(len(v), *shape)[:, None]
    options = {"patch": case.patch, "vm": case.vm, "vx": case.vx, "churn": case.churn, "sampler": case.sampler}
    options["levels"] = fields_levels(case)
    bases = {
        "blocks": (
            GaussianField.with_channels(case.spectrum[None, None]),
            lambda v: case.score.spectrum(v)[..., None, None],
            case.start.spectrum[..., None, None],
        ),
        "dense": (
            GaussianField.between_sites(dense_of(case.spectrum[None], dim)[0], shape),
            lambda v: dense_of(case.score.spectrum(v), dim),
            dense_of(case.start.spectrum[None], dim)[0],
        ),
    }
    for field, operators, start in bases.values():
        law = FieldLaw(start, None, field.basis)
        assert_same(gaussian_theorem1(field, LinearScore(operators, channel), start=law, **options), case.result())


def fields_levels(case) -> Tensor:
    return rollout.log_levels(case.vm, case.vx, case.steps)


def test_the_iteration_solves_the_equations_of_motion():
    """Against many small steps of the fourth-order Runge-Kutta rule."""
    case = dataclasses.replace(draw_matrix_case(48), sampler="continuous")
    field = GaussianField.between_sites(case.covariance, (case.size,), case.channels)
    start = FieldLaw(4.0 * torch.eye(len(case.covariance)), torch.ones(len(case.covariance)), field.basis)
    bias = 0.3
    score = LinearScore(case.matrices, lambda v: bias / v[:, None, None])
    *_, end = Rollout(score, start, 0.5, 4.0, 1.5).panels(4)
    factor, churn = 0.5 * (1 + 1.5**2), 1.5

    def slope(v: float, p: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        a = case.matrices(torch.tensor([v]))[0]
        return factor * (a @ p + p @ a.T) - churn**2 * torch.eye(len(a)), factor * (a @ m - bias / v)

    p, m, count = start.spectrum, start.mean, 400
    h = (0.5 - 4.0) / count
    for n in range(count):
        v = 4.0 + n * h
        k1 = slope(v, p, m)
        k2 = slope(v + h / 2, p + h / 2 * k1[0], m + h / 2 * k1[1])
        k3 = slope(v + h / 2, p + h / 2 * k2[0], m + h / 2 * k2[1])
        k4 = slope(v + h, p + h * k3[0], m + h * k3[1])
        p, m = (x + h / 6 * (a + 2 * b + 2 * c + d) for x, a, b, c, d in zip((p, m), k1, k2, k3, k4, strict=True))
    torch.testing.assert_close(end.variance[0], p, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(end.mean[0], m, rtol=1e-8, atol=1e-8)


def test_a_process_that_does_not_settle_is_named():
    field = GaussianField.between_sites(torch.eye(3), (3,))
    start = FieldLaw(4.0 * torch.eye(3), None, field.basis)
    score = LinearScore(lambda v: torch.full((len(v), 3, 3), math.nan))
    with pytest.raises(OracleError, match="does not settle"):
        list(Rollout(score, start, 0.5, 4.0).panels(2))


# --- Careless versions are refuted --------------------------------------------------------------------------------


def without_other_components(field: GaussianField, patch, v: Tensor, vm: float, **options) -> Tensor:
    weights, kept = gaussian_weights(field, patch, v, vm, **options), torch.zeros(field.basis.field_shape)
    for component in components_of(field, patch):
        kept[component] = 1
    return weights * kept


def without_other_channels(field: GaussianField, patch, v: Tensor, vm: float, **options) -> Tensor:
    weights, kept = gaussian_weights(field, patch, v, vm, **options), torch.zeros(field.basis.field_shape)
    for component in components_of(field, patch):
        kept[component[0]] = 1
    return weights * kept


@pytest.mark.parametrize("wrong", [without_other_components, without_other_channels], ids=lambda f: f.__name__)
def test_weights_that_forget_components_are_refuted(monkeypatch, wrong):
    monkeypatch.setattr(theorem, "gaussian_weights", wrong)
    field, push = strongly_coupled()
    assert refuted(push(field))


def strongly_coupled():
    """A bias of one channel that moves the other one, coupled strongly, and almost nothing else."""
    precision = torch.tensor([[1.0, -0.95], [-0.95, 1.0]])
    field = GaussianField.between_sites(1e-3 * torch.linalg.inv(precision), (1,), 2)

    def push(field: GaussianField) -> Theorem1:
        bias = torch.tensor([0.0, 1e-3])[:, None]
        score = LinearScore(
            lambda v: field.function(lambda c: 1 / (c + v[:, None])), lambda v: bias / (1 + v)[:, None, None]
        )
        start = FieldLaw(field.covariance + 10 * torch.eye(2), None, field.basis)
        return gaussian_theorem1(field, score, patch=[((0,), 0)], vm=1e-3, vx=10.0, start=start)

    return field, push


def test_the_constant_cannot_be_improved_between_channels():
    field, push = strongly_coupled()
    result = push(field)
    assert result.holds
    assert result.bound.value / result.truth.lower < 1.001


def test_a_site_average_of_the_error_is_refuted_on_a_graph(monkeypatch):
    """Sites of a graph differ: an average over them hides an error where it matters."""
    field = GaussianField.between_sites(1e-3 * torch.eye(6), (6,))
    wrong = torch.zeros(6, 6)
    wrong[0, 0] = 5.0
    score = LinearScore(lambda v: field.function(lambda c: 1 / (c + v[:, None])) + wrong / (1 + v)[:, None, None] ** 2)
    options = {"patch": [(0,)], "vm": 1e-3, "vx": 1.0, "start": FieldLaw(1.001 * torch.eye(6), None, field.basis)}
    assert not refuted(gaussian_theorem1(field, score, **options))
    real = Sites.deviation
    monkeypatch.setattr(Sites, "deviation", lambda self, p: 0 * real(self, p) + real(self, p).mean(-1, keepdim=True))
    assert refuted(gaussian_theorem1(field, score, **options))


# --- Weights and budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["channels", "crystal", "graph"])
def test_weights_are_those_of_dense_matrices(kind, churn):
    if kind == "graph":
        teacher = st.teacher("gaussian-graph", edges=EDGES, channels=2, mass=0.6, coupling=TWO).double()
        size, sites = 4, 4
    else:
        extra = {"springs": {}} if kind == "crystal" else {"coupling": TWO}
        teacher = st.teacher("gaussian", dim=2, channels=2, mass=0.6, **extra).double()
        size, sites = 3, 9
    n, vm, v = 2 * sites, 0.2, 1.7
    covariance = teacher.covariance(size, torch.arange(sites)).reshape(n, n)
    values, vectors = torch.linalg.eigh(covariance)
    kernel = (vectors * ((values + vm) / (values + v)) ** ((1 + churn**2) / 2)) @ vectors.T
    left = covariance + vm * torch.eye(n) - kernel @ (covariance + v * torch.eye(n)) @ kernel
    field = gaussian_field(teacher, size)
    origin = (0,) * len(field.basis.shape)
    for patch, places in (([(origin, 1)], [sites]), ([origin], [0, sites])):
        rows = kernel[places]
        expected = rows.square().sum(0).sqrt()
        found = gaussian_weights(field, patch, torch.tensor([v]), vm, churn=churn, bounded=False)
        torch.testing.assert_close(found.flatten(), expected, rtol=1e-10, atol=1e-12)
        if churn:
            direction = rows / expected
            precision = (direction * torch.linalg.solve(left[places][:, places], direction)).sum(0)
            expected = expected * torch.erf((precision / 2).sqrt())
        found = gaussian_weights(field, patch, torch.tensor([v]), vm, churn=churn)
        torch.testing.assert_close(found.flatten(), expected, rtol=1e-9, atol=1e-12)


def test_budgets_of_graphs_have_the_closed_form_and_others_are_integrated():
    graph = gaussian_field(st.teacher("gaussian-graph", edges=EDGES, mass=0.6), 4)
    closed = gaussian_budget(graph, 0.1, 20.0)
    assert closed.kind == "exact"
    c0 = 1 / 0.36
    assert closed.value == pytest.approx((c0 + 0.1) * math.log((c0 + 20) / (c0 + 0.1)), rel=1e-9)
    assert integrated_budget(graph, [(1,)], 0.1, 20.0).value < closed.value
    crystal = gaussian_field(st.teacher("gaussian", preset="harmonic-crystal"), 4)
    with pytest.raises(OracleError, match="ferromagnetic"):
        gaussian_budget(crystal, 0.1, 20.0)
    budget = integrated_budget(crystal, [(0, 0)], 0.1, 20.0)
    assert 0 < budget.error < 1e-6 * budget.value
    uneven = GaussianField.between_sites(torch.linalg.inv(torch.diag(torch.tensor([1.0, 2.0, 5.0]))), (3,))
    assert gaussian_budget(uneven, 0.1, 20.0).kind == "certificate"
    for site in range(3):
        assert integrated_budget(uneven, [(site,)], 0.1, 20.0).value <= gaussian_budget(uneven, 0.1, 20.0).value


# --- Teachers and students ----------------------------------------------------------------------------------------

THEOREM = {"sigma_min": 0.1, "sigma_max": 5.0}
PAIRS = {
    "graph": ({"kind": "gaussian-graph", "mass": 0.5}, {"mass": 0.5}, 24),
    "graph with channels": (
        {"kind": "gaussian-graph", "mass": 0.5, "channels": 2, "coupling": TWO},
        {"mass": 0.5, "coupling": TWO},
        16,
    ),
    "crystal": ({"kind": "gaussian", "preset": "harmonic-crystal"}, {"preset": "harmonic-crystal"}, 6),
    "channels": (
        {"kind": "gaussian", "dim": 1, "channels": 2, "coupling": TWO},
        {"coupling": TWO},
        8,
    ),
}


def built(fields_of: dict):
    return st.teacher(
        fields_of["kind"], **{name: value for name, value in fields_of.items() if name != "kind"}
    ).double()


@pytest.mark.parametrize("name", PAIRS)
def test_the_best_local_score_has_a_certificate_on_every_domain(name):
    fields_of, needed, size = PAIRS[name]
    teacher = built(fields_of)
    origin = (0,) * len(teacher.domain(size).shape)
    bounds = []
    for radius in (0, 1, 2):
        student = st.student("optimal-local", teacher.field, radius=radius, reference="lattice", **needed)
        options = {"size": size, "patch": [(origin, teacher.field.channels - 1)], **THEOREM}
        result = theorem1_bound(teacher, student, method="exact", **options)
        assert result.holds
        assert result.bound.kind == "certificate"
        assert result.size_uniform is (None if fields_of.get("channels") or "preset" in fields_of else True)
        bounds.append(result.drift.value)
    assert bounds[0] > bounds[1] > bounds[2]
    steps = theorem1_bound(teacher, student, sampler="heun", steps=16, **options)
    assert steps.holds


class Loud(Student):
    """Twice the score of another student: beside its error, that of the rollout's steps is small."""

    def __init__(self, student: Student) -> None:
        super().__init__(student.field, radius=student.radius)
        self.student = student

    def forward(self, x, sigma, context):
        return 2 * self.student(x, sigma, context)


@pytest.mark.parametrize("name", ["graph with channels", "channels"])
def test_rollouts_of_a_linear_student_estimate_its_drift_error(name):
    fields_of, needed, size = PAIRS[name]
    teacher = built(fields_of)
    student = Loud(st.student("optimal-local", teacher.field, radius=1, reference="lattice", **needed))
    options = {"size": size, "patch": [((0,), 1)], **THEOREM}
    certain = theorem1_bound(teacher, student, **options)
    sampled = theorem1_bound(
        teacher, student, method="monte-carlo", steps=120, trajectories=100, batch=100, generator=stream("t"), **options
    )
    assert sampled.drift.value == pytest.approx(certain.drift.value, abs=4 * sampled.drift.error, rel=0.1)


class Uneven(Student):
    """On a graph any matrix is linear; on a torus it must be the same at every site."""

    def __init__(self, field) -> None:
        super().__init__(field, radius=0)

    def forward(self, x, sigma, context):
        return -x * (1 + 0.1 * torch.arange(x.shape[-1])) + 0.2 * torch.arange(x.shape[-1]) + 0.5 * x.flip(1)


def test_probing_finds_the_matrix_of_a_graph_and_refuses_it_on_a_torus():
    graph = st.teacher("gaussian-graph", edges=[[0, 1], [1, 2]], channels=2).double()
    student, context = Uneven(graph.field), graph.context(1, 3)
    found = linear_score(student, context, sigma=(0.1, 2.0), basis=Sites((3,), 2))
    scale = torch.diag((1 + 0.1 * torch.arange(3.0)).repeat(2))
    flip = torch.kron(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.eye(3))
    torch.testing.assert_close(found.spectrum(torch.tensor([1.0]))[0], scale - 0.5 * flip, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.bias(torch.tensor([1.0]))[0, 1], 0.2 * torch.arange(3.0))
    torus = st.teacher("gaussian", dim=1, channels=2).double()
    with pytest.raises(NotLinearError, match="translation-invariant"):
        linear_score(Uneven(torus.field), torus.context(1, 3), sigma=(0.1, 2.0), basis=Waves((3,), 2))


def test_probing_finds_blocks_that_lean():
    torus = st.teacher("gaussian", dim=1, channels=2).double()

    class Leaning(Uneven):
        def forward(self, x, sigma, context):
            return -x - 0.3 * x.flip(1).roll(1, -1) * torch.tensor([[1.0], [2.0]])

    found = linear_score(Leaning(torus.field), torus.context(1, 4), sigma=(0.1, 2.0), basis=Waves((4,), 2))
    hop = torch.eye(4).roll(1, 0)
    dense = torch.eye(8) + 0.3 * torch.kron(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), hop)
    expected = to_blocks(dense[None], 4, 2)
    torch.testing.assert_close(found.spectrum(torch.tensor([1.0])), expected, rtol=1e-12, atol=1e-12)


# --- Bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "patch", [[((0,), 2)], [((4,), 0)], [((0,), 0), ((0,), 0)], [(0,), ((0,), 1)], [], [(0, 0)], [((0,), -1)]]
)
def test_patches_off_the_components_are_refused(patch):
    field = GaussianField.between_sites(torch.eye(8), (4,), 2)
    with pytest.raises(OracleError, match="patch"):
        gaussian_weights(field, patch, torch.tensor([1.0]), 0.1)


@pytest.mark.parametrize(
    "matrix", [-torch.eye(4), torch.eye(3), torch.eye(4).triu() + torch.ones(4, 4).triu(), torch.eye(4) * math.nan]
)
def test_matrices_of_no_field_are_refused(matrix):
    with pytest.raises(OracleError, match="covariance"):
        GaussianField.between_sites(matrix, (4,))


def test_blocks_of_no_real_field_are_refused():
    blocks = torch.eye(2)[:, :, None] * torch.arange(1.0, 5.0)
    with pytest.raises(OracleError, match="covariance"):
        GaussianField.with_channels(blocks)


def test_a_graph_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(gaussian, "LARGEST_DENSE", 8)
    with pytest.raises(OracleError, match="too many components"):
        GaussianField.between_sites(torch.eye(9), (9,))
