"""The checks of teachers: every mutant dies by the check that is meant for it, every healthy teacher passes."""

from __future__ import annotations

import pytest
import torch
from mutant import Mutant
from teacher_kills import KILLS
from teacher_mutants import MUTANTS, Wells, WellsSpec, subject

from sizetransfer_verification.conformance import (
    Case,
    Evidence,
    NotApplicableError,
    TeacherSubject,
    ViolationError,
    check_teacher,
    checks,
    run_check,
    run_checks,
)
from sizetransfer_verification.conformance.teachers.setting import converges, jacobian

CHECKS = {check.id: check for check in checks("teacher")}

ARGUED = {
    "teacher/answers-have-the-shape-of-the-question": "names the wrong shape, where the others fail by broadcasting",
    "teacher/samples-repeat-with-the-generator": "names the cause of what global-randomness-is-left-alone finds, and "
    "finds a sampler that draws from entropy",
    "teacher/inputs-are-left-alone": "names the cause; which other checks fail depends on the order of calls",
    "teacher/rows-are-answered-alone": "the only one at level api, and for teachers with one capability alone",
    "teacher/answers-repeat": "the only one for teachers that have a size of their own, and at level api",
    "teacher/one-rule-at-every-size": "the others notice by the luck of the sizes they draw",
    "teacher/specification-rebuilds-the-teacher": "the others notice because they happen to build the teacher twice",
    "teacher/score-is-the-gradient-of-the-log-density": "the only one that needs no sampler, and at rounding level",
    "teacher/score-jacobian-is-symmetric": "the only exact one for teachers without a density",
    "teacher/score-is-differentiable": "the only exact one for teachers without noisy fields",
    "teacher/law-is-even": "the only exact one: the sampler may be wrong in the same way",
    "teacher/latent-map-inverts": "exact; the sampler sees only what moves a mean by standard errors",
    "teacher/latent-determinant-is-the-jacobians": "exact, at any size; the integral sees constants above some 2 %",
    "teacher/log-density-is-the-latent-normal": "exact, at any size; the integral sees constants above some 2 %",
    "teacher/covariance-is-that-of-the-gaussian": "exact; the samples see what is larger than their standard errors",
    "teacher/covariance-is-that-of-the-samples": "the only one where all oracles share one wrong covariance",
    "teacher/smoothed-score-is-tweedies": "the cheapest, and the only one for quadratures with both oracles",
    "teacher/response-is-the-posterior-covariance": "exact at any size; the grid reaches four numbers",
    "teacher/smoothed-jacobian-is-symmetric": "the only algebraic one for teachers with a smoothed score alone",
    "teacher/posterior-covariance-is-one": "the only one for teachers that know no smoothed score",
    "teacher/smoothed-score-solves-the-heat-equation": "needs neither density, nor posterior, nor a right sampler",
    "teacher/noisy-oracles-agree-with-brute-force": "the only exact one that ties noisy fields to the density",
    "teacher/score-fluctuates-as-it-responds": "ties the second derivative to the sampler: Stein with f = s",
    "teacher/noisy-samples-follow-the-smoothed-score": "the only one for teachers that know the smoothed score alone",
    "teacher/posterior-mean-predicts-the-clean-field": "the only one for teachers that know the posterior alone",
    "teacher/posterior-covariance-is-that-of-the-residual": "likewise, for its covariance",
    "teacher/rows-are-independent": "the only one that is meant to; the others notice where one call is not typical",
}
"""Checks that kill no mutant alone, and what they are there for."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_mutant_dies_and_the_healthy_teacher_does_not(mutant: Mutant):
    check = CHECKS[mutant.killers[0]]
    outcome = run_check(check, mutant.subject())
    assert outcome.status == "failed", str(outcome)
    assert outcome.cause
    assert outcome.example is not None
    healthy = run_check(check, mutant.healthy())
    assert healthy.status == "passed", str(healthy)


def test_the_example_of_a_failure_fails_again():
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "input-in-place")
    check, broken = CHECKS[mutant.killers[0]], mutant.subject()
    example = run_check(check, broken).example
    again = run_check(check, mutant.subject(), example=Case.parse(example.to_json()))
    assert again.status == "failed"


def test_there_are_as_many_mutants_as_promised():
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.name for mutant in MUTANTS} == set(KILLS)
    for mutant in MUTANTS:
        assert mutant.killers[0] in KILLS[mutant.name]


def test_each_check_kills_a_mutant_that_no_other_kills_or_is_argued_for():
    alone = {killers[0] for killers in KILLS.values() if len(killers) == 1}
    assert set(CHECKS) - alone == set(ARGUED)
    assert set(CHECKS) <= {killer for killers in KILLS.values() for killer in killers}
    assert all(ARGUED.values())


@pytest.mark.paper
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_kill_matrix_is_what_is_found(mutant: Mutant):
    report = run_checks(mutant.subject(), level="core")
    known = {killer for killer in KILLS[mutant.name] if CHECKS[killer].level != "full"}
    assert {outcome.id for outcome in report.outcomes if outcome.wrong} == known


@pytest.mark.parametrize("name", ["gaussian:harmonic-crystal", "gaussian-graph", "flow:short-range-simple"])
def test_healthy_built_in_teachers_pass(name: str):
    report = check_teacher(name)
    assert report.ok, "\n".join(report.problems)
    assert report.comparisons > 300


def test_the_two_wells_pass_every_check_that_applies():
    report = check_teacher(WellsSpec())
    assert report.ok, "\n".join(report.problems)
    assert "passed" in {o.status for o in report.outcomes if o.id == "teacher/noisy-oracles-agree-with-brute-force"}


def test_teachers_of_default_single_precision_pass_where_torch_draws_single_precision():
    torch.set_default_dtype(torch.float32)
    try:
        report = run_checks(subject(Wells))
    finally:
        torch.set_default_dtype(torch.float64)
    assert report.ok, "\n".join(report.problems)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_observed_orders(power: int):
    errors = [2.0 ** (-power * step) for step in range(6)]
    converges(Evidence(), errors, [1e-15] * 6, power, "errors", "h")
    with pytest.raises(ViolationError, match="observed order"):
        converges(Evidence(), errors, [1e-15] * 6, power + 0.5, "errors", "h")


def test_errors_at_rounding_level_have_no_order():
    converges(Evidence(), [3e-15, 1e-15, 2e-15], [1e-15] * 3, 2.0, "errors", "h")
    with pytest.raises(ViolationError):
        converges(Evidence(), [1e-3, 1e-3, 1e-3], [1e-15] * 3, 2.0, "errors", "h")
    with pytest.raises(ViolationError):
        converges(Evidence(), [1e-3, float("nan"), float("nan")], [1e-15] * 3, 2.0, "errors", "h")


def test_jacobians_by_differences_are_those_by_derivatives():
    x = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(0))
    differentiated = jacobian(lambda point: point.sin() * point.sum(), x)
    by_differences = jacobian(lambda point: point.detach().sin() * point.detach().flatten(1).sum(1)[:, None, None], x)
    torch.testing.assert_close(by_differences, differentiated, rtol=1e-9, atol=1e-9)


def test_a_teacher_without_capabilities_is_told_what_the_checks_need():
    report = check_teacher(WellsSpec(), only=("teacher/latent-map-inverts",))
    (outcome,) = report.outcomes
    assert outcome.status == "not applicable"
    assert "HasLatent" in outcome.reason
    assert not report.ok


def test_brute_force_refuses_fields_of_many_numbers():
    outcome = run_check(CHECKS["teacher/noisy-oracles-agree-with-brute-force"], TeacherSubject("gaussian-graph"))
    assert outcome.status == "not applicable"
    assert "numbers" in outcome.reason
    assert issubclass(NotApplicableError, Exception)
