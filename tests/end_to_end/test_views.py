"""A run directory is a view: whatever changes in an experiment, only what is new is computed, and it is said."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import fresh_process
import pytest
import tiny_zoo
from filelock import FileLock

from sizetransfer.contracts.errors import RunError, SpecError
from sizetransfer.report.page import write_report
from sizetransfer.runs.extending import measure_run
from sizetransfer.runs.opened import Run, read_run
from sizetransfer.runs.runner import run as run_experiment
from sizetransfer.runs.storage import RunWarning
from sizetransfer.runs.store import Store
from sizetransfer.runs.trials import Experiment

EVALUATION = tiny_zoo.EXPERIMENT["evaluation"]
ERROR, FEWER = {"kind": "tiny-error"}, {"kind": "tiny-error", "fields": 3}
BOTH = {**EVALUATION, "measures": {"error": ERROR, "less": FEWER}}
WHITE, LOUD = {"kind": "tiny-white", "variance": 2.0}, {"kind": "tiny-white", "variance": 3.0}
NARROW, WIDE = {"kind": "tiny-line", "radius": 1}, {"kind": "tiny-line", "radius": 2}


def run(experiment: Experiment, out: Path, **options) -> Run:
    defaults = {"executor": "serial", "device": "cpu", "registry": tiny_zoo.registry()}
    return run_experiment(experiment, out, **{**defaults, **options})


def measure(out: Path, measures, sizes, **options) -> Run:
    specs = [tiny_zoo.TinyErrorSpec.parse(fields) for fields in measures]
    defaults = {"executor": "serial", "device": "cpu", "registry": tiny_zoo.registry()}
    return measure_run(out, specs, sizes, **{**defaults, **options})


class Told(list):
    """The events of a run."""

    def counts(self) -> Counter:
        return Counter(event.kind for event in self if event.kind != "step")


@pytest.fixture
def taken(monkeypatch) -> list[tuple[int, int]]:
    """The fields and the size of every measurement that is taken."""
    whole, calls = tiny_zoo.TinyErrorSpec.measure, []

    def counted(self, teacher, student, size, **named):
        calls.append((self.fields, size))
        return whole(self, teacher, student, size, **named)

    monkeypatch.setattr(tiny_zoo.TinyErrorSpec, "measure", counted)
    return calls


def stored(path: Path) -> dict[str, tuple[int, bytes]]:
    """When each file of a store was written, and what it holds; locks are no content."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != ".lock"]
    return {str(file.relative_to(path)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def records(path: Path) -> bytes:
    return (path / "records.csv").read_bytes()


CHANGES = {
    "a size more": ({"evaluation": {**EVALUATION, "sizes": [6, 8, 10]}}, 0, [(4, 10)] * 2),
    "a size less": ({"evaluation": {**EVALUATION, "sizes": [8]}}, 0, []),
    "a seed more": ({"seeds": [0, 1, 2]}, 1, [(4, 6), (4, 8)]),
    "a seed less": ({"seeds": [1]}, 0, []),
    "a measure more": ({"evaluation": BOTH}, 0, [(3, 6), (3, 8)] * 2),
    "another measure": ({"evaluation": {**EVALUATION, "measures": {"error": FEWER}}}, 0, [(3, 6), (3, 8)] * 2),
    "a teacher more": ({"teachers": {"white": WHITE, "loud": LOUD}}, 2, [(4, 6), (4, 8)] * 2),
    "a student more": ({"students": {"wide": WIDE, "narrow": NARROW}}, 2, [(4, 6), (4, 8)] * 2),
    "a student for another": ({"students": {"narrow": WIDE}}, 2, [(4, 6), (4, 8)] * 2),
    "a teacher's name": ({"teachers": {"noise": WHITE}}, 0, []),
    "a student's name": ({"students": {"R=1": NARROW}}, 0, []),
    "a measure's name": ({"evaluation": {**EVALUATION, "measures": {"e": ERROR}}}, 0, []),
    "names exchanged": ({"teachers": {"loud": WHITE, "white": LOUD}}, 2, [(4, 6), (4, 8)] * 2),
    "title and notes": ({"title": "Noise", "description": "New.", "report": {"notes": ["C: new"]}}, 0, []),
    "figures": ({"report": {"figures": ["transfer"]}}, 0, []),
    "thresholds": ({"verdict": {"growth": 0.5}}, 0, []),
    "order of the seeds": ({"seeds": [1, 0]}, 0, []),
    "order of the sizes": ({"evaluation": {**EVALUATION, "sizes": [8, 6]}}, 0, []),
    "nothing": ({}, 0, []),
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of the small experiment, to be copied."""
    path = tmp_path_factory.mktemp("finished") / "run"
    run(tiny_zoo.experiment(), path)
    return path


@pytest.fixture
def out(finished, tmp_path) -> Path:
    """A finished run that the test may change."""
    import shutil

    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize("name", CHANGES)
def test_only_what_is_new_is_computed_and_the_numbers_are_those_of_a_fresh_run(out, tmp_path, taken, name):
    changes, trainings, measurements = CHANGES[name]
    before, told = stored(out / "trainings"), Told()
    experiment = tiny_zoo.experiment(**changes)
    viewed = run(experiment, out, on_event=told.append)
    assert told.counts()["trained"] == trainings
    assert sorted(taken) == sorted(measurements)
    after = stored(out / "trainings")
    assert before.items() <= after.items()
    if not trainings and not measurements:
        assert after == before
        assert set(told.counts()) == {"reused"}
    fresh = run(experiment, tmp_path / "fresh")
    assert records(out) == records(tmp_path / "fresh")
    assert (out / "verdicts.json").read_bytes() == (tmp_path / "fresh" / "verdicts.json").read_bytes()
    assert viewed.complete
    grid = len(experiment.trials())
    tasks = len(list(fresh.manifest["trials"])) * len(experiment.evaluation.measures) * len(experiment.evaluation.sizes)
    assert viewed.reused["trainings"] == grid - trainings
    assert viewed.reused["measurements"] == tasks - len(measurements)
    assert fresh.reused["trainings"] == fresh.reused["measurements"] == 0


def test_a_view_and_back_computes_nothing(out, taken):
    before = records(out)
    run(tiny_zoo.experiment(seeds=[1], title="One"), out)
    run(tiny_zoo.experiment(), out)
    assert records(out) == before
    assert taken == []


def test_thresholds_change_the_verdicts_and_nothing_else(out):
    before = (out / "verdicts.json").read_bytes()
    run(tiny_zoo.experiment(verdict={"growth": 0.123, "skill": 0.001}), out)
    changed = json.loads((out / "verdicts.json").read_text())
    assert (out / "verdicts.json").read_bytes() != before
    assert "0.123" in json.dumps(changed)


def test_what_was_reused_is_told_with_its_age_and_where_it_was_computed(out, monkeypatch):
    elsewhere = {"torch": "0.1.2", "device": "cpu", "processor": "an abacus"}
    monkeypatch.setattr("sizetransfer.runs.reuse.fingerprint", lambda device: elsewhere)
    viewed = run(tiny_zoo.experiment(), out)
    assert (viewed.reused["trainings"], viewed.reused["measurements"]) == (2, 4)
    assert viewed.reused["oldest"] <= viewed.reused["newest"] <= viewed.manifest["written"]
    assert [text.partition(" ")[0] for text in viewed.reused["computed_with"]] == ["processor", "torch"]
    assert json.loads((out / "manifest.json").read_text())["reused"] == viewed.reused
    page = write_report(viewed).read_text()
    header = page[page.index("<header>") : page.index("</header>")]
    assert "Reused: 2 trainings and 4 measurements, computed " in header
    assert " with processor " in header


def test_report_of_a_run_that_reused_nothing_does_not_speak_of_it(tmp_path):
    assert "Reused" not in write_report(run(tiny_zoo.experiment(seeds=[0]), tmp_path)).read_text()


def test_a_part_of_the_grid_whose_training_another_entry_shares_is_computed(tmp_path, taken):
    students = {"first": NARROW, "second": NARROW}
    viewed = run(tiny_zoo.experiment(students=students, seeds=[0]), tmp_path, only={"student": ["second"]})
    assert sorted(taken) == [(4, 6), (4, 8)]
    assert set(viewed.records["student"]) == {"first", "second"}


def test_measures_and_sizes_of_a_finished_run_train_nothing(out, taken):
    told = Told()
    both = measure(out, [FEWER], [10], on_event=told.append)
    assert told.counts()["trained"] == 0
    assert sorted(taken) == [(3, 10)] * 2
    assert set(both.records["measure"]) == {"error", "tiny-error"}
    assert set(both.records.query("measure == 'error'")["size"]) == {6, 8}
    measure(out, [], [10])
    assert sorted(taken[2:]) == [(4, 10)] * 2
    third = measure(out, [{"kind": "tiny-error", "fields": 5}], [])
    assert sorted(taken[4:]) == sorted([(5, 6), (5, 8), (5, 10)] * 2)
    assert set(third.records["measure"]) == {"error", "tiny-error", "tiny-error-2"}
    assert third.complete


def test_the_experiment_on_disk_holds_what_was_measured_and_the_original_drops_it_from_the_view(out, taken):
    before = records(out)
    extended = measure(out, [FEWER], [10])
    more = records(out)
    count = len(taken)
    again = run(extended.experiment, out)
    assert records(out) == more
    assert set(again.experiment.evaluation.measures) == {"error", "tiny-error"}
    run(tiny_zoo.experiment(), out)
    assert records(out) == before
    run(extended.experiment, out)
    assert records(out) == more
    assert len(taken) == count


def test_measuring_twice_is_measuring_once(out, taken):
    measure(out, [FEWER], [10])
    first, count = records(out), len(taken)
    measure(out, [FEWER], [10])
    assert records(out) == first
    assert len(taken) == count


def test_measuring_nothing_is_refused(out):
    with pytest.raises(SpecError, match="Nothing is to be measured"):
        measure(out, [], [])


def test_measuring_trains_nothing_that_is_missing_or_damaged_and_says_so(out, taken):
    told = Told()
    path = min(out.glob("trainings/*/student.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        viewed = measure(out, [], [10], on_event=told.append)
    assert told.counts()["trained"] == 0
    assert taken == [(4, 10)]
    assert Counter(trial["status"] for trial in viewed.manifest["trials"]) == {"finished": 1, "pending": 1}
    assert not viewed.complete
    (path.parent / "training.json").unlink(missing_ok=True)
    assert measure(out, [FEWER], [6]).manifest["renewed"] == []


def test_store_that_two_experiments_share(tmp_path, taken):
    store, told = tmp_path / "store", Told()
    run(tiny_zoo.experiment(), tmp_path / "first", store=store)
    assert len(taken) == 4
    second = tiny_zoo.experiment(name="second", students={"same": NARROW, "wide": WIDE}, seeds=[0])
    viewed = run(second, tmp_path / "second", store=store, on_event=told.append)
    assert (viewed.reused["trainings"], viewed.reused["measurements"]) == (1, 2)
    assert told.counts()["trained"] == 1
    assert viewed.manifest["other_trainings"] == 1
    assert viewed.store.root == store.resolve()
    assert not (tmp_path / "second" / "trainings").exists()
    assert viewed.student("white", "same") is not None


def test_fresh_with_a_shared_store_leaves_the_others_alone(tmp_path):
    store, told = tmp_path / "store", Told()
    run(tiny_zoo.experiment(seeds=[0, 1]), tmp_path / "first", store=store)
    before = stored(store)
    viewed = run(tiny_zoo.experiment(seeds=[1]), tmp_path / "second", store=store, fresh=True, on_event=told.append)
    assert told.counts()["trained"] == 1
    key = viewed.manifest["trials"][0]["trial"]
    others = {name: value for name, value in before.items() if not name.startswith(key)}
    assert others.items() <= stored(store).items()
    assert len({name.partition("/")[0] for name in others}) == 1


def test_fresh_of_a_part_computes_that_part_anew_and_keeps_the_rest(out, taken):
    told, before = Told(), records(out)
    viewed = run(tiny_zoo.experiment(), out, fresh=True, only={"seed": ["1"]}, on_event=told.append)
    assert told.counts()["trained"] == 1
    assert len(taken) == 2
    assert records(out) == before
    assert (viewed.reused["trainings"], viewed.complete) == (1, True)


def test_store_that_is_left_unasked_is_refused_with_the_way_on(tmp_path, taken, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tiny_zoo.experiment(seeds=[0]), "run", store="store")
    with pytest.raises(RunError, match="in another store") as caught:
        run(tiny_zoo.experiment(seeds=[0]), "run")
    assert f"--store {tmp_path / 'store'}" in caught.value.fix
    with pytest.raises(RunError, match="in another store"):
        measure(Path("run"), [], [10])
    count = len(taken)
    assert run(tiny_zoo.experiment(seeds=[0]), "run", store=Path("run", "..", "store")).reused["trainings"] == 1
    assert len(taken) == count
    # The way back to a store of its own, after which none need be named.
    assert run(tiny_zoo.experiment(seeds=[0]), "run", store="run/trainings").reused["trainings"] == 0
    assert run(tiny_zoo.experiment(seeds=[0]), "run").reused["trainings"] == 1
    assert run(tiny_zoo.experiment(seeds=[0]), "run", store=tmp_path / "run" / "trainings").manifest["store"] is None


def test_store_inside_the_run_directory(tmp_path):
    out = tmp_path / "run"
    run(tiny_zoo.experiment(seeds=[0]), out, store=out / "mine")
    again = run(tiny_zoo.experiment(seeds=[0]), out, store=out / "mine")
    assert again.reused["trainings"] == 1
    assert not (out / "trainings").exists()


@pytest.mark.parametrize(
    ("only", "wrong"),
    [({"student": ["narow"]}, "narow"), ({"seed": ["7"]}, "7"), ({"students": ["narrow"]}, "students")],
)
def test_part_that_the_grid_does_not_have_is_named(tmp_path, only, wrong):
    with pytest.raises(SpecError, match=repr(wrong)):
        run(tiny_zoo.experiment(), tmp_path / "run", only=only)
    assert not (tmp_path / "run").exists()


def test_the_rest_of_the_grid_is_shown_as_far_as_it_is_there(out, taken):
    experiment = tiny_zoo.experiment(evaluation={**EVALUATION, "sizes": [6, 8, 10]})
    viewed = run(experiment, out, only={"seed": ["0"]})
    assert taken == [(4, 10)]
    assert set(viewed.records.query("seed == 1")["size"]) == {6, 8}
    assert not viewed.complete
    assert read_run(out, registry=tiny_zoo.registry()).records.equals(viewed.records)


def test_run_on_a_shared_store_waits_for_what_another_computes(tmp_path):
    key = "0123456789abcdef"
    (tmp_path / key).mkdir()
    held, left = threading.Event(), threading.Event()

    def other() -> None:
        with FileLock(tmp_path / key / ".lock"):
            held.set()
            time.sleep(0.3)
            left.set()

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    shared = Store(tmp_path, shared=True).training(key)
    assert shared.patience < 0
    with shared.prepared():
        assert left.is_set()
    thread.join()
    assert 0 < Store(tmp_path).training(key).patience < 100


TWO = """
import sys
sys.path.insert(0, {support!r})
import tiny_zoo
from sizetransfer.runs.runner import run
teachers = {{"white": {{"kind": "tiny-white", "variance": 2.0, "seconds": 0.02}}}}
done = run(tiny_zoo.experiment(teachers=teachers, name=sys.argv[1]), sys.argv[1], store="store", executor="serial",
           device="cpu", registry=tiny_zoo.registry())
print(done.complete, len(done.failures))
"""


@pytest.mark.slow
def test_two_runs_at_once_on_one_store_finish_with_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_PIDS", str(tmp_path))
    program = TWO.format(support=str(Path(tiny_zoo.__file__).parent))
    options = {"cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([sys.executable, "-c", program, name], **options) for name in ("first", "second")]
    assert [process.communicate()[0] for process in runs] == ["True 0\n"] * 2
    first, second = (records(tmp_path / name).replace(name.encode(), b"") for name in ("first", "second"))
    assert first == second
    assert len([path for path in (tmp_path / "store").iterdir() if path.is_dir()]) == 2


@pytest.mark.slow
def test_measurement_that_kills_its_process_fails_alone_and_is_taken_again_alone(tmp_path):
    measures = {
        "broken": {"kind": "tiny-error", "breaks_at": 8},
        "deadly": {"kind": "tiny-error", "dies_at": 8, "fields": 5},
        "error": ERROR,
    }
    experiment = tiny_zoo.experiment(seeds=[0], evaluation={**EVALUATION, "measures": measures})
    options = {"executor": "local", "workers": 1, "registry": "tiny_zoo:registry"}
    viewed = run(experiment, tmp_path, **options)
    failures = {(item["measure"], item["size"]): item["error"] for item in viewed.failures}
    assert set(failures) == {("broken", 8), ("deadly", 8)}
    assert "ZeroDivisionError: by a plugin" in failures["broken", 8]
    assert "signal 9" in failures["deadly", 8]
    assert {(row.measure, row.size) for row in viewed.records.itertuples()} == {
        *(("broken", 6), ("deadly", 6), ("error", 6), ("error", 8))
    }
    told = Told()
    again = run(experiment, tmp_path, on_event=told.append, **options)
    assert told.counts()["trained"] == 0
    assert again.reused["measurements"] == 4
    assert {(item["measure"], item["size"]) for item in again.failures} == set(failures)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (AttributeError("'Net' object has no attribute 'allocate'"), False),
    ],
)
def test_memory_that_ran_out_is_named_and_nothing_else_is_taken_for_it(out, monkeypatch, error, memory):
    def measure(self, teacher, student, size, **named):
        raise error

    monkeypatch.setattr(tiny_zoo.TinyErrorSpec, "measure", measure)
    sizes = {"evaluation": {**EVALUATION, "sizes": [6, 8, 10]}}
    failures = run(tiny_zoo.experiment(seeds=[0], **sizes), out).failures
    assert [item["size"] for item in failures] == [10]
    assert ("Memory ran out." in failures[0]["error"]) == memory


FILE = """
name: small
teachers: {field: {kind: gaussian, dim: 1, mass: 0.5}}
students: {R=2: {kind: cnn, blocks: 1, width: 4}, "R=4": {kind: cnn, blocks: 2, width: 4}}
training: {size: 32, steps: 1, batch: 2}
evaluation: {sizes: [32], measures: {error: {kind: clean-score, fields: 4}}}
"""


@pytest.mark.slow
def test_command_line_of_parts_measures_and_their_refusals(tmp_path):
    processes = fresh_process.context()

    def command(text: str, expected: int = 0) -> str:
        code, output = fresh_process.command(processes, shlex.split(text), tmp_path)
        assert code == expected, output
        return output

    (tmp_path / "small.yaml").write_text(FILE)
    where = "--executor serial --no-report"
    output = command(f"run small.yaml --out out --only student=R=4 {where}")
    assert "Not computed: 1 trials, among them field / R=2 / seed 0." in output
    assert "The grid has no student 'R=3'" in command(f"run small.yaml --out out --only student=R=3 {where}", 2)
    output = command(f"run small.yaml --out out --only student=R=4,student=R=2,seed=0 {where}")
    assert "Reused: 1 training and 1 measurement" in output
    output = command(f"measure out --measure '{{kind: clean-score, fields: 8}}' --size 48 --json {where}")
    assert json.loads(output)["reused"]["trainings"] == 2
    assert "Unknown measure" in command(f"measure out --measure cleanscore {where}", 2)
    command(f"measure out --size 0 {where}", 2)
    command(f"measure out {where}", 2)
    output = command(f"run out/experiment.json --out out {where}")
    assert "Reused: 2 trainings and 4 measurements" in output
    output = command(f"run small.yaml --out out {where}")
    assert "Reused: 2 trainings and 2 measurements" in output
