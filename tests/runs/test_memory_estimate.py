"""What is estimated of a batch's memory before anything is trained, against what a process really takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_zoo
import torch

import sizetransfer as st
from sizetransfer.contracts.errors import PluginError, SpecError
from sizetransfer.contracts.oracle import HasScore
from sizetransfer.contracts.student import Student
from sizetransfer.runs import memory, preflight
from sizetransfer.runs.memory import available_memory, check_memory, peak_bytes
from sizetransfer.runs.runner import run

GIBIBYTE = 2**30
FLOW = {"kind": "flow", "preset": "medium-range"}
CNN = {"kind": "cnn", "blocks": 3, "width": 64}
PROGRAM = r"""
import os, re, sys
from pathlib import Path
import torch
import sizetransfer as st
from sizetransfer.contracts.randomness import stream

torch.set_num_threads(1)
teacher = st.teacher("flow", preset="medium-range").frozen()
student = st.student("cnn", teacher.field, blocks=3, width=64)

def score(size):
    teacher.score(teacher.sample(1, size, generator=stream(0)))

def answer(size):
    sample = teacher.sample(1, size, generator=stream(0))
    with torch.no_grad():
        student(sample.x, sample.x.new_full((1,), 0.05), sample.context)

def answer_with_graph(size):
    sample = teacher.sample(1, size, generator=stream(0))
    student(sample.x, sample.x.new_full((1,), 0.05), sample.context)

def kilobytes(name):
    return int(re.search(name + r":\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))

for task in (score, answer, answer_with_graph):
    if os.fork() == 0:  # a process of its own, whose peak nobody else has raised
        task(16)
        Path("/proc/self/clear_refs").write_text("5")
        before = kilobytes("VmRSS")
        task(int(sys.argv[1]))
        print(task.__name__, 1024 * (kilobytes("VmHWM") - before), flush=True)
        os._exit(0)
    os.wait()
"""


def experiment(measures, sizes, *, student=CNN, teacher=FLOW, training=32):
    data = {
        "name": "large",
        "teachers": {"teacher": teacher},
        "students": {"student": student},
        "training": {"size": training, "steps": 1},
        "evaluation": {"sizes": sizes, "measures": measures},
    }
    return st.experiment(data)


def estimates(measures, size, **parts) -> dict[str, float]:
    (trial,) = experiment(measures, [size], **parts).trials()
    teacher = trial.teacher.build().to(torch.float32).frozen()
    student = trial.student.build(teacher.field).to(torch.float32)
    return {name: memory._estimate(trial, teacher, student, name, size, {}) for name in measures}


def test_peak_is_the_most_that_is_alive_at_one_moment():
    def work():
        first = torch.zeros(1000, dtype=torch.float64)
        second = first + 1
        view = second[10:]
        del first, second
        return view.sum() + torch.zeros(400, dtype=torch.float64)

    assert peak_bytes(work) == 16_000
    assert peak_bytes(lambda: torch.zeros(1000, dtype=torch.float64).add_(1)) == 8000
    linear = torch.nn.Linear(100, 100, dtype=torch.float64)
    assert peak_bytes(lambda: linear.weight.T, [linear]) == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell a process's peak")
def test_estimates_agree_with_real_peaks_within_a_factor_of_two():
    command = [sys.executable, "-c", PROGRAM, "512"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    real = {name: int(value) for name, value in re.findall(r"(\w+) (\d+)", printed)}
    (trial,) = experiment({"error": {"kind": "clean-score"}, "rows": {"kind": "jacobian"}}, [512]).trials()
    teacher = trial.teacher.build().to(torch.float32).frozen()
    student = trial.student.build(teacher.field).to(torch.float32)
    works = {}
    for measure in trial.evaluation.measures.values():
        works |= memory._works(trial, teacher, student, measure)
    kinds = {"score": HasScore, "answer": ("student", False), "answer_with_graph": ("student", True)}
    growths = {name: memory._growth(works[kind], 32, teacher, student) for name, kind in kinds.items()}
    ratios = {name: growth.at(512 * 512) / real[name] for name, growth in growths.items()}
    assert all(0.5 < ratio < 2 for ratio in ratios.values()), ratios


def test_attention_between_all_sites_grows_with_the_square():
    class Global(Student):
        def forward(self, x, sigma, context):
            flat = x.flatten(2)
            return ((flat.mT @ flat).softmax(-1) @ flat.mT).mT.reshape(x.shape)

    (trial,) = experiment({"error": {"kind": "clean-score"}}, [512]).trials()
    teacher = trial.teacher.build().frozen()
    works = memory._works(trial, teacher, Global(teacher.field, radius=None), trial.evaluation.measures["error"])
    powers = [memory._growth(work, 16, teacher, teacher).power for work in works.values()]
    assert powers[0] == pytest.approx(1.0, abs=0.1)
    assert powers[-1] == pytest.approx(2.0, abs=0.1)


def test_a_batch_holds_as_many_fields_as_it_bounds():
    measures = {f"{batch}": {"kind": "clean-score", "batch": batch, "fields": 16} for batch in (1, 8, 32)}
    found = estimates(measures, 512)
    assert found["8"] == 8 * found["1"]
    assert found["32"] == 16 * found["1"]


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(preflight, "available_memory", lambda device: GIBIBYTE)


def test_a_measure_beyond_the_memory_is_refused_before_anything_trains(small_machine, tmp_path):
    events = []
    asked = experiment({"error": {"kind": "clean-score"}, "one": {"kind": "clean-score", "batch": 1}}, [32, 512, 1024])
    with pytest.raises(SpecError, match=r"'error' does not fit into memory at size 512") as caught:
        run(asked, tmp_path / "run", executor="serial", device="cpu", on_event=events.append)
    assert caught.value.expected.startswith("at most 1 GiB")
    assert float(re.search(r"about ([\d.]+) GiB for 8 fields", caught.value.got)[1]) > 1
    assert "lower its batch" in caught.value.fix
    assert "{error: [32, 1024]}" in caught.value.fix
    assert events == []
    assert not (tmp_path / "run").exists()


def test_what_fits_and_what_cannot_be_told_is_let_through(small_machine):
    preflight.plan(experiment({"one": {"kind": "clean-score", "batch": 1}}, [32, 300]).trials())
    (trial,) = experiment({"error": {"kind": "clean-score"}}, [4096]).trials()
    teacher = trial.teacher.build().frozen()

    class Stubborn(Student):
        def forward(self, x, sigma, context):
            if len(torch.utils._python_dispatch._get_current_dispatch_mode_stack()):
                raise SystemExit("not under a mode")
            return x

    measure = trial.evaluation.measures["error"]
    works = memory._works(trial, teacher, Stubborn(teacher.field, radius=0), measure)
    assert memory._growth(works["student", False], 16, teacher, teacher) is None
    student = trial.student.build(teacher.field)
    check_memory(trial, teacher, student, ["error"], available=None)


def test_tiles_spare_the_student_s_memory():
    whole, tiled = {"kind": "generation", "fields": 16}, {"kind": "generation", "fields": 16, "tile": 16}
    found = estimates({"whole": whole, "tiled": tiled}, 512)
    assert found["tiled"] < found["whole"] / 3


def test_ordinary_sizes_are_not_looked_at(monkeypatch):
    def forbidden(*arguments):
        raise AssertionError("an estimate was made")

    monkeypatch.setattr(memory, "_estimate", forbidden)
    preflight.plan(experiment({"error": {"kind": "clean-score"}}, [32, 256]).trials())
    with pytest.raises(PluginError, match="an estimate was made"):
        preflight.plan(experiment({"error": {"kind": "clean-score"}}, [32, 258]).trials())


def test_memory_of_the_machine_and_of_a_control_group(monkeypatch, tmp_path):
    whole = available_memory("cpu")
    assert whole is None or whole > 2**28
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("12345\n")
    assert available_memory("cpu") == 12345
    assert available_memory("meta") is None


def test_estimating_changes_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MANY_SITES", 4)
    spec = tiny_zoo.experiment(seeds=[0])
    run(spec, tmp_path / "with", executor="serial", device="cpu", registry=tiny_zoo.registry())
    monkeypatch.undo()
    run(spec, tmp_path / "without", executor="serial", device="cpu", registry=tiny_zoo.registry())
    first, second = ((tmp_path / name / "records.csv").read_bytes() for name in ("with", "without"))
    assert first == second
