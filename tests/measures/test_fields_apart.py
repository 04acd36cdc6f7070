"""A field depends on its number, not on the batch that it is drawn in: all built-in teachers, all measures."""

from __future__ import annotations

import math

import pytest
import torch

from sizetransfer.contracts.oracle import Context, Sample, Teacher, draw_fields, redraw_fields
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.measures.clean_score import CleanScoreSpec
from sizetransfer.measures.conditional_generation import ConditionalGenerationSpec
from sizetransfer.measures.denoising_loss import DenoisingLossSpec
from sizetransfer.measures.generation import GenerationSpec
from sizetransfer.measures.locality import LocalitySpec
from sizetransfer.measures.shell_response import ShellResponseSpec
from sizetransfer.measures.smoothed_score import SmoothedScoreSpec
from sizetransfer.scores.sampling import SamplerSpec
from sizetransfer.students.cnn import CNNStudentSpec
from sizetransfer.systems.flow.teacher import FlowTeacherSpec
from sizetransfer.systems.gaussian.graph import GaussianGraphTeacherSpec
from sizetransfer.systems.gaussian.graph_solver import GraphSolver
from sizetransfer.systems.gaussian.teacher import GaussianTeacherSpec
from sizetransfer.systems.hard_valid import HardValidTeacherSpec
from sizetransfer.systems.ising.teacher import IsingTeacherSpec
from sizetransfer.systems.phi4.teacher import Phi4TeacherSpec

FIELDS = 5
TEACHERS = {
    "flow": (FlowTeacherSpec(smoother_depth=1, cutoff=2), 6),
    "gaussian": (GaussianTeacherSpec(mass=1.0), 6),
    "gaussian-graph": (GaussianGraphTeacherSpec(mass=1.0), 24),
    "hard-valid": (HardValidTeacherSpec(cutoff=1), 4),
    "ising, perfect": (IsingTeacherSpec(beta=0.4, sampler="perfect"), 6),
    "ising, perfect, cylinder": (IsingTeacherSpec(beta=0.4, sampler="perfect", boundary="cylinder"), 6),
    "ising, perfect, open": (IsingTeacherSpec(beta=0.4, sampler="perfect", boundary="open"), 6),
    "ising, clusters": (IsingTeacherSpec(beta=0.4, sampler="swendsen-wang"), 6),
    "phi4": (Phi4TeacherSpec(mass2=-0.5, quartic=1.0), 6),
}
# Rounding of other kernels, in units of fields of order one, that chains of some hundred leapfrog steps amplify.
TOLERANCE = {"phi4": 1e-8}
teachers = pytest.mark.parametrize("name", list(TEACHERS))


def build(name):
    spec, size = TEACHERS[name]
    return spec.build().double().frozen(), size


def in_batches(draw, batch, *labels):
    """Fields 0 to 4 in batches."""
    parts = []
    for start in range(0, FIELDS, batch):
        count = min(batch, FIELDS - start)
        parts.append(draw(slice(start, start + count), stream(*labels).fields(start, count)))
    return parts


def drawer(teacher, size):
    return lambda rows, own: draw_fields(teacher, rows.stop - rows.start, size, generator=own)


def agree(parts, whole, tolerance):
    """Whether samples are the rows of another: labels and masks exactly, numbers to a tolerance."""
    joined = {"x": torch.cat([part.x for part in parts])}
    for name in whole.labels:
        joined[name] = torch.cat([part.labels[name] for part in parts])
    for name in ("condition", "mask"):
        if getattr(whole.context, name) is not None:
            joined[name] = torch.cat([getattr(part.context, name) for part in parts])
    expected = {"x": whole.x, **whole.labels, "condition": whole.context.condition, "mask": whole.context.mask}
    whether = [torch.allclose(joined[key].double(), expected[key].double(), rtol=0, atol=tolerance) for key in joined]
    exactly = [torch.equal(joined[key], expected[key]) for key in (*whole.labels, "mask") if key in joined]
    return all(whether) and all(exactly)


@teachers
def test_a_field_of_a_built_in_teacher_does_not_depend_on_the_batch(name):
    teacher, size = build(name)
    assert teacher.draws_fields_apart
    whole = draw_fields(teacher, FIELDS, size, generator=stream("apart").fields(0, FIELDS))
    assert len({tuple(field.flatten().tolist()) for field in whole.x}) > 1
    for batch in (1, 3):
        parts = in_batches(drawer(teacher, size), batch, "apart")
        assert agree(parts, whole, TOLERANCE.get(name, 1e-12)), batch


@teachers
def test_spins_are_equal_to_the_last_bit(name):
    teacher, size = build(name)
    if not name.startswith("ising"):
        pytest.skip("a continuous field agrees to rounding")
    whole = draw_fields(teacher, FIELDS, size, generator=stream("bits").fields(0, FIELDS))
    alone = [draw_fields(teacher, 1, size, generator=stream("bits").fields(row, 1)).x for row in range(FIELDS)]
    assert torch.equal(torch.cat(alone), whole.x)


def test_fields_redrawn_given_their_labels_do_not_depend_on_the_batch():
    teacher, size = build("hard-valid")
    given = draw_fields(teacher, FIELDS, size, generator=stream("given").fields(0, FIELDS))
    whole = redraw_fields(teacher, given, generator=stream("again").fields(0, FIELDS))
    parts = in_batches(lambda rows, own: redraw_fields(teacher, given.rows(rows), generator=own), 3, "again")
    assert agree(parts, whole, 1e-12)
    assert not torch.equal(whole.x, given.x)


def test_large_graphs_draw_fields_apart_too():
    spec, _ = TEACHERS["gaussian-graph"]
    solver = GraphSolver(spec, spec.build().domain(24), 1)
    like = torch.zeros((), dtype=torch.float64)
    whole = solver.sample(3, generator=stream("solver"), like=like)
    alone = torch.cat([solver.sample(1, generator=stream("solver").fields(row, 1), like=like) for row in range(3)])
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-10)


# --- other teachers ---------------------------------------------------------------------------------------------------


class Foreign(Teacher):
    """A teacher of somebody who knows torch's generators only, and whose draws run through the batch."""

    def __init__(self):
        super().__init__(FieldInfo(dim=2, channels=1, periodic=True))

    def sample(self, batch, size, *, generator):
        x = torch.randn(size, batch, size, generator=generator, dtype=self.anchor.dtype)
        return Sample(x.movedim(1, 0)[:, None], Context(self.domain(size)))

    def score(self, sample):
        return -sample.x


class Boastful(Foreign):
    """Declares what is not so."""

    draws_fields_apart = True


class Heir(FlowTeacherSpec().build().__class__):
    """Draws in its own way, and says nothing of it."""

    def sample(self, batch, size, *, generator):
        white = torch.randn(size, batch, size, generator=generator, dtype=self.anchor.dtype)
        return Sample(white.movedim(1, 0)[:, None], self.context(batch, size))


def drawn_apart(teacher, size=6):
    whole = draw_fields(teacher, FIELDS, size, generator=stream("foreign").fields(0, FIELDS))
    lengths = [in_batches(drawer(teacher, size), batch, "foreign") for batch in (1, 3)]
    return all(agree(parts, whole, 1e-12) for parts in lengths)


def test_teachers_that_declare_nothing_are_asked_field_by_field():
    assert drawn_apart(Foreign().double())
    assert drawn_apart(Heir(FlowTeacherSpec()).double())


def test_a_teacher_that_declares_what_is_not_so_is_caught():
    assert not drawn_apart(Boastful().double())


def test_the_fields_of_a_foreign_teacher_differ_and_so_do_two_draws():
    own = stream("foreign").fields(0, FIELDS)
    first, second = (draw_fields(Foreign().double(), FIELDS, 4, generator=own).x for _ in range(2))
    assert len(torch.cat([first, second]).flatten().unique()) == 2 * first.numel()


def test_a_plain_generator_goes_to_the_teacher_as_it_is():
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(draw_fields(Foreign(), 3, 4, generator=one).x, Foreign().sample(3, 4, generator=other).x)


# --- measures ---------------------------------------------------------------------------------------------------------

SAMPLER = SamplerSpec(steps=3)
MEASURES = {
    "clean-score": lambda **k: CleanScoreSpec(fields=FIELDS, **k),
    "generation": lambda **k: GenerationSpec(fields=FIELDS, sampler=SAMPLER, **k),
    "conditional-generation": lambda **k: ConditionalGenerationSpec(fields=FIELDS, sampler=SAMPLER, **k),
    "locality": lambda **k: LocalitySpec(fields=FIELDS, radii=(1,), **k),
    "smoothed-score": lambda **k: SmoothedScoreSpec(fields=FIELDS, sigmas=(0.5,), **k),
    "denoising-loss": lambda **k: DenoisingLossSpec(fields=FIELDS, sigmas=(0.5,), reference_fields=8, **k),
    "shell-response": lambda **k: ShellResponseSpec(fields=FIELDS, sigmas=(0.5,), probe=2, **k),
}


def records(teacher, size, measure):
    torch.manual_seed(0)
    student = CNNStudentSpec(blocks=0, width=4).build(teacher.field).double().eval()
    return list(measure.measure(teacher, student, size, sigma=0.1, seed=2))


def different(one, other, tolerance):
    """Parts that differ."""
    assert [(r.part, r.n) for r in one] == [(r.part, r.n) for r in other]
    wrong = []
    for a, b in zip(one, other, strict=True):
        close = math.isclose(a.value, b.value, rel_tol=tolerance, abs_tol=tolerance)
        error = math.isclose(a.standard_error, b.standard_error, rel_tol=tolerance, abs_tol=tolerance)
        nan = math.isnan(a.value) and math.isnan(b.value)
        if not nan and not (close and (error or math.isnan(a.standard_error))):
            wrong.append(a.part)
    return wrong


def able(measure, teacher):
    return not measure().lacking(teacher)


@teachers
@pytest.mark.parametrize("kind", list(MEASURES))
def test_records_do_not_depend_on_the_batch(kind, name):
    teacher, size = build(name)
    measure = MEASURES[kind]
    if not able(measure, teacher) or (kind == "generation" and name == "gaussian-graph"):
        pytest.skip("the teacher cannot be measured so")
    if name == "gaussian-graph":
        pytest.skip("students of lattices only are built in")
    whole = records(teacher, size, measure(batch=FIELDS))
    for batch in (1, 3):
        assert not different(records(teacher, size, measure(batch=batch)), whole, 1e-6)


def test_a_teacher_that_declares_what_is_not_so_changes_records_with_the_batch():
    sound, boastful = (
        different(*(records(kind().double(), 6, CleanScoreSpec(fields=FIELDS, batch=b)) for b in (3, 5)), 1e-6)
        for kind in (Foreign, Boastful)
    )
    assert not sound
    assert "field_std" in boastful


def test_a_run_in_single_precision_sees_the_fields_of_one_in_double_precision():
    like = torch.zeros(())
    one, other = (normal((3, 8), generator=stream("a"), like=like.to(kind)) for kind in (torch.float32, torch.float64))
    torch.testing.assert_close(one.double(), other, rtol=0, atol=2e-4)
