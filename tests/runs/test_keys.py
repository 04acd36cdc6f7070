"""Keys: everything that decides a number changes its address, and nothing else does."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import tiny_zoo

from sizetransfer.contracts.errors import RunError
from sizetransfer.runs.keys import planned, require_same_code, specification_key
from sizetransfer.runs.trials import Trial
from sizetransfer.runs.workplace import parse_trial

EVALUATION = {"sizes": [6, 8], "measures": {"error": {"kind": "tiny-error", "fields": 4}}}
WRITTEN = {**tiny_zoo.EXPERIMENT, "evaluation": EVALUATION}


def trials(data: dict[str, Any], device: str = "cpu") -> list[Trial]:
    return [planned(trial, device) for trial in tiny_zoo.experiment(**data).trials()]


def trainings(data: dict[str, Any], device: str = "cpu") -> set[str]:
    return {trial.keys.training for trial in trials(data, device)}


def measurements(data: dict[str, Any]) -> set[str]:
    return {task.key for trial in trials(data) for task in trial.tasks()}


def changed(path: str, value: object) -> dict[str, Any]:
    data = copy.deepcopy(WRITTEN)
    *parents, last = path.split(".")
    here = data
    for name in parents:
        here = here[name]
    here[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("teachers.white.variance", 3.0),
        ("teachers.white.seed", 4),
        ("students.narrow.radius", 2),
        ("seeds", [2, 3]),
        ("dtype", "float64"),
        ("training.size", 7),
        ("training.steps", 11),
        ("training.batch", 9),
        ("training.objective", "mixed"),
        ("training.learning_rate", 1e-4),
        ("training.schedule", "constant"),
        ("training.gradient_clip", 2.0),
        ("training.ema_half_life", 5.0),
        ("training.noise", {"sigma_min": 0.06}),
        ("training.autocast", "bfloat16"),
    ],
)
def test_what_decides_the_weights_changes_every_key(path, value):
    assert not trainings(WRITTEN) & trainings(changed(path, value))
    assert not measurements(WRITTEN) & measurements(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [("evaluation.sigma", 0.1), ("evaluation.seed", 1), ("evaluation.measures.error.fields", 9)],
)
def test_what_decides_a_measurement_leaves_the_training_alone(path, value):
    assert trainings(WRITTEN) == trainings(changed(path, value))
    assert not measurements(WRITTEN) & measurements(changed(path, value))


def test_another_size_is_another_measurement_beside_the_others():
    more = changed("evaluation.sizes", [6, 8, 10])
    assert measurements(WRITTEN) < measurements(more)
    assert len(measurements(more)) == 3 * 2


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(name="other", title="Other", description="Other."),
        lambda data: data.update(teachers={"ocean": data["teachers"]["white"]}),
        lambda data: data.update(students={f"my-{name}": spec for name, spec in data["students"].items()}),
        lambda data: data.update(verdict={"growth": 0.5}, report={"notes": ["a note"]}),
        lambda data: data["evaluation"].update(measures={"renamed": data["evaluation"]["measures"]["error"]}),
        lambda data: data["training"].update(checkpoint_every=3),
        lambda data: data.update(allow_wrapped_radius=True),
        lambda data: data["evaluation"]["measures"]["error"].update(batch=1),
    ],
    ids=["title", "teacher's name", "students' names", "report", "measure's name", "checkpoints", "wrapped", "memory"],
)
def test_what_decides_no_number_is_in_no_key(change):
    data = copy.deepcopy(WRITTEN)
    change(data)
    assert trainings(data) == trainings(WRITTEN)
    assert measurements(data) == measurements(WRITTEN)


def test_the_kind_of_device_counts_and_its_number_does_not():
    assert trainings(WRITTEN, "cuda:0") == trainings(WRITTEN, "cuda:1") != trainings(WRITTEN)


def test_files_count_by_content(tmp_path):
    (tmp_path / "one").write_bytes(b"weights")
    (tmp_path / "copy").write_bytes(b"weights")
    (tmp_path / "other").write_bytes(b"others")
    (trial,) = tiny_zoo.experiment(seeds=[0]).trials()
    one, copied, other = (
        planned(trial, "cpu", files=[tmp_path / name]).keys.training for name in ("one", "copy", "other")
    )
    assert one == copied != other


def test_the_trials_of_a_grid_have_keys_of_their_own():
    assert len(trainings(WRITTEN)) == 2
    assert len(measurements(WRITTEN)) == 4


def test_a_planned_trial_survives_the_way_to_another_process():
    trial = trials(WRITTEN)[1]
    again = parse_trial(json.loads(json.dumps(trial.to_json())), tiny_zoo.registry())
    assert list(again.tasks()) == list(trial.tasks())
    require_same_code(again, "cpu")
    with pytest.raises(RunError, match="not that of the process"):
        require_same_code(again, "cuda")


def test_trainings_of_other_code_have_the_same_specification():
    first, second = trials(WRITTEN)
    assert specification_key(first, "cpu") != specification_key(second, "cpu")
    assert specification_key(first, "cpu") == specification_key(trials(WRITTEN)[0], "cpu")


def test_what_a_measure_takes_from_the_training_enters_its_key_and_its_task(monkeypatch):
    (trial, *_) = trials(WRITTEN)
    (name,) = list(trial.evaluation.measures)[:1]
    before = trial.keys.measurements[name]
    kind = type(trial.evaluation.measures[name])
    monkeypatch.setattr(kind, "for_training", lambda spec, training: spec.model_copy(update={"fields": training.size}))
    after = planned(trial, "cpu")
    assert not set(before.values()) & set(after.keys.measurements[name].values())
    assert {task.measure.fields for task in after.tasks() if task.name == name} == {trial.training.size}
