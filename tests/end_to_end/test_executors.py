"""Executors decide where trials run, never what numbers they give, and leave no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_zoo

from sizetransfer.contracts.errors import NonFiniteError, RunError, SizetransferError
from sizetransfer.runs.executors import LocalExecutor
from sizetransfer.runs.keys import planned, require_same_code
from sizetransfer.runs.runner import run
from sizetransfer.runs.storage import StorageError
from sizetransfer.runs.workplace import Workplace, error_from_json, error_to_json, parse_trial

STUDENTS = {"narrow": {"kind": "tiny-line", "radius": 1}, "wide": {"kind": "tiny-line", "radius": 2}}
DEADLY = {"deadly": {"kind": "tiny-line", "deadly": True}}


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    # A process that nobody has waited for is dead all the same.
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().split(")")[-1].split()[0] == "Z"


def eventually(condition, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.slow
def test_processes_give_the_numbers_of_one_process_and_a_dying_one_takes_one_trial(tmp_path):
    events = []
    serial = run(
        tiny_zoo.experiment(students=STUDENTS, seeds=[0]),
        tmp_path / "serial",
        executor="serial",
        registry=tiny_zoo.registry(),
        device="cpu",
    )
    local = run(
        tiny_zoo.experiment(students={**DEADLY, **STUDENTS}, seeds=[0]),
        tmp_path / "local",
        executor="local",
        workers=2,
        registry="tiny_zoo:registry",
        device="cpu",
        on_event=events.append,
    )
    assert (tmp_path / "local" / "records.csv").read_bytes() == (tmp_path / "serial" / "records.csv").read_bytes()
    assert serial.complete
    assert [failure["label"] for failure in local.failures] == ["white / deadly / seed 0"]
    assert "signal 9" in local.failures[0]["error"]
    by_trial = {event.trial: [e.done for e in events if e.trial == event.trial] for event in events}
    assert len(by_trial) == 3
    assert sum(shares[-1] == 1.0 for shares in by_trial.values()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_process_that_started_them(tmp_path, deadly):
    teachers = {"slow": {"kind": "tiny-white", "seconds": 0.05}}
    training = {**tiny_zoo.EXPERIMENT["training"], "steps": 2000}
    data = {**tiny_zoo.EXPERIMENT, "teachers": teachers, "training": training, "seeds": [0]}
    pids = tmp_path / "pids"
    pids.mkdir()
    support = str(Path(tiny_zoo.__file__).parent)
    code = f"import sys; sys.path.insert(0, {support!r}); import tiny_zoo; "
    # Shells start background jobs with SIGINT ignored, and children inherit that.
    code += "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    parent = subprocess.Popen(
        [sys.executable, "-c", code + f"tiny_zoo.run_locally({str(tmp_path / 'run')!r}, {data!r})"],
        env={**os.environ, "TINY_PIDS": str(pids)},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: any(pids.iterdir()))
        (worker,) = (int(path.name) for path in pids.iterdir())
        assert worker != parent.pid
        parent.send_signal(deadly)
        parent.wait(10)
        assert eventually(lambda: gone(worker), 5.0)
    finally:
        parent.kill()
        parent.wait()


def test_longest_trials_come_first(tmp_path):
    started = []
    run(
        tiny_zoo.experiment(students=STUDENTS),
        tmp_path,
        executor="serial",
        registry=tiny_zoo.registry(),
        device="cpu",
        on_event=lambda event: started.append(event.label) if event.kind == "started" else None,
    )
    assert [label.split(" / ")[1] for label in started] == ["wide", "wide", "narrow", "narrow"]


def test_number_of_processes(tmp_path):
    def workers(**options) -> int:
        return LocalExecutor(Workplace(tmp_path, registry=tiny_zoo.registry(), **options))._workers(3)

    assert workers(device="cpu", workers=7) == 7
    assert 1 <= workers(device="cpu") <= 3
    assert workers(device="cuda") == 1


def test_trial_crosses_as_json_with_its_keys():
    trial = planned(tiny_zoo.experiment().trials()[1], "cpu")
    again = parse_trial(json.loads(json.dumps(trial.to_json())), tiny_zoo.registry())
    assert again == trial
    assert list(again.tasks()) == list(trial.tasks())
    require_same_code(again, "cpu")


def test_process_with_other_code_than_the_one_that_planned_the_trial_is_refused(tmp_path):
    trial = planned(tiny_zoo.experiment().trials()[0], "cpu")
    elsewhere = trial.model_copy(update={"keys": trial.keys.model_copy(update={"training": "0" * 16})})
    with pytest.raises(RunError, match="not that of the process"):
        require_same_code(elsewhere, "cpu")
    result = Workplace(tmp_path, "cpu", tiny_zoo.registry()).perform(elsewhere, lambda event: None)
    assert result.status == "failed"
    assert not list(tmp_path.glob("trainings/*/training.json"))


@pytest.mark.parametrize("kind", [StorageError, NonFiniteError, RunError])
def test_error_crosses_as_json_with_its_class(kind):
    error = kind("what", where="where", expected="expected", got="got", fix="fix")
    again = error_from_json(error_to_json(error))
    assert type(again) is kind
    assert str(again) == str(error)


def test_error_of_an_unknown_class_arrives_as_a_run_error():
    class LocalError(SizetransferError):
        pass

    data = error_to_json(LocalError("what", fix="fix"))
    again = error_from_json({**data, "class": "ElsewhereError"})
    assert type(again) is RunError
    assert again.fix == "fix"
