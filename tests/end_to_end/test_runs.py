"""Runs of whole grids: killed anywhere, damaged, refused, in one process or in several, the records are the same."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import multiprocessing
import os
import warnings
from pathlib import Path

import pytest
import tiny_zoo
import torch

from sizetransfer.contracts.errors import OracleError, RunError, SpecError
from sizetransfer.runs import storage
from sizetransfer.runs.directory import RunDirectory
from sizetransfer.runs.formats import COLUMNS
from sizetransfer.runs.opened import read_run
from sizetransfer.runs.runner import run as run_experiment
from sizetransfer.runs.storage import RunWarning
from sizetransfer.runs.store import TrainingDirectory
from sizetransfer.runs.trials import Experiment
from sizetransfer.scores.computing import build_student, build_teacher, evaluation_seed

KEY = "0123456789abcdef"


def run(experiment: Experiment, out: Path, **options):
    defaults = {"executor": "serial", "device": "cpu", "registry": tiny_zoo.registry()}
    return run_experiment(experiment, out, **{**defaults, **options})


def content(path: Path) -> dict[str, str]:
    """Digest of every file below ``path``."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def records(path: Path) -> bytes:
    return (path / "records.csv").read_bytes()


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """An uninterrupted run of the small experiment."""
    path = tmp_path_factory.mktemp("reference") / "run"
    run(tiny_zoo.experiment(), path)
    return path


@pytest.fixture(scope="module")
def fork():
    """Processes that have torch in memory and have never used it."""
    context = multiprocessing.get_context("forkserver")
    lazy = ["torch._dynamo", "pyarrow.parquet", "safetensors.torch"]
    context.set_forkserver_preload([*lazy, "sizetransfer.runs.executors", "sizetransfer.runs.runner"])
    return context


def die(fork, out: Path, what: str, count: int, **changes: object) -> int | None:
    arguments = (str(out), {**tiny_zoo.EXPERIMENT, **changes}, what, count)
    process = fork.Process(target=tiny_zoo.run_until, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def test_records_have_their_columns_and_types_in_grid_order(reference):
    run = read_run(reference, registry=tiny_zoo.registry())
    assert tuple(run.records.columns) == COLUMNS
    assert [str(run.records[name].dtype) for name in ("radius", "seed", "value")] == ["Int64", "int64", "float64"]
    order = list(run.records[["seed", "measure", "size", "part"]].itertuples(index=False, name=None))
    parts = ["relative_rmse", "noise"]
    assert order == [(seed, "error", size, part) for seed in (0, 1) for size in (6, 8) for part in parts]
    values = [float(row["value"]) for row in csv.DictReader((reference / "records.csv").read_text().splitlines())]
    assert values == run.records["value"].tolist()
    assert run.complete
    assert run.failures == run.skipped == []


def test_manifest_says_what_the_numbers_depend_on(reference):
    manifest = json.loads((reference / "manifest.json").read_text())
    assert manifest["versions"]["torch"] == torch.__version__
    assert set(manifest["plugins"]) == {"sizetransfer"}
    assert manifest["not_deterministic"] == []
    assert manifest["threads_per_trial"] == 1
    trial = manifest["trials"][0]
    assert trial["status"] == "finished"
    assert trial["training_score_calls"] == 0
    assert trial["evaluation_score_calls"] == 2 * 4
    assert trial["seconds"] >= trial["training_seconds"] > 0


def test_equal_seeds_share_fields_and_other_seeds_do_not():
    first, second = tiny_zoo.experiment(
        students={n: {"kind": "tiny-line", "radius": r} for n, r in (("a", 1), ("b", 2))}
    ).trials()[::2]
    assert first.student_name != second.student_name
    assert evaluation_seed(first, 8) == evaluation_seed(second, 8) != evaluation_seed(first, 6)
    assert evaluation_seed(first, 8) != evaluation_seed(tiny_zoo.experiment().trials()[1], 8)


def test_seed_alone_decides_the_initial_weights():
    def weights(seed: int, other: int):
        torch.manual_seed(other)
        trial = tiny_zoo.experiment(seeds=[seed]).trials()[0]
        return build_student(trial, build_teacher(trial)).convolution.weight

    assert torch.equal(weights(0, other=1), weights(0, other=2))
    assert not torch.equal(weights(0, other=1), weights(1, other=1))


def test_leftovers_of_killed_writes_are_removed(tmp_path):
    directory = TrainingDirectory(tmp_path, KEY)
    (directory.path / "measurements").mkdir(parents=True)
    leftovers = [".training.json.17.partial", "checkpoint.safetensors.tmp", ".tmpaB3dE9"]
    leftovers += ["measurements/.0123456789abcdef.json.17.partial"]
    for name in (*leftovers, "notes.tmp"):
        (directory.path / name).touch()
    with directory.prepared():
        assert not [name for name in leftovers if (directory.path / name).exists()]
        assert (directory.path / "notes.tmp").exists()


def test_checkpoint_of_a_finished_training_and_half_written_figures_go_at_the_next_run(reference, tmp_path):
    run(tiny_zoo.experiment(), tmp_path)
    (tmp_path / "figures").mkdir()
    leftovers = [tmp_path / "figures" / ".regimes.svg.17.partial", tmp_path / ".records.csv.17.partial"]
    leftovers += [path / "checkpoint.safetensors" for path in (tmp_path / "trainings").iterdir()]
    for path in leftovers:
        path.touch()
    run(tiny_zoo.experiment(), tmp_path)
    assert not [path for path in leftovers if path.exists()]


@pytest.mark.parametrize("key", ["", "..", "../../etc", "0123", "0123456789ABCDEF", "0123456789abcdef/.."])
def test_key_that_does_not_look_like_one_names_no_directory(tmp_path, key):
    with pytest.raises(RunError, match="no key"):
        TrainingDirectory(tmp_path, key)


def test_records_do_not_depend_on_the_caller_s_settings(reference, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float32)
    try:
        torch.manual_seed(1234)
        with torch.no_grad():
            run(tiny_zoo.experiment(), tmp_path)
        assert torch.get_num_threads() == 2
        assert torch.get_default_dtype() == torch.float32
    finally:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(threads)
    assert records(tmp_path) == records(reference)


def test_student_comes_back_bit_for_bit(reference):
    run = read_run(reference, registry=tiny_zoo.registry())
    trial = run.experiment.trials()[1]
    measure = trial.evaluation.measures["error"]
    student = run.student("white", "narrow", 1)
    found = list(measure.measure(run.teacher("white"), student, 8, sigma=0.05, seed=evaluation_seed(trial, 8)))
    stored = run.records.query("seed == 1 and size == 8")["value"]
    assert [one.value for one in found] == stored.tolist()
    untrained = trial.student.build(student.field).to(torch.float32)
    other = list(measure.measure(run.teacher("white"), untrained, 8, sigma=0.05, seed=evaluation_seed(trial, 8)))
    assert other[0].value != found[0].value
    assert len(run.training("white", "narrow", 0)) == 5
    with pytest.raises(RunError, match="narrow"):
        run.student("white", "narow", 1)


def test_finished_trials_are_reused(reference, tmp_path):
    events = []
    run(tiny_zoo.experiment(), tmp_path)
    before = content(tmp_path / "trainings")
    again = run(tiny_zoo.experiment(), tmp_path, on_event=events.append)
    assert [event.kind for event in events] == ["reused", "reused"]
    assert content(tmp_path / "trainings") == before
    assert {trial["status"] for trial in again.manifest["trials"]} == {"reused"}
    assert records(tmp_path) == records(reference)


def test_fresh_computes_again_and_keeps_what_is_not_ours(reference, tmp_path):
    run(tiny_zoo.experiment(), tmp_path)
    key = next((tmp_path / "trainings").iterdir()).name
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "trainings" / key / "notes.txt").write_text("mine")
    events = []
    run(tiny_zoo.experiment(), tmp_path, fresh=True, on_event=events.append)
    assert [event.kind for event in events].count("finished") == 2
    assert (tmp_path / "notes.txt").read_text() == (tmp_path / "trainings" / key / "notes.txt").read_text() == "mine"
    assert records(tmp_path) == records(reference)


def test_progress_of_a_trial_grows_to_one(tmp_path):
    events = []
    run(tiny_zoo.experiment(seeds=[0]), tmp_path, on_event=events.append)
    kinds = ["started", "step", "step", "trained", "measured", "measured", "finished"]
    assert [event.kind for event in events] == kinds
    shares = [event.done for event in events]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


@pytest.mark.parametrize(("what", "count"), [("sample", 4), ("sample", 7), ("measured", 1), ("started", 2)])
def test_killed_run_goes_on_to_the_same_records(fork, reference, tmp_path, what, count):
    assert die(fork, tmp_path, what, count) == -9
    finished = run(tiny_zoo.experiment(), tmp_path)
    assert records(tmp_path) == records(reference)
    assert finished.complete
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("checkpoint*"))


@pytest.mark.slow
def test_killed_in_the_middle_of_any_write_goes_on_to_the_same_records(fork, tmp_path):
    run(tiny_zoo.experiment(seeds=[0]), tmp_path / "reference")
    codes, count = [], 0
    while not codes or codes[-1] == -9:
        count += 1
        out = tmp_path / str(count)
        codes.append(die(fork, out, "replace", count, seeds=[0]))
        if codes[-1] == -9:
            run(tiny_zoo.experiment(seeds=[0]), out)
        assert records(out) == records(tmp_path / "reference"), f"killed at write {count}"
        assert not [path for path in out.rglob(".*") if path.name != ".lock"]
    # experiment; table (twice), verdicts and manifest; two checkpoints, the four files of the training; two
    # measurements; the manifest that announces the table; table, verdicts and manifest again
    assert count - 1 == 1 + 4 + 2 + 4 + 2 + 5


def test_resumed_trial_starts_from_its_checkpoint(fork, tmp_path):
    assert die(fork, tmp_path, "sample", 6) == -9
    steps = []
    run(tiny_zoo.experiment(), tmp_path, on_event=lambda e: steps.append(e.step) if e.kind == "step" else None)
    assert steps[0] == 5  # four were in the checkpoint


FILES = ["student.safetensors", "student.json", "training.csv", "training.json", "measurements/*.json"]


def damage_file(path: Path, damage: str) -> None:
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    {
        "missing": path.unlink,
        "cut": lambda: path.write_bytes(whole[:middle]),
        "empty": lambda: path.write_bytes(b""),
        "changed": lambda: path.write_bytes(changed),
    }[damage]()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "missing"])
def test_damaged_file_is_named_and_what_it_held_is_done_again(tmp_path, name, damage):
    run(tiny_zoo.experiment(seeds=[0]), tmp_path)
    before = records(tmp_path)
    path = min(tmp_path.glob(f"trainings/*/{name}"))
    damage_file(path, damage)
    events = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(tiny_zoo.experiment(seeds=[0]), tmp_path, on_event=events.append)
    # What is not there has not been done yet, which is no damage.
    if not (damage == "missing" and name in {"training.json", "measurements/*.json"}):
        assert {warning.category for warning in caught} == {RunWarning}
        assert path.name in str(caught[0].message)
        assert path.parent.name in str(caught[0].message)
    assert events[-1].kind == "finished"
    assert ("trained" in [event.kind for event in events]) == (name != "measurements/*.json")
    assert records(tmp_path) == before
    assert path.is_file()


@pytest.mark.parametrize("name", ["experiment.json", "manifest.json", "records.parquet", "verdicts.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "missing"])
def test_damaged_view_is_named_when_read_and_written_anew_by_the_next_run(tmp_path, name, damage):
    run(tiny_zoo.experiment(seeds=[0]), tmp_path)
    before = records(tmp_path)
    damage_file(tmp_path / name, damage)
    if name != "verdicts.json":  # which is written, not read
        with pytest.raises(RunError, match=r"damaged|not a run directory") as caught:
            read_run(tmp_path, registry=tiny_zoo.registry())
        assert damage == "missing" or name in str(caught.value)
    events = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        run(tiny_zoo.experiment(seeds=[0]), tmp_path, on_event=events.append)
    assert [event.kind for event in events] == ["reused"]
    assert records(tmp_path) == before
    assert read_run(tmp_path, registry=tiny_zoo.registry()).complete


def test_every_changed_bit_of_a_number_is_found(tmp_path):
    run(tiny_zoo.experiment(seeds=[0]), tmp_path)
    path = tmp_path / "records.parquet"
    whole = path.read_bytes()
    good, silent = read_run(tmp_path, registry=tiny_zoo.registry()).records, 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :])
        try:
            silent += not read_run(tmp_path, registry=tiny_zoo.registry()).records.equals(good)
        except RunError:
            continue
    assert silent == 0


def test_damaged_weights_are_a_run_error(tmp_path):
    finished = run(tiny_zoo.experiment(seeds=[0]), tmp_path)
    path = next(tmp_path.glob("trainings/*/student.safetensors"))
    whole = path.read_bytes()
    for content in (whole[:-1], b"", whole[:40] + b"?" + whole[41:], whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"student\.safetensors is damaged"):
            finished.student("white", "narrow")


def test_weights_of_another_specification_are_refused(tmp_path):
    finished = run(tiny_zoo.experiment(seeds=[0, 1]), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    finished.manifest["trials"][0]["trial"] = manifest["trials"][1]["trial"]
    with pytest.raises(RunError, match="another specification"):
        finished.student("white", "narrow", 0)
    finished.manifest["trials"][0]["trial"] = "../../elsewhere"
    with pytest.raises(RunError, match="no key"):
        finished.student("white", "narrow", 0)


def test_foreign_directory_is_refused_and_nothing_changed(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(RunError, match=r"thesis\.tex"):
        run(tiny_zoo.experiment(), tmp_path, fresh=True)
    with pytest.raises(RunError, match="a file"):
        run(tiny_zoo.experiment(), tmp_path / "thesis.tex")
    assert content(tmp_path) == before


def test_two_runs_at_once_are_refused(tmp_path):
    experiment = tiny_zoo.experiment()
    with (
        RunDirectory(tmp_path).claimed(experiment.to_json()),
        pytest.raises(RunError, match="Another run is at work"),
    ):
        run(experiment, tmp_path)
    assert run(experiment, tmp_path).complete


def test_trial_has_one_writer(tmp_path):
    with (
        TrainingDirectory(tmp_path, KEY).prepared(),
        pytest.raises(RunError, match="Another process"),
        TrainingDirectory(tmp_path, KEY).prepared(timeout=0.0),
    ):
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_unusable_disk_is_explained_and_loses_nothing(reference, tmp_path, monkeypatch, code):
    synchronise, calls = os.fsync, []

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) > 19:  # in the second trial
            raise OSError(code, os.strerror(code))
        synchronise(descriptor)

    monkeypatch.setattr(storage.os, "fsync", failing)
    with pytest.raises(RunError, match=errno.errorcode[code]) as caught:
        run(tiny_zoo.experiment(), tmp_path)
    assert "--out" in caught.value.fix
    monkeypatch.undo()
    assert len(read_run(tmp_path, registry=tiny_zoo.registry()).records) == 4
    events = []
    run(tiny_zoo.experiment(), tmp_path, on_event=events.append)
    assert events[0].kind == "reused"
    assert records(tmp_path) == records(reference)


def test_directory_that_cannot_be_made_is_explained(tmp_path, monkeypatch):
    def forbidden(self, *arguments, **keywords):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(RunError, match="EROFS"):
        run(tiny_zoo.experiment(), tmp_path / "new")


def test_full_disk_under_a_checkpoint_is_explained(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*arguments, **keywords):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("sizetransfer.scores.training.save_file", full)
    with pytest.raises(RunError, match="ENOSPC"):
        run(tiny_zoo.experiment(), tmp_path)


def test_wrapped_radius_is_refused_before_anything_trains(tmp_path):
    students = {"narrow": {"kind": "tiny-line"}, "wide": {"kind": "tiny-line", "radius": 3}}
    with pytest.raises(SpecError, match="wraps around") as caught:
        run(tiny_zoo.experiment(students=students), tmp_path / "run")
    assert "students.wide" in caught.value.where
    assert "allow_wrapped_radius" in caught.value.fix
    assert not (tmp_path / "run").exists()
    forced = tiny_zoo.experiment(students=students, seeds=[0], allow_wrapped_radius=True)
    assert run(forced, tmp_path / "run").complete


def test_size_that_the_teacher_refuses_stops_the_run_before_anything_trains(tmp_path):
    evaluation = {**tiny_zoo.EXPERIMENT["evaluation"], "sizes": [1, 6]}
    with pytest.raises(OracleError, match="too small"):
        run(tiny_zoo.experiment(evaluation=evaluation), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_trial_that_meets_nan_fails_alone_and_keeps_its_checkpoint(tmp_path):
    teachers = {
        "poisoned": {"kind": "tiny-white", "poisoned_after": 5},
        "white": {"kind": "tiny-white"},
    }
    evaluation = {**tiny_zoo.EXPERIMENT["evaluation"], "sizes": [6]}
    experiment = tiny_zoo.experiment(teachers=teachers, seeds=[0], evaluation=evaluation)
    finished = run(experiment, tmp_path)
    (failure,) = finished.failures
    assert failure["label"].startswith("poisoned")
    assert "not finite" in failure["error"]
    assert set(finished.records["teacher"]) == {"white"}
    assert not finished.complete
    assert (tmp_path / "trainings" / failure["trial"] / "checkpoint.safetensors").is_file()
    events = []
    again = run(experiment, tmp_path, on_event=events.append)
    # This teacher counts its samples anew, and five of them are enough from the checkpoint on.
    assert next(event.step for event in events if event.kind == "step") == 5
    assert again.complete
    assert again.failures == []


def test_error_of_a_measure_fails_this_measurement_alone(reference, tmp_path, monkeypatch):
    whole = tiny_zoo.TinyErrorSpec.measure

    def broken(self, teacher, student, size, **where):
        if size == 8:
            raise ZeroDivisionError("by a plugin")
        yield from whole(self, teacher, student, size, **where)

    monkeypatch.setattr(tiny_zoo.TinyErrorSpec, "measure", broken)
    finished = run(tiny_zoo.experiment(seeds=[0]), tmp_path)
    (failure,) = finished.failures
    assert (failure["measure"], failure["size"]) == ("error", 8)
    assert "ZeroDivisionError: by a plugin" in failure["error"]
    assert "in broken" in next(tmp_path.glob("trainings/*/error.txt")).read_text()
    assert set(finished.records["size"]) == {6}
    assert not finished.complete
    assert finished.student("white", "narrow") is not None
    monkeypatch.undo()
    events = []
    again = run(tiny_zoo.experiment(seeds=[0]), tmp_path, on_event=events.append)
    assert again.complete
    assert "trained" not in [event.kind for event in events]
    assert again.reused["measurements"] == 1
    assert again.records.equals(read_run(reference, registry=tiny_zoo.registry()).records.query("seed == 0"))


def test_skipped_measure_is_named_with_its_reason(tmp_path):
    teachers = {"silent": {"kind": "tiny-white", "scored": False}}
    finished = run(tiny_zoo.experiment(teachers=teachers, seeds=[0]), tmp_path)
    (skipped,) = finished.skipped
    assert (skipped["label"], skipped["measure"]) == ("silent / narrow / seed 0", "error")
    assert "HasScore" in skipped["reason"]
    assert finished.complete
    assert len(finished.records) == 0


def test_entries_with_equal_specifications_are_computed_once(tmp_path):
    students = {"first": {"kind": "tiny-line"}, "second": {"kind": "tiny-line"}}
    events = []
    finished = run(tiny_zoo.experiment(students=students, seeds=[0]), tmp_path, on_event=events.append)
    assert [event.kind for event in events].count("started") == 1
    by_student = finished.records.groupby("student")["value"].apply(list)
    assert by_student["first"] == by_student["second"]


def test_interrupted_run_can_be_read(fork, tmp_path):
    assert die(fork, tmp_path, "started", 2) == -9
    before = content(tmp_path)
    partial = read_run(tmp_path, registry=tiny_zoo.registry())
    assert not partial.complete
    assert set(partial.records["seed"]) == {0}
    with pytest.raises(RunError, match="not finished"):
        partial.student("white", "narrow", 1)
    assert content(tmp_path) == before


def test_directory_without_a_run_cannot_be_opened(tmp_path):
    with pytest.raises(RunError, match="not a run directory"):
        read_run(tmp_path)


def test_unknown_device_and_executor_are_refused(tmp_path):
    with pytest.raises(RunError, match="device 'gpu'"):
        run(tiny_zoo.experiment(), tmp_path, device="gpu")
    with pytest.raises(SpecError, match="serial"):
        run(tiny_zoo.experiment(), tmp_path, executor="seriel", registry="tiny_zoo:registry")
    with pytest.raises(RunError, match="module:function"):
        run(tiny_zoo.experiment(), tmp_path, executor="local")
    with pytest.raises(SpecError, match="registry"):
        run(tiny_zoo.experiment(), tmp_path, registry="tiny_zoo:nothing")
