"""Teachers, students, measures and experiments by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from sizetransfer.contracts.errors import SpecError, exit_refused
from sizetransfer.contracts.specs import Family, FieldInfo, KindSpec, MeasureSpec, StudentSpec, TeacherSpec
from sizetransfer.registry import default_registry
from sizetransfer.runs.trials import Experiment

if TYPE_CHECKING:
    from sizetransfer.contracts.oracle import Teacher
    from sizetransfer.contracts.student import Student


def teacher(kind: str, /, **fields: object) -> Teacher:
    """Build a teacher of a registered kind.

    Args:
        kind: for example ``"flow"``; ``sizetransfer list teachers`` shows them.
        fields: fields of its specification, and ``preset``; ``seed`` decides its random weights.

    Raises:
        SpecError: an unknown kind, preset or field, or a value that the field does not take.

    Example:
        >>> teacher("flow", preset="short-range-simple").field.dim
        2
    """
    spec = cast(TeacherSpec, _spec("teacher", kind, fields))
    with exit_refused(f"the teacher {kind!r}"):
        return spec.build()


def student(kind: str, field: FieldInfo, /, *, seed: int = 0, **fields: object) -> Student:
    """Build a student of a registered kind.

    Args:
        kind: for example ``"cnn"``; ``sizetransfer list students`` shows them.
        field: what it must know of the teacher's fields: ``teacher.field``.
        seed: names the random stream of its initial weights, the one that a trial with this seed uses.
        fields: fields of its specification, and ``preset``.

    Raises:
        SpecError: an unknown kind, preset or field, or a value that the field does not take; or no ``FieldInfo``.
    """
    from sizetransfer.contracts.randomness import seeded_initialisation

    if not isinstance(field, FieldInfo):
        raise SpecError(
            "A student is built for fields.",
            where="student(kind, field)",
            expected="a FieldInfo",
            got=type(field).__name__,
            fix="pass teacher.field",
        )
    spec = cast(StudentSpec, _spec("student", kind, fields))
    with exit_refused(f"the student {kind!r}"), seeded_initialisation(seed, "student"):
        return spec.build(field)


def chosen(family: Family, choice: Mapping[str, object] | str) -> KindSpec:
    """Return the specification that ``kind``, ``kind:preset`` or a mapping (or one written as YAML) names.

    Raises:
        SpecError: malformed YAML, an unknown kind, preset or field.
    """
    data = _mapping_of(family, choice) if isinstance(choice, str) else choice
    kind = data.get("kind")
    if not isinstance(kind, str):
        raise SpecError(
            f"A {family} needs a kind.",
            where=family,
            expected="kind, kind:preset, or a mapping such as {kind: gaussian, mass: 0.3}",
            got=repr(choice),
            fix=f"`sizetransfer list {family}s` shows the kinds",
        )
    return _spec(family, kind, {name: value for name, value in data.items() if name != "kind"})


def called(spec: KindSpec, choice: Mapping[str, object] | str) -> str:
    """What a specification is called: its kind, with the preset where it was chosen by one."""
    preset = (_mapping_of("teacher", choice) if isinstance(choice, str) else choice).get("preset")
    return f"{spec.kind_name()}:{preset}" if isinstance(preset, str) else spec.kind_name()


def _mapping_of(family: Family, text: str) -> Mapping[str, object]:
    import yaml

    if not any(mark in text for mark in "{}[]\n") and ": " not in text:
        kind, separator, preset = text.partition(":")
        return {"kind": kind.strip(), **({"preset": preset.strip()} if separator else {})}
    try:
        data = yaml.safe_load(text)
        problem = "" if isinstance(data, Mapping) else f"a {type(data).__name__}"
    except yaml.YAMLError as error:
        data, problem = None, " ".join(str(error).split())
    if problem:
        raise SpecError(
            f"The {family} is neither a kind nor a mapping.",
            where=f"{family} {text!r}",
            expected="kind, kind:preset, or a mapping such as {kind: gaussian, mass: 0.3}",
            got=problem,
            fix="check the brackets, and quote the mapping for the shell",
        )
    return cast("Mapping[str, object]", data)


def measure(kind: str, /, **fields: object) -> MeasureSpec:
    """Return a measure of a registered kind; its method ``measure`` measures.

    Raises:
        SpecError: an unknown kind, preset or field, or a value that the field does not take.
    """
    return cast(MeasureSpec, _spec("measure", kind, fields))


def _spec(family: Family, kind: str, fields: Mapping[str, object]) -> KindSpec:
    lookup = default_registry().lookup
    return lookup(family, kind).parse({"kind": kind, **fields}, where=kind, lookup=lookup)


def experiment(data: Mapping[str, object]) -> Experiment:
    """Return an experiment written as a mapping, with the fields of an experiment file.

    Raises:
        SpecError: with the path of every wrong field.
    """
    return Experiment.parse(data, lookup=default_registry().lookup)
