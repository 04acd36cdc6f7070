"""Figure 3 in small: every lattice student on the hard-valid teacher, through the ordinary interface, to the report."""

from __future__ import annotations

import math

import pytest
import torch

import sizetransfer as st

STUDENTS = {
    "R=4": {"kind": "cnn", "blocks": 1, "width": 4},
    "wide-cnn": {"kind": "cnn", "blocks": 2, "width": 2},
    "attention": {"kind": "sliding-attention", "depth": 2, "window": 1, "width": 8, "heads": 2},
    "unet": {"kind": "unet", "levels": 1, "width": 4},
    "spectral": {"kind": "spectral", "blocks": 1, "width": 4},
}
TINY = {
    "teachers": {"local": {"width": 4}, "medium": None, "wide-quiet": None, "wide": {"width": 4}},
    "students": {**STUDENTS, "R=6": None, "R=8": None},
    "seeds": [0],
    "training": {"size": 4, "steps": 2, "batch": 2, "objective": "mixed"},
    "evaluation": {
        "sizes": [4, 6],
        "measures": {
            "clean-score": {"fields": 3, "margin": 2},
            "response": {"fields": 2, "repeats": 1, "margin": 1, "far": {"nearest": 2, "farthest": 3}},
            "jacobian": {"fields": 2, "margin": 1, "far": {"nearest": 2, "farthest": 3}},
            "linear-references": {"fields": 64, "radii": [1], "margin": 1},
        },
        "restrict": {"response": [6], "jacobian": [6], "linear-references": [6]},
    },
    "optional": [],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    torch.set_num_threads(1)
    overrides = {name: value for name, value in TINY.items() if name not in ("teachers", "students", "evaluation")}
    for group in ("teachers", "students"):
        overrides |= {f"{group}.{name}": fields for name, fields in TINY[group].items()}
    overrides |= {f"evaluation.{name}": value for name, value in TINY["evaluation"].items() if name != "measures"}
    overrides |= {f"evaluation.measures.{name}": value for name, value in TINY["evaluation"]["measures"].items()}
    return st.run(
        "figure3", tmp_path_factory.mktemp("run"), preset="quick", overrides=overrides, device="cpu", executor="serial"
    )


def test_every_lattice_student_runs_without_special_cases(finished):
    assert not finished.failures
    assert not finished.skipped
    errors = finished.records[finished.records["part"] == "relative_rmse"]
    assert set(errors["student"]) == set(STUDENTS)
    assert errors["value"].map(math.isfinite).all()


def test_a_box_without_bulk_has_no_bulk_error(finished):
    bulk = finished.records[finished.records["part"] == "bulk_relative_rmse"]
    assert bulk[bulk["size"] == 4]["value"].isna().all()
    assert bulk[bulk["size"] == 6]["value"].notna().all()


def test_references_of_balls_that_are_too_large_are_missing(finished):
    found = finished.records[finished.records["measure"] == "linear-references"]
    assert set(found["student"]) == set(STUDENTS)
    assert "linear" in set(found[found["student"] == "attention"]["part"])
    wide = found[found["student"] == "wide-cnn"]
    assert "null" in set(wide["part"])
    assert not {"linear", "best"} & set(wide["part"])


def test_the_report_has_its_figures(finished):
    figures = {path.stem for path in (finished.path / "figures").glob("*.png")}
    assert {"bulk-and-boundary", "far-to-near"} <= figures


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_both_presets_load_and_hold_students_against_each_other_at_one_margin(preset):
    experiment = st.load("figure3", preset=preset)
    students = {name: spec.build(teacher_field()) for name, spec in experiment.students.items() if spec.kind == "cnn"}
    counts = [sum(parameter.numel() for parameter in student.parameters()) for student in students.values()]
    assert max(counts) < 1.1 * min(counts)
    assert experiment.evaluation.measures["clean-score"].margin is not None
    assert max(experiment.evaluation.sizes) == {"quick": 24, "paper": 48}[preset]


def teacher_field():
    return st.teacher("hard-valid", preset="local").field
