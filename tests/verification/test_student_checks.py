"""The checks of students: healthy ones pass, each broken one fails in the check that is meant for it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from mutant import Mutant
from small_students import (
    BOX,
    CONDITIONED,
    CYLINDER,
    GRAPH,
    LATTICES,
    RING,
    TORUS,
    SmallCNN,
    SmallGraphStudent,
    SmallSpec,
)
from student_mutants import MUTANTS

from sizetransfer.contracts.errors import OracleError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import draw_fields
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student
from sizetransfer_verification.conformance import (
    Case,
    Outcome,
    StudentSubject,
    check_student,
    checks,
    run_check,
    run_checks,
)

BUILT_IN = (
    "cnn",
    {"kind": "cnn", "blocks": 0},
    {"kind": "cnn", "blocks": 1, "condition": "none"},
    "optimal-local",
    {"kind": "optimal-local", "radius": 0, "reference": "lattice"},
)
ARGUED = {
    "student/compiled-score": "What torch.compile changes is a defect of the compiler or of its use, not one line of a "
    "student, and a mutant would need a compiler and minutes; the comparison itself is that of rows-alone.",
}
"""Checks that kill no mutant alone, and why they are there; checks at length share the argument of their names."""


def only(check: str, subject: StudentSubject) -> Outcome:
    """Run one check, global randomness put back afterwards: some mutants disturb it."""
    with torch.random.fork_rng(devices=[]):
        return run_check(checks("student", "full", (check,))[0], subject)


@cache
def outcome_of_healthy(name: str, fields: tuple[FieldInfo, ...], check: str) -> Outcome:
    build = {"SmallCNN": SmallCNN, "SmallGraphStudent": SmallGraphStudent, "SmallSpec": SmallSpec(width=4)}[name]
    return only(check, StudentSubject(build, fields=fields, name=name))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_meant_check_kills_the_mutant(mutant: Mutant):
    outcome = only(mutant.killers[0], mutant.subject())
    assert outcome.status == "failed", outcome
    assert outcome.measured
    assert outcome.cause
    healthy = mutant.healthy()
    assert outcome_of_healthy(healthy.name, healthy.fields, mutant.killers[0]).status == "passed"


def test_mutants_are_named_and_their_killers_exist():
    known = {check.id for check in checks("student")}
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 24
    for mutant in MUTANTS:
        assert set(mutant.killers) <= known
        assert len(set(mutant.killers)) == len(mutant.killers)


def test_each_check_kills_alone_or_is_argued():
    alone = {mutant.killers[0] for mutant in MUTANTS if len(mutant.killers) == 1}
    at_length = {check.id for check in checks("student") if check.id.endswith("-at-length")}
    assert {name.removesuffix("-at-length") for name in at_length} <= alone
    assert {check.id for check in checks("student")} - at_length - alone == set(ARGUED)


@pytest.mark.parametrize("student", BUILT_IN, ids=str)
def test_built_in_students_keep_the_contract_at_level_api(student):
    report = check_student(student, level="api").raise_if_failed()
    assert report.comparisons > 100


def test_a_built_in_student_keeps_the_contract_at_level_core():
    report = check_student({"kind": "cnn", "blocks": 0, "width": 8}).raise_if_failed()
    assert [outcome.id for outcome in report.outcomes if outcome.status == "not applicable"] == [
        "student/relabelling-equivariance"
    ]


def test_small_students_keep_the_whole_contract():
    report = run_checks(StudentSubject(SmallSpec(), fields=(*LATTICES, GRAPH))).raise_if_failed()
    assert report.counts == {"passed": len(report.outcomes)}


class DeclaresIgnored(SmallCNN):
    ignores = frozenset({"condition"})


class IgnoresAndSaysSo(DeclaresIgnored):
    def inputs(self, x, context):
        inputs = super().inputs(x, context)
        return torch.cat([inputs[:, :1], torch.zeros_like(inputs[:, 1:])], dim=1)


def test_what_is_declared_to_be_ignored_must_not_be_seen():
    check = "student/condition-reaches-the-score"
    assert only(check, StudentSubject(DeclaresIgnored, fields=(CONDITIONED,))).status == "failed"
    assert only(check, StudentSubject(IgnoresAndSaysSo, fields=(CONDITIONED,))).status == "passed"


class DeclaresNonsense(SmallCNN):
    ignores = frozenset({"conditions"})


def test_unknown_declarations_are_refused():
    assert only("student/declarations", StudentSubject(DeclaresNonsense, fields=(TORUS,))).status == "failed"


class RefusesMasks(SmallCNN):
    def inputs(self, x, context):
        if context.mask is not None:
            raise OracleError("There are no dead sites.")
        return super().inputs(x, context)


def test_masks_may_be_refused_by_name():
    outcome = only("student/dead-sites-are-left-out", StudentSubject(RefusesMasks, fields=(TORUS,)))
    assert outcome.status == "not applicable"
    assert "There are no dead sites." in outcome.reason


class GlobalStudent(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.radius = None

    def activation(self, hidden):
        return super().activation(hidden + hidden.mean((-1, -2), keepdim=True))


def test_a_global_student_has_no_radius_to_measure():
    report = run_checks(StudentSubject(GlobalStudent, fields=(TORUS,))).raise_if_failed()
    left_out = {outcome.id for outcome in report.outcomes if "a declared radius" in outcome.reason}
    assert {"student/nothing-beyond-the-radius", "student/same-patch-same-score"} <= left_out


class Raises(SmallCNN):
    def hidden(self, x, sigma, context):
        raise ZeroDivisionError("inside the plugin")


def test_what_a_student_raises_is_a_failure_with_its_place():
    outcome = only("student/rows-alone", StudentSubject(Raises, fields=(TORUS,)))
    assert outcome.status == "failed"
    assert "ZeroDivisionError: inside the plugin" in outcome.reason
    assert "hidden" in outcome.measured


class FailsOnce(SmallCNN):
    def __init__(self, field):
        super().__init__(field)
        self.calls = 0

    def activation(self, hidden):
        self.calls += 1
        return super().activation(hidden) * (1 + (self.calls == 3))


def test_a_failure_that_does_not_come_again_is_told_as_such():
    outcome = only("student/rows-alone", StudentSubject(FailsOnce, fields=(TORUS,)))
    assert outcome.status == "failed"
    assert "did not fail a second time" in outcome.reason
    assert "score of row" in outcome.reason


def test_every_field_gets_its_share_of_the_cases():
    seen = set()

    class Watched(SmallCNN):
        def forward(self, x, sigma, context):
            seen.add(self.field)
            return super().forward(x, sigma, context)

    subject = StudentSubject(Watched, fields=(*LATTICES, BOX.model_copy(update={"dim": 3})))
    seen.clear()
    assert only("student/rows-alone", subject).status == "passed"
    assert seen == set(subject.fields)


def test_an_example_runs_alone():
    report = check_student(SmallSpec(), fields=(TORUS,), only=("student/rows-alone",), example=Case(size=5, batch=3))
    assert report.ok
    assert report.outcomes[0].examples == 1


class FittedFilter(Student):
    """A linear score that its fit fills: before it, a student of radius zero."""

    reach = 2

    def __init__(self, field):
        super().__init__(field, radius=2)
        self.register_buffer("share", torch.zeros(()))

    def fit(self, teacher, size, *, seed):
        x = draw_fields(teacher, 64, size, generator=stream(seed, "fitted-filter")).x
        self.share = -(x * x.roll(1, -1)).mean() / x.square().mean()

    def forward(self, x, sigma, context):
        around = sum(x.roll((step, other), (-2, -1)) for step in (self.reach, -self.reach) for other in (0, 1))
        score = -(x + self.share * around) / (expand(sigma, x) ** 2 + self.field.sigma_data**2)
        return score if context.mask is None else score * context.mask


class FitReachesFarther(FittedFilter):
    """What was fitted looks at a distance of three steps, and not at one of two."""

    reach = 3


@pytest.mark.parametrize("check", ["student/nothing-beyond-the-radius", "student/radius-is-reached"])
def test_a_student_that_is_fitted_is_examined_as_it_is_after_the_fit(check):
    assert only(check, StudentSubject(FittedFilter, fields=(TORUS,))).status == "passed"
    assert only(check, StudentSubject(FitReachesFarther, fields=(TORUS,))).status == "failed"


class FitForgotten(FittedFilter):
    """What is fitted is no buffer, and is lost with the process."""

    def __init__(self, field):
        super().__init__(field)
        del self.share
        self.share = torch.zeros(())


def test_what_a_fit_found_must_be_stored_with_the_weights():
    assert only("student/weights-round-trip", StudentSubject(FittedFilter, fields=(TORUS,))).status == "passed"
    assert only("student/weights-round-trip", StudentSubject(FitForgotten, fields=(TORUS,))).status == "failed"


class OneGraph(SmallGraphStudent):
    """Without weights; after its fit it takes the graph of the fit alone."""

    def __init__(self, field):
        super().__init__(field)
        self.requires_grad_(False)
        self.count = None

    def fit(self, teacher, size, *, seed):
        self.count = teacher.domain(size).sites

    def forward(self, x, sigma, context):
        if self.count not in {None, x.shape[-1]}:
            raise OracleError("Another graph.")
        return super().forward(x, sigma, context)


def test_a_graph_on_which_no_size_can_be_changed_after_the_fit_is_left_out_with_the_reason():
    subject = StudentSubject(
        lambda field: (OneGraph if field.geometry == "graph" else FittedFilter)(field), fields=(TORUS, GRAPH)
    )
    assert subject.fields == (TORUS,)
    assert subject.refused == {GRAPH: "Another graph."}


def test_the_best_linear_student_keeps_the_contract_after_its_fit():
    fields = (TORUS, RING, CONDITIONED, BOX, CYLINDER, GRAPH)
    subject = StudentSubject({"kind": "best-linear", "radius": 2, "fields": 64}, fields=fields)
    report = run_checks(subject).raise_if_failed()
    assert list(subject.refused) == [GRAPH]
    assert {"student/radius-is-reached", "student/walls-are-seen"} <= {
        outcome.id for outcome in report.outcomes if outcome.status == "passed"
    }
