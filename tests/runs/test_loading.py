"""Experiments from YAML: presets, overrides, and errors that say where."""

from __future__ import annotations

import copy
import json

import pytest
import tiny_zoo
import yaml

from sizetransfer.contracts.errors import SpecError
from sizetransfer.runs.loading import load, merged
from sizetransfer.runs.runner import run

PRESETS = {
    "quick": {"training": {"steps": 2}, "seeds": [0], "students": {"narrow": None, "wide": {"kind": "tiny-line"}}},
    "paper": {"training": {"steps": 50, "ema_half_life": None}, "evaluation": {"sizes": [6, 8, 10]}},
}


@pytest.fixture
def write(tmp_path):
    """Write an experiment file and return its path."""

    def written(text: str | None = None, name: str = "small.yaml", **changes: object):
        path = tmp_path / name
        data = {**copy.deepcopy(tiny_zoo.EXPERIMENT), "presets": PRESETS, **changes}
        path.write_text(yaml.safe_dump(data, sort_keys=False) if text is None else text)
        return path

    return written


def read(path, **options):
    return load(path, registry=tiny_zoo.registry(), **options)


def test_quick_is_the_default_preset(write):
    experiment = read(write())
    assert experiment.preset == "quick"
    assert experiment.training.steps == 2
    assert experiment.training.batch == 2  # from the base
    assert experiment.seeds == (0,)
    assert list(experiment.students) == ["wide"]


def test_preset_merges_mappings_replaces_lists_and_null_removes(write):
    experiment = read(write(), preset="paper")
    assert experiment.preset == "paper"
    assert experiment.evaluation.sizes == (6, 8, 10)
    assert experiment.training.ema_half_life is None
    assert experiment.seeds == (0, 1)
    assert list(experiment.students) == ["narrow"]


def test_file_without_presets_has_none(write):
    experiment = read(write(presets={}))
    assert experiment.preset is None
    assert experiment.training.steps == 5


def test_mapping_of_another_kind_replaces():
    below = {"a": {"kind": "flow", "depth": 3, "seed": 1}}
    assert merged(below, {"a": {"kind": "gaussian"}}) == {"a": {"kind": "gaussian"}}
    assert merged(below, {"a": {"kind": "flow", "seed": 2}}) == {"a": {"kind": "flow", "depth": 3, "seed": 2}}
    assert merged(below, {"a": {"seed": 2}}) == {"a": {"kind": "flow", "depth": 3, "seed": 2}}
    assert below["a"]["seed"] == 1


def test_a_resolved_file_keeps_the_name_of_its_preset_and_takes_no_other(write):
    """`sizetransfer show NAME > mine.yaml` writes such a file."""
    assert read(write(presets={}, preset="quick")).preset == "quick"
    assert read(write(presets={}, preset="quick"), preset="quick").preset == "quick"
    with pytest.raises(SpecError, match="leave it out"):
        read(write(presets={}, preset="quick"), preset="paper")
    with pytest.raises(SpecError, match="Unknown preset 3"):
        read(write(presets={}, preset=3))


def test_unknown_preset_offers_the_nearest(write):
    with pytest.raises(SpecError, match="Did you mean 'paper'"):
        read(write(), preset="papr")
    with pytest.raises(SpecError, match="has none"):
        read(write(presets={}), preset="paper")
    with pytest.raises(SpecError, match="mappings"):
        read(write(presets=["quick"]))


def test_overrides_come_last(write):
    overrides = {"training.steps": 7, "seeds": [3, 4], "students.wide.radius": 2, "evaluation.sigma": 1e-3}
    experiment = read(write(), overrides=overrides)
    assert experiment.training.steps == 7
    assert experiment.seeds == (3, 4)
    assert experiment.students["wide"].radius == 2
    assert experiment.evaluation.sigma == 1e-3


def test_override_of_a_name_with_dots(write):
    path = write(students={"R=1.0": {"kind": "tiny-line"}}, presets={})
    assert read(path, overrides={"students.R=1.0.radius": 2}).students["R=1.0"].radius == 2


def test_override_adds_and_removes_entries(write):
    overrides = {"students.wide": None, "students.new": {"kind": "tiny-line", "radius": 2}}
    assert list(read(write(), overrides=overrides).students) == ["new"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"training.stesp": 3}, "training.stesp"),
        ({"training.stesp": 3}, "Did you mean 'steps'"),
        ({"trainin.steps": 3}, "Did you mean 'training'"),
        ({"students.wid.radius": 3}, "Did you mean 'wide'"),
        ({"evaluation.measures.eror.fields": 3}, "Did you mean 'error'"),
        ({"training.steps.more": 3}, "training.steps has no fields"),
        ({"students.wide.raduis": 3}, "Did you mean 'radius'"),
        ({"students.wide.kind": "tiny-lime"}, "Did you mean 'tiny-line'"),
        ({"training.steps": -3}, "training.steps: Input should be greater than or equal to"),
        ({"training.steps": "many"}, "training.steps: Input should be a valid integer"),
        ({"preset": "paper"}, "--preset"),
    ],
)
def test_wrong_override_is_named(write, override, message):
    path = write()
    with pytest.raises(SpecError, match=message.replace(".", r"\.")) as caught:
        read(path, overrides=override)
    assert caught.value.where


def test_wrong_field_is_named_with_the_file(write):
    training = {**tiny_zoo.EXPERIMENT["training"], "batch": 0}
    path = write(training=training)
    with pytest.raises(SpecError) as caught:
        read(path)
    assert str(path) in caught.value.where
    assert "training.batch" in caught.value.where


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ("name: a\ntraining: {steps: 3\nseeds: [0]\n", 3, 6, "expected ',' or '}'"),
        ("name: a\n  seeds: [0]\n", 2, 8, "mapping values are not allowed"),
        ("name: a\nseeds: [0]\nname: b\n", 3, 1, "'name' is given twice"),
        ("name: a\ntraining:\n  steps: 3\n  batch: 2\n  steps: 4\n", 5, 3, "'steps' is given twice"),
        ("name: a\nseeds: \x07\n", 2, 8, "special characters are not allowed"),
        ("name: !!python/object:os.system {}\n", 1, 7, "could not determine a constructor"),
    ],
)
def test_malformed_yaml_has_line_and_column(write, text, line, column, problem):
    with pytest.raises(SpecError, match="malformed") as caught:
        read(write(text))
    assert f"line {line}, column {column}" in caught.value.where
    assert problem in caught.value.what


def test_malformed_json_has_line_and_column(write):
    with pytest.raises(SpecError, match="line 2, column 1"):
        read(write('{"name": "a",\n}', name="experiment.json"))


def test_merge_keys_may_be_overridden(write):
    data = {**tiny_zoo.EXPERIMENT}
    del data["training"]
    text = yaml.safe_dump(data) + "\nbase: &base {size: 6}\ntraining:\n  <<: *base\n  size: 8\n  steps: 1e+2\n"
    with pytest.raises(SpecError, match="base"):  # merged, and only the helper itself is no field
        read(write(text))
    text = (
        yaml.safe_dump(data) + "\ntraining: {<<: &base {size: 6, batch: 2}, size: 8, steps: 3, learning_rate: 1e-3}\n"
    )
    training = read(write(text)).training
    assert (training.size, training.batch, training.learning_rate) == (8, 2, 1e-3)


@pytest.mark.parametrize(("text", "got"), [("", "empty"), ("- a\n", "list"), ("just text\n", "str")])
def test_file_that_is_no_mapping(write, text, got):
    with pytest.raises(SpecError, match=got):
        read(write(text))


def test_unknown_experiment_and_missing_file(tmp_path):
    with pytest.raises(SpecError, match="Unknown experiment 'figure9'"):
        read("figure9")
    with pytest.raises(SpecError, match="no such experiment file"):
        read(tmp_path / "figure9.yaml")
    with pytest.raises(SpecError, match=r"directory without experiment\.json"):
        read(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    with pytest.raises(SpecError, match="UTF-8"):
        read(tmp_path / "latin.yaml")


def test_experiment_that_a_run_saved_is_read_back(write, tmp_path):
    experiment = read(write(), overrides={"training.learning_rate": 1e-5})
    finished = run(experiment, tmp_path / "run", executor="serial", registry=tiny_zoo.registry(), device="cpu")
    assert read(tmp_path / "run" / "experiment.json") == experiment == finished.experiment
    assert read(tmp_path / "run") == experiment
    assert read(tmp_path / "run", overrides={"seeds": [5]}).seeds == (5,)
    assert json.loads((tmp_path / "run" / "experiment.json").read_text())["preset"] == "quick"
