"""Nothing outside decides a number: settings and global generators of the caller, and of the code that is called."""

from __future__ import annotations

import contextlib
import random
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from sizetransfer.contracts.arithmetic import GeneratorStates, arithmetic, in_steps, seed_generators, undisturbed
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import MeasureSpec, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.diagnosis import PredictionSpec, predict
from sizetransfer.measures.clean_score import CleanScoreSpec
from sizetransfer.measures.generation import GenerationSpec
from sizetransfer.measures.jacobian import JacobianSpec
from sizetransfer.measures.locality import LocalitySpec
from sizetransfer.measures.response import ResponseSpec
from sizetransfer.measures.shell_response import ShellResponseSpec
from sizetransfer.measures.smoothed_response import SmoothedResponseSpec
from sizetransfer.measures.smoothed_score import SmoothedScoreSpec
from sizetransfer.scores.posterior import PosteriorSpec
from sizetransfer.scores.response import Region
from sizetransfer.scores.sampling import SamplerSpec, generate
from sizetransfer.scores.training import train
from sizetransfer.students.cnn import CNNStudentSpec
from sizetransfer.systems.flow.teacher import FlowTeacherSpec
from sizetransfer.systems.gaussian.student import OptimalLocalSpec
from sizetransfer.systems.gaussian.teacher import GaussianTeacherSpec
from sizetransfer.theorem1 import theorem1_bound


def set_globally(read, write, value):
    @contextlib.contextmanager
    def changed():
        before = read()
        write(value)
        try:
            yield
        finally:
            write(before)

    return changed


@contextlib.contextmanager
def other_draws():
    """The caller's generators elsewhere, and checked to be there still afterwards."""
    before = GeneratorStates.read()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    expected = torch.rand(()), random.random(), np.random.rand()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    try:
        yield
        assert (torch.rand(()), random.random(), np.random.rand()) == expected
    finally:
        before.restore()


@contextlib.contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
        assert torch.zeros(1).device.type == "meta"
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def bfloat16_backend():
    matmul = torch.backends.mkldnn.matmul
    return set_globally(lambda: matmul.fp32_precision, lambda v: setattr(matmul, "fp32_precision", v), "bf16")()


validation = torch.distributions.Distribution
SETTINGS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float16": set_globally(torch.get_default_dtype, torch.set_default_dtype, torch.float16),
    "float32": set_globally(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    "default device": default_device,
    "device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "threads": set_globally(torch.get_num_threads, torch.set_num_threads, 2),
    "matmul precision": set_globally(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"),
    "bfloat16 backend": bfloat16_backend,
    "deterministic": deterministic,
    "validation": set_globally(lambda: validation._validate_args, validation.set_default_validate_args, not __debug__),
    "generators": other_draws,
}
settings = pytest.mark.parametrize("setting", list(SETTINGS))


# --- the block --------------------------------------------------------------------------------------------------------


def report():
    """What a block would compute by."""
    return {
        "dtype": torch.zeros(()).dtype,
        "device": torch.zeros(()).device.type,
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "mkldnn": torch.backends.mkldnn.matmul.fp32_precision,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "validation": validation._validate_args,
    }


@settings
def test_the_block_computes_in_one_way(setting):
    with arithmetic("float32"):
        expected = report()
    with SETTINGS[setting](), arithmetic(torch.float32):
        got = report()
    assert got | {"mkldnn": ""} == expected | {"mkldnn": ""}
    assert got["mkldnn"] in {"none", "ieee"}
    assert expected["dtype"] == torch.float32
    assert expected["gradients"]
    assert not expected["inference"]


def disturb():
    """What a library, or a listener, might do."""
    torch.set_default_dtype(torch.float16)
    torch.set_default_device("meta")
    torch.set_grad_enabled(not torch.is_grad_enabled())
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    torch.set_autocast_enabled("cpu", not torch.is_autocast_enabled("cpu"))
    torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
    validation.set_default_validate_args(not validation._validate_args)
    torch.manual_seed(7)
    random.seed(7)
    np.random.seed(7)


def disturb_and_fail():
    disturb()
    raise ZeroDivisionError


@pytest.mark.parametrize("block", [undisturbed, lambda: arithmetic("float64")], ids=["undisturbed", "arithmetic"])
@settings
def test_everything_is_put_back(block, setting):
    def whole():
        with torch.device("cpu"):
            return report() | {"draws": (torch.rand(()).item(), random.random(), np.random.rand())}

    with SETTINGS[setting]() if setting != "generators" else contextlib.nullcontext():
        states = GeneratorStates.read()
        readable = setting != "bfloat16 backend"
        before = whole() if readable else None
        device = torch.zeros(()).device
        states.restore()
        with pytest.raises(ZeroDivisionError), block():
            disturb_and_fail()
        assert torch.zeros(()).device == device
        assert not readable or whole() == before


def test_the_settings_of_the_caller_are_back_between_the_items():
    def steps():
        for _ in range(3):
            yield torch.zeros(()).dtype, torch.is_grad_enabled(), torch.rand(()).item()

    def block():
        return arithmetic(torch.float16)

    seen = []
    with torch.no_grad():
        seed_generators("steps")
        for item in in_steps(steps(), block, GeneratorStates.read()):
            seen.append(item)
            assert not torch.is_grad_enabled()
            assert torch.get_default_dtype() == torch.float64
            torch.rand(100)
    seed_generators("steps")
    assert seen == [(torch.float16, True, torch.rand((), dtype=torch.float16).item()) for _ in range(3)]


def test_generators_start_with_all_bits_of_their_names():
    def draws(*labels):
        seed_generators(*labels)
        return torch.rand(3).tolist(), random.random(), np.random.rand()

    with undisturbed():
        first = draws("a", 1)
        assert draws("a", 1) == first
        second = draws("a", 2)
        assert all(a != b for a, b in zip(first, second, strict=True))
        assert len({*first[0], *first[1:], *second[0], *second[1:]}) == 10


# --- training ---------------------------------------------------------------------------------------------------------

FLOW = FlowTeacherSpec(pre_flow_depth=1, flow_depth=0, width=4)


class Dropping(Student):
    """A student that draws from every global generator."""

    def __init__(self, field, disturbance=None):
        super().__init__(field, radius=1)
        self.inner = nn.Conv2d(2, 6, 3, padding=1, padding_mode="circular", dtype=torch.float32)
        self.outer = nn.Conv2d(6, 1, 1, dtype=torch.float32)
        self.dropout = nn.Dropout(0.3)
        self.disturbance = disturbance

    def forward(self, x, sigma, context):
        hidden = torch.tanh(self.inner(torch.cat([x, context.condition], 1)))
        kicks = 1 + 0.01 * (random.random() + float(np.random.rand()))
        score = kicks * self.outer(self.dropout(hidden)) / sigma[:, None, None, None]
        if self.disturbance is not None:
            self.disturbance, disturbance = None, self.disturbance
            disturbance()
        return score


def trained(disturbance=None, *, steps=4, on_step=None, **keywords):
    teacher = FLOW.build()
    with undisturbed():
        torch.manual_seed(0)
        student = Dropping(teacher.field, disturbance)
    spec = TrainingSpec(size=6, steps=steps, batch=3, ema_half_life=2.0, checkpoint_every=2)
    result = train(teacher, student, spec, seed=1, on_step=on_step, **keywords)
    return [tuple(row.values()) for row in result.history], [p.tolist() for p in student.state_dict().values()]


@settings
def test_training_does_not_depend_on_the_settings_of_the_caller(setting):
    teacher = FLOW.build()
    expected = trained()
    with undisturbed():
        torch.manual_seed(0)
        student = Dropping(teacher.field)
    spec = TrainingSpec(size=6, steps=4, batch=3, ema_half_life=2.0, checkpoint_every=2)
    with SETTINGS[setting]():
        result = train(teacher, student, spec, seed=1)
    assert [tuple(row.values()) for row in result.history] == expected[0]
    assert [p.tolist() for p in student.state_dict().values()] == expected[1]


def test_what_a_student_sets_changes_nothing():
    assert trained(disturb) == trained()


def test_what_a_listener_sets_changes_nothing():
    with undisturbed():
        assert trained(on_step=lambda step, loss: disturb()) == trained()


class InterruptionError(Exception):
    """Raised where a training is cut off."""


def test_training_with_dropout_resumes_to_the_last_bit(tmp_path):
    def interrupt(step, loss):
        if step == 3:
            raise InterruptionError

    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(InterruptionError):
        trained(steps=6, checkpoint=checkpoint, on_step=interrupt)
    assert checkpoint.exists()
    torch.manual_seed(99)
    assert trained(steps=6, checkpoint=checkpoint) == trained(steps=6)


def test_steps_draw_differently():
    losses = {row[1] for row in trained(steps=4)[0]}
    assert len(losses) == 4


# --- measures ---------------------------------------------------------------------------------------------------------

SAMPLER = SamplerSpec(steps=3)
REGIONS = {"near": Region(nearest=0, farthest=1), "far": Region(nearest=2, farthest=3)}
MEASURES = {
    "clean-score": (FLOW, CleanScoreSpec(fields=3, batch=2)),
    "generation": (FLOW, GenerationSpec(fields=3, batch=2, sampler=SAMPLER)),
    "jacobian": (FLOW, JacobianSpec(fields=2, **REGIONS)),
    "response": (FLOW, ResponseSpec(fields=2, repeats=2, **REGIONS)),
    "locality": (GaussianTeacherSpec(mass=1.0), LocalitySpec(fields=3, batch=2, radii=(1,))),
    "smoothed-score": (GaussianTeacherSpec(mass=1.0), SmoothedScoreSpec(fields=3, batch=2)),
    "shell-response": (GaussianTeacherSpec(mass=1.0), ShellResponseSpec(fields=3, batch=2, sigmas=(0.5,), probe=2)),
    "smoothed-response": (
        GaussianTeacherSpec(mass=1.0),
        SmoothedResponseSpec(
            fields=2,
            sites=2,
            clean_sites=2,
            sigmas=(0.5,),
            radii=(1,),
            posterior=PosteriorSpec(chains=4, warmup=20, draws=20, max_r_hat=10, min_effective=1),
        ),
    ),
}


def records(name):
    teacher_spec, measure = MEASURES[name]
    with torch.inference_mode(False), arithmetic("float32"):
        teacher = teacher_spec.build().frozen()
        seed_generators("student")
        student = CNNStudentSpec(blocks=1, width=4).build(teacher.field).float().eval()
    return [repr(one) for one in measure.measure(teacher, student, 6, sigma=0.1, seed=2)]


@pytest.fixture(scope="module")
def undisturbed_records():
    found = {}

    def of(name):
        if name not in found:
            found[name] = records(name)
        return found[name]

    return of


@settings
@pytest.mark.parametrize("name", list(MEASURES))
def test_measures_do_not_depend_on_the_settings_of_the_caller(name, setting, undisturbed_records):
    expected = undisturbed_records(name)
    with SETTINGS[setting]():
        assert records(name) == expected
    assert expected


class Drawing(MeasureSpec):
    """A measure that draws from the global generators."""

    kind: Literal["drawing"] = "drawing"

    def measure(self, teacher, student, size, *, sigma, seed):
        for _ in range(3):
            yield torch.rand(2).tolist(), random.random(), np.random.rand(), torch.get_default_dtype()


def test_measures_that_draw_globally_are_repeatable():
    def drawn(seed=0, size=4, between=lambda: None):
        found = []
        for item in Drawing().measure(FLOW.build().double(), None, size, sigma=1.0, seed=seed):
            found.append(item)
            between()
        return found

    assert drawn() == drawn(between=lambda: torch.rand(9))
    assert drawn()[0] != drawn()[1]
    assert not {str(item) for item in drawn()} & {str(item) for item in drawn(seed=1) + drawn(size=5)}
    assert drawn()[0][-1] == torch.float64


def test_generating_does_not_depend_on_the_settings_of_the_caller():
    teacher = GaussianTeacherSpec(mass=1.0).build()
    sample = teacher.sample(2, 6, generator=torch.Generator().manual_seed(0))

    def generated():
        found = generate(
            teacher.smoothed_score,
            SAMPLER,
            sample.x,
            context=sample.context,
            generator=torch.Generator("cpu").manual_seed(1),
        )
        return found.tolist()

    expected = generated()
    for name in SETTINGS.keys() - {"generators"}:  # a run of its own draws nothing from these, and leaves them alone
        with SETTINGS[name]():
            assert generated() == expected


DIAGNOSES = {
    "exact": lambda teacher, student: theorem1_bound(
        teacher, student, size=8, patch=[(0, 0)], sigma_min=0.1, sigma_max=5.0, churn=1.0
    ),
    "monte-carlo": lambda teacher, student: theorem1_bound(
        teacher,
        student,
        size=6,
        patch=[(0, 0)],
        sigma_min=0.1,
        sigma_max=5.0,
        method="monte-carlo",
        steps=3,
        trajectories=4,
        batch=3,
        generator=stream("trajectories"),
    ),
    "predict": lambda teacher, student: predict(
        teacher, student, PredictionSpec(sizes=(6, 8), sigmas=(0.5,), fields=4), ready=True
    ).to_json(),
}


@pytest.mark.parametrize("name", list(DIAGNOSES))
def test_diagnoses_do_not_depend_on_the_settings_of_the_caller(name):
    teacher = GaussianTeacherSpec(mass=1.0).build().double().frozen()
    student = OptimalLocalSpec(mass=1.0, radius=1).build(teacher.field).double().eval()
    expected = repr(DIAGNOSES[name](teacher, student))
    for setting in SETTINGS.keys() - {"generators"}:
        with SETTINGS[setting]():
            found = DIAGNOSES[name](teacher, student)
        assert repr(found) == expected, setting


def test_trajectories_of_theorem_1_do_not_depend_on_the_batch():
    teacher = GaussianTeacherSpec(mass=1.0).build().double().frozen()
    student = OptimalLocalSpec(mass=1.0, radius=1).build(teacher.field).double().eval()
    ask = {"size": 6, "patch": [(0, 0)], "sigma_min": 0.1, "sigma_max": 5.0, "method": "monte-carlo", "steps": 3}
    one, other = (
        theorem1_bound(teacher, student, **ask, trajectories=5, batch=batch, generator=stream("batch")).bound
        for batch in (2, 5)
    )
    assert one.value == pytest.approx(other.value, rel=1e-10)
    assert one.error == pytest.approx(other.error, rel=1e-8)
