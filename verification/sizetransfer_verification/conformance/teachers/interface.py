"""What every teacher promises, whatever it knows: samples, oracles, seeds, sizes, declarations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Sample
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import TeacherSpec
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.check import teacher_check
from sizetransfer_verification.conformance.evidence import Evidence, NotApplicableError
from sizetransfer_verification.conformance.subjects import TeacherSubject, global_randomness
from sizetransfer_verification.conformance.teachers.setting import (
    NOISE_ORACLE,
    ORACLES,
    SPECIFICATION,
    Setting,
    epsilon,
    kind_of,
    rows,
    setting,
)

SMALL = CaseSpace(examples=4, largest=40, dtypes=("float64", "float32"), noises=(1.0, 0.3))
FLOAT64 = CaseSpace(examples=4, largest=70)
ONE = CaseSpace(examples=1, batches=(2,), largest=40)
SPINS, SPIN_ROWS = 4, 64
"""Values up to which a field counts as one of spins, and the rows that are then compared as a whole."""
KINDS = ("exact", "quadrature", "monte_carlo")


@teacher_check(
    "A sample has the declared shape, dtype, device and context: x (B, C, *S), condition (B, K, *S), mask (B, 1, *S), "
    "labels (B, *S) int64.",
    cause="the draw is made in torch's default dtype, a channel axis is missing, or the context keeps another dtype",
    level="api",
    space=SMALL,
)
def samples_have_the_declared_shape(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    teacher, sample = subject.teacher(case), subject.sample(case)
    field, context, domain = teacher.field, sample.context, teacher.domain(case.size)
    _shaped(evidence, sample.x, (case.batch, field.channels, *domain.shape), teacher.anchor.dtype, "x")
    same_device = sample.x.device == teacher.anchor.device
    evidence.holds(same_device, "device of x", measured=str(sample.x.device), allowed=str(teacher.anchor.device))
    evidence.holds(bool(sample.x.isfinite().all()), "x", measured="numbers not finite", allowed="finite numbers")
    evidence.holds(not sample.x.requires_grad, "x", measured="it requires gradients", allowed="a plain tensor")
    shapes = str(context.domain.shape), str(domain.shape)
    evidence.holds(context.domain.shape == domain.shape, "context.domain", measured=shapes[0], allowed=shapes[1])
    channels = 0 if context.condition is None else context.condition.shape[1]
    evidence.holds(
        channels == field.condition_channels,
        "condition channels",
        measured=str(channels),
        allowed=f"{field.condition_channels}, the field's condition_channels",
    )
    if context.condition is not None:
        shape = (case.batch, field.condition_channels, *domain.shape)
        _shaped(evidence, context.condition, shape, sample.x.dtype, "condition")
    if context.mask is not None:
        _shaped(evidence, context.mask, (case.batch, 1, *domain.shape), torch.bool, "mask")
    for name, label in sample.labels.items():
        _shaped(evidence, label, (case.batch, *domain.shape), torch.int64, f"labels[{name!r}]")


def _shaped(evidence: Evidence, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> None:
    evidence.holds(
        tuple(tensor.shape) == shape, f"shape of {what}", measured=str(tuple(tensor.shape)), allowed=str(shape)
    )
    evidence.holds(tensor.dtype == dtype, f"dtype of {what}", measured=str(tensor.dtype), allowed=str(dtype))


@teacher_check(
    "Dead sites, where the mask is false, hold a field of zero and get a score of exactly zero, clean and smoothed.",
    cause="the density is differentiated by a field that was not masked, or the sampler adds a mean everywhere",
    level="api",
    space=SMALL,
)
def dead_sites_hold_zeros(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    mask = asked.sample.context.mask
    if mask is None:
        raise NotApplicableError("The fields have no mask.")
    answers = {name: call() for name, call in asked.oracles().items() if name in ("score", "smoothed_score")}
    for name, answer in {"field": asked.sample.x, **answers}.items():
        evidence.equal(answer * ~mask, torch.zeros_like(answer), f"{name} at dead sites")


@teacher_check(
    "Every oracle answers finite numbers of the shape, dtype and device of its question, without a gradient that "
    "nobody asked for.",
    cause="a sum over the wrong axes, a constant tensor in another dtype, or a graph that is not detached",
    level="api",
    needs=(ORACLES,),
    space=SMALL,
)
def answers_have_the_shape_of_the_question(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    x = asked.sample.x
    channels = x.shape[1]
    shapes = {
        "log_density": (case.batch,),
        "energy": (case.batch,),
        "posterior_covariance": (case.batch, channels, channels, *x.shape[2:]),
    }
    for name, answer in asked.answers().items():
        _shaped(evidence, answer, shapes.get(name, tuple(x.shape)), x.dtype, name)
        evidence.holds(
            answer.device == x.device, f"device of {name}", measured=str(answer.device), allowed=str(x.device)
        )
        evidence.holds(bool(answer.isfinite().all()), name, measured="numbers not finite", allowed="finite numbers")
        evidence.holds(not answer.requires_grad, name, measured="it requires gradients", allowed="a plain tensor")


@teacher_check(
    "The same generator state gives the same sample, bit for bit.",
    cause="the sampler draws from torch's or numpy's global generator, or keeps something from call to call",
    level="api",
    space=SMALL,
)
def samples_repeat_with_the_generator(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    with global_randomness(1):
        first = subject.sample(case)
    with global_randomness(2):
        second = subject.sample(case)
    _same_sample(evidence, first, second, "samples from the same generator state")


def _same_sample(evidence: Evidence, first: Sample, second: Sample, what: str) -> None:
    evidence.equal(first.x, second.x, f"{what}, x")
    for name, label in first.labels.items():
        evidence.equal(label, second.labels[name], f"{what}, labels[{name!r}]")
    if first.context.condition is not None and second.context.condition is not None:
        evidence.equal(first.context.condition, second.context.condition, f"{what}, condition")


@teacher_check(
    "Another generator state gives other fields, and so does the next call with the same generator; the rows of a "
    "batch differ.",
    cause="the sampler seeds a generator of its own, or draws one field and repeats it",
    level="api",
    space=CaseSpace(examples=2, batches=(2, 3), largest=40),
)
def samples_differ_with_the_generator(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    generator, teacher = case.generator("sample"), subject.teacher(case)
    samples = [teacher.sample(case.batch, case.size, generator=generator) for _ in range(2)]
    samples.append(teacher.sample(case.batch, case.size, generator=case.generator("another")))
    calls = [_with_live_sites(sample) for sample in samples]
    if torch.unique(torch.cat(calls)).numel() <= SPINS:
        _spins_differ(subject, case, evidence)
        return
    fields = torch.cat(calls).flatten(1)
    for first in range(len(fields)):
        for second in range(first):
            apart = float((fields[first] - fields[second]).abs().max())
            evidence.holds(
                apart > 1e-6 * teacher.field.sigma_data,
                "independent fields",
                measured=f"fields {second} and {first} apart by {apart:.3g}",
                allowed="fields that differ",
            )


def _with_live_sites(sample: Sample) -> Tensor:
    """The fields with a live site; those without one are equal by the contract, and no draws of the field."""
    return sample.x if sample.context.mask is None else sample.x[sample.context.mask.flatten(1).any(1)]


def _spins_differ(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    """Fields of few values meet themselves by chance, but never a whole batch of them."""
    generator, teacher = case.generator("sample"), subject.teacher(case)
    calls = [teacher.sample(SPIN_ROWS, case.size, generator=generator).x for _ in range(2)]
    calls.append(teacher.sample(SPIN_ROWS, case.size, generator=case.generator("another")).x)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        same = torch.equal(calls[first], calls[second])
        evidence.holds(
            not same, "batches of independent fields", measured="the same batch twice", allowed="batches that differ"
        )
    for call in calls:
        same = bool((call == call[:1]).all())
        evidence.holds(not same, "rows of a batch", measured=f"{SPIN_ROWS} times one field", allowed="rows that differ")


@teacher_check(
    "Neither the sampler nor an oracle changes the global random state of torch or numpy.",
    cause="torch.manual_seed or np.random.seed inside a call, or a draw without generator=",
    level="api",
    space=ONE,
)
def global_randomness_is_left_alone(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    with _watched(evidence, "sample"):
        subject.sample(case)
    for name, call in asked.oracles().items():
        with _watched(evidence, name):
            call()


def _numpy_state() -> str:
    state = np.random.get_state(legacy=False)  # noqa: NPY002  (it is watched here, not used)
    return repr({**state, "state": {**state["state"], "key": state["state"]["key"].tolist()}})


@contextmanager
def _watched(evidence: Evidence, what: str) -> Iterator[None]:
    # From a state of our own: a call that seeds with its favourite number must not find that number there already.
    with global_randomness(92_821):
        states = torch.random.get_rng_state(), _numpy_state()
        yield
        evidence.equal(torch.random.get_rng_state(), states[0], f"torch's global generator after {what}")
        same = _numpy_state() == states[1]
    evidence.holds(same, f"numpy's global generator after {what}", measured="changed", allowed="unchanged")


@teacher_check(
    "An oracle leaves its inputs as they are.",
    cause="an operation in place (`x -= mean`, `x.clamp_`) on the caller's tensor",
    level="api",
    needs=(ORACLES,),
    space=SMALL,
)
def inputs_are_left_alone(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    inputs = {"x": asked.sample.x, "noisy x": asked.noisy.x, "sigma": asked.sigma}
    inputs |= {f"labels[{name!r}]": label for name, label in asked.sample.labels.items()}
    for sample, name in ((asked.sample, "condition"), (asked.noisy, "condition of the noisy field")):
        if sample.context.condition is not None:
            inputs[name] = sample.context.condition
    before = {name: value.clone() for name, value in inputs.items()}
    for oracle, call in asked.oracles().items():
        call()
        for name, value in inputs.items():
            evidence.equal(value, before[name], f"{name} after {oracle}")


@teacher_check(
    "A row of a batch has the answer that it has alone.",
    cause="a mean over the batch, or the first row's noise level used for all",
    level="api",
    needs=(ORACLES,),
    space=CaseSpace(examples=4, batches=(3, 2), largest=40, dtypes=("float64", "float32"), noises=(1.0, 0.3)),
)
def rows_are_answered_alone(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    together = asked.answers()
    for row in range(case.batch):
        alone = Setting(
            asked.teacher, rows(asked.sample, [row]), rows(asked.noisy, [row]), asked.sigma[row : row + 1], asked.site
        )
        for name, answer in alone.answers().items():
            slack = 2 * epsilon(asked.teacher, name)
            evidence.close(answer[0], together[name][row], f"{name}, row {row} of {case.batch}", "value", slack=slack)


@teacher_check(
    "An oracle that is not declared Monte Carlo repeats its answer, bit for bit.",
    cause="an estimate from random draws that is declared exact, dropout, or a warm start from the last answer",
    level="api",
    needs=(ORACLES,),
    space=SMALL,
)
def answers_repeat(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    for name, call in asked.oracles().items():
        if kind_of(asked.teacher, name) != "monte_carlo":
            evidence.equal(call(), call(), f"{name}, asked twice")


@teacher_check(
    "Each oracle declares its error model: exact, a quadrature with its bound, or Monte Carlo; nothing is declared of "
    "what does not exist.",
    cause="a misspelt method name in Teacher.exactness, or an oracle added without its declaration",
    level="api",
    space=ONE,
)
def exactness_is_declared(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    teacher = subject.teacher(case)
    needed = [
        "sample",
        *(name for name in setting(subject, case).oracles() if name not in ("pull_back", "push_forward")),
    ]
    for name in needed:
        declared = ", ".join(teacher.exactness) or "nothing"
        evidence.holds(name in teacher.exactness, f"exactness[{name!r}]", measured=declared, allowed=f"{name} declared")
    for name, declaration in teacher.exactness.items():
        exists = callable(getattr(teacher, name, None))
        evidence.holds(exists, f"exactness[{name!r}]", measured=f"no method {name}", allowed="names of methods")
        right = getattr(declaration, "kind", None) in KINDS
        evidence.holds(right, f"exactness[{name!r}]", measured=repr(declaration), allowed=f"Exactness of {KINDS}")
        bounded = declaration.epsilon > 0 if declaration.kind == "quadrature" else declaration.epsilon == 0
        allowed = "epsilon above zero for a quadrature, zero else"
        evidence.holds(bounded, f"exactness[{name!r}]", measured=repr(declaration), allowed=allowed)


@teacher_check(
    "The specification, written as JSON and read again, builds the same teacher bit for bit.",
    cause="a weight drawn from global randomness, a seed that is not used, or a field left out of the specification",
    level="api",
    needs=(SPECIFICATION,),
    space=CaseSpace(examples=1, batches=(2,), largest=20),
)
def specification_rebuilds_the_teacher(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    spec = subject.spec
    if not isinstance(spec, TeacherSpec):
        return
    read = type(spec).model_validate_json(spec.model_dump_json())
    evidence.holds(read == spec, "specification through JSON", measured=repr(read), allowed=repr(spec))
    with global_randomness(3):
        first = subject.teacher(case)
    with global_randomness(4):
        second = read.build().frozen().to(case.torch_dtype)
    evidence.holds(first.field == second.field, "field", measured=repr(second.field), allowed=repr(first.field))
    samples = [t.sample(case.batch, case.size, generator=case.generator("sample")) for t in (first, second)]
    _same_sample(evidence, samples[0], samples[1], "samples of the teacher and of the rebuilt one")
    answers = [setting(subject, case, teacher=t).answers() for t in (first, second)]
    for name, answer in answers[0].items():
        evidence.equal(answers[1][name], answer, f"{name} of the rebuilt teacher")


@teacher_check(
    "The rule is the same at every size: samples, answers, parameters and buffers do not depend on the sizes that were "
    "asked for before.",
    cause="a cache keyed by too little, or a scale taken from the first size that was asked",
    level="core",
    space=CaseSpace(examples=2, batches=(2,), largest=40, noises=(1.0, 0.3)),
)
def one_rule_at_every_size(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    others = [size for size, sites in subject.accepted if size != case.size and sites <= 70]
    teacher = subject.fresh().to(case.torch_dtype)
    shapes = _shapes(teacher)
    for size in others[-1:]:
        other = Case(size=size, batch=2, noise=case.noise, seed=case.seed)
        setting(subject, other, teacher=teacher).answers()
        teacher.sample(1, size, generator=stream("conformance", "other size"))
    after = setting(subject, case, teacher=teacher).answers()
    fresh = subject.fresh().to(case.torch_dtype)
    before = setting(subject, case, teacher=fresh).answers()
    for name, answer in before.items():
        evidence.equal(after[name], answer, f"{name} at size {case.size} after size {others[-1:]}")
    samples = [t.sample(2, case.size, generator=case.generator("sample")) for t in (teacher, fresh)]
    _same_sample(evidence, samples[0], samples[1], f"samples at size {case.size} after size {others[-1:]}")
    same = _shapes(teacher) == shapes
    evidence.holds(same, "parameters and buffers", measured=str(_shapes(teacher)), allowed=str(shapes))


def _shapes(teacher: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in teacher.state_dict().items()}


@teacher_check(
    "Sizes on which the law is not defined are refused by name: zero, one and negative ones.",
    cause="sample does not call check_size",
    level="api",
    space=ONE,
)
def impossible_sizes_are_refused(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    teacher = subject.teacher(case)
    for size in (0, 1, -1):

        def draw(size: int = size) -> Sample:
            return teacher.sample(2, size, generator=case.generator("sample"))

        evidence.refuses(draw, (OracleError, SpecError), f"sample of size {size}")


@teacher_check(
    "Noise levels that are not positive are refused by name.",
    cause="sigma goes into a division unchecked",
    level="api",
    needs=(NOISE_ORACLE,),
    space=ONE,
)
def impossible_noise_is_refused(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    asked = setting(subject, case)
    for level in (0.0, -1.0, float("nan")):
        wrong = Setting(asked.teacher, asked.sample, asked.noisy, torch.full_like(asked.sigma, level), asked.site)
        for name, call in wrong.oracles().items():
            if name in ("smoothed_score", "posterior_mean", "posterior_covariance"):
                evidence.refuses(call, (OracleError, SpecError), f"{name} at sigma = {level}")


@teacher_check(
    "float32 answers what float64 answers, within single precision.",
    cause="a cancellation (differences of large numbers), or a constant that float32 cannot hold",
    level="api",
    needs=(ORACLES,),
    space=CaseSpace(examples=4, largest=70, noises=(1.0, 0.3)),
)
def single_precision_agrees_with_double(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    double = setting(subject, case)
    single = setting(subject, Case(**{**vars(case), "dtype": "float32"}))
    answers = single.answers()
    for name, answer in double.answers().items():
        slack = 2 * epsilon(double.teacher, name)
        evidence.close(answers[name].double(), answer, f"{name} in float32", "precision", slack=slack)


@teacher_check(
    "sigma_data is the typical standard deviation of one component: within a factor of five on a lattice of moderate "
    "size.",
    cause="a variance in the place of a standard deviation, or a scale estimated on another lattice",
    level="core",
    space=CaseSpace(examples=1, batches=(1,), smallest=100, largest=300),
)
def scale_is_that_of_the_samples(subject: TeacherSubject, case: Case, evidence: Evidence) -> None:
    teacher = subject.teacher(case)
    x = teacher.sample(64, case.size, generator=case.generator("scale")).x
    ratio = float(x.double().std()) / teacher.field.sigma_data
    source = "a factor of five: sizes differ, orders of magnitude do not"
    evidence.at_most(ratio, 5.0, "standard deviation of the samples over sigma_data", source=source)
    evidence.at_least(ratio, 0.2, "standard deviation of the samples over sigma_data", source=source)
