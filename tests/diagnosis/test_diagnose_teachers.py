"""What `diagnose` knows of every kind of teacher: best scores of spins, boxes and their bulk, what is beyond reach."""

from __future__ import annotations

import json
import math

import pytest
import torch
from click.testing import CliRunner

import sizetransfer as st
from sizetransfer import cli as command_line
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Context, Sample
from sizetransfer.contracts.quantity import Quantity
from sizetransfer.diagnosis import PredictionSpec
from sizetransfer.diagnosis.evidence import Candidate, Surroundings, _Numbers
from sizetransfer.diagnosis.figure import draw_prediction
from sizetransfer.diagnosis.pairs import change_of_pairs, pair_statistics
from sizetransfer.drawing import style
from sizetransfer.measures.law_statistics import law_statistics
from sizetransfer.systems.ising import IsingModel

# --- spins --------------------------------------------------------------------------------------------------------


def test_radii_of_spins_are_judged_by_the_best_score_of_the_radius_as_students_are():
    asked = {"sizes": (6, 8), "sigmas": (0.5,), "fields": 4}
    radii, student = (
        st.diagnose("ising", radii=(2,), **asked),
        st.diagnose("ising", {"kind": "cnn", "blocks": 0}, **asked),
    )
    (level,), (other,) = radii.verdicts[0].trainings[0].levels, student.verdicts[0].trainings[0].levels
    assert level.irreducible == other.irreducible == level.error
    assert math.isnan(level.linear)  # a linear filter of spins knows 3 % where the best score knows all
    assert "the best score of radius 2" in radii.verdicts[0].reason
    assert radii.verdicts[0].word == student.verdicts[0].word == "radius-limited"


@pytest.mark.parametrize("size", [16, 1000, 10**6])
def test_a_lattice_beyond_the_solver_is_refused_before_anything_is_computed(size):
    result = CliRunner().invoke(command_line.main, ["diagnose", "--teacher", "ising", "--size", f"8,{size}"])
    assert result.exit_code == 2
    for text in (
        f"{size} x {size} torus",
        "where:",
        f"sizes, {size}",
        "at most 4 GiB and 600 s",
        "estimate",
        "up to 13",
    ):
        assert text in result.output
    with pytest.raises(SpecError, match="more than is allowed"):
        PredictionSpec(sizes=(8, size)).sizes_for(st.teacher("ising"))
    assert PredictionSpec(sizes=(8, 13)).sizes_for(st.teacher("ising")) == (8, 13)


def test_the_estimate_of_a_long_row_is_a_number():
    costs = [IsingModel(0.4, boundary).cost((width, width)) for boundary in ("torus", "open") for width in (300, 10**5)]
    assert all(math.isfinite(cost.operations) and math.isfinite(cost.memory) for cost in costs)


# --- boxes --------------------------------------------------------------------------------------------------------


def test_a_box_knows_its_correlation_length_and_how_its_law_changes():
    teacher = st.teacher("hard-valid", preset="local", width=4)
    around = Surroundings(teacher, "box", PredictionSpec(reference_fields=16), (6, 8), "clean", {})
    expected = {one.part: one for one in law_statistics(around.sample(8), dimension=3)}
    assert around.correlation_squared.value == expected["correlation_length_squared"].value
    (change,) = around.changes
    before = {one.part: one.value for one in law_statistics(around.sample(6), dimension=3)}
    assert change.site_variance.value == pytest.approx(expected["site_variance"].value / before["site_variance"])
    assert change.size == 8
    assert change.site_variance.error > 0


def test_the_law_of_pairs_against_white_noise_and_a_law_that_is_not_known():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, 1, 8, 8, generator=generator)
    domain = st.teacher("ising", boundary="open").domain(8)
    small, large = (pair_statistics(Sample(scale * x, Context(domain)), 2) for scale in (1.0, 2.0))
    change = change_of_pairs(8, small, large)
    assert change.site_variance.value == pytest.approx(4)
    assert small["site_variance"].value == pytest.approx(1, abs=0.05)
    assert change_of_pairs(8, {}, large) is None


class _Around:
    """Errors by radius, of which none is the whole lattice."""

    def __init__(self, errors):
        self.errors = errors
        self.spec = PredictionSpec()

    def larger_radii(self, radius):
        return [one for one in self.errors if one is not None and one > radius]


class _Given(_Numbers):
    def _of(self, radius, sigma, size):
        value = self.around.errors.get(radius)
        return None if value is None else Quantity.estimated(value, 0.01, 64)


@pytest.mark.parametrize(
    ("errors", "best"),
    [
        ({1: 0.57, None: 0.50}, 0.50),  # the whole lattice
        ({1: 0.57, 2: 0.52, 4: 0.63}, 0.52),  # of a box, larger radii: one with too few fields does not hide another
        ({2: 0.505, 4: 0.506}, 0.505),  # a larger ball is worth nothing
        ({2: 0.52, 4: 0.63}, None),  # nothing but a filter with too few fields: not known
        ({2: 0.52}, None),
    ],
)
def test_what_locality_costs_is_known_by_filters_with_enough_fields(errors, best):
    radius = min(one for one in errors if one is not None)
    found = _Given(Candidate("filter", radius), _Around(errors))
    reference = found._best(found._of(radius, 0.0, 8), found._of(None, 0.0, 8), 0.0, 8)
    assert (reference and reference.value) == best


def test_larger_radii_stay_within_a_torus_and_below_large_balls():
    spec = PredictionSpec()
    torus = Surroundings(st.teacher("gaussian", dim=2), "torus", spec, (16, 32), "gaussian", {})
    assert torus.larger_radii(1) == [2, 4]
    assert torus.larger_radii(4) == [5]
    box = Surroundings(st.teacher("hard-valid", preset="local", width=4), "box", spec, (8, 12), "clean", {})
    assert box.larger_radii(2) == [3, 4]
    assert box.larger_radii(None) == []


# --- sentences ----------------------------------------------------------------------------------------------------


def test_the_sufficient_radius_is_said_to_be_of_the_score_alone():
    """Below a radius-limited verdict 'smallest sufficient radius: 1' would contradict it."""
    found = st.diagnose({"kind": "gaussian", "dim": 1, "mass": 0.5}, sizes=(16, 32), sigmas=(0.5,))
    assert "Smallest radius whose score is within 10 % of the exact one: 1 (exact)" in found.text()


def test_the_title_of_the_figure_says_the_verdict_and_whose_it_is():
    asked = {"sizes": (16, 32), "sigmas": (0.5,)}
    law = {"kind": "gaussian", "dim": 1, "mass": 0.5}
    titles = {
        "gaussian, cnn\ntransfers (of the radius)": st.diagnose(law, {"kind": "cnn", "blocks": 1}, **asked),
        "gaussian, optimal-local\ntransfers": st.diagnose(
            law, {"kind": "optimal-local", "mass": 0.5, "radius": 4, "reference": "lattice"}, **asked
        ),
        "gaussian": st.diagnose(law, **asked),
    }
    for title, found in titles.items():
        with style.drawing():
            axes = draw_prediction(found).axes[0]
        assert axes.get_title(loc="left") == title


def test_a_field_theory_has_sizes_at_which_posteriors_are_sampled_in_minutes():
    assert PredictionSpec().sizes_for(st.teacher("phi4", dim=2)) == (8, 12)
    assert PredictionSpec().sizes_for(st.teacher("phi4", dim=1)) == (32, 64, 128)


def test_the_fields_that_a_verdict_asks_for_can_be_given():
    options = [
        "--fields",
        "3",
        "--reference-fields",
        "20",
        "--size",
        "6,8",
        "--sigma",
        "0.5",
        "--radius",
        "1",
        "--json",
    ]
    result = CliRunner().invoke(command_line.main, ["diagnose", "--teacher", "ising", *options])
    asked = json.loads(result.output)["spec"]
    assert (asked["fields"], asked["reference_fields"]) == (3, 20)
    refused = CliRunner().invoke(command_line.main, ["diagnose", "--teacher", "ising", "--fields", "1"])
    assert refused.exit_code == 2
    assert "fix" in refused.output


def test_a_preset_is_part_of_the_name():
    asked = {"sizes": (8, 12), "sigmas": (0.5,), "radii": (1,)}
    for choice in (
        "gaussian:near-critical",
        "{kind: gaussian, preset: near-critical}",
        {"kind": "gaussian", "preset": "near-critical"},
    ):
        assert str(st.diagnose(choice, **asked)).startswith("gaussian:near-critical, radius 1: ")
