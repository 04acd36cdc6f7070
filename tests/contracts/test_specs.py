"""Specifications: what they refuse and how they say it, presets, keys of trials, the way to JSON and back."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import (
    FieldInfo,
    KindSpec,
    MeasureSpec,
    NoiseSchedule,
    Spec,
    StudentSpec,
    TeacherSpec,
    TrainingSpec,
    did_you_mean,
)
from sizetransfer.runs.trials import EvaluationSpec, Experiment, Trial


class Mode(Spec):
    strength: float = Field(4.0, gt=0)


class WavesSpec(TeacherSpec):
    kind: Literal["waves"] = "waves"
    depth: int = Field(1, ge=1)
    mode: Mode | None = None
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"calm": {"depth": 2}, "stormy": {"depth": 7, "seed": 3}}
    aliases: ClassVar[Mapping[str, str]] = {"quiet": "calm"}

    def build(self) -> Any:
        return self


class SieveSpec(StudentSpec):
    kind: Literal["sieve"] = "sieve"
    blocks: int = Field(1, ge=1)

    def build(self, field: FieldInfo) -> Any:
        return self, field


class CountSpec(MeasureSpec):
    kind: Literal["count"] = "count"
    fields: int = Field(8, ge=1)

    def measure(self, *arguments: Any, **keywords: Any) -> Iterable[Any]:
        return ()


KINDS: dict[tuple[str, str], type[KindSpec]] = {
    ("teacher", "waves"): WavesSpec,
    ("student", "sieve"): SieveSpec,
    ("measure", "count"): CountSpec,
}


def lookup(family: str, kind: str) -> type[KindSpec]:
    if (family, kind) not in KINDS:
        raise SpecError(f"Unknown {family} {kind!r}.", got=repr(kind))
    return KINDS[family, kind]


WRITTEN: dict[str, Any] = {
    "name": "small",
    "teachers": {"sea": {"kind": "waves", "preset": "stormy"}},
    "students": {"fine": {"kind": "sieve"}, "coarse": {"kind": "sieve", "blocks": 3}},
    "seeds": [0, 1],
    "training": {"size": 16, "steps": 10},
    "evaluation": {"sizes": [16, 32], "measures": {"number": {"kind": "count"}}, "restrict": {"number": [32]}},
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The experiment with one value, given by its dotted path, replaced."""
    data = copy.deepcopy(WRITTEN)
    *parents, last = path.split(".")
    place = data
    for step in parents:
        place = place.setdefault(step, {})
    place[last] = value
    return data


def parse(data: Mapping[str, object]) -> Experiment:
    return Experiment.parse(data, lookup=lookup)


def refused(data: object, cls: type[Spec] = Experiment) -> SpecError:
    with pytest.raises(SpecError) as caught:
        cls.parse(data, lookup=lookup)
    return caught.value


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("training.stepz", 5, "'steps'"),
        ("training.noise.sigma_mim", 0.1, "'sigma_min'"),
        ("tarining", {}, "'training'"),
        ("evaluation.sizez", [8], "'sizes'"),
        ("teachers.sea.dept", 4, "'depth'"),
        ("teachers.sea.mode", {"strenght": 1.0}, "'strength'"),
        ("students.fine.block", 2, "'blocks'"),
        ("evaluation.measures.number.field", 2, "'fields'"),
    ],
)
def test_an_unknown_field_is_named_by_its_path_with_the_nearest_field(path: str, value: object, expected: str) -> None:
    error = refused(changed(path, value))
    assert error.where is not None
    assert error.where.startswith(path)
    assert error.fix is not None
    assert expected in error.fix
    assert expected.strip("'") in str(error.expected)


def test_an_unknown_field_of_a_list_item_is_named_by_its_path() -> None:
    value = {"source": "table", "teacher": "sea", "student": "fine", "measure": "number", "part": "n", "valeu": 1}
    error = refused(changed("report", {"paper": [value]}))
    assert "report.paper.0.valeu" in str(error.where)
    assert "'value'" in str(error.fix)


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("training.steps", "many", "valid integer"),
        ("training.steps", -1, "greater than or equal to 0"),
        ("training.size", 1, "greater than or equal to 2"),
        ("training.learning_rate", 0, "greater than 0"),
        ("training.objective", "denoise", "'denoising', 'target-score' or 'mixed'"),
        ("dtype", "float16", "'float32' or 'float64'"),
        ("seeds", [], "at least 1 item"),
        ("name", "../escape", "pattern"),
        ("teachers", {}, "at least 1 item"),
        ("teachers", ["waves"], "valid dictionary"),
        ("teachers.sea.depth", 0, "greater than or equal to 1"),
        ("teachers.sea.seed", -1, "greater than or equal to 0"),
        ("students.coarse.blocks", "three", "valid integer"),
        ("evaluation.measures.number.fields", 0, "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_named_by_its_path_with_what_is_allowed(path: str, value: object, allowed: str) -> None:
    error = refused(changed(path, value))
    assert error.where == path
    assert allowed in str(error.expected)
    assert str(value) in str(error.got) or repr(value) in str(error.got)


def test_every_wrong_field_is_reported_at_once() -> None:
    error = refused({"size": 1, "steps": "x", "bacth": 4}, TrainingSpec)
    assert str(error.where).split("; ") == ["size", "steps", "bacth"]


@pytest.mark.parametrize("data", [None, 3, "flow", [1, 2]])
def test_what_is_no_mapping_is_refused(data: object) -> None:
    error = refused(data)
    assert error.what == "A specification must be a mapping of fields."
    assert type(data).__name__ in str(error.got)


@pytest.mark.parametrize("value", ["waves", {"depth": 2}, {"kind": 3}, {"kind": ["waves"]}, None])
def test_a_malformed_kind_is_refused_with_its_path_and_an_example(value: object) -> None:
    error = refused(changed("teachers.sea", value))
    assert error.where == "teachers.sea"
    assert "kind: flow" in str(error.expected)


@pytest.mark.parametrize("path", ["teachers.sea", "students.fine", "evaluation.measures.number"])
def test_an_unknown_kind_is_refused_with_its_path(path: str) -> None:
    error = refused(changed(path, {"kind": "weird"}))
    assert error.where == f"{path}.kind"
    assert "weird" in str(error.got)


def test_kinds_cannot_be_resolved_without_a_lookup() -> None:
    with pytest.raises(SpecError, match="only be resolved with the registry"):
        Experiment.parse(WRITTEN)


def test_a_preset_is_a_start_that_other_fields_override() -> None:
    spec = WavesSpec.parse({"kind": "waves", "preset": "stormy", "seed": 9})
    assert (spec.depth, spec.seed) == (7, 9)
    assert "preset" not in spec.to_json()


def test_an_alias_is_another_name_of_a_preset() -> None:
    assert WavesSpec.parse({"preset": "quiet"}) == WavesSpec.parse({"preset": "calm"})


@pytest.mark.parametrize("name", ["stromy", 3, ["calm"], None])
def test_an_unknown_preset_is_refused_with_path_and_known_names(name: object) -> None:
    error = refused(changed("teachers.sea.preset", name))
    assert error.where == "teachers.sea.preset"
    assert error.expected == "one of calm, stormy, quiet"
    if name == "stromy":
        assert "'stormy'" in str(error.fix)


def test_a_preset_of_a_kind_without_presets_is_refused() -> None:
    assert "'sieve' has none" in str(refused(changed("students.fine.preset", "calm")).expected)


@pytest.mark.parametrize(
    ("restrict", "expected"), [({"nubmer": [16]}, "number"), ({"number": [64]}, "(16, 32)"), ({"number": [16]}, None)]
)
def test_restrictions_name_measures_and_sizes_of_the_evaluation(
    restrict: dict[str, list[int]], expected: str | None
) -> None:
    data = changed("evaluation.restrict", restrict)
    if expected is None:
        assert parse(data).evaluation.sizes_of("number") == (16,)
    else:
        error = refused(data)
        assert expected in str(error.expected)
        assert str(error.where).startswith("evaluation.restrict.")


def test_an_empty_noise_schedule_is_refused() -> None:
    error = refused(changed("training.noise", {"sigma_min": 1.0, "sigma_max": 0.5}))
    assert "training.noise.sigma_min" in str(error.where)


def test_specifications_are_immutable_and_validate_their_defaults() -> None:
    with pytest.raises(ValueError, match="frozen"):
        NoiseSchedule().sigma_min = 0.1  # type: ignore[misc]

    class Wrong(Spec):
        steps: int = Field(-1, ge=0)

    assert "steps" in str(refused({}, Wrong).where)


def test_did_you_mean_is_silent_when_nothing_is_near() -> None:
    assert did_you_mean("flwo", ["flow", "phi4"]) == "Did you mean 'flow'?"
    assert did_you_mean("zzz", ["flow", "phi4"]) == ""


def test_an_experiment_survives_the_way_to_json_and_back() -> None:
    experiment = parse(WRITTEN)
    again = parse(json.loads(json.dumps(experiment.to_json())))
    assert again == experiment
    assert type(again.teachers["sea"]) is WavesSpec
    assert again.trials() == experiment.trials()


def test_a_trial_survives_the_way_to_json_and_back() -> None:
    trial = parse(WRITTEN).trials()[0]
    data = trial.to_json()
    again = Trial(
        **{
            **data,
            "teacher": lookup("teacher", "waves").parse(data["teacher"]),
            "student": lookup("student", "sieve").parse(data["student"]),
            "training": TrainingSpec.parse(data["training"]),
            "evaluation": EvaluationSpec.parse(data["evaluation"], lookup=lookup),
        }
    )
    assert again == trial


def test_trials_are_the_grid_with_seeds_innermost() -> None:
    names = [(trial.teacher_name, trial.student_name, trial.seed) for trial in parse(WRITTEN).trials()]
    assert names == [("sea", "fine", 0), ("sea", "fine", 1), ("sea", "coarse", 0), ("sea", "coarse", 1)]
