"""Training: the objectives have their minimum at the smoothed score, and nothing that happens on the way changes it.

A white Gaussian of variance c has the smoothed score -x / (c + sigma^2) in closed form; it stands for the student.
Statistical checks have fixed seeds and reject at ``SIGNIFICANCE`` standard errors.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from sizetransfer.contracts.errors import NonFiniteError, OracleError, SpecError
from sizetransfer.contracts.noise import draw_sigma, expand, perturb
from sizetransfer.contracts.oracle import Context, Sample, Teacher
from sizetransfer.contracts.randomness import normal, seeded_initialisation, stream
from sizetransfer.contracts.specs import FieldInfo, NoiseSchedule, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.scores.training import TrainingResult, denoising_loss, train
from sizetransfer.students.cnn import CNNStudent, CNNStudentSpec
from sizetransfer.systems.flow.teacher import FlowTeacher, FlowTeacherSpec

SIGNIFICANCE = 4.5
OBJECTIVES = ["denoising", "target-score", "mixed"]
over_objectives = pytest.mark.parametrize("objective", OBJECTIVES)
VARIANCE = 1.7


class Mute(Teacher):
    """White Gaussian fields in one dimension, without a score."""

    def __init__(self, *, sigma_data: float = VARIANCE**0.5, masked: bool = False) -> None:
        super().__init__(FieldInfo(dim=1, sigma_data=sigma_data))
        self.masked = masked
        self.double()

    def sample(self, batch, size, *, generator):
        x = VARIANCE**0.5 * normal((batch, 1, size), generator=generator, like=self.anchor)
        mask = (torch.arange(size) % 3 > 0).expand(batch, 1, size) if self.masked else None
        return Sample(x, Context(self.domain(size), mask=mask))


class White(Mute):
    """White Gaussian fields that know their score."""

    def score(self, sample):
        return -sample.x / VARIANCE


class NearOptimum(Student):
    """The exact smoothed score, and small departures from it in four directions."""

    def __init__(self, field: FieldInfo, departure: Tensor | None = None) -> None:
        super().__init__(field, radius=1)
        self.departure = nn.Parameter(torch.zeros(4) if departure is None else departure)

    def forward(self, x, sigma, context):
        louder, bias, neighbour, noisier = self.departure
        level = expand(sigma, x)
        return -(1 + louder) * x / (VARIANCE + level**2) + bias + neighbour * x.roll(1, -1) + noisier * level * x


def spec(objective: str = "denoising", **changes: object) -> TrainingSpec:
    noise = NoiseSchedule(sigma_min=0.2, sigma_max=1.5)
    return TrainingSpec(**{"size": 6, "batch": 256, "objective": objective, "noise": noise, **changes})


def losses(teacher: Teacher, student: Student, of_spec: TrainingSpec, repeats: int = 60) -> list[Tensor]:
    """The loss on independent batches, the same ones for every student."""
    for index in range(repeats):
        fields = teacher.sample(of_spec.batch, of_spec.size, generator=stream("tests", "fields", index))
        yield denoising_loss(teacher, student, of_spec, fields, generator=stream("tests", "noise", index))


def standardised(values: Tensor) -> Tensor:
    """Mean in standard errors, column by column."""
    return values.mean(0) / (values.std(0) / math.sqrt(len(values)))


def gradients(teacher: Teacher, student: NearOptimum, of_spec: TrainingSpec) -> Tensor:
    return torch.stack([torch.autograd.grad(loss, student.departure)[0] for loss in losses(teacher, student, of_spec)])


# --- the optimum --------------------------------------------------------------------------------------------------


@over_objectives
@pytest.mark.parametrize("sigma_data", [0.6, VARIANCE**0.5])
def test_the_gradient_vanishes_at_the_smoothed_score(objective, sigma_data):
    teacher = White(sigma_data=sigma_data)
    optimum = gradients(teacher, NearOptimum(teacher.field), spec(objective))
    if objective == "mixed" and sigma_data == VARIANCE**0.5:
        assert optimum.abs().max() < 1e-12
        return
    assert standardised(optimum).abs().max() < SIGNIFICANCE
    # The law has the power to see a score that is ten per cent too large.
    louder = gradients(teacher, NearOptimum(teacher.field, torch.tensor([0.1, 0.0, 0.0, 0.0])), spec(objective))
    assert standardised(louder)[0] > SIGNIFICANCE


@over_objectives
@pytest.mark.parametrize("direction", range(4))
@pytest.mark.parametrize("sign", [-1, 1])
def test_departures_from_the_smoothed_score_raise_the_loss(objective, direction, sign):
    teacher = White()
    departure = torch.zeros(4)
    departure[direction] = 0.2 * sign
    with torch.no_grad():
        at_optimum = torch.stack(list(losses(teacher, NearOptimum(teacher.field), spec(objective))))
        nearby = torch.stack(list(losses(teacher, NearOptimum(teacher.field, departure), spec(objective))))
    assert standardised(nearby - at_optimum) > SIGNIFICANCE


def test_the_clean_score_is_not_the_optimum_of_denoising():
    class Clean(NearOptimum):
        def forward(self, x, sigma, context):
            return super().forward(x, sigma, context) * (VARIANCE + expand(sigma, x) ** 2) / VARIANCE

    teacher = White()
    assert standardised(gradients(teacher, Clean(teacher.field), spec())).abs().max() > SIGNIFICANCE


def test_the_mixed_target_of_a_white_gaussian_has_no_variance():
    teacher = White()
    student = NearOptimum(teacher.field)
    at_optimum = {
        objective: torch.stack(list(losses(teacher, student, spec(objective), 10))).max().item()
        for objective in OBJECTIVES
    }
    assert at_optimum["mixed"] < 1e-24
    assert min(at_optimum["denoising"], at_optimum["target-score"]) > 1e-3
    other = White(sigma_data=1.0)
    assert next(losses(other, NearOptimum(other.field), spec("mixed"), 1)) > 1e-4


@over_objectives
@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_is_its_formula(objective, masked):
    teacher = White(sigma_data=0.8, masked=masked)
    student = NearOptimum(teacher.field, torch.tensor([0.1, -0.2, 0.3, 0.1]))
    of_spec = spec(objective, noise=NoiseSchedule(sigma_min=0.2, sigma_max=0.9))
    fields = teacher.sample(5, 6, generator=stream(1))
    loss = denoising_loss(teacher, student, of_spec, fields, generator=stream(2))
    generator = stream(2)
    sigma = draw_sigma(of_spec.noise, 5, generator=generator, like=fields.x)
    noisy, xi = perturb(fields.x, sigma, generator=generator)
    live = torch.ones_like(noisy, dtype=torch.bool) if not masked else fields.context.mask
    noisy = torch.where(live, noisy, fields.x)
    prediction = student(noisy, sigma, fields.context)
    terms = []
    for b, _, site in live.nonzero().tolist():
        v, denoising, clean = sigma[b] ** 2, -xi[b, 0, site] / sigma[b], -fields.x[b, 0, site] / VARIANCE
        share = 0.64 / (0.64 + v)
        target = {"denoising": denoising, "target-score": clean, "mixed": share * clean + (1 - share) * denoising}
        weight = v if objective == "denoising" else v + 0.64
        terms.append(weight * (prediction[b, 0, site] - target[objective]) ** 2)
    torch.testing.assert_close(loss, torch.stack(terms).mean(), rtol=1e-12, atol=0)


@over_objectives
def test_a_batch_without_live_sites_has_nothing_to_teach(objective):
    teacher = White(masked=True)
    student = NearOptimum(teacher.field, torch.tensor([0.1, -0.2, 0.3, 0.1]))
    fields = teacher.sample(2, 6, generator=stream(1))
    dead = Sample(0 * fields.x, Context(fields.context.domain, mask=torch.zeros(2, 1, 6, dtype=torch.bool)))
    loss = denoising_loss(teacher, student, spec(objective), dead, generator=stream(2))
    loss.backward()
    assert loss == 0
    assert (student.departure.grad == 0).all()


# --- the course of training ---------------------------------------------------------------------------------------


def flow() -> FlowTeacher:
    return FlowTeacherSpec.parse({"preset": "short-range-simple", "width": 4}).build().double().frozen()


def cnn(teacher: Teacher, *labels: int | str, blocks: int = 0, width: int = 3) -> CNNStudent:
    with seeded_initialisation("tests", *labels):
        return CNNStudentSpec(blocks=blocks, width=width, noise_frequencies=2).build(teacher.field).to(teacher.anchor)


def short(**changes: object) -> TrainingSpec:
    return TrainingSpec(**{"size": 4, "steps": 9, "batch": 2, "checkpoint_every": 3, "learning_rate": 0.01, **changes})


COURSES = {
    "constant": short(schedule="constant"),
    "cosine": short(),
    "constant, averaged": short(schedule="constant", ema_half_life=2.0),
    "cosine, averaged, mixed": short(ema_half_life=2.5, objective="mixed"),
    "bfloat16": short(autocast="bfloat16"),
}
over_courses = pytest.mark.parametrize("course", COURSES)


class InterruptionError(Exception):
    pass


def interrupt_at(step: int):
    def on_step(done: int, loss: float) -> None:
        if done == step:
            raise InterruptionError

    return on_step


def interrupted(of_spec: TrainingSpec, step: int, checkpoint: Path) -> None:
    teacher = flow()
    with pytest.raises(InterruptionError):
        train(teacher, cnn(teacher), of_spec, seed=3, checkpoint=checkpoint, on_step=interrupt_at(step))


def trained(
    of_spec: TrainingSpec, checkpoint: Path | None = None, *, start: str = "", seed: int = 3
) -> tuple[dict[str, Tensor], TrainingResult]:
    teacher = flow()
    student = cnn(teacher, *([start] if start else []))
    result = train(teacher, student, of_spec, seed=seed, checkpoint=checkpoint)
    assert not student.training
    return student.state_dict(), result


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@over_courses
@pytest.mark.parametrize("step", [1, 3, 4, 8, 9])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(course, step, tmp_path):
    of_spec = COURSES[course]
    weights, result = trained(of_spec)
    checkpoint = tmp_path / "checkpoint.safetensors"
    interrupted(of_spec, step, checkpoint)
    assert checkpoint.exists() == (step >= 3)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name] * checkpoint.exists()
    # Whoever resumes starts with other weights where there is a checkpoint: it must replace all of them.
    again, resumed = trained(of_spec, checkpoint, start="elsewhere" if step >= 3 else "")
    assert same(again, weights)
    assert resumed.history == result.history
    assert (resumed.steps, resumed.score_calls) == (result.steps, result.score_calls)


def test_training_without_its_optimiser_state_is_caught(tmp_path, monkeypatch):
    """Resuming the weights alone is not exact, and the check above sees it."""
    weights, _ = trained(COURSES["cosine"])
    interrupted(COURSES["cosine"], 4, tmp_path / "c")
    monkeypatch.setattr(torch.optim.Adam, "load_state_dict", lambda self, state: None)
    again, _ = trained(COURSES["cosine"], tmp_path / "c")
    assert not same(again, weights)


def test_a_resumed_training_tells_only_its_own_steps(tmp_path):
    interrupted(COURSES["cosine"], 5, tmp_path / "c")
    teacher, told = flow(), []
    train(
        teacher,
        cnn(teacher),
        COURSES["cosine"],
        seed=3,
        checkpoint=tmp_path / "c",
        on_step=lambda *news: told.append(news),
    )
    history = trained(COURSES["cosine"])[1].history
    assert told == [(int(row["step"]), row["loss"]) for row in history[3:]]


# --- damaged checkpoints ------------------------------------------------------------------------------------------


def flipped(data: bytes, place: int, bits: int = 0xFF) -> bytes:
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, Tensor], TrainingResult]:
    return trained(COURSES["cosine, averaged, mixed"])


def test_every_damage_is_named_and_redone(tmp_path, reference):
    of_spec = COURSES["cosine, averaged, mixed"]
    checkpoint = tmp_path / "checkpoint"
    interrupted(of_spec, 7, checkpoint)
    intact = checkpoint.read_bytes()
    damages = {f"first {n} bytes": intact[:n] for n in (0, 1, 8, 200, len(intact) // 2, len(intact) - 1)}
    for bits in (0x01, 0xFF):
        damages |= {f"byte {n} by {bits}": flipped(intact, n, bits) for n in range(0, len(intact), len(intact) // 12)}
    damages["another file"] = b"not a checkpoint at all"
    for damage, data in damages.items():
        checkpoint.write_bytes(data)
        with pytest.warns(UserWarning, match=r"checkpoint .*damaged.*starts over"):
            weights, result = trained(of_spec, checkpoint)
        assert same(weights, reference[0]), damage
        assert result.history == reference[1].history, damage


@pytest.mark.parametrize("other", [{"seed": 4}, {"course": "cosine"}], ids=["another seed", "another specification"])
def test_the_checkpoint_of_another_training_is_not_taken(other, tmp_path, reference):
    teacher = flow()
    with pytest.raises(InterruptionError):
        train(
            teacher,
            cnn(teacher),
            COURSES[other.get("course", "cosine, averaged, mixed")],
            seed=other.get("seed", 3),
            checkpoint=tmp_path / "c",
            on_step=interrupt_at(5),
        )
    with pytest.warns(UserWarning, match="another training"):
        weights, _ = trained(COURSES["cosine, averaged, mixed"], tmp_path / "c")
    assert same(weights, reference[0])


def test_the_checkpoint_of_another_student_is_not_taken(tmp_path):
    interrupted(COURSES["cosine"], 5, tmp_path / "c")
    teacher = flow()
    fresh, wider = cnn(teacher, width=5), cnn(teacher, width=5)
    train(teacher, fresh, COURSES["cosine"], seed=3)
    with pytest.warns(UserWarning, match="another training"):
        train(teacher, wider, COURSES["cosine"], seed=3, checkpoint=tmp_path / "c")
    assert same(wider.state_dict(), fresh.state_dict())


def test_the_interval_between_checkpoints_may_change(tmp_path, reference):
    of_spec = COURSES["cosine, averaged, mixed"]
    interrupted(of_spec, 7, tmp_path / "c")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights, _ = trained(of_spec.model_copy(update={"checkpoint_every": 2}), tmp_path / "c", start="elsewhere")
    assert same(weights, reference[0])


# --- numbers that are not finite ----------------------------------------------------------------------------------


class Poisoned(CNNStudent):
    """Returns NaN from the given call on."""

    calls = 0
    healthy = 7

    def forward(self, x, sigma, context):
        self.calls += 1
        score = super().forward(x, sigma, context)
        return score * torch.nan if self.calls > self.healthy else score


@pytest.mark.parametrize("average", [None, 2.0])
def test_a_loss_that_is_not_finite_stops_training_at_the_last_good_checkpoint(average, tmp_path):
    of_spec, checkpoint, teacher = short(ema_half_life=average), tmp_path / "c", flow()
    student = cnn(teacher)
    student.__class__ = Poisoned
    with pytest.raises(NonFiniteError, match="not finite") as caught:
        train(teacher, student, of_spec, seed=3, checkpoint=checkpoint)
    assert caught.value.where == "step 8 of 9"
    assert "nan" in caught.value.got
    assert all(value.isfinite().all() for value in student.state_dict().values())
    with safe_open(checkpoint, framework="pt") as file:
        assert file.get_tensor("history")[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    weights, _ = trained(of_spec, checkpoint, start="elsewhere")
    assert same(weights, trained(of_spec)[0])


def test_a_gradient_that_is_not_finite_stops_training():
    class Kink(CNNStudent):
        def forward(self, x, sigma, context):
            scale = next(self.parameters()).sum()
            return super().forward(x, sigma, context) + (scale - scale.detach()).abs().sqrt()

    teacher = flow()
    student = cnn(teacher)
    student.__class__ = Kink
    with pytest.raises(NonFiniteError, match="not finite") as caught:
        train(teacher, student, short(), seed=3)
    assert caught.value.where == "step 1 of 9"


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["target-score", "mixed"])
def test_objectives_that_need_a_score_refuse_a_teacher_without_one(objective):
    teacher = Mute()
    with pytest.raises(SpecError, match="needs the teacher's clean score") as caught:
        train(teacher, NearOptimum(teacher.field), spec(objective, steps=1), seed=0)
    assert caught.value.got == "Mute"
    result = train(teacher, NearOptimum(teacher.field), spec(steps=2), seed=0)
    assert (result.steps, result.score_calls) == (2, 0)


def test_a_lattice_on_which_the_teacher_is_not_defined_is_refused():
    teacher = flow()
    with pytest.raises(OracleError, match="checkerboard"):
        train(teacher, cnn(teacher), short(size=5), seed=0)


# --- optimiser, averages, accounts --------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_history_tells_steps_and_rates(schedule):
    of_spec = short(schedule=schedule, objective="mixed")
    _, result = trained(of_spec)
    assert [row["step"] for row in result.history] == list(range(1, 10))
    for index, row in enumerate(result.history):
        factor = 0.5 * (1 + math.cos(math.pi * index / 9)) if schedule == "cosine" else 1.0
        assert row["learning_rate"] == pytest.approx(0.01 * factor, rel=1e-12)
        assert row["gradient_norm"] > 0
    assert (result.steps, result.score_calls) == (9, 18)
    assert result.seconds > 0


def test_the_weights_end_as_their_exponential_average():
    teacher = flow()
    student, path = cnn(teacher), []
    copy = lambda *_: path.append({name: value.clone() for name, value in student.state_dict().items()})  # noqa: E731
    train(teacher, student, short(), seed=3, on_step=copy)
    average = path[0]
    for weights in path[1:]:
        average = {name: average[name] * 0.5 ** (1 / 2.0) + weights[name] * (1 - 0.5 ** (1 / 2.0)) for name in average}
    averaged, _ = trained(short(ema_half_life=2.0))
    for name, value in averaged.items():
        torch.testing.assert_close(value, average[name], rtol=1e-12, atol=1e-14)
    assert not same(averaged, path[-1])


def test_gradients_are_clipped_by_their_global_norm():
    teacher = flow()
    student = cnn(teacher)
    result = train(teacher, student, short(gradient_clip=1e-3), seed=3)
    norm = torch.cat([value.grad.flatten() for value in student.parameters() if value.grad is not None]).norm()
    assert result.history[-1]["gradient_norm"] > 1e-3
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_no_steps_leave_the_student_as_it_was():
    teacher = flow()
    weights, result = trained(short(steps=0, ema_half_life=2.0))
    assert same(weights, cnn(teacher).state_dict())
    assert (result.history, result.steps, result.score_calls) == ([], 0, 0)


def test_the_seed_decides_everything():
    first, _ = trained(COURSES["cosine"])
    with torch.random.fork_rng():
        torch.manual_seed(99)
        before = torch.get_rng_state()
        second, _ = trained(COURSES["cosine"])
        assert torch.equal(torch.get_rng_state(), before)
    other, _ = trained(COURSES["cosine"], seed=4)
    assert same(first, second)
    assert not same(first, other)


def exact_error(teacher: FlowTeacher, student: CNNStudent) -> float:
    """Relative error of the low-noise score on held-out fields."""
    fields = teacher.sample(32, 8, generator=stream("tests", "held out"))
    exact = teacher.score(fields)
    with torch.no_grad():
        score = student(fields.x, torch.full((32,), 0.05, dtype=fields.x.dtype), fields.context)
    return ((score - exact).norm() / exact.norm()).item()


@over_objectives
def test_training_brings_the_student_near_the_exact_score(objective):
    teacher = FlowTeacherSpec(smoother_depth=1, gain=0.8, coupling_gain=0.1).build().frozen()
    student = cnn(teacher, blocks=1, width=16)
    before = exact_error(teacher, student)
    train(teacher, student, TrainingSpec(size=8, steps=60, batch=16, objective=objective, learning_rate=5e-3), seed=0)
    assert exact_error(teacher, student) < (0.8 if objective == "denoising" else 0.65) * before
