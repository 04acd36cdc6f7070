"""What `diagnose` says before training: the rule's words for known laws, its text, and where it computes."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

import sizetransfer as st
from sizetransfer import cli as command_line
from sizetransfer.contracts.errors import RunError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.diagnosis import predict
from sizetransfer.diagnosis.evidence import linear_response
from sizetransfer.diagnosis.law import exact_law, filter_error, generated_ratios
from sizetransfer.scores.references import exact_moments
from sizetransfer.scores.references.consequence import consequence, gain

RING = {"kind": "gaussian", "dim": 1, "mass": 0.5}
ASKED = {"sizes": (16, 32), "sigmas": (0.5,)}


def square(mass):
    return {"kind": "gaussian", "dim": 2, "mass": mass}


# --- words --------------------------------------------------------------------------------------------------------

ROWS = {
    (0.5, 2): ("transfers", 0.990, 0.971, 0.70),
    (0.1, 4): ("radius-limited", 0.938, 0.897, 0.245),
    (0.03, 4): ("radius-limited", 0.781, 0.70, 0.050),
    (0.03, 8): ("radius-limited", 0.838, 0.78, 0.15),
    (0.01, 8): ("radius-limited", 0.454, 0.406, 0.083),
}


@pytest.mark.parametrize(("mass", "radius"), ROWS)
def test_best_filters_of_gaussian_tori_of_64_sites(mass, radius):
    word, *expected = ROWS[mass, radius]
    found = st.diagnose(square(mass), sizes=(32, 64), radii=(radius,), sigmas=(0.5, 1.0))
    (verdict,) = found.verdicts
    assert verdict.label == f"{word} (of the radius)"
    made = [one.ratio for one in verdict.trainings[0].generated if one.of == "the best of the radius"]
    assert made == pytest.approx(expected, abs=0.006)
    assert "Long-range order of radius" in found.text()


def test_a_gaussian_of_small_mass_is_nothing_that_a_default_question_says_transfers():
    for radius in (4, 8):
        found = st.diagnose(square(0.03 if radius == 4 else 0.01), {"kind": "cnn", "blocks": radius // 2 - 1})
        assert found.overall.verdict == "radius-limited"
        assert radius not in {row.size // 2 for row in found.sigma_needed}


def test_a_ball_that_holds_the_lattice_settles_nothing():
    found = st.diagnose("ising", {"kind": "cnn", "blocks": 1}, sizes=(4, 6), sigmas=(1.0,), fields=2)
    assert found.overall.verdict == "undecided"
    assert "holds the lattice" in found.overall.reason
    assert found.verdict.what_would_decide == ("a training size of at least 10",)
    ready = st.diagnose(RING, {"kind": "optimal-local", "mass": 0.5, "radius": 8}, **ASKED)
    assert ready.overall.verdict == "undecided"


def test_the_critical_ising_model_does_not_transfer_at_a_radius_within_the_lattice():
    found = st.diagnose("ising", {"kind": "cnn", "blocks": 0}, sizes=(6, 8), sigmas=(0.5,), fields=4)
    assert found.overall.verdict in {"radius-limited", "undecided"}
    assert found.sigma_needed[1].sigma.value > found.sigma_needed[0].sigma.value


def test_a_teacher_of_clean_scores_is_judged_by_them():
    student = {"kind": "cnn", "blocks": 1}
    found = st.diagnose("flow:medium-range", student, sizes=(16, 32), reference_fields=64)
    assert found.overall.verdict in {"radius-limited", "undecided"}
    assert [level.sigma for level in found.verdict.trainings[0].levels] == [0.0]


def test_a_field_theory_is_judged_by_posterior_samples():
    asked = {"sizes": (12, 16), "sigmas": (0.3,), "fields": 2, "reference_fields": 32}
    found = st.diagnose({"kind": "phi4", "dim": 1}, {"kind": "cnn", "blocks": 0}, **asked)
    assert found.source == "sampled"
    assert [level.sigma for level in found.verdict.trainings[0].levels] == [0.3]


def test_a_model_is_measured_and_an_untrained_one_has_not_learned():
    student = {"kind": "cnn", "blocks": 0, "width": 4}
    found = st.diagnose(RING, student, train=1, **ASKED)
    assert found.verdict.label == "not learned"
    assert found.verdict.trainings[0].qualifiers == ()


def test_a_linear_model_is_told_what_it_generates():
    student = {"kind": "optimal-local", "mass": 0.5, "radius": 4, "reference": "lattice"}
    found = st.diagnose(RING, student, **ASKED)
    assert found.overall.verdict == "transfers"
    assert {one.source for one in found.verdict.trainings[0].generated if one.of == "this model"} == {"closed form"}


def test_one_size_a_global_student_and_too_much_noise_are_undecided():
    cases = {
        "above the training size": st.diagnose(RING, {"kind": "cnn"}, sizes=(32,), sigmas=(0.5,)),
        "global student": st.diagnose(RING, {"kind": "spectral"}, **ASKED),
        "above the site deviation": st.diagnose(RING, {"kind": "cnn", "blocks": 1}, sizes=(16, 32), sigmas=(50.0,)),
    }
    for text, found in cases.items():
        assert found.overall.verdict == "undecided"
        assert text in found.overall.reason
        assert "what would decide it" in found.text()


# --- numbers ------------------------------------------------------------------------------------------------------


def test_closed_forms_agree_with_those_of_the_references():
    teacher = st.teacher("gaussian", dim=2, mass=0.3)
    small, large = exact_law(teacher, 8), exact_law(teacher, 16)
    noise = NoiseSchedule(sigma_min=0.05, sigma_max=20.0)
    known = consequence(teacher, 16, 2, noise=noise, fitted=8)
    found = generated_ratios(small.moments, large.moments, 2, noise)
    assert found == pytest.approx([known.variance, known.nearest, known.zero_mode], rel=1e-12)
    assert large.sigma_needed == pytest.approx((10 / 0.3**2) ** 0.5)
    assert large.correlation_squared.value == pytest.approx(1 / 0.3**2)


def test_the_error_of_a_filter_is_the_irreducible_one_where_it_was_fitted():
    teacher = st.teacher("gaussian", dim=1, mass=0.3)
    law = exact_law(teacher, 16)
    (row,) = st.diagnose({**RING, "mass": 0.3}, {"kind": "cnn", "blocks": 0}, sizes=(16,), sigmas=(1.0,)).rows
    assert filter_error(law.moments.filter(2), law, 1.0).value == pytest.approx(row.irreducible.value, rel=1e-6)


def test_the_response_of_a_linear_model_is_the_gain_of_its_filter():
    teacher = st.teacher("gaussian", dim=1, mass=0.5)
    student = st.student("optimal-local", teacher.field, mass=0.5, radius=2, reference="lattice").double()
    v = torch.tensor(0.49, dtype=torch.float64)
    moments = exact_moments(teacher, 12)
    expected = gain(moments.filter(2), v, moments.cells)
    assert torch.allclose(linear_response(student, (12,))(v), expected, atol=1e-6)
    assert linear_response(_Cubed(student), (12,)) is None


class _Cubed(st.Student):
    def __init__(self, student):
        super().__init__(student.field, radius=student.radius)

    def forward(self, x, sigma, context: Context):
        return -(x**3)


# --- text, device -------------------------------------------------------------------------------------------------

QUICK = ("--teacher", "{kind: gaussian, dim: 1, mass: 0.5}", "--size", "16,32", "--sigma", "0.5")


def invoke(*arguments):
    return CliRunner().invoke(command_line.main, ["diagnose", *arguments])


def test_printing_reads_like_the_console():
    found = st.diagnose(RING, **ASKED)
    assert f"{found}\n" == invoke(*QUICK, "--device", "cpu").output
    assert str(found).startswith("gaussian, radius 1: ")
    assert "Response of the score" not in str(found)


def test_tables_and_the_rule_come_on_demand():
    tables, rule = invoke(*QUICK, "--tables").output, invoke(*QUICK, "--explain").output
    assert "Response of the score" in tables
    assert "Every test is one-sided" not in tables
    assert "Every test is one-sided at 1 %" in rule
    assert "Response of the score" not in rule
    found = st.diagnose(RING, **ASKED)
    assert found.text(tables=True) + "\n" == tables
    assert found.text(explain=True) + "\n" == rule


def test_thresholds_of_the_command_are_those_of_the_verdict():
    text = invoke(*QUICK, "--explain", "--growth", "0.3", "--tolerance", "0.2").output
    assert "is above 1.3" in text
    assert "is above 0.2 at some judged" in text


def test_device_and_dtype_are_as_in_a_run():
    assert invoke(*QUICK, "--dtype", "float64", "--device", "cpu").exit_code == 0
    result = invoke(*QUICK, "--device", "nowhere")
    assert result.exit_code != 0
    for text in ("The device 'nowhere' cannot be used", "expected", "got", "fix"):
        assert text in result.output
    with pytest.raises(RunError, match="nowhere"):
        st.diagnose(RING, device="nowhere", **ASKED)
    with pytest.raises(SpecError, match="no such arithmetic"):
        st.diagnose(RING, dtype="float16", **ASKED)
    with pytest.raises(SpecError, match="computed as it is"):
        st.diagnose(st.teacher("gaussian", dim=1), device="cpu", **ASKED)


def test_the_same_question_gets_the_same_answer():
    teacher = st.teacher("gaussian", dim=1, mass=0.5)
    one, other = (predict(teacher, spec=None).to_json() for _ in range(2))
    assert one == other
