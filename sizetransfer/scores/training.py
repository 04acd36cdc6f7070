r"""Denoising score matching on fresh exact samples.

With :math:`x = x_0 + \sigma\xi`, the loss is a weighted squared distance to a regression target y whose
conditional mean given x is the smoothed score:

.. math:: \ell(\theta) = E\; \lambda(\sigma)\, \|s_\theta(x, \sigma) - y\|^2 .

========================  =========================================================  ==============================
objective                 target y                                                   weight
========================  =========================================================  ==============================
``denoising``             :math:`-\xi/\sigma`                                        :math:`\sigma^2` (paper eq. (3))
``target-score``          :math:`s_0(x_0)`                                           :math:`\sigma^2 + \sigma_d^2`
``mixed``                 :math:`w\, s_0(x_0) - (1-w)\,\xi/\sigma`                   :math:`\sigma^2 + \sigma_d^2`
========================  =========================================================  ==============================

with :math:`w = \sigma_d^2/(\sigma_d^2 + \sigma^2)` (De Bortoli et al. 2024, target score matching): for a white
Gaussian of variance :math:`\sigma_d^2` the mixed target has no variance at all. Any weights that depend on
:math:`\sigma` alone leave the optimum unchanged.

Every step draws from streams named by the trial's seed and the step, and before it the global generators of torch,
Python and numpy are started at such streams, so that a run resumed from a checkpoint repeats an uninterrupted one to
the last bit, with dropout too. What the caller, or a student's own code, sets for torch as a whole changes nothing:
every step computes in the same :mod:`sizetransfer.contracts.arithmetic`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sizetransfer.contracts.arithmetic import arithmetic, seed_generators, undisturbed
from sizetransfer.contracts.errors import NonFiniteError, SpecError
from sizetransfer.contracts.noise import draw_sigma, expand, perturb
from sizetransfer.contracts.oracle import HasScore, Sample, Teacher
from sizetransfer.contracts.randomness import Stream, stream
from sizetransfer.contracts.specs import TrainingSpec
from sizetransfer.contracts.student import Student

COLUMNS = ("step", "loss", "gradient_norm", "learning_rate")


@dataclass(frozen=True)
class TrainingResult:
    """What training leaves beside the student's weights.

    Attributes:
        history: one row per step, with the columns ``step, loss, gradient_norm, learning_rate``.
        seconds: wall time of this call.
        score_calls: fields whose clean score the teacher was asked for, in all steps.
        steps: steps done in all.
        step_seconds: mean cost of a step of this call, with drawing and scoring its fields: processor time on a
            processor, wall time on an accelerator; ``None`` if there was no step.
    """

    history: list[dict[str, float]]
    seconds: float
    score_calls: int
    steps: int
    step_seconds: float | None = None


@dataclass
class _State:
    """Everything that changes from step to step."""

    student: Student
    noise: Stream
    optimiser: torch.optim.Adam
    scheduler: LambdaLR
    average: AveragedModel | None
    history: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def step(self) -> int:
        return len(self.history)


def train(
    teacher: Teacher,
    student: Student,
    spec: TrainingSpec,
    *,
    seed: int,
    checkpoint: Path | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainingResult:
    """Train ``student`` in place; it ends with the averaged weights if the specification asks for an average.

    A student without weights that have gradients is fitted by its own method instead, once
    (:meth:`sizetransfer.contracts.student.Student.fit`); one whose score is known in closed form is left as it is.

    Args:
        teacher: draws the fields, and scores them where the objective needs it.
        student: on the device and with the dtype of the teacher.
        spec: steps, batch, objective, optimiser and noise.
        seed: names the streams of fields, noise levels and noise.
        checkpoint: file to resume from and to write every ``spec.checkpoint_every`` steps; a damaged one is
            reported by a warning and training starts over.
        on_step: called with the number of steps done and the loss.

    Raises:
        SpecError: the objective needs a clean score that the teacher does not know.
        NonFiniteError: a loss or gradient is not finite; the last checkpoint stays.
        OracleError: the teacher is not defined on the training lattice.
    """
    with arithmetic(teacher.anchor.dtype, teacher.anchor.device):
        return _train(teacher, student, spec, seed=seed, checkpoint=checkpoint, on_step=on_step)


def _train(
    teacher: Teacher,
    student: Student,
    spec: TrainingSpec,
    *,
    seed: int,
    checkpoint: Path | None,
    on_step: Callable[[int, float], None] | None,
) -> TrainingResult:
    teacher = teacher.split("training")
    _check(teacher, student, spec)
    started = time.perf_counter()
    if not any(parameter.requires_grad for parameter in student.parameters()):
        student.fit(teacher, spec.size, seed=seed)
        student.eval()
        return TrainingResult(history=[], seconds=time.perf_counter() - started, score_calls=0, steps=0)
    state = _initial_state(student, spec, seed)
    if checkpoint is not None and checkpoint.exists():
        _restore(state, checkpoint, _identity(student, spec, seed))
    student.train()
    clock = _clock(student)
    first, before = state.step, clock()
    while state.step < spec.steps:
        with arithmetic(teacher.anchor.dtype, teacher.anchor.device, generators=False):
            loss = _advance(state, teacher, spec, seed)
            if checkpoint is not None and state.step % spec.checkpoint_every == 0 and state.step < spec.steps:
                _save(state, checkpoint, _identity(student, spec, seed))
        if on_step is not None:
            on_step(state.step, loss)
    done, spent = state.step - first, clock() - before
    if state.average is not None:
        student.load_state_dict(state.average.module.state_dict())
    student.eval()
    return TrainingResult(
        history=[dict(zip(COLUMNS, row, strict=True)) for row in state.history],
        seconds=time.perf_counter() - started,
        score_calls=0 if spec.objective == "denoising" else state.step * spec.batch,
        steps=state.step,
        step_seconds=spent / done if done else None,
    )


def _clock(student: Student) -> Callable[[], float]:
    """What a step costs is processor time, which other work on the machine leaves alone; an accelerator has its own."""
    devices = {parameter.device.type for parameter in student.parameters()}
    return time.process_time if devices == {"cpu"} else time.perf_counter


def _check(teacher: Teacher, student: Student, spec: TrainingSpec) -> None:
    teacher.check_size(spec.size)
    check_crop(teacher, student, spec.size)
    if spec.objective != "denoising" and not isinstance(teacher, HasScore):
        raise SpecError(
            f"The objective {spec.objective!r} needs the teacher's clean score.",
            where="training.objective",
            expected="a teacher with the capability HasScore",
            got=type(teacher).__name__,
            fix="use objective: denoising",
        )


def check_crop(teacher: Teacher, student: Student, size: int) -> None:
    """Refuse a student for which no site of a crop of this size counts.

    Raises:
        OracleError: the student has no radius.
        SpecError: the crop is too small for the student's radius.
    """
    counted = teacher.domain(size).counted(student.radius)
    if counted is None or bool(counted.any()):
        return
    raise SpecError(
        "The receptive field of every site leaves the crop, so that no site counts.",
        where="training.size, student's radius",
        expected=f"crops of at least 2 R + 1 = {2 * (student.radius or 0) + 1} sites along each axis",
        got=str(size),
        fix="train on larger crops, or take a smaller radius",
    )


def _initial_state(student: Student, spec: TrainingSpec, seed: int) -> _State:
    optimiser = torch.optim.Adam(student.parameters(), lr=spec.learning_rate)
    average = None
    if spec.ema_half_life is not None:
        decay = 0.5 ** (1 / spec.ema_half_life)
        average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
    return _State(student, stream(seed, "noise"), optimiser, LambdaLR(optimiser, _rate_factor(spec)), average)


def _rate_factor(spec: TrainingSpec) -> Callable[[int], float]:
    if spec.schedule == "constant":
        return lambda step: 1.0
    return lambda step: 0.5 * (1 + math.cos(math.pi * step / max(1, spec.steps)))


def _advance(state: _State, teacher: Teacher, spec: TrainingSpec, seed: int) -> float:
    step = state.step
    seed_generators(seed, "modules", step)
    sample = teacher.sample(spec.batch, spec.size, generator=stream(seed, "fields", step))
    # A field has one noise level and more than one number of noise: both draws of a step have the step's number.
    loss = denoising_loss(teacher, state.student, spec, sample, generator=state.noise.at(step))
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(state.student.parameters(), spec.gradient_clip)
    values = (float(loss.detach()), float(norm))
    if not all(map(math.isfinite, values)):
        raise NonFiniteError(
            "Training met a loss or gradient that is not finite.",
            where=f"step {step + 1} of {spec.steps}",
            expected="finite numbers",
            got=f"loss {values[0]}, gradient norm {values[1]}",
            fix="lower training.learning_rate or training.gradient_clip, or train without autocast",
        )
    rate = state.optimiser.param_groups[0]["lr"]
    state.optimiser.step()
    state.scheduler.step()
    if state.average is not None:
        state.average.update_parameters(state.student)
    state.history.append((float(step + 1), *values, rate))
    return values[0]


def denoising_loss(
    teacher: Teacher, student: Student, spec: TrainingSpec, sample: Sample, *, generator: torch.Generator
) -> Tensor:
    """Objective of ``spec`` on one batch of clean fields: a scalar, averaged over batch, channels and live sites.

    Sites of a crop whose receptive field leaves it do not count. It is zero for a batch without sites that count, which
    has nothing to teach.
    """
    sigma = draw_sigma(spec.noise, len(sample.x), generator=generator, like=sample.x)
    x, noise = perturb(sample.x, sigma, generator=generator)
    mask = sample.context.mask
    if mask is not None:
        x = torch.where(mask, x, sample.x)
    target, weight = _target(teacher, student, spec, sample, expand(sigma, x), noise)
    with undisturbed(generators=False), _autocast(spec, x.device):
        prediction: Tensor = student(x, sigma, sample.context)
    squared = weight * (prediction.to(x.dtype) - target).square()
    counted = sample.context.counted(student.radius)
    if counted is not None:
        squared = squared[counted.expand_as(squared).to(squared.device)]
    return squared.mean() if squared.numel() else squared.sum()


def _target(
    teacher: Teacher, student: Student, spec: TrainingSpec, sample: Sample, sigma: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    denoising = -noise / sigma
    if spec.objective == "denoising" or not isinstance(teacher, HasScore):
        return denoising, sigma**2
    variance = student.field.sigma_data**2
    clean = teacher.score(sample)
    share = variance / (variance + sigma**2) if spec.objective == "mixed" else torch.ones_like(sigma)
    return share * clean + (1 - share) * denoising, sigma**2 + variance


def _autocast(spec: TrainingSpec, device: torch.device) -> contextlib.AbstractContextManager[object]:
    if spec.autocast == "none":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _identity(student: Student, spec: TrainingSpec, seed: int) -> str:
    """What a checkpoint must have been made for; the interval between checkpoints does not matter."""
    weights = [[name, list(value.shape), str(value.dtype)] for name, value in student.state_dict().items()]
    return json.dumps([weights, spec.model_dump(mode="json", exclude={"checkpoint_every"}), seed], sort_keys=True)


def _tensors(state: _State) -> Iterator[tuple[str, Tensor]]:
    for name, value in state.student.state_dict().items():
        yield f"student/{name}", value
    if state.average is not None:
        for name, value in state.average.state_dict().items():
            yield f"average/{name}", value
    for index, entries in state.optimiser.state_dict()["state"].items():
        for name, value in entries.items():
            yield f"optimiser/{index}/{name}", value
    yield "history", torch.tensor(state.history, dtype=torch.float64)


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _save(state: _State, path: Path, identity: str) -> None:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in _tensors(state)}
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary, metadata={"identity": identity, "digest": _digest(tensors)})
    temporary.replace(path)


def _restore(state: _State, path: Path, identity: str) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        warnings.warn(f"The checkpoint {path} is damaged ({error}); training starts over.", stacklevel=3)
        return
    if metadata.get("identity") != identity or metadata.get("digest") != _digest(tensors):
        warnings.warn(f"The checkpoint {path} is damaged or of another training; training starts over.", stacklevel=3)
        return
    state.student.load_state_dict(_group(tensors, "student/"))
    if state.average is not None:
        state.average.load_state_dict(_group(tensors, "average/"))
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in _group(tensors, "optimiser/").items():
        index, entry = name.split("/")
        entries.setdefault(int(index), {})[entry] = value
    state.history = [tuple(row) for row in tensors["history"].tolist()]
    state.scheduler.last_epoch = state.step
    groups = state.optimiser.state_dict()["param_groups"]
    groups[0]["lr"] = state.scheduler.base_lrs[0] * state.scheduler.lr_lambdas[0](state.step)
    state.optimiser.load_state_dict({"state": entries, "param_groups": groups})


def _group(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
