"""Promises held by a run: for each a broken object that is caught by name, and healthy ones that pass."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from contextlib import contextmanager
from dataclasses import replace

import hard_valid_zoo
import numpy as np
import pytest
import torch
from small_students import BOX, RING, TORUS, SmallCNN, SmallGraphStudent
from torch import nn
from torch.optim.swa_utils import AveragedModel

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import ConformanceError, NonFiniteError, OracleError
from sizetransfer.contracts.oracle import Context, Sample, Teacher
from sizetransfer.contracts.randomness import normal, seeded_initialisation, stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import FieldInfo, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.runs.promises import check_once, checked, hold_radius, watched, weights_unchanged
from sizetransfer.runs.promises.measured import is_size
from sizetransfer.scores.response import jacobian_row, student_score
from sizetransfer.scores.tiling import tiled
from sizetransfer.scores.training import train
from sizetransfer.students.wrapped import wrap_module

SIGMAS = (0.1, 1.0)


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with seeded_initialisation("promises"):
        yield


class White(Teacher):
    """Independent Gaussians on any lattice, some sites dead if asked for, with one step that a defect can replace."""

    def __init__(self, field: FieldInfo = TORUS, *, dead: bool = False) -> None:
        super().__init__(field)
        self.dead = dead
        self.to(torch.get_default_dtype())

    def sample(self, batch, size, *, generator):
        domain = self.domain(size)
        x = normal((batch, self.field.channels, *domain.shape), generator=generator, like=self.anchor)
        mask = None
        if self.dead:
            mask = torch.rand((batch, 1, *domain.shape), generator=generator) < 0.8
            x = x * mask
        return self.spoilt(Sample(x, Context(domain, mask=mask), {"spin": torch.ones(batch, *domain.shape).long()}))

    def spoilt(self, sample):
        return sample

    def score(self, sample):
        return -sample.x

    def smoothed_score(self, x, sigma, context):
        return -x / (1 + sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2)

    def log_density(self, sample):
        return -sample.x.square().flatten(1).sum(1) / 2

    def energy(self, sample):
        return -self.log_density(sample)

    def posterior_mean(self, x, sigma, context):
        return x + sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2 * self.smoothed_score(x, sigma, context)

    def posterior_covariance(self, x, sigma, context, site):
        return x.new_zeros(*x.shape[:2], *x.shape[1:])

    def resample(self, sample, *, generator):
        return sample.with_x(normal(sample.x.shape, generator=generator, like=sample.x) * (sample.x != 0))


def broken(step: str, function) -> White:
    """The teacher with another step."""
    return type("Broken", (White,), {step: function})()


class Rule(Student):
    """The score -x, or what a function makes of it."""

    def __init__(self, function=None, *, field: FieldInfo = TORUS, radius: int | None = 0) -> None:
        super().__init__(field, radius=radius)
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))
        self.function = function or (lambda student, x, sigma, context: -student.weight * x)

    def forward(self, x, sigma, context):
        return self.function(self, x, sigma, context)


def asked(teacher: Teacher, student: Student, size: int = 6, batch: int = 4) -> torch.Tensor:
    """What the student says, in a watched block."""
    with watched(teacher, student):
        sample = teacher.sample(batch, size, generator=stream(1))
        return student(sample.x, torch.full((batch,), 0.3), sample.context)


def everything(teacher: White) -> None:
    """Call every oracle once, in a watched block."""
    with watched(teacher, None):
        sample = teacher.sample(8, 4, generator=stream(1))
        sigma = torch.full((8,), 0.3)
        teacher.score(sample)
        teacher.log_density(sample)
        teacher.energy(sample)
        teacher.smoothed_score(sample.x, sigma, sample.context)
        teacher.posterior_mean(sample.x, sigma, sample.context)
        teacher.posterior_covariance(sample.x, sigma, sample.context, (0, 0))
        teacher.resample(sample, generator=stream(2))


def with_mask(change):
    def spoilt(self, sample):
        context = replace(sample.context)
        object.__setattr__(context, "mask", change(sample))  # Past the checks of shapes that the tests switch on.
        return replace(sample, context=context)

    return spoilt


def with_nan(x):
    x = x.clone()
    x[2, 0, 1, 1] = torch.nan
    return x


TEACHERS = {
    "one field of eight": ("spoilt", lambda self, s: s.with_x(s.x[:1]), "field of the wrong shape"),
    "no sample": ("spoilt", lambda self, s: s.x, "no sample"),
    "other dtype": ("spoilt", lambda self, s: s.with_x(s.x.float()), "field of the wrong dtype"),
    "other device": ("spoilt", lambda self, s: s.with_x(s.x.to("meta")), "field on the wrong device"),
    "NaN": ("spoilt", lambda self, s: s.with_x(with_nan(s.x)), "field that is not finite"),
    "two channels": ("spoilt", lambda self, s: s.with_x(s.x.expand(-1, 2, -1, -1)), "field of the wrong shape"),
    "other domain": (
        "spoilt",
        lambda self, s: replace(s, context=Context(Lattice((5, 5)))),
        "not on the domain of its context",
    ),
    "undeclared condition": (
        "spoilt",
        lambda self, s: replace(s, context=replace(s.context, condition=s.x)),
        "declares another condition",
    ),
    "mask of numbers": ("spoilt", with_mask(lambda s: torch.ones_like(s.x)), "mask of the wrong dtype"),
    "mask without channel": ("spoilt", with_mask(lambda s: s.x[:, 0] > 0), "mask of the wrong shape"),
    "field on dead sites": ("spoilt", with_mask(lambda s: s.x > 0), "field on dead sites"),
    "label of numbers": ("spoilt", lambda self, s: replace(s, labels={"spin": s.x[:, 0]}), "label 'spin' of the wrong"),
    "one score of eight": ("score", lambda self, s: -s.x[:1], "score of the wrong shape"),
    "score in float32": ("score", lambda self, s: -s.x.float(), "score of the wrong dtype"),
    "score is NaN": ("score", lambda self, s: with_nan(s.x), "score that is not finite"),
    "score is infinite": ("score", lambda self, s: s.x / 0, "score that is not finite"),
    "score is none": ("score", lambda self, s: None, "score that is no tensor"),
    "score changes the field": ("score", lambda self, s: s.x.mul_(-1), "changes its input x"),
    "score switches gradients on": ("score", lambda self, s: -s.x.requires_grad_(), "changes its input x"),
    "score changes a label": (
        "score",
        lambda self, s: -s.x * s.labels["spin"].mul_(2)[:, None],
        "input labels['spin']",
    ),
    "one smoothed score": ("smoothed_score", lambda self, x, sigma, context: -x[:1], "score of the wrong shape"),
    "changes sigma": ("smoothed_score", lambda self, x, sigma, context: -x * sigma.mul_(2).mean(), "its input sigma"),
    "one log-density": ("log_density", lambda self, s: s.x.square().sum(), "log-density of the wrong shape"),
    "energy of a batch of one": ("energy", lambda self, s: s.x.flatten(1).sum(1, keepdim=True), "energy of the wrong"),
    "one mean": ("posterior_mean", lambda self, x, sigma, context: x[:1], "posterior mean of the wrong shape"),
    "one covariance": (
        "posterior_covariance",
        lambda self, x, sigma, context, site: x,
        "posterior covariance of the wrong shape",
    ),
    "one field redrawn": ("resample", lambda self, s, generator: s.with_x(s.x[:1]), "field of the wrong shape"),
}


@pytest.mark.parametrize("defect", TEACHERS)
def test_a_teacher_that_breaks_a_promise_is_named(defect: str):
    step, function, message = TEACHERS[defect]
    with pytest.raises(ConformanceError, match="The teacher") as caught:
        everything(broken(step, function))
    assert message in caught.value.what
    assert caught.value.where is not None
    assert caught.value.where.startswith("Broken.")
    assert all([caught.value.expected, caught.value.got, caught.value.fix])


def test_the_message_says_how_many_numbers_are_wrong_and_where_first():
    with pytest.raises(ConformanceError) as caught:
        everything(broken("score", lambda self, s: with_nan(s.x)))
    assert caught.value.where == "Broken.score, 8 fields of 4 x 4 sites"
    assert caught.value.got == "1 of 128 numbers infinite or NaN, the first in row 2"


def in_numpy(student, x, sigma, context):
    x.numpy()[0] = 0
    return -x


def through_data(student, x, sigma, context):
    x.data.mul_(2)
    return -x


def on_dead_sites(student, x, sigma, context):
    return -x + 1


def in_a_buffer(student, x, sigma, context):
    if not hasattr(student, "kept"):
        student.kept = torch.empty_like(x)
    return student.kept.copy_(-x)


STUDENTS = {
    "batch of one": (lambda student, x, sigma, context: -x[:1], "score of the wrong shape"),
    "no channels": (lambda student, x, sigma, context: -x[:, 0], "score of the wrong shape"),
    "other dtype": (lambda student, x, sigma, context: -x.float(), "score of the wrong dtype"),
    "NaN at one site": (lambda student, x, sigma, context: with_nan(x), "score that is not finite"),
    "changes the field": (lambda student, x, sigma, context: x.mul_(-1), "changes its input x"),
    "changes it in numpy": (in_numpy, "changes its input x"),
    "changes it through data": (through_data, "changes its input x"),
    "changes its shape": (lambda student, x, sigma, context: -x.squeeze_(1)[:, None], "changes its input x"),
    "changes the noise level": (lambda student, x, sigma, context: -x * sigma.mul_(2).mean(), "its input sigma"),
    "changes the mask": (lambda s, x, sigma, context: -x * context.mask.logical_not_(), "changes its input mask"),
    "score on dead sites": (on_dead_sites, "score on dead sites"),
}


@pytest.mark.parametrize("mode", ["grad", "no_grad", "inference"])
@pytest.mark.parametrize("defect", STUDENTS)
def test_a_student_that_breaks_a_promise_is_named(defect: str, mode: str):
    function, message = STUDENTS[defect]
    modes = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}
    with modes[mode](), pytest.raises(ConformanceError, match="The student") as caught:
        asked(White(dead=True), Rule(function).eval())
    assert message in caught.value.what
    assert caught.value.where == "Rule.forward, 4 fields of 6 x 6 sites"


def test_an_answer_that_the_next_call_overwrites_is_named():
    teacher, student = White(), Rule(in_a_buffer).eval()
    with watched(teacher, student), torch.no_grad():
        sample = teacher.sample(2, 4, generator=stream(1))
        first = student(sample.x, torch.ones(2), sample.context)
        with pytest.raises(ConformanceError, match="changes an answer that it gave before"):
            student(sample.x, torch.ones(2), sample.context)
        assert first is not None


def test_an_answer_may_be_the_field_itself_or_changed_by_who_asked():
    teacher, student = White(), Rule(lambda student, x, sigma, context: x).eval()
    with watched(teacher, student):
        sample = teacher.sample(2, 4, generator=stream(1))
        for _ in range(3):
            student(sample.x, torch.ones(2), sample.context).add_(1)


def test_a_diverging_field_is_not_the_students_fault():
    teacher, student = White(), Rule().eval()
    with watched(teacher, student):
        x = torch.full((2, 1, 4, 4), torch.inf)
        assert not student(x, torch.ones(2), Context(teacher.domain(4))).isfinite().any()


def test_a_student_in_training_is_left_to_the_check_of_the_loss():
    teacher, student = White(RING.model_copy(update={"channels": 1})), Rule(lambda s, x, *_: x * s.weight / 0)
    spec = TrainingSpec(size=4, steps=1, batch=2)
    with watched(teacher, student), pytest.raises(NonFiniteError, match="loss or gradient"):
        train(teacher, student, spec, seed=0)


def test_scores_are_counted_once_and_by_fields():
    teacher = White()
    with watched(teacher, None) as watch:
        sample = teacher.sample(8, 4, generator=stream(1))
        teacher.score(sample)
        teacher.smoothed_score(sample.x[:3], torch.ones(3), sample.context)
        teacher.posterior_mean(sample.x, torch.ones(8), sample.context)  # It asks itself, which is its own affair.
        teacher.energy(sample)
    assert watch.score_calls == 11


def test_a_wrong_call_gets_the_methods_own_error():
    teacher = White()
    with watched(teacher, None), pytest.raises(TypeError, match="score"):
        teacher.score()


def state(module: nn.Module) -> set[str]:
    return set(vars(module))


def test_everything_is_as_it_was_after_the_block_and_after_an_error_and_nested():
    teacher, student = White(), Rule()
    before = state(teacher), state(student)
    with watched(teacher, student):
        with watched(teacher, student) as inner:
            everything(teacher)
        assert inner.score_calls == 16
        with pytest.raises(ConformanceError):
            everything(broken("score", lambda self, s: -s.x[:1]))
    with pytest.raises(RuntimeError, match="by the block"), watched(teacher, student):
        raise RuntimeError("by the block")
    assert (state(teacher), state(student)) == before


def test_copies_are_free_and_whole():
    teacher, student = White(), Rule()
    with watched(teacher, student):
        copies = [copy.deepcopy(student), AveragedModel(student).module]
        drawn = copy.deepcopy(teacher)
        with torch.no_grad():
            student.weight.fill_(2)
        x = torch.ones(2, 1, 4, 4)
        for one in copies:
            assert (one(x, torch.ones(2), Context(Lattice((4, 4)))) == -1).all()
        drawn.spoilt = lambda sample: sample.with_x(sample.x[:1])
        assert len(drawn.sample(8, 4, generator=stream(0)).x) == 1
        again = pickle.loads(pickle.dumps(st.student("cnn", teacher.field, blocks=0)))
        assert again.radius == 2
    assert (copies[0](x, torch.ones(2), Context(Lattice((4, 4)))) == -1).all()


def test_a_watched_student_can_be_pickled():
    teacher = White()
    student = st.student("cnn", teacher.field, blocks=0).double()
    with watched(teacher, student):
        again = pickle.loads(pickle.dumps(student))
        x, sigma, context = torch.ones(2, 1, 6, 6), torch.ones(2), Context(Lattice((6, 6)))
        assert torch.equal(again(x, sigma, context), student(x, sigma, context))


def test_derivatives_and_transformations_go_through():
    teacher = st.teacher("flow", preset="short-range-simple").double().frozen()
    student = st.student("cnn", teacher.field, blocks=0, width=4).double().eval()
    sample = teacher.sample(2, 4, generator=stream(0))
    score = student_score(student, 0.3, sample.context)
    one = replace(sample.context, condition=sample.context.condition[:1])

    def single(x):
        return student(x[None], x.new_full((1,), 0.3), one)[0]

    def all_of_it():
        row = jacobian_row(score, sample.x, (0, 0))
        x = sample.x.clone().requires_grad_()
        (first,) = torch.autograd.grad(teacher.score(sample.with_x(x)).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        jacobian = torch.func.vmap(torch.func.jacrev(single))(sample.x)
        called = torch.func.functional_call(
            student, dict(student.named_parameters()), (sample.x, torch.ones(2), sample.context)
        )
        return row, second, jacobian, called

    expected = all_of_it()
    with watched(teacher, student):
        found = all_of_it()
    assert all(map(torch.equal, expected, found))


def test_compiled_students_go_through_in_one_piece(monkeypatch):
    distribution = torch.distributions.Distribution
    monkeypatch.setattr(distribution, "_validate_args", distribution._validate_args)  # torch.compile changes it.
    teacher, student = White(), Rule().eval()
    x, sigma, context = torch.ones(2, 1, 6, 6), torch.ones(2), Context(Lattice((6, 6)))
    with watched(teacher, student):
        compiled = torch.compile(student, backend="eager", fullgraph=True)
        assert torch.allclose(compiled(x, sigma, context), student(x, sigma, context))


def test_fake_and_meta_tensors_go_through():
    from torch._subclasses.fake_tensor import FakeTensorMode

    student = Rule().eval()
    with watched(White(), student), FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.ones(2, 1, 4, 4)
        assert student(x, torch.ones(2), Context(Lattice((4, 4)))).shape == x.shape


def test_autocast_may_answer_in_its_own_dtype():
    teacher = White().float()
    student = Rule(lambda s, x, *_: (x.flatten(1) @ torch.eye(16, dtype=x.dtype)).reshape(x.shape)).eval().float()
    with watched(teacher, student), torch.autocast("cpu", dtype=torch.bfloat16):
        sample = teacher.sample(2, 4, generator=stream(0))
        assert student(sample.x, sample.x.new_ones(2), sample.context).dtype == torch.bfloat16


def test_two_threads_with_teachers_of_their_own_do_not_interfere():
    counts = {}

    def work(number: int) -> None:
        teacher = White()
        with watched(teacher, None) as watch:
            for _ in range(20):
                teacher.score(teacher.sample(number, 4, generator=stream(number)))
        counts[number] = watch.score_calls

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == {1: 20, 2: 40, 3: 60}


def test_training_in_a_watched_block_gives_the_same_bits():
    teacher = st.teacher("flow", preset="short-range-simple").double().frozen()
    spec = TrainingSpec(size=4, steps=3, batch=2, objective="mixed", ema_half_life=2.0)
    alone, together = (st.student("cnn", teacher.field, blocks=0, width=4).double() for _ in range(2))
    train(teacher, alone, spec, seed=0)
    with watched(teacher, together) as watch:
        train(teacher, together, spec, seed=0)
    assert watch.score_calls == 6
    assert all(map(torch.equal, alone.state_dict().values(), together.state_dict().values()))


# Weights


class Normalised(nn.Module):
    """A weight, a buffer and a part in it; what the block does is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.tied = self.layer.weight


CHANGES = {
    "a weight": (lambda m: m.layer.weight.data.mul_(2), "tied"),
    "a buffer": (lambda m: m.norm.running_mean.add_(1), "norm.running_mean"),
    "a count": (lambda m: m.norm.num_batches_tracked.add_(1), "norm.num_batches_tracked"),
    "a gradient": (lambda m: m.layer.bias.requires_grad_(False), "layer.bias"),
    "the mode": (lambda m: m.eval(), "training"),
    "the mode of a part": (lambda m: m.norm.eval(), "norm.training"),
    "the dtype": (lambda m: m.float(), "tied"),
    "another parameter": (lambda m: setattr(m.layer, "bias", nn.Parameter(torch.ones(2))), "layer.bias"),
    "a new buffer": (lambda m: m.register_buffer("new", torch.ones(1)), "new"),
    "no parameter": (lambda m: delattr(m.layer, "bias"), "layer.bias"),
    "no layer": (lambda m: delattr(m, "norm"), "norm"),
    "an average in a forward pass": (lambda m: m.norm(torch.ones(3, 2)), "norm.running_mean"),
}


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in [*module.named_parameters(), *module.named_buffers()]}


@pytest.mark.parametrize("raising", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_block_that_changes_weights_is_named_and_undone(change: str, raising: bool):
    function, name = CHANGES[change]
    module = Normalised()
    before, layers = snapshot(module), dict(module.named_modules())
    with pytest.raises(KeyError if raising else ConformanceError) as caught, weights_unchanged(module):
        _ = function(module), {}[0] if raising else None
    if not raising:
        assert caught.value.where.split(" and ")[0] == f"Normalised.{name}"
    assert dict(module.named_modules()) == layers
    after = snapshot(module)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert module.training
    assert module.norm.training
    assert all(value.requires_grad for value in module.parameters())
    assert module.tied is module.layer.weight


def test_weights_with_nan_and_caches_in_attributes_are_no_change():
    module = Normalised()
    module.norm.running_mean.fill_(torch.nan)
    with weights_unchanged(module):
        module.cache = {1: torch.ones(3)}
    assert 1 in module.cache


def test_a_student_that_counts_in_a_buffer_and_a_measure_that_trains_are_caught():
    def counting(student, x, sigma, context):
        student.calls += 1
        return -x

    student = Rule(counting).eval()
    with pytest.raises(ConformanceError, match=r"Rule\.calls"), weights_unchanged(student):
        asked(White(), student)
    assert student.calls == 0

    student = Rule().eval()
    with pytest.raises(ConformanceError, match=r"Rule\.weight"), weights_unchanged(student), torch.no_grad():
        student.weight.mul_(2)
    assert student.weight == 1


# Radius


class Wide(SmallCNN):
    """Declares less than it reads."""

    def __init__(self, field, **arguments):
        super().__init__(field, **arguments)
        self.radius = 1


class GlobalMean(SmallCNN):
    def activation(self, hidden):
        return super().activation(hidden + 1e-3 * hidden.mean((2, 3), keepdim=True))


class DetachedMean(SmallCNN):
    def hidden(self, x, sigma, context):
        return super().hidden(x, sigma, context) + 0.1 * x.detach().mean()


class DetachedNeighbour(SmallCNN):
    def scaled_score(self, x, sigma, context):
        return super().scaled_score(x, sigma, context) + 1e-3 * x.detach().roll(4, -1)


class BatchMean(SmallCNN):
    def activation(self, hidden):
        return super().activation(hidden - 0.1 * hidden.mean(0, keepdim=True).detach())


class CommonNoise(SmallCNN):
    def noise(self, sigma):
        return super().noise(sigma.mean().expand_as(sigma))


class AroundTheBox(SmallCNN):
    """Glues the faces of an open box together."""

    def padded(self, x):
        return nn.functional.pad(x, (1, 1, 1, 1), mode="circular")


class WideGraph(SmallGraphStudent):
    def neighbours(self, hidden, graph):
        return super().neighbours(super().neighbours(hidden, graph), graph)


READERS = {
    "a layer too many": (Wide, TORUS, "distance 2"),
    "a mean": (GlobalMean, TORUS, "distance 8"),
    "a detached mean": (DetachedMean, TORUS, "distance 8"),
    "a detached neighbour": (DetachedNeighbour, TORUS, "distance 4"),
    "around an open box": (AroundTheBox, BOX, "distance 15"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reader", READERS)
def test_a_student_that_reads_outside_its_radius_is_named(reader: str, dtype: torch.dtype):
    kind, field, distance = READERS[reader]
    teacher, student = White(field).to(dtype), kind(field).to(dtype)
    with pytest.raises(ConformanceError, match="reads outside its declared radius") as caught:
        hold_radius(teacher, student, [8, 16], sigmas=SIGMAS, seed=0)
    assert str(caught.value.where).startswith(f"{kind.__name__}, size 16, site (")
    assert caught.value.expected == f"nothing beyond distance {student.radius}, the declared radius"
    assert distance in str(caught.value.got)


@pytest.mark.parametrize("mixer", [BatchMean, CommonNoise])
def test_a_student_that_mixes_the_rows_of_a_batch_is_named(mixer):
    with pytest.raises(ConformanceError, match="depends on the others of its batch"):
        hold_radius(White(), mixer(TORUS), [8], sigmas=SIGMAS, seed=0)


def test_a_graph_student_that_hops_too_far_is_named():
    teacher = st.teacher("gaussian-graph", preset="disordered-plane").double()
    with pytest.raises(ConformanceError, match="reads outside"):
        hold_radius(teacher, WideGraph(teacher.field), [40], sigmas=SIGMAS, seed=0)
    assert hold_radius(teacher, SmallGraphStudent(teacher.field), [40], sigmas=SIGMAS, seed=0) is None


def test_the_probe_looks_for_a_domain_that_is_wide_enough():
    class Far(Rule):
        """Reads six sites away, which is around a torus of four."""

    far = Far(lambda student, x, sigma, context: -x + x.roll(6, -1), radius=5)
    with pytest.raises(ConformanceError, match="size 12"):
        hold_radius(White(), far, [4, 8], sigmas=SIGMAS, seed=0)
    far.radius = 6
    assert hold_radius(White(), far, [4, 8], sigmas=SIGMAS, seed=0) is None
    far.radius = 200
    assert "wider than the radius 200" in str(hold_radius(White(), far, [4, 8], sigmas=SIGMAS, seed=0))
    far.radius = None
    assert hold_radius(White(), far, [4, 8], sigmas=SIGMAS, seed=0) is None


def test_the_probe_leaves_the_student_as_it_was():
    student = SmallCNN(TORUS).train()
    student.register_buffer("calls", torch.zeros(()))
    with weights_unchanged(student):
        hold_radius(White(), student, [8], sigmas=SIGMAS, seed=0)
    assert student.training


# Measurements


def measurement(**changes) -> Measurement:
    return replace(Measurement("relative_rmse", 0.5, 0.1, 8), **changes)


MEASURED = {
    "a negative error": ([measurement(value=-5.0)], "negative error"),
    "a negative standard error": ([measurement(standard_error=-0.1)], "negative standard error"),
    "a negative count": ([measurement(n=-1)], "no count"),
    "a count that is a truth value": ([measurement(n=True)], "no count"),
    "a count that is no integer": ([measurement(n=2.0)], "no count"),
    "a tensor": ([measurement(value=torch.tensor(0.5))], "no number as value"),
    "a truth value": ([measurement(value=True)], "no number as value"),
    "a complex number": ([measurement(value=0.5j)], "no number as value"),
    "nothing": ([measurement(value=None)], "no number as value"),
    "a text as standard error": ([measurement(standard_error="0.1")], "no number as standard_error"),
    "a tensor as coordinate": ([measurement(coordinate=torch.tensor(1.0))], "no number as coordinate"),
    "no name": ([measurement(part="")], "without a name"),
    "a number as name": ([measurement(part=3)], "without a name"),
    "a bare number": ([0.5], "no measurement"),
    "the same twice": ([measurement(), measurement(value=0.4)], "twice"),
    "the same twice at a coordinate": ([measurement(coordinate=1.0), measurement(coordinate=1)], "twice"),
}


@pytest.mark.parametrize("defect", MEASURED)
def test_a_measure_that_returns_no_numbers_is_named(defect: str):
    measurements, message = MEASURED[defect]
    with pytest.raises(ConformanceError, match="The measure") as caught:
        checked(measurements, measure="strange", where="size 8")
    assert message in caught.value.what
    assert str(caught.value.where).startswith("strange, size 8")


def test_numbers_pass_and_become_pythons_own():
    given = [
        measurement(value=math.inf, standard_error=math.nan, n=0),
        measurement(part="covariance", value=-2),
        measurement(part="tail", value=np.float64(0.5), n=np.int64(3), coordinate=1),
        measurement(part="tail", value=np.float32(0.5), coordinate=2.0),
    ]
    found = checked(iter(given), measure="healthy", where="size 8")
    assert [one.value for one in found] == [math.inf, -2.0, 0.5, 0.5]
    assert all(type(one.value) is float and type(one.n) is int for one in found)


@pytest.mark.parametrize(
    "part", ["error", "near_error", "wall_relative_rmse", "types_mae", "field_std", "site_distance"]
)
def test_names_of_sizes(part: str):
    assert is_size(part)
    assert not is_size(part + "_difference")


# Before training, and healthy ones


def test_a_wrong_shape_in_training_mode_alone_is_found_before_training():
    def moody(student, x, sigma, context):
        return -x[:1] if student.training else -x

    student = Rule(moody)
    with pytest.raises(ConformanceError, match="score of the wrong shape"):
        check_once(White(), student, 6, batch=4, sigma_range=SIGMAS, seed=0)
    with pytest.raises(ConformanceError, match="not finite"):
        check_once(White(), Rule(lambda s, x, *_: x / 0), 6, batch=4, sigma_range=SIGMAS, seed=0)
    one = broken("spoilt", lambda self, s: s.with_x(s.x[:1]))
    with pytest.raises(ConformanceError, match="field of the wrong shape"):
        check_once(one, Rule(), 6, batch=8, sigma_range=SIGMAS, seed=0)
    with pytest.raises(OracleError):
        check_once(White(), Rule(), 1, batch=4, sigma_range=SIGMAS, seed=0)


def test_the_check_before_training_changes_nothing():
    class Dropping(Rule):
        def __init__(self):
            super().__init__()
            self.norm, self.dropout = nn.BatchNorm2d(1), nn.Dropout(0.5)

        def forward(self, x, sigma, context):
            return self.dropout(self.norm(x))

    student = Dropping()
    before = torch.get_rng_state()
    with weights_unchanged(student):
        check_once(White(), student, 6, batch=4, sigma_range=SIGMAS, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def lattice_students(field: FieldInfo):
    small = {"cnn": {"blocks": 1, "width": 4}, "unet": {"width": 4}, "spectral": {"width": 4}}
    kinds = {**small, "sliding-attention": {"width": 8, "depth": 1}, "message-passing": {"width": 4}}
    return [st.student(kind, field, **arguments).double() for kind, arguments in kinds.items()]


TEACHERS_OF_ALL_KINDS = {
    "torus": ("flow", {"preset": "long-range-stress"}, 8),
    "ring of vectors": ("gaussian", {"dim": 1, "channels": 2}, 16),
    "three dimensions": ("gaussian", {"dim": 3}, 4),
    "chain": ("phi4", {}, 8),
    "open box": ("ising", {"preset": "disordered", "boundary": "open"}, 8),
    "cylinder": ("ising", {"preset": "disordered", "boundary": "cylinder"}, 8),
}


@contextmanager
def all_promises(teacher, student, size):
    """Every promise at once."""
    check_once(teacher, student, size, batch=2, sigma_range=SIGMAS, seed=0)
    with weights_unchanged(teacher), weights_unchanged(student), watched(teacher, student):
        hold_radius(teacher, student, [size], sigmas=SIGMAS, seed=0)
        yield


@pytest.mark.parametrize("name", TEACHERS_OF_ALL_KINDS)
def test_built_in_teachers_and_students_keep_their_promises(name: str):
    kind, arguments, size = TEACHERS_OF_ALL_KINDS[name]
    teacher = st.teacher(kind, **arguments).double().frozen()
    for student in lattice_students(teacher.field):
        with all_promises(teacher, student, size):
            pass


@pytest.mark.parametrize(
    ("preset", "size"), [("disordered-plane", 24), ("disordered-volume", 32), ("harmonic-crystal", 32)]
)
def test_graph_students_keep_their_promises(preset: str, size: int):
    teacher = st.teacher("gaussian-graph", preset=preset).double().frozen()
    for kind, arguments in {"message-passing": {"width": 4}, "equivariant": {"width": 4}}.items():
        with all_promises(teacher, st.student(kind, teacher.field, **arguments).double(), size):
            sample = teacher.sample(2, size, generator=stream(0))
            teacher.smoothed_score(sample.x, torch.ones(2), sample.context)
            teacher.posterior_mean(sample.x, torch.ones(2), sample.context)
            teacher.posterior_covariance(sample.x, torch.ones(2), sample.context, (3,))


@pytest.mark.parametrize("boundary", ["torus", "open", "cylinder"])
def test_optimal_students_and_posteriors_keep_their_promises(boundary: str):
    teacher = st.teacher("ising", preset="disordered", boundary=boundary).double().frozen()
    student = st.student("optimal-local-ising", teacher.field, preset="disordered", radius=1).double()
    with all_promises(teacher, student, 4):
        sample = teacher.sample(2, 4, generator=stream(0))
        sigma, site = torch.ones(2), (1, 1)
        teacher.smoothed_score(sample.x, sigma, sample.context)
        teacher.posterior_mean(sample.x, sigma, sample.context)
        teacher.posterior_covariance(sample.x, sigma, sample.context, site)
        teacher.local_posterior_mean(sample.x, sigma, sample.context, site, 1)
        teacher.local_posterior_covariance(sample.x, sigma, sample.context, site, 1)


@pytest.mark.parametrize("name", ["medium", "two channels"])
def test_hard_valid_fields_keep_their_promises(name: str):
    teacher = hard_valid_zoo.build(name)
    for student in lattice_students(teacher.field):
        with all_promises(teacher, student, 4):
            sample = teacher.sample(3, 4, generator=stream(0))
            teacher.log_density(sample)
            teacher.score(teacher.resample(sample, generator=stream(1)))


def test_wrapped_and_tiled_students_keep_their_promises():
    class Denoiser(nn.Module):
        def forward(self, x, sigma):
            return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    teacher = st.teacher("gaussian", dim=2).double().frozen()
    wrapped = wrap_module(Denoiser(), field=teacher.field, radius=0, predicts="clean")
    local = st.student("cnn", teacher.field, blocks=0, width=4).double()
    with all_promises(teacher, local, 8):
        for student in (wrapped, tiled(local, 4)):
            with all_promises(teacher, student, 8):
                asked(teacher, student, 8)


def test_errors_name_the_wrapped_module():
    class Moody(nn.Module):
        def forward(self, x, sigma):
            return x / 0

    wrapped = wrap_module(Moody(), field=TORUS, radius=0).eval()
    with pytest.raises(ConformanceError, match=r"WrappedModule\(Moody\)\.forward"):
        asked(White(), wrapped)
