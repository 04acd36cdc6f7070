"""What measures declare of their parts: what comes is what is declared, for every built-in measure."""

from __future__ import annotations

import math
from functools import cache
from typing import ClassVar, Literal

import pytest
from hard_valid_zoo import build

import sizetransfer as st
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.parts import SERVICES, Part, declared, relative_error, split_class
from sizetransfer.contracts.specs import MeasureSpec, NoiseSchedule, TrainingSpec
from sizetransfer.registry import default_registry
from sizetransfer.runs.schema import describe_parts

TORUS = ("gaussian", {"mass": 1.0})
SPINS = ("ising", {"beta": 0.3})
FLOW = ("flow", {"preset": "medium-range"})

CASES = {
    "clean-score": [(FLOW, 6, {"fields": 2}), ("hard-valid", 8, {"fields": 4, "margin": 1})],
    "response": [(FLOW, 12, {"fields": 2, "repeats": 1, "far": {"nearest": 3, "farthest": 4}})],
    "jacobian": [(FLOW, 12, {"fields": 2, "sites": 1, "far": {"nearest": 3, "farthest": 4}})],
    "locality": [(TORUS, 6, {"fields": 2, "radii": [0, 1]})],
    "linear-references": [
        (TORUS, 8, {"sigmas": [0.5], "radii": [1], "fields": 8}),
        (SPINS, 6, {"sigmas": [0.5], "radii": [1], "fields": 32}),
    ],
    "second-order-forecast": [(TORUS, 6, {"fields": 8})],
    "generation": [(TORUS, 6, {"fields": 4, "sampler": {"steps": 4}})],
    "conditional-generation": [("hard-valid", 8, {"fields": 8, "sampler": {"steps": 4}})],
    "smoothed-response": [(TORUS, 6, {"sigmas": [0.5], "fields": 2, "sites": 4})],
    "smoothed-score": [(TORUS, 6, {"fields": 2})],
    "denoising-loss": [
        (TORUS, 6, {"sigmas": [0.5], "fields": 4, "reference_fields": 512}),
        ("hard-valid", 8, {"sigmas": [0.5], "fields": 2, "radii": [1], "reference_fields": 32}),
    ],
    "shell-response": [(SPINS, 6, {"sigmas": [0.5, 1.0], "fields": 2, "radii": [1], "probe": 2})],
    "zero-field": [(SPINS, 6, {"radii": [1]})],
}
"""Of every built-in measure: teachers, sizes and settings with which it gives all its parts."""
BOXES_HAVE_NONE = {
    "conditional-generation": [
        f"{who}{wave}_ratio" for who in ("", "control_") for wave in ("zero_mode", "smallest_wave")
    ]
}
"""Parts of tori, of a measure of which no built-in teacher lives on one."""
TRAINING = TrainingSpec(size=6, noise=NoiseSchedule(sigma_min=0.1, sigma_max=2.0))


def measured(kind, teacher, size, settings):
    oracle = build("local") if teacher == "hard-valid" else st.teacher(teacher[0], **teacher[1]).double().frozen()
    student = st.student("cnn", oracle.field, blocks=0, width=2).double().eval()
    spec = default_registry().lookup("measure", kind).parse({"kind": kind, **settings}).for_training(TRAINING)
    return spec, list(spec.measure(oracle, student, size, sigma=0.1, seed=0))


@cache
def all_measured(kind):
    return [measured(kind, *case) for case in CASES[kind]]


def test_every_built_in_measure_is_a_case():
    assert set(CASES) == {name for name, one in default_registry().kinds("measure").items() if built_in(one)}


def built_in(one):
    return one.distribution == "sizetransfer"


@pytest.mark.parametrize("kind", CASES)
def test_what_comes_is_what_is_declared(kind):
    for spec, rows in all_measured(kind):
        for row in rows:
            part = spec.declared(row.part)
            assert part is not None, f"{kind} gives {row.part}, which it does not declare"
            _require_coordinate(part, row)
            if part.known == "exact":
                assert math.isnan(row.standard_error) or row.standard_error == 0, row


def _require_coordinate(part, row):
    if not part.has_coordinate:
        assert math.isnan(row.coordinate), f"{row.part} has no axis, and the coordinate {row.coordinate}"
        return
    assert math.isfinite(row.coordinate), f"{row.part} has the axis {part.axis}, and no coordinate"
    if part.axis in ("radius", "distance", "class"):
        assert row.coordinate == int(row.coordinate) >= 0
    elif part.axis == "noise":
        assert 0 <= row.coordinate <= 5


@pytest.mark.parametrize("kind", CASES)
def test_what_is_declared_comes(kind):
    names = {row.part for _, rows in all_measured(kind) for row in rows}
    parts = all_measured(kind)[0][0].declarations()
    given = {id(declared(parts, name)) for name in names}
    assert [name for name, part in parts.items() if id(part) not in given] == BOXES_HAVE_NONE.get(kind, [])


@pytest.mark.parametrize("kind", CASES)
def test_the_figures_that_draw_a_measure_are_there(kind):
    assert set(default_registry().lookup("measure", kind).figures) <= set(default_registry().figures())


def test_a_whole_name_comes_before_a_pattern_and_patterns_in_order():
    parts = {
        "range_*": Part("response", "one", "noise"),
        "*_0.05": Part("response", "two"),
        "range_1": Part("response", "three"),
    }
    assert [getattr(declared(parts, name), "label", None) for name in ("range_0.05", "range_1", "other")] == [
        "one",
        "three",
        None,
    ]


@pytest.mark.parametrize(
    ("changes", "judged"),
    [
        ({}, True),
        ({"axis": "noise"}, True),
        ({"region": "bulk"}, True),
        ({"axis": "distance"}, False),
        ({"region": "site"}, False),
        ({"unit": "1/field"}, False),
        ({"role": "error of the denoiser"}, False),
    ],
)
def test_relative_errors_of_the_whole_score_are_judged(changes, judged):
    assert Part(**{"role": "error of the score", "label": "an error", "unit": "relative", **changes}).judged is judged


@pytest.mark.parametrize(
    ("field", "value"),
    [("role", "error"), ("axis", "time"), ("known", "maybe"), ("region", "edge"), ("serves", "reference: nul")],
)
def test_a_word_that_describes_nothing_is_refused(field, value):
    with pytest.raises(SpecError) as caught:
        Part(**{"role": "evidence", "label": "a part", field: value})
    assert caught.value.where == f"Part.{field}"
    assert repr(value) in str(caught.value)


def test_only_a_class_axis_has_classes():
    with pytest.raises(SpecError) as caught:
        Part("evidence", "a part", "noise", classes=("corner",))
    assert (caught.value.where, caught.value.got) == ("Part.axis", "'noise'")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sites/corner/mean/exact", ("sites/{class}/mean/exact", "corner")),
        ("pairs/a/b/covariance/exact", ("pairs/{class}/b/covariance/exact", "a")),
        ("whole/name/of/exact", ("whole/name/of/exact", "")),
        ("other_exact", ("other_exact", "")),
        ("none", ("none", "")),
    ],
)
def test_a_name_is_split_at_its_class(name, expected):
    one = Part("evidence", "one", "class")
    parts = {"*_exact": one, "*/{class}/*/exact": one, "whole/name/of/exact": one}
    assert split_class(parts, name) == expected
    assert (declared(parts, name) is None) == (name == "none")


@pytest.mark.parametrize(
    "parts",
    [["one"], {"one": "a number"}, {"null_*": Part("evidence", "null", "noise", serves="reference: null")}],
)
def test_a_declaration_that_is_none_is_refused(parts):
    given = parts

    with pytest.raises(SpecError) as caught:

        class Wrong(MeasureSpec):
            kind: Literal["wrong"] = "wrong"
            parts: ClassVar = given

    assert caught.value.where.startswith("Wrong.parts")


class LevelsSpec(MeasureSpec):
    kind: Literal["levels"] = "levels"
    presets: ClassVar = {"clean": {"noisy": False}}
    noisy: bool = True

    def declarations(self):
        return {"error": relative_error("an error", "noise" if self.noisy else "none")}

    def measure(self, teacher, student, size, *, sigma, seed):
        return []


class RequiredSpec(LevelsSpec):
    kind: Literal["required"] = "required"
    parts: ClassVar = {"error": Part("evidence", "an error", "radius")}
    needed: int


def test_parts_may_depend_on_the_fields():
    assert [LevelsSpec(noisy=noisy).declared("error").axis for noisy in (True, False)] == ["noise", "none"]


@pytest.mark.parametrize(
    ("spec_class", "preset", "axis"),
    [(LevelsSpec, None, "noise"), (LevelsSpec, "clean", "none"), (RequiredSpec, None, "radius")],
)
def test_parts_are_described_as_the_fields_make_them(spec_class, preset, axis):
    (described,) = describe_parts(spec_class, preset)
    assert (described["name"], described["axis"]) == ("error", axis)
    assert described["better"] == ("" if spec_class is RequiredSpec else "lower")


def test_each_service_is_served_by_a_built_in_measure_but_no_pattern():
    served = {
        part.serves
        for entry in default_registry().kinds("measure").values()
        for part in entry.spec_class.parts.values()
        if part.serves
    }
    assert served == {f"{group}: {name}" for group, names in SERVICES.items() for name in names}
