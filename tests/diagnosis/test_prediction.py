"""Predictions: exact numbers against dense algebra, growth over sizes, sources that agree, and the command."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import sizetransfer as st
from sizetransfer import cli as command_line
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context, Sample, Teacher
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.randomness import normal
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.diagnosis import PredictionRule, PredictionSpec, ResponseRow, describe_prediction_rule, predict
from sizetransfer.diagnosis.forecast import _forecast, _standing
from sizetransfer.diagnosis.responses import covering_radius, outside_share, source_of
from sizetransfer.theorem1 import api as theorem_api

EXACT = 1e-10
RING = {"kind": "gaussian", "dim": 1, "mass": 0.4}


def dense(size: int, mass: float, sigma: float) -> torch.Tensor:
    """``(C + v)^-1`` of the Gaussian field on a ring."""
    identity = torch.eye(size)
    precision = (mass**2 + 2) * identity - identity.roll(1, 0) - identity.roll(-1, 0)
    return torch.linalg.inv(torch.linalg.inv(precision) + sigma**2 * identity)


# --- numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0])
def test_a_gaussian_ring_agrees_with_dense_algebra(sigma: float) -> None:
    size, radius = 16, 2
    found = st.diagnose(RING, {"kind": "optimal-local", "mass": 0.4, "radius": radius}, sizes=(size,), sigmas=(sigma,))
    (row,) = found.rows
    matrix = dense(size, 0.4, sigma)
    distance = torch.minimum(torch.arange(size), size - torch.arange(size))
    squares = torch.stack([matrix[0, distance == d].square().sum() for d in range(size // 2 + 1)])
    tails = torch.stack([matrix[0, distance > d].abs().sum() for d in range(size // 2 + 1)])
    ball = distance <= radius
    covariance = torch.linalg.inv(matrix)[ball][:, ball]
    gap = matrix[0, 0] - torch.linalg.inv(covariance)[0, 0]
    assert row.outside_share is not None
    assert row.irreducible is not None
    assert row.outside_share.value == pytest.approx(float(squares[radius + 1 :].sum() / squares.sum()), rel=EXACT)
    assert row.irreducible.value == pytest.approx(float(gap / matrix[0, 0]) ** 0.5, abs=row.irreducible.error + EXACT)
    assert row.range.value == next(r for r in range(size) if tails[r] <= 0.01 * tails[0])
    for share, cover in row.covering.items():
        inside = squares.cumsum(0) / squares.sum()
        assert cover.value == next(r for r in range(size) if inside[r] >= share)
    assert {row.range.kind, row.outside_share.kind, row.irreducible.kind, row.sufficient.kind} == {"exact"}


def test_the_sufficient_radius_is_the_first_whose_best_score_is_good_enough() -> None:
    found = st.diagnose(RING, sizes=(16,), sigmas=(1.0,))
    errors = []
    for radius in range(6):
        student = {"kind": "optimal-local", "mass": 0.4, "radius": radius}
        (row,) = st.diagnose(RING, student, sizes=(16,), sigmas=(1.0,)).rows
        assert row.irreducible is not None
        errors.append(row.irreducible.value)
    assert found.overall.sufficient.value == next(r for r, error in enumerate(errors) if error <= 0.1)
    assert errors == sorted(errors, reverse=True)
    assert found.overall.verdict is None


def test_shares_keep_their_digits_and_stay_between_zero_and_one() -> None:
    squared = torch.tensor([[1.0, 1e-18, -1e-19]])
    assert outside_share(squared, 0) == pytest.approx(9e-19)
    assert outside_share(squared, 1) == 0.0
    assert outside_share(squared, None) == 0.0
    assert covering_radius(torch.tensor([[0.9, 0.0, 0.1]]), 0.95) == 2


class Linear(Teacher):
    """A clean score ``-J x`` on a ring, which is all that this teacher knows; ``tail`` couples all sites alike."""

    def __init__(self, near: float, tail: float) -> None:
        super().__init__(FieldInfo(dim=1, periodic=True))
        self.near, self.tail = near, tail

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        return Sample(normal((batch, 1, size), generator=generator, like=self.anchor), Context(self.domain(size)))

    def score(self, sample: Sample) -> torch.Tensor:
        x = sample.x
        return -x + self.near * (x.roll(1, 2) + x.roll(-1, 2)) + self.tail * x.mean(2, keepdim=True)


class KnownPosterior(Linear):
    """A Gaussian teacher behind the capability HasPosterior alone."""

    def __init__(self) -> None:
        super().__init__(0.0, 0.0)
        self.law = st.teacher("gaussian", dim=1, mass=0.4)

    def posterior_mean(self, x: torch.Tensor, sigma: torch.Tensor, context: Context) -> torch.Tensor:
        return self.law.posterior_mean(x, sigma, context)

    def posterior_covariance(self, x: torch.Tensor, sigma: torch.Tensor, context: Context, site: Any) -> torch.Tensor:
        return self.law.posterior_covariance(x, sigma, context, site)


def test_a_known_posterior_gives_the_same_response_as_an_estimate() -> None:
    spec = PredictionSpec(sizes=(16,), sigmas=(1.0,))
    exact, estimated = (
        predict(t, spec=spec).rows[0] for t in (st.teacher("gaussian", dim=1, mass=0.4), KnownPosterior())
    )
    assert estimated.range.value == exact.range.value
    assert estimated.covering[0.99].value == exact.covering[0.99].value
    assert (exact.range.kind, estimated.range.kind) == ("exact", "estimate")


class KnownBalls(KnownPosterior):
    """The same, with the capability HasLocalPosterior; its balls are ``wider`` than it says."""

    def __init__(self, wider: int = 0) -> None:
        super().__init__()
        self.wider = wider

    def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
        return self.law.sample(batch, size, generator=generator)

    def _ball(self, sigma: torch.Tensor, context: Context, site: Any, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
        size = context.domain.sites
        noisy = torch.linalg.inv(dense(size, 0.4, float(sigma[0])))
        inside = context.domain.ball(site, radius + self.wider)
        clean = noisy[site[0]] - float(sigma[0]) ** 2 * torch.eye(size)[site[0]]
        return inside, torch.linalg.solve(noisy[inside][:, inside], clean[inside])

    def local_posterior_mean(
        self, x: torch.Tensor, sigma: torch.Tensor, context: Context, site: Any, radius: int
    ) -> torch.Tensor:
        inside, weights = self._ball(sigma, context, site, radius)
        return x[:, :, inside].double() @ weights

    def local_posterior_covariance(
        self, x: torch.Tensor, sigma: torch.Tensor, context: Context, site: Any, radius: int
    ) -> torch.Tensor:
        raise AssertionError("not asked for")


@pytest.mark.parametrize(("wider", "agrees"), [(0, True), (1, False)])
def test_known_local_posteriors_give_the_irreducible_error_as_an_estimate(wider: int, agrees: bool) -> None:
    """Within four standard errors, of about two hundred fields; a ball that is one wider is found out."""
    spec = PredictionSpec(sizes=(16,), sigmas=(1.0,), fields=200)
    student = st.student("optimal-local", st.teacher("gaussian", dim=1, mass=0.4).field, mass=0.4, radius=1)
    (exact,) = predict(st.teacher("gaussian", dim=1, mass=0.4), student, spec).rows
    (estimated,) = predict(KnownBalls(wider).double(), student, spec).rows
    assert exact.irreducible is not None
    assert estimated.irreducible is not None
    assert (estimated.irreducible.kind, exact.draws, estimated.draws) == ("estimate", None, 200 * 16)
    deviation = abs(estimated.irreducible.value - exact.irreducible.value) / estimated.irreducible.error
    assert (deviation < 4) == agrees
    if agrees:
        assert estimated.sufficient.value == exact.sufficient.value
        assert estimated.locality_error == estimated.irreducible


def test_an_ising_model_has_irreducible_errors_with_certificates_apart() -> None:
    begin = time.process_time()
    student = {"kind": "optimal-local-ising", "preset": "disordered", "radius": 1}
    found = st.diagnose("ising:disordered", student, sizes=(6,), sigmas=(0.3, 3.0))
    low, high = found.rows
    for row in (low, high):
        assert row.irreducible is not None
        assert row.certified is not None
        assert (row.irreducible.kind, row.certified.kind, row.draws) == ("estimate", "certificate", 8 * 10)
    assert low.irreducible.value < high.irreducible.value < 0.2
    assert [error.against for error in found.errors] == ["smoothed", "smoothed"]
    for error in found.errors:
        assert error.locality is not None
        combined = math.hypot(error.error.error, error.locality.error)
        assert abs(error.error.value - error.locality.value) <= 4 * combined + 1e-6
    (note,) = [note for note in found.notes if "Irreducible errors are estimates" in note]
    assert "radius 1" in note
    assert "80 pairs of a noisy field and a site (8 fields)" in note
    assert time.process_time() - begin < 15


def test_a_certificate_goes_before_an_estimate() -> None:
    row = ResponseRow(
        size=6,
        sigma=1.0,
        range=Quantity.estimated(1.0, 0.0),
        largest=3,
        covering={},
        outside_share=None,
        irreducible=Quantity.estimated(0.01, 0.001),
        locality_error=None,
        sufficient=Quantity.estimated(1.0, 0.0),
        draws=80,
        certified=Quantity(2.0, kind="certificate"),
    )
    rule = PredictionRule()
    assert _standing(row, 2, rule) == "suffices for certain (certificate)"
    assert _standing(row, 1, rule) == "suffices (estimate)"
    for value, text in ((0.3, "does not suffice"), (0.101, "within the standard errors")):
        worse = dataclasses.replace(row, irreducible=Quantity.estimated(value, 0.001))
        assert text in _standing(worse, 1, rule)


def test_an_ising_model_too_large_for_its_solver_is_refused_by_name() -> None:
    result = invoke("--teacher", "ising", "--student", "{kind: cnn, blocks: 1}", "--size", "16", "--sigma", "1")
    assert result.exit_code == 2
    assert "The exact Ising model on a 16 x 16 torus would cost more than is allowed." in result.output


def test_a_teacher_of_its_clean_score_alone_is_labelled_so() -> None:
    found = predict(Linear(0.25, 0.0), spec=PredictionSpec(sizes=(16, 32)))
    assert found.source == "clean"
    assert {row.sigma for row in found.rows} == {0.0}
    assert {row.range.value for row in found.rows} == {1.0}
    assert "Gaussian" in found.theorem[0].reason
    assert found.cone is None


def test_a_teacher_that_knows_nothing_is_refused() -> None:
    class Mute(Teacher):
        def sample(self, batch: int, size: int, *, generator: torch.Generator) -> Sample:
            raise AssertionError

    with pytest.raises(OracleError, match="response is not known"):
        source_of(Mute(FieldInfo(dim=1)), sample=False)


def test_sampled_posteriors_agree_with_the_exact_response() -> None:
    free = {"kind": "phi4", "preset": "free", "dim": 1}
    found = st.diagnose(free, {"kind": "cnn", "blocks": 1}, sizes=(8,), sigmas=(0.7,), sample=True, fields=2)
    assert found.source == "sampled"
    mass = st.teacher("phi4", preset="free", dim=1).spec.mass2 ** 0.5
    (exact,) = st.diagnose({**RING, "mass": mass}, sizes=(8,), sigmas=(0.7,)).rows
    (row,) = found.rows
    # Shares of 95 % are far from a step of the profile here, so both must find the same radius.
    assert row.covering[0.95].value == exact.covering[0.95].value
    assert row.range.kind == "estimate"


# --- growth over sizes ------------------------------------------------------------------------------------------


def row(
    size: int, *, error: float, sufficient: float, reach: float = 1, exact: bool = True, se: float = 0.0
) -> ResponseRow:
    kind = "exact" if exact else "estimate"
    number = Quantity(error, se, kind)
    irreducible = number if exact else None
    radius = Quantity(sufficient, 0.0, kind)
    return ResponseRow(size, 1.0, Quantity(reach, kind=kind), size // 2, {}, number, irreducible, number, radius)


def test_growth_that_is_not_significant_is_not_called_none() -> None:
    before, after = (Quantity.estimated(value, 5.0) for value in (4.0, 9.0))
    rows = [
        dataclasses.replace(row(size, error=0.05, sufficient=2, exact=False), range=reach)
        for size, reach in ((16, before), (32, after))
    ]
    assert _forecast(rows, PredictionRule()).range_grows is None
    assert _forecast(rows, PredictionRule(significance=0.1)).range_grows is True
    assert _forecast(rows, PredictionRule(growth=2.0)).range_grows is False


def test_numbers_that_json_lacks_become_null() -> None:
    found = st.diagnose(RING, sizes=(8, 16), sigmas=(1.0,))
    (_, last) = found.rows
    broken = dataclasses.replace(found, rows=(dataclasses.replace(last, range=Quantity.estimated(1.0, math.nan)),))
    text = json.dumps(broken.to_json(), allow_nan=False)
    assert json.loads(text)["rows"][0]["range"] == {"value": 1.0, "kind": "estimate", "error": None}


def test_the_rule_is_printed_with_its_thresholds() -> None:
    text = describe_prediction_rule(PredictionRule(tolerance=0.07, growth=0.22, significance=4.5))
    assert all(number in text for number in ("7 %", "22 %", "4.5"))


# --- Theorem 1, the light cone, training ----------------------------------------------------------------------


def test_theorem_1_for_a_linear_student_a_specified_one_and_none() -> None:
    options: dict[str, Any] = {"sizes": (8, 16), "sigmas": (1.0,), "patch": ((0,), (1,))}
    linear = st.diagnose(RING, {"kind": "optimal-local", "mass": 0.4, "radius": 1, "reference": "lattice"}, **options)
    cnn = st.diagnose(RING, {"kind": "cnn", "blocks": 1, "width": 4}, **options)
    alone = st.diagnose(RING, **options)
    for line in (*linear.theorem, *cnn.theorem):
        assert line.bound is not None
        assert line.truth is not None
        assert line.bound.kind == "certificate"
        assert line.truth.upper <= line.bound.value
    assert linear.theorem[0].subject == "student"
    assert "radius 4" in str(cnn.theorem[0].subject)
    assert [line.bound for line in alone.theorem] == [None, None]
    budgets = [line.budget.value for line in alone.theorem if line.budget]
    assert budgets[0] == pytest.approx(budgets[1], rel=EXACT)
    assert linear.theorem[0].budget is not None
    assert linear.theorem[0].budget.value == pytest.approx(budgets[0], rel=EXACT)
    assert alone.theorem[0].size_uniform is True


def test_the_light_cone_starts_as_the_patch_and_widens() -> None:
    cone = st.diagnose(RING, sizes=(32,), sigmas=(1.0,)).cone
    assert cone is not None
    weights = torch.tensor(cone.weights)
    assert cone.kind == "exact"
    assert float(weights[0, 1:].abs().max()) < EXACT
    assert (weights[1:, 4] > 0).all()
    widths = [int((line > 0.01 * line[0]).sum()) for line in weights]
    assert widths[0] == 1
    assert widths[-1] > 5


def test_training_splits_the_error_and_needs_a_student() -> None:
    student = {"kind": "cnn", "blocks": 1, "width": 4}
    found = st.diagnose(RING, student, sizes=(8, 12), sigmas=(0.5, 1.0), train=3, sigma_max=2.0)
    assert found.ready
    assert len(found.errors) == 4
    for line in found.errors:
        assert line.training is not None
        assert line.locality is not None
        whole = line.locality.value**2 + line.training.value**2
        margin = 6 * line.error.error * line.error.value + 6 * line.training.error * line.training.value
        assert abs(line.error.value**2 - whole) <= margin
    assert found.theorem[0].bound is not None
    assert found.theorem[0].bound.kind == "estimate"
    with pytest.raises(SpecError, match="nothing to train"):
        st.diagnose(RING, train=3)


def test_a_student_for_other_fields_is_refused() -> None:
    with pytest.raises(SpecError, match="other fields"):
        st.diagnose(RING, st.student("cnn", FieldInfo(dim=2)))


def test_harmonic_crystals_and_graphs_are_predicted_with_certificates() -> None:
    crystal = st.diagnose("gaussian:harmonic-crystal", {"kind": "cnn", "blocks": 0}, sizes=(5, 6), sigmas=(1.0,))
    local = {"kind": "optimal-local", "mass": 0.5, "radius": 1}
    graph = st.diagnose("gaussian-graph", local, sizes=(12, 16), sigmas=(1.0,))
    for found, subject in ((crystal, "best score of radius 2"), (graph, "student")):
        assert found.rows[0].range.kind == "exact"
        assert found.cone is not None
        assert found.cone.kind == "exact"
        for line in found.theorem:
            assert line.subject == subject
            assert line.bound is not None
            assert line.truth is not None
            assert line.bound.kind == "certificate"
            assert line.truth.upper <= line.bound.value
    assert (crystal.geometry, graph.geometry) == ("lattice", "graph")
    assert graph.theorem[0].size_uniform is True


def test_a_graph_too_large_for_dense_matrices_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theorem_api, "LARGEST_DENSE", 20)
    found = st.diagnose("gaussian-graph", sizes=(16, 24), sigmas=(1.0,))
    assert found.theorem[0].budget is not None
    assert "too many components" in found.theorem[1].reason
    assert found.cone is None


# --- the command ----------------------------------------------------------------------------------------------


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(command_line.main, ["diagnose", *arguments])


QUICK = ("--teacher", "{kind: gaussian, dim: 1, mass: 0.4}", "--size", "16,32", "--sigma", "0.5", "--sigma", "1")


def test_the_command_prints_a_table_with_every_kind_of_number(tmp_path: Path) -> None:
    arguments = ("--student", "{kind: cnn, blocks: 1}", "--tables", "--out", str(tmp_path / "new" / "folder"))
    result = invoke(*QUICK, *arguments)
    assert result.exit_code == 0, result.output
    for text in ("R(0.01)", "covers 0.99", "(certificate)", "exact", "transfers (of the radius)", "uniform in L"):
        assert text in result.output
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "prediction.json",
        "prediction.png",
        "prediction.svg",
    ]


def test_the_command_prints_json_that_a_program_can_read() -> None:
    result = invoke(*QUICK, "--json", "--share", "0.9", "--epsilon", "0.1", "--patch", "0", "--patch", "3")
    assert result.exit_code == 0, result.output
    data = json.loads(result.output)
    assert data["rows"][0]["range"]["kind"] == "exact"
    assert list(data["rows"][0]["covering"]) == ["0.9"]
    assert data["theorem"][0]["patch"] == [[0], [3]]
    assert [line["sigma"] for line in data["forecasts"]] == [0.5, 1.0]
    assert data["overall"]["verdict"] is None
    assert [verdict["radius"] for verdict in data["verdicts"]] == [1, 2, 4]
    assert data["verdicts"][0]["trainings"][0]["qualifiers"] == ["of the radius"]
    assert PredictionSpec.parse(data["spec"]).epsilon == 0.1


def test_clean_responses_are_drawn_against_the_size(tmp_path: Path) -> None:
    arguments = ("--teacher", "flow:short-range-simple", "--student", "cnn", "--size", "8,12", "--out", str(tmp_path))
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    assert "clean" in result.output
    assert "Theorem 1: not known" in result.output
    assert (tmp_path / "prediction.png").stat().st_size > 10_000


WRONG = {
    "sigma": (("--teacher", "gaussian", "--sigma", "0"), "noise level is not positive"),
    "patch": (("--teacher", "gaussian", "--patch", "40,0"), "patch is not a set of sites"),
    "patch of another dimension": (("--teacher", "gaussian", "--patch", "0"), "patch is not a set of sites"),
    "unknown kind": (("--teacher", "gausian"), "Did you mean 'gaussian'"),
    "unknown student": (("--teacher", "gaussian", "--student", "cn"), "Did you mean 'cnn'"),
    "unknown preset": (("--teacher", "flow:medium-rage"), "Did you mean 'medium-range'"),
    "malformed mapping": (("--teacher", "{kind: "), "neither a kind nor a mapping"),
    "list": (("--teacher", "[1, 2]"), "neither a kind nor a mapping"),
    "no kind": (("--teacher", "{mass: 0.3}"), "needs a kind"),
    "wrong field": (("--teacher", "{kind: gaussian, mass: -1}"), "gaussian.mass"),
    "size": (("--teacher", "flow", "--size", "17"), "checkerboard"),
    "small size": (("--teacher", "gaussian", "--size", "1"), "too small"),
    "share": (("--teacher", "gaussian", "--share", "1.5"), "share is not between"),
    "noise range": (("--teacher", "gaussian", "--sigma-min", "3", "--sigma-max", "1"), "noise range"),
    "noise range by default": (("--teacher", "gaussian", "--sigma-min", "1000"), "ten times the scale"),
    "nothing to train": (("--teacher", "gaussian", "--train", "5"), "nothing to train"),
    "numbers": (("--teacher", "gaussian", "--sigma", "high"), "not a list of numbers"),
    "radius": (("--teacher", "gaussian", "--radius", "-1"), "A radius is negative"),
    "dtype": (("--teacher", "gaussian", "--dtype", "float16"), "float32"),
    "student that does not fit": (
        ("--teacher", "gaussian", "--student", "{kind: optimal-local, springs: {}}"),
        "Springs couple displacements",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_questions_are_named_with_a_fix(case: str) -> None:
    arguments, text = WRONG[case]
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert text in result.output
    assert "fix:" in result.output or "Usage:" in result.output
    assert "Traceback" not in result.output


def test_one_gaussian_diagnosis_takes_less_than_ten_seconds_of_processor_time() -> None:
    begin = time.process_time()
    st.diagnose({"kind": "gaussian", "mass": 0.3}, {"kind": "cnn", "blocks": 1})
    assert time.process_time() - begin < 10
