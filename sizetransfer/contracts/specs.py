"""What users write: frozen, validated specifications from which every run can be replayed.

Those of a whole experiment are in :mod:`sizetransfer.runs.trials`.

A specification is data. Teachers, students and measures are looked up by ``kind`` among the registered
classes; the lookup comes in through pydantic's validation context, so that this module needs no registry.
Validation never lets a raw pydantic traceback reach a user: :meth:`Spec.parse` turns it into one
:class:`~sizetransfer.contracts.errors.SpecError` that lists every wrong field with its path.
"""

from __future__ import annotations

import difflib
import functools
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from sizetransfer.contracts.boundaries import axes_closed, wrong_axes
from sizetransfer.contracts.errors import SpecError, exit_refused
from sizetransfer.contracts.parts import Part, check_parts, declared, split_class

if TYPE_CHECKING:
    from sizetransfer.contracts.oracle import Teacher
    from sizetransfer.contracts.records import Measurement
    from sizetransfer.contracts.student import Student

Family = Literal["teacher", "student", "measure"]
Geometry = Literal["lattice", "graph"]
Lookup = Callable[[Family, str], "type[KindSpec]"]


class Spec(BaseModel):
    """Base of every specification: immutable, no unknown fields, defaults validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    @classmethod
    def parse(cls, data: object, *, where: str = "", lookup: Lookup | None = None) -> Self:
        """Validate ``data``.

        Args:
            data: the mapping that a user wrote.
            where: path that error messages put in front of field names.
            lookup: finds the specification class of a kind; needed where ``data`` names kinds.

        Raises:
            SpecError: with the path of every wrong field, what it takes, and the nearest known names; or a validator
                called ``sys.exit``.
        """
        if not isinstance(data, Mapping):
            raise SpecError(
                "A specification must be a mapping of fields.",
                where=where or cls.__name__,
                expected="a mapping such as {kind: flow, preset: medium-range}",
                got=f"{type(data).__name__}: {data!r}",
            )
        try:
            with exit_refused(where or cls.__name__):
                return cls.model_validate(dict(data), context={"lookup": lookup, "where": where})
        except ValidationError as error:
            raise _explain(cls, error, where) from None

    def to_json(self) -> dict[str, Any]:
        """Return the specification as JSON-compatible data that :meth:`parse` accepts."""
        return self.model_dump(mode="json")


def _explain(cls: type[Spec], error: ValidationError, where: str) -> SpecError:
    wrong, expected, got, fixes = [], [], [], []
    for item in error.errors():
        path = ".".join([*([where] if where else []), *map(str, item["loc"])])
        wrong.append(path)
        if item["type"] == "extra_forbidden":
            known = _fields_at(cls, item["loc"][:-1])
            expected.append(f"one of the fields {', '.join(known)}")
            got.append(f"the unknown field {str(item['loc'][-1])!r}")
            fixes.append(did_you_mean(str(item["loc"][-1]), known))
        else:
            expected.append(f"{path}: {item['msg']}")
            got.append("nothing" if item["type"] == "missing" else f"{type(item['input']).__name__} {item['input']!r}")
    return SpecError(
        f"{cls.__name__} has {len(wrong)} wrong field{'s' if len(wrong) > 1 else ''}.",
        where="; ".join(wrong),
        expected="; ".join(expected),
        got="; ".join(got),
        fix=" ".join(filter(None, fixes)) or "change the fields named above",
    )


def _fields_at(cls: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """Field names of the specification at a path; the positions of list items in it are passed over."""
    for step in path:
        if isinstance(step, int):
            continue
        annotation = cls.model_fields[step].annotation if step in cls.model_fields else None
        nested = [item for item in (annotation, *get_args(annotation)) if isinstance(item, type)]
        models = [item for item in nested if issubclass(item, BaseModel)]
        if not models:
            return []
        cls = models[0]
    return list(cls.model_fields) + (["preset"] if getattr(cls, "presets", None) else [])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the names nearest to ``name``, or nothing if none is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else ""


class KindSpec(Spec):
    """A specification that users choose by ``kind`` and may start from a named preset.

    A subclass sets ``kind: Literal["..."] = "..."`` and, if it has any, ``presets`` and ``aliases``; and ``names_code``
    where its fields name code that building it runs, so that a stranger's file does not do so unasked.
    ``{kind: flow, preset: medium-range, seed: 1}`` takes the preset's fields and overrides ``seed``; the
    validated specification holds the fields themselves, so it stays the same when a preset changes.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}
    names_code: ClassVar[bool] = False
    kind: str

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, Mapping) or "preset" not in data:
            return data
        fields = dict(data)
        name = fields.pop("preset")
        preset = cls.presets.get(cls.aliases.get(name, name)) if isinstance(name, str) else None
        if preset is None:
            known = [*cls.presets, *cls.aliases]
            raise SpecError(
                f"Unknown preset {name!r}.",
                where=".".join(filter(None, [(info.context or {}).get("where"), "preset"])),
                expected=f"one of {', '.join(known)}" if known else f"no preset: {cls.kind_name()!r} has none",
                got=repr(name),
                fix=did_you_mean(str(name), known) or "choose one of the presets above",
            )
        return {**preset, **fields}

    @classmethod
    def kind_name(cls) -> str:
        """The kind that users write."""
        return str(cls.model_fields["kind"].default)

    def code(self) -> tuple[str, ...]:
        """Names of the modules whose code decides what this specification gives.

        They are those of its class, of the classes of the specifications in its fields, and of their bases; what these
        import is found by ``sizetransfer.runs.sources``. A subclass that loads code by name adds its module.
        """
        nested = [base for value in _values(self) if isinstance(value, BaseModel) for base in type(value).__mro__]
        loaded = [name for value in _values(self) if isinstance(value, KindSpec) for name in value.code()]
        names = [base.__module__ for base in (*type(self).__mro__, *nested)]
        return tuple(name for name in dict.fromkeys([*names, *loaded]) if name.partition(".")[0] not in _NO_PART)

    def look_beside(self, folder: Path) -> None:
        """Let Python find code that the specification names in a folder, that of its experiment file."""

    def reads(self) -> tuple[Path, ...]:
        """Files and folders whose content takes part: every path in its fields that exists."""
        paths = [value for value in _values(self) if isinstance(value, Path)]
        nested = [path for value in _values(self) if isinstance(value, KindSpec) for path in value.reads()]
        return tuple(path for path in dict.fromkeys([*paths, *nested]) if path.exists())


_NO_PART = {"pydantic", *sys.stdlib_module_names}


def _values(value: object) -> Iterator[object]:
    """Everything in the fields of a specification, however deep."""
    inside: Iterable[object] = ()
    if isinstance(value, BaseModel):
        inside = value.__dict__.values()
    elif isinstance(value, Mapping):
        inside = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        inside = value
    for item in inside:
        yield item
        yield from _values(item)


class FieldInfo(Spec):
    """What a student must know of the field that it scores.

    Attributes:
        geometry: fields on a ``lattice`` have ``*S = (L,) * dim``, those on a ``graph`` of N sites ``*S = (N,)``.
        dim: axes of the lattice; of a graph, the dimension of the space of its positions, one if it has none.
        channels: components per site, C.
        components: ``vector``: the channels are the components of one vector in the space of the lattice or of the
            positions, which turns with it; ``scalars``: they are numbers that do not.
        periodic: torus or open box; of a graph, whether its positions lie in a periodic box.
        closed: the axes of a lattice that are closed, where they are some and not all (a cylinder); ``periodic`` is
            false then.
        crop: whether the fields are open boxes cut out of larger ones, so that nothing is known beyond their sides.
        condition_channels: channels K of ``Context.condition``; zero means that there is none.
        sigma_data: typical standard deviation of one component of the clean field, in units of the field.
    """

    geometry: Geometry = "lattice"
    dim: int = Field(ge=1)
    channels: int = Field(1, ge=1)
    components: Literal["scalars", "vector"] = "scalars"
    periodic: bool = True
    closed: tuple[bool, ...] | None = None
    crop: bool = False
    condition_channels: int = Field(0, ge=0)
    sigma_data: float = Field(1.0, gt=0)

    @property
    def closed_axes(self) -> tuple[bool, ...]:
        """For each axis, whether its two faces are glued together."""
        return axes_closed(self.periodic, self.closed, self.dim)

    @model_validator(mode="after")
    def _axes_that_are_there(self) -> FieldInfo:
        problem = wrong_axes(self.periodic, self.closed, self.dim)
        if problem is not None:
            raise SpecError(
                "The closed axes do not fit the field.",
                where="field.closed, field.periodic",
                expected=problem,
                got=f"closed = {self.closed}, periodic = {self.periodic}",
                fix="leave closed out where all axes are alike, and set periodic",
            )
        return self

    @model_validator(mode="after")
    def _open_crop(self) -> FieldInfo:
        if self.crop and (self.geometry != "lattice" or any(self.closed_axes)):
            raise SpecError(
                "A crop is a box on a lattice, with open sides along every axis.",
                where="field.crop, field.periodic",
                expected="geometry: lattice, periodic: false, and no closed axes",
                got=f"geometry: {self.geometry}, periodic = {self.periodic}, closed = {self.closed}",
                fix="leave crop out where the field is whole",
            )
        return self

    @model_validator(mode="after")
    def _one_component_an_axis(self) -> FieldInfo:
        if self.components == "vector" and self.channels != self.dim:
            raise SpecError(
                "A vector has one component for every dimension of its space.",
                where="field.channels, field.dim",
                expected=f"channels = dim = {self.dim}",
                got=f"channels = {self.channels}",
                fix="change the channels, or declare them as components: scalars",
            )
        return self


class TeacherSpec(KindSpec):
    """Schema and factory of a teacher.

    Known before it is built: ``geometry``, that of its fields, and ``has_site_classes``, whether it knows which sites
    are alike (``sizetransfer.contracts.oracle.HasSiteClasses``).
    """

    geometry: ClassVar[Geometry] = "lattice"
    has_site_classes: ClassVar[bool] = False
    seed: int = Field(0, ge=0, description="decides every random weight of the teacher")

    @abstractmethod
    def build(self) -> Teacher:
        """Construct the teacher."""


class StudentSpec(KindSpec):
    """Schema and factory of a student.

    ``geometries`` lists what the fields that it scores may live on; ``build`` refuses others with
    :func:`sizetransfer.students.geometry.require_geometry`, which tells the user which students take them.
    """

    geometries: ClassVar[tuple[Geometry, ...]] = ("lattice",)

    @abstractmethod
    def build(self, field: FieldInfo) -> Student:
        """Construct the student for such a field, with torch's default initialisation.

        Raises:
            SpecError: the student does not take such fields.
        """


class MeasureSpec(KindSpec):
    """Schema and procedure of a measure of a (teacher, student, size).

    ``requires`` lists the capability protocols (``sizetransfer.contracts.oracle``) that the teacher must satisfy, and
    ``geometries`` what its fields may live on; a pair that lacks something is skipped by name and reason, before
    anything is trained; so is a teacher of masked fields where ``takes_masks`` is false, and one of crops unless
    ``takes_crops`` says that sites whose radius leaves the crop count in none of its numbers
    (:meth:`sizetransfer.contracts.oracle.Context.counted`). ``without_effect`` names fields that change no number
    beyond rounding, such as one that bounds the memory. ``differentiates`` says that it takes derivatives of the
    student's score, for which torch keeps the output of every layer in memory.

    ``parts`` describes the numbers that it gives, by name or by a pattern of names
    (:mod:`sizetransfer.contracts.parts`): tables, default figures and verdicts follow from it. ``figures`` names
    registered figures that draw them; a measure with none gets the default ones.
    """

    requires: ClassVar[tuple[type, ...]] = ()
    geometries: ClassVar[tuple[Geometry, ...]] = ("lattice", "graph")
    takes_masks: ClassVar[bool] = True
    takes_crops: ClassVar[bool] = False
    without_effect: ClassVar[frozenset[str]] = frozenset()
    differentiates: ClassVar[bool] = False
    parts: ClassVar[Mapping[str, Part]] = {}
    figures: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **keywords: Any) -> None:
        """Check the declaration; take the measure in the arithmetic of every run, whatever its caller has set.

        Raises:
            SpecError: ``parts`` is no declaration.
        """
        super().__pydantic_init_subclass__(**keywords)
        check_parts(cls.parts, f"{cls.__name__}.parts")
        if "measure" in vars(cls):
            cls.measure = _in_own_arithmetic(cls.measure)  # type: ignore[method-assign]

    def declarations(self) -> Mapping[str, Part]:
        """Descriptions of the parts; to be overridden where they depend on the fields of the specification."""
        return type(self).parts

    def declared(self, part: str) -> Part | None:
        """What is declared of a part; nothing where it is not."""
        return declared(self.declarations(), part)

    def profile_of(self, part: str) -> tuple[str, str]:
        """The profile over classes that a part belongs to, and its class (:data:`sizetransfer.contracts.parts.CLASS`).

        The part's own name and nothing where it holds no class.
        """
        return split_class(self.declarations(), part)

    def lacking(self, teacher: Teacher) -> list[str]:
        """What this measure needs and the teacher does not have, by name: protocols, and the geometry of its fields."""
        missing = [protocol.__name__ for protocol in self.requires if not isinstance(teacher, protocol)]
        if teacher.field.geometry not in self.geometries:
            missing.append(f"fields on a {' or a '.join(self.geometries)}")
        if teacher.field.crop and not self.takes_crops:
            missing.append("whole fields (its fields are crops)")
        return missing

    def draws(self) -> int:
        """How many independent fields are drawn at each size, for teachers that have finitely many; zero: not said."""
        return int(getattr(self, "fields", 0))

    def draws_of(self, teacher: Teacher, size: int) -> int:
        """As :meth:`draws`, where the number depends on the teacher and the size; held-out fields may be looked at."""
        return self.draws()

    def for_training(self, training: TrainingSpec) -> MeasureSpec:
        """The measure as it is taken of students of such a training: what it sets enters the key of the measurement.

        A measure that asks students at noise levels of its own keeps within those of the training here.
        """
        return self

    def check(self, teacher: Teacher, size: int) -> None:
        """Refuse a size that this measure cannot be taken at, before anything is trained; nothing is computed.

        Raises:
            SizetransferError: with what is possible.
        """

    def check_student(self, student: Student) -> None:
        """Refuse a student that this measure cannot be taken of, before it is trained.

        Raises:
            SizetransferError: with what is possible.
        """

    @abstractmethod
    def measure(
        self, teacher: Teacher, student: Student, size: int, *, sigma: float, seed: int
    ) -> Iterable[Measurement]:
        """Measure at one lattice size.

        Args:
            teacher: the oracle.
            student: the trained student, in eval mode.
            size: sites along each axis.
            sigma: the low noise level at which the student is asked for its score.
            seed: names the random streams of this measurement.
        """


def _in_own_arithmetic(measure: Callable[..., Iterable[Measurement]]) -> Callable[..., Iterable[Measurement]]:
    """The method, computing as any run does (:mod:`sizetransfer.contracts.arithmetic`), between its results too.

    The global generators start at a stream named by seed, size and kind, and go on where the measure left them. What
    takes the results runs in the settings of the caller. The teacher is that of held-out fields.
    """

    @functools.wraps(measure)
    def measured(
        self: MeasureSpec, teacher: Teacher, student: Student, size: int, **named: Any
    ) -> Iterable[Measurement]:
        from sizetransfer.contracts.arithmetic import GeneratorStates, arithmetic, in_steps, seed_generators

        surroundings = functools.partial(arithmetic, teacher.anchor.dtype, teacher.anchor.device)
        with surroundings():
            seed_generators(named.get("seed", 0), "measure", size, getattr(self, "kind", ""))
            found = measure(self, teacher.split("held out"), student, size, **named)
            states = GeneratorStates.read()
        return found if isinstance(found, Sequence) else in_steps(found, surroundings, states)

    return measured


class NoiseSchedule(Spec):
    """Range of noise levels of the variance-exploding process.

    Attributes:
        sigma_min: smallest standard deviation of the noise, in units of the field.
        sigma_max: largest standard deviation of the noise, in units of the field.
    """

    sigma_min: float = Field(0.05, gt=0, allow_inf_nan=False)
    sigma_max: float = Field(1.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> NoiseSchedule:
        if self.sigma_min >= self.sigma_max:
            raise SpecError(
                "The noise schedule is empty.",
                where="training.noise.sigma_min, training.noise.sigma_max",
                expected="sigma_min < sigma_max",
                got=f"sigma_min = {self.sigma_min}, sigma_max = {self.sigma_max}",
                fix="raise sigma_max or lower sigma_min",
            )
        return self


class TrainingSpec(Spec):
    """How a student is trained by denoising score matching on fresh exact samples.

    Attributes:
        size: sites along each axis of the training lattice.
        steps: optimiser steps.
        batch: fields per step.
        objective: ``denoising`` (paper eq. (3)), ``target-score`` or ``mixed`` (De Bortoli et al. 2024).
        learning_rate: Adam's initial rate.
        schedule: ``cosine`` decay to zero, or ``constant``.
        gradient_clip: largest global norm of a gradient.
        ema_half_life: half-life of the exponential moving average of the weights, in steps; ``None``: no average.
        noise: range of noise levels.
        autocast: ``bfloat16`` runs the student's forward pass in that type; weights and loss stay in float32.
        checkpoint_every: steps between checkpoints.
    """

    size: int = Field(ge=2)
    steps: int = Field(1500, ge=0)
    batch: int = Field(8, ge=1)
    objective: Literal["denoising", "target-score", "mixed"] = "denoising"
    learning_rate: float = Field(2e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    gradient_clip: float = Field(1.0, gt=0)
    ema_half_life: float | None = Field(None, gt=0)
    noise: NoiseSchedule = NoiseSchedule()
    autocast: Literal["none", "bfloat16"] = "none"
    checkpoint_every: int = Field(200, ge=1)
