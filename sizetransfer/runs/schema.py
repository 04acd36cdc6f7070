"""What specifications take, described for people and for editors.

:func:`describe_fields` lists the fields of a specification class, :func:`describe_parts` the numbers that a measure
gives; :func:`experiment_file_schema` is the JSON schema
of experiment files with every registered kind, for completion and checking in an editor.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.specs import Family, KindSpec, MeasureSpec
from sizetransfer.runs.trials import Experiment

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo as PydanticField

_PLURAL: Mapping[Family, str] = {"teacher": "teachers", "student": "students", "measure": "measures"}
_BOUNDS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"), ("multiple_of", "a multiple of"))
_SECTION = re.compile(r"^(?:Attributes|Args):\n((?:[ ]+.*\n?|\n)*)", re.MULTILINE)
_DESCRIPTION = re.compile(r"^ {4}(\w[\w, ]*): (.*(?:\n {5,}.*)*)", re.MULTILINE)


def describe_fields(cls: type[BaseModel], prefix: str = "") -> Iterator[dict[str, Any]]:
    """Yield name, type, default and description of every field; fields of nested specifications by dotted name."""
    written = attribute_descriptions(cls)
    for name, field in cls.model_fields.items():
        nested = _nested(field.annotation)
        yield {
            "name": prefix + name,
            "type": describe_type(field),
            "required": field.is_required(),
            "default": None if field.is_required() else plain(field.get_default(call_default_factory=True)),
            "description": field.description or written.get(name, ""),
        }
        if nested is not None:
            yield from describe_fields(nested, f"{prefix}{name}.")


def describe_parts(spec_class: type[MeasureSpec], preset: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield what a measure declares of each part, in words (:class:`sizetransfer.contracts.parts.Part`).

    Args:
        spec_class: of the measure; where its parts depend on its fields, they are those of the preset or the defaults.
        preset: of the measure.
    """
    try:
        chosen = {} if preset is None else {"preset": preset}
        parts = spec_class.parse({"kind": spec_class.kind_name(), **chosen}).declarations()
    except SpecError:  # a field without a default
        parts = spec_class.parts
    better = {True: "lower", False: "higher", None: ""}
    for name, part in parts.items():
        yield {"name": name, **dataclasses.asdict(part), "better": better[part.lower_is_better]}


def plain(value: object) -> Any:
    """The value as JSON-compatible data."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def describe_type(field: PydanticField) -> str:
    """The type of a field with its bounds, for example ``int, at least 0``."""
    limits = [
        f"{words} {getattr(item, key)}" for item in field.metadata for key, words in _BOUNDS if hasattr(item, key)
    ]
    return ", ".join([_type_text(field.annotation), *limits])


def _type_text(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin is typing.Annotated:
        return _type_text(arguments[0])
    if origin is typing.Union or type(annotation).__name__ == "UnionType":
        return " | ".join(map(_type_text, arguments))
    if origin is not None:
        inner = ", ".join("..." if argument is ... else _type_text(argument) for argument in arguments)
        return f"{getattr(origin, '__name__', origin).lower()}[{inner}]"
    return "none" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _nested(annotation: Any) -> type[BaseModel] | None:
    choices = [annotation, *typing.get_args(annotation)]
    models = [choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)]
    return models[0] if len(models) == 1 and typing.get_origin(annotation) not in (list, tuple, dict) else None


def attribute_descriptions(cls: type) -> dict[str, str]:
    """Descriptions in the ``Attributes:`` (or ``Args:``) sections of the docstrings of a class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = _SECTION.search(inspect.cleandoc(base.__doc__ or ""))
        for match in _DESCRIPTION.finditer(section[1] if section else ""):
            found.update(dict.fromkeys(re.split(r",\s*", match[1]), " ".join(match[2].split())))
    return found


def first_line(documented: object) -> str:
    """The first line of a docstring of its own, or nothing."""
    return inspect.cleandoc(getattr(documented, "__doc__", None) or "").partition("\n")[0]


def experiment_file_schema(kinds: Mapping[Family, Iterable[type[KindSpec]]]) -> dict[str, Any]:
    """Return the JSON schema of an experiment file.

    Args:
        kinds: the registered specification classes of each family.

    A file may leave to its presets what an experiment requires, so nothing but kinds is required here.
    """
    classes: list[type[BaseModel]] = [Experiment, *(cls for family in kinds.values() for cls in family)]
    names, schema = models_json_schema([(cls, "validation") for cls in classes])
    definitions = schema["$defs"]
    for definition in definitions.values():
        definition.pop("required", None)
    for family, members in kinds.items():
        references: list[dict[str, Any]] = []
        for cls in members:
            reference = names[cls, "validation"]["$ref"]
            _allow_presets(cls, definitions[reference.rpartition("/")[2]])
            references.append({"$ref": reference})
        owner = definitions["EvaluationSpec" if family == "measure" else "Experiment"]
        owner["properties"][_PLURAL[family]]["additionalProperties"] = {"anyOf": references} if references else {}
    experiment = definitions.pop("Experiment")
    presets = {
        "description": "named changes to the fields above, chosen by --preset",
        "type": "object",
        "additionalProperties": {"type": "object"},
    }
    properties = {**experiment["properties"], "presets": presets}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **experiment,
        "title": "A sizetransfer experiment file",
        "properties": properties,
        "$defs": definitions,
    }


def _allow_presets(cls: type[KindSpec], definition: dict[str, Any]) -> None:
    definition["required"] = ["kind"]
    if cls.presets:
        definition["properties"]["preset"] = {
            "description": "a named setting; other fields override its fields",
            "enum": [*cls.presets, *cls.aliases],
        }
