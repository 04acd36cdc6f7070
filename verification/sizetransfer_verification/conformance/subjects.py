"""What is checked: a teacher or a student, however it was named, built as often as the checks ask."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from sizetransfer.api import chosen
from sizetransfer.contracts.domain import Domain, Graph, Lattice
from sizetransfer.contracts.errors import ConformanceError, SizetransferError, SpecError
from sizetransfer.contracts.oracle import Context, Exactness, Sample, Teacher
from sizetransfer.contracts.randomness import normal, seeded_initialisation, stream
from sizetransfer.contracts.specs import FieldInfo, StudentSpec, TeacherSpec
from sizetransfer.contracts.student import Student
from sizetransfer_verification.conformance.case import Case, CaseSpace
from sizetransfer_verification.conformance.fitting import GRAPH_SITES, ReferenceFields, fit_as_a_run_does, size_to_fit

TeacherLike = Teacher | TeacherSpec | Mapping[str, object] | str | Callable[[], Teacher]
StudentLike = StudentSpec | Mapping[str, object] | str | Callable[[FieldInfo], Student]

LATTICE_SIZES = (2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 64)
GRAPH_SIZES = (8, 12, 20, 40, 80, 160)

STUDENT_FIELDS = (
    FieldInfo(dim=2, periodic=True, condition_channels=1, sigma_data=1.0),
    FieldInfo(dim=1, periodic=True, channels=2, sigma_data=0.7),
    FieldInfo(dim=2, periodic=False, sigma_data=1.6),
    FieldInfo(dim=3, periodic=False, condition_channels=2),
    FieldInfo(dim=2, periodic=False, geometry="graph"),
    FieldInfo(dim=2, periodic=False, closed=(False, True), sigma_data=1.3),
    FieldInfo(dim=3, periodic=True),
)
"""The fields for which a student is built where none are given; those that it refuses are noted and left out."""

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def devices() -> tuple[str, ...]:
    """The torch devices of this machine on which float64 runs."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def _moved(module: AnyModule, case: Case) -> AnyModule:
    return module.to(device=case.device, dtype=case.torch_dtype)


class TeacherSubject:
    """A teacher under examination.

    Attributes:
        name: for reports.
        spec: its specification, where it came from one.
        family: ``teacher``.
        devices: torch devices on which it is examined.
    """

    family: Literal["teacher"] = "teacher"

    def __init__(self, teacher: TeacherLike, *, seed: int = 0, name: str | None = None) -> None:
        self.seed = seed
        self.devices = devices()
        self.spec: TeacherSpec | None = None
        if isinstance(teacher, str | Mapping):
            spec = chosen("teacher", teacher)
            self.spec = spec if isinstance(spec, TeacherSpec) else None
        elif isinstance(teacher, TeacherSpec):
            self.spec = teacher
        self._source: TeacherLike = self.spec or teacher
        self._built: dict[tuple[str, str], Teacher] = {}
        self._draws: dict[tuple[int, int], Sample] = {}
        self.name = name or _name_of(teacher, self.spec, self.example)

    def notes(self) -> tuple[str, ...]:
        return ()

    def check_case(self, case: Case) -> None:
        """Refuse an example that this teacher cannot be run on.

        Raises:
            SpecError: there is no such field or device.
        """
        check_case(case, members=1, devices=self.devices)

    def reseed(self, seed: int) -> None:
        """Draw other fields from now on; the teacher stays."""
        self.seed = seed
        self._draws.clear()

    def fresh(self) -> Teacher:
        """The teacher built again from its specification, or a copy of the one that was given."""
        source = self._source
        try:
            built = _teacher_from(source)
        except SizetransferError:
            raise
        except Exception as error:
            raise _cannot_be_built("teacher", source, error) from error
        if not isinstance(built, Teacher):
            raise ConformanceError(
                "What was given builds no teacher.",
                where=str(source),
                expected="an instance of sizetransfer.contracts.oracle.Teacher",
                got=type(built).__name__,
                fix="derive the class from Teacher, or use sizetransfer.oracle_from_functions",
            )
        return built.frozen()

    @cached_property
    def example(self) -> Teacher:
        """The teacher in float64, on the processor."""
        return self.teacher(Case())

    def teacher(self, case: Case) -> Teacher:
        """The teacher with the dtype and device of a case; built once for each."""
        key = case.dtype, case.device
        if key not in self._built:
            self._built[key] = _moved(self.fresh(), case)
        return self._built[key]

    @cached_property
    def accepted(self) -> tuple[tuple[int, int], ...]:
        """Sizes that the teacher accepts, each with its number of sites."""
        graph = self.example.field.geometry == "graph"
        candidates: tuple[int, ...] = GRAPH_SIZES if graph else LATTICE_SIZES
        fixed = getattr(getattr(self.example, "spec", None), "fixed_size", None)
        if callable(fixed) and fixed() is not None:
            candidates = (fixed(),)
        found = []
        for size in candidates:
            try:
                self.example.check_size(size)
                sites = self.example.domain(size).sites
            except SizetransferError:
                continue
            found.append((size, sites))
        if not found:
            raise ConformanceError(
                "The teacher accepts no size that is tried.",
                where=self.name,
                expected=f"one of {candidates} to be accepted by check_size",
                got="none",
                fix="accept small sizes",
            )
        return tuple(found)

    def sizes(self, space: CaseSpace) -> Sequence[Sequence[int]]:
        """The sizes of the space that the teacher accepts; the smallest accepted one where there are none.

        Of a teacher whose samples are declared Monte Carlo one size stands for all, the second: its chains are tuned
        anew for every size.
        """
        inside = self._inside(space)
        chains = self.example.exactness.get("sample", Exactness()).kind == "monte_carlo"
        return (inside[:2][-1:] if chains else inside,)

    def _inside(self, space: CaseSpace) -> list[int]:
        inside = [size for size, sites in self.accepted if space.smallest <= sites <= space.largest]
        return inside or [self.accepted[0][0]]

    def statistical_case(self, space: CaseSpace) -> Case:
        """The one case of a statistical check: the largest size of the space, its batch, the subject's seed."""
        size = self._inside(space)[-1]
        return Case(size=size, batch=space.batches[0], noise=space.noises[0], dtype=space.dtypes[0], seed=self.seed)

    def sample(self, case: Case) -> Sample:
        """Fields with the case's dtype, device, size and batch."""
        return self.teacher(case).sample(case.batch, case.size, generator=case.generator("sample"))

    def draws(self, case: Case, count: int) -> Sample:
        """Many independent float64 fields, drawn once for each size and count, from a stream named by the seed."""
        key = case.size, count
        if key not in self._draws:
            generator = stream("conformance", self.seed, "draws", case.size)
            self._draws[key] = self.example.sample(count, case.size, generator=generator)
        return self._draws[key]

    def sigma(self, case: Case) -> Tensor:
        """The case's noise level for every field of the batch, in units of the field."""
        teacher = self.teacher(case)
        return torch.full((case.batch,), case.noise * teacher.field.sigma_data).to(teacher.anchor)


class StudentSubject:
    """A student under examination, on several sorts of field.

    Attributes:
        name: for reports.
        spec: its specification, where it came from one.
        fields: the fields on which it is examined.
        refused: the fields that it does not take, with its reason.
        family: ``student``.
        devices: torch devices on which it is examined.
        kept: what one check made and another uses too (a trained student, say), by name and member.
    """

    family: Literal["student"] = "student"

    def __init__(
        self,
        student: StudentLike,
        *,
        fields: Sequence[FieldInfo] | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        self.seed = seed
        self.devices = devices()
        self.spec: StudentSpec | None = None
        if isinstance(student, str | Mapping):
            spec = chosen("student", student)
            self.spec = spec if isinstance(spec, StudentSpec) else None
        elif isinstance(student, StudentSpec):
            self.spec = student
        builder = self.spec.build if self.spec is not None else student
        if not callable(builder):
            raise ConformanceError(
                "What was given builds no student.",
                where=str(student),
                expected="a kind, a specification, or a function from FieldInfo to Student",
                got=type(student).__name__,
                fix="pass the specification's class instance, or lambda field: MyStudent(field)",
            )
        self._builder: Callable[[FieldInfo], Student] = builder
        self._built: dict[tuple[int, str, str, bool], Student] = {}
        self._unasked: dict[FieldInfo, Student] = {}
        self._fitted: dict[FieldInfo, Student] = {}
        self._accepted: dict[tuple[int, int], bool] = {}
        self.kept: dict[tuple[str, int], Any] = {}
        self.refused: dict[FieldInfo, str] = {}
        self.fields = tuple(self._taken(fields or STUDENT_FIELDS))
        self.name = name or _name_of(student, self.spec, self.example)

    def notes(self) -> tuple[str, ...]:
        return tuple(f"refused {field.to_json()}: {reason}" for field, reason in self.refused.items())

    def check_case(self, case: Case) -> None:
        """Refuse an example that this student cannot be run on.

        Raises:
            SpecError: there is no such field or device.
        """
        check_case(case, members=len(self.fields), devices=self.devices)

    def _taken(self, fields: Sequence[FieldInfo]) -> Iterator[FieldInfo]:
        for field in fields:
            try:
                self._unasked[field] = self.built_and_fitted(field)
                self._check_other_graph(field)
            except SizetransferError as error:
                self.refused[field] = error.what
                continue
            except Exception as error:
                raise _cannot_be_built("student", self.spec or self._builder, error) from error
            yield field
        if len(self.refused) == len(fields):
            raise ConformanceError(
                "The student takes none of the fields that are tried.",
                where=str(self.spec or self._builder),
                expected="a student for one of them",
                got="; ".join(self.refused.values()),
                fix="pass fields=[FieldInfo(...)] with a field that it takes",
            )

    def _check_other_graph(self, field: FieldInfo) -> None:
        """Of a student that was fitted on a graph, whether it takes another one: else no size can be changed there.

        Raises:
            SizetransferError: what the student says to another graph.
        """
        if field in self._fitted and field.geometry == "graph":
            size = GRAPH_SIZES[GRAPH_SIZES.index(GRAPH_SITES) + 1]
            student, domain = copy.deepcopy(self._fitted[field]).double(), domain_for(field, size)
            sample = ReferenceFields(field, domain).double().sample(1, size, generator=stream("conformance", "graph"))
            with torch.no_grad():
                student(sample.x, sample.x.new_full((1,), field.sigma_data), sample.context)

    def build(self, field: FieldInfo, *, label: str = "student") -> Student:
        """A new student for a field, its weights from the subject's seed and the label, in eval mode."""
        with seeded_initialisation("conformance", self.seed, label):
            built: object = self._builder(field)
        if not isinstance(built, Student):
            raise ConformanceError(
                "What was given builds no student.",
                where=str(self.spec or self._builder),
                expected="an instance of sizetransfer.contracts.student.Student",
                got=type(built).__name__,
                fix="derive the class from Student, or wrap the module",
            )
        return built.eval()

    def built_and_fitted(self, field: FieldInfo) -> Student:
        """A new student as a run's training meets it; one without weights that have gradients is fitted already."""
        student = self.build(field)
        if any(parameter.requires_grad for parameter in student.parameters()):
            return student
        if field not in self._fitted:
            fit_as_a_run_does(student, field, domain_for(field, size_to_fit(student)), seed=self.seed)
            self._fitted[field] = student
        return copy.deepcopy(self._fitted[field])

    @cached_property
    def example(self) -> Student:
        """The student for the first field, in float64, on the processor."""
        return self.student(Case())

    def student(self, case: Case, *, stirred: bool = True) -> Student:
        """The student for a case; built once for each field, dtype and device.

        Args:
            case: names the field, dtype and device.
            stirred: with every parameter moved at random, as training would, so that nothing is zero by
                initialisation.
        """
        key = case.member, case.dtype, case.device, stirred
        if key not in self._built:
            self._built[key] = self.fresh(case, stirred=stirred)
        return self._built[key]

    def fresh(self, case: Case, *, stirred: bool = True) -> Student:
        """The same student as :meth:`student`, built again: nothing has been asked of it yet."""
        field = self.fields[case.member]
        # The first of them is there already, and building one may take long.
        student = self._unasked.pop(field, None) or self.built_and_fitted(field)
        if stirred:
            stir(student, stream("conformance", self.seed, "stir"))
        return _moved(student, case)

    def field(self, case: Case) -> FieldInfo:
        """The field of a case."""
        return self.fields[case.member]

    def domain(self, case: Case) -> Domain:
        """The domain of a case."""
        return domain_for(self.field(case), case.size)

    def sizes(self, space: CaseSpace) -> Sequence[Sequence[int]]:
        """Sizes of the space for every field, those left out that the student refuses by name."""
        return [self._sizes_of(member, space) for member in range(len(self.fields))]

    def _sizes_of(self, member: int, space: CaseSpace) -> list[int]:
        graph = self.fields[member].geometry == "graph"
        candidates = GRAPH_SIZES if graph else LATTICE_SIZES
        found = []
        for size in candidates:
            case = Case(member=member, size=size, batch=1)
            try:
                sites = self.domain(case).sites
            except SizetransferError:
                # The reference graph has a smallest size.
                continue
            if space.smallest <= sites <= space.largest and self.accepts(case):
                found.append(size)
        radius = self.student(Case(member=member)).radius
        # Smaller ones may be refused by name; this one may not, and if it is, the checks say so.
        certain = GRAPH_SIZES[1] if graph else 2 * (radius if isinstance(radius, int) else 2) + 1
        return found or [certain]

    def accepts(self, case: Case) -> bool:
        """Whether the student scores a field of that size; a named refusal says no, other errors are for the checks."""
        key = case.member, case.size
        if key not in self._accepted:
            self._accepted[key] = self._scores(case)
        return self._accepted[key]

    def _scores(self, case: Case) -> bool:
        try:
            x, sigma, context = self.inputs(case)
            with torch.no_grad():
                self.student(case)(x, sigma, context)
        except SizetransferError:
            return False
        except Exception:
            # A check will meet it again, and report it.
            return True
        return True

    def statistical_case(self, space: CaseSpace) -> Case:
        """Students have no statistical checks; the first case of the space."""
        return Case(size=self.sizes(space)[0][0], seed=self.seed)

    def inputs(self, case: Case) -> tuple[Tensor, Tensor, Context]:
        """A noisy field, its noise level and its context, with the case's dtype and device."""
        field, domain = self.field(case), self.domain(case)
        like = torch.zeros((), dtype=case.torch_dtype, device=case.device)
        sigma = torch.full((case.batch,), case.noise * field.sigma_data).to(like)
        shape = (case.batch, field.channels, *domain.shape)
        deviation = (field.sigma_data**2 * (1 + case.noise**2)) ** 0.5
        # Drawn in float64, so that the same case in two dtypes has the same field.
        x = deviation * normal(shape, generator=case.generator("x"), like=torch.zeros((), dtype=torch.float64))
        return x.to(like), sigma, Context(domain, self._condition(case, domain, like))

    def _condition(self, case: Case, domain: Domain, like: Tensor) -> Tensor | None:
        channels = self.field(case).condition_channels
        if not channels:
            return None
        shape = (case.batch, channels, *domain.shape)
        labels = torch.randint(0, 2, shape, generator=case.generator("condition"))
        return labels.to(like)


def _teacher_from(source: TeacherLike) -> object:
    if isinstance(source, TeacherSpec):
        return source.build()
    if isinstance(source, Teacher):
        return copy.deepcopy(source)
    return source() if callable(source) else source


def _cannot_be_built(family: str, source: object, error: Exception) -> ConformanceError:
    frames = traceback.extract_tb(error.__traceback__)
    return ConformanceError(
        f"The {family} cannot be built.",
        where=f"{source}, {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else str(source),
        expected=f"a {family}, or a SpecError that says what it does not take",
        got=f"{type(error).__name__}: {error}",
        fix=f"build the {family} by hand to see the whole traceback",
    )


def check_case(case: Case, *, members: int, devices: tuple[str, ...]) -> None:
    """Refuse an example of another subject or machine.

    Raises:
        SpecError: there is no such member or device.
    """
    if 0 <= case.member < members and case.device.split(":")[0] in devices:
        return
    raise SpecError(
        "The example belongs to another subject or machine.",
        where="example",
        expected=f"member below {members}, device {' or '.join(devices)}",
        got=case.to_json(),
        fix="give the fields= of the report that showed it, or choose another device",
    )


@lru_cache(maxsize=64)
def domain_for(field: FieldInfo, size: int) -> Domain:
    """A domain of that size for a field: a lattice, or a connected random geometric graph in a periodic box."""
    if field.geometry == "lattice":
        return Lattice((size,) * field.dim, field.periodic, field.closed)
    from sizetransfer.api import teacher

    domain = teacher("gaussian-graph").domain(size)
    if not isinstance(domain, Graph):
        raise ConformanceError("The reference teacher has no graph.", where="gaussian-graph", got=str(type(domain)))
    return domain


def stir(module: nn.Module, generator: torch.Generator) -> None:
    """Add to every parameter a normal number of a third of its root mean square, of 0.1 where that is zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            scale = float(parameter.double().square().mean().sqrt()) / 3 or 0.1
            parameter.add_(scale * normal(parameter.shape, generator=generator, like=parameter))


@contextmanager
def global_randomness(seed: int) -> Iterator[None]:
    """Within the block, torch's global generator starts from ``seed``; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _name_of(given: object, spec: StudentSpec | TeacherSpec | None, built: nn.Module) -> str:
    if isinstance(given, str):
        return given
    return type(built).__name__ if spec is None else spec.kind_name()
