"""What a measure says of its numbers: axis, unit, role, direction, and what a verdict needs them for.

A measure gives numbers under names, its parts. :class:`Part` describes one of them, and ``MeasureSpec.parts`` maps
names, or patterns of names such as ``range_*``, to descriptions. Tables, default figures and verdicts are made from
these descriptions alone, so that the measure of a third party is seen and judged as a built-in one is.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from sizetransfer.contracts.errors import SpecError

Axis = Literal["none", "size", "noise", "radius", "distance", "coupling", "class", "threshold"]
"""What the coordinate of a number is. ``none`` and ``size`` have no coordinate: the size is that of the record."""

Role = Literal[
    "error of the score",
    "error of the denoiser",
    "response",
    "generated observable",
    "evidence",
    "control",
    "cost",
]
"""What a number is for."""

Region = Literal["whole", "bulk", "boundary", "site"]
"""Where the number is taken: on all live sites, away from the walls of an open box, near them, at one site."""

STATISTICS = ("site variance", "nearest covariance", "zero mode", "smallest wave")
"""Second moments of generated over exact fields that a verdict weighs."""

SOURCES = ("rollout", "forecast", "linear forecast", "best of radius")
"""Where they come from: generated fields; a forecast from the student's answers; from the best linear filter of the
training size; and what the best filter of the radius gives at the size itself."""

SERVICES: Mapping[str, tuple[str, ...]] = {
    "reference": ("null", "linear", "best", "irreducible"),
    "loss": ("student", "null", "linear", "best"),
    "field": ("deviation", "score"),
    "law": ("site variance", "nearest covariance", "zero mode", "squared correlation length", "noise needed"),
    "rollout": (*STATISTICS, "noise at the start", "noise needed"),
    **dict.fromkeys(SOURCES[1:], STATISTICS),
    "response": ("near", "far"),
}
"""What verdicts and the figures of every experiment take numbers for besides errors of the score, by group; written
``group: name``, as in ``reference: null``.

- ``reference``, by noise level (zero: the clean score): relative errors of the best filter of radius 0, of the
  student's radius, of any, and the least error of the radius.
- ``loss``, by noise level: held-out denoising losses, in units of the noise's variance, of the student, of the best
  linear filter of radius 0, of that of the student's radius and of the best of any, all on the same fields and the same
  noise. They stand in for errors of the score where none are measured, to second order.
- ``field``: root mean squares of a component of the field and of its exact score, for the null error by Stein's
  identity.
- ``law``: of the exact fields of a size; ``noise needed`` is the noise from which white noise is as good as them.
- ``rollout``, ``forecast``, ``linear forecast``, ``best of radius``: ratios of second moments of generated to exact
  fields; 1 is right.
- ``response``, for figures alone: relative errors of the student's response to what is near and what is far.
"""


@dataclass(frozen=True)
class Part:
    """One number of a measure, described.

    Attributes:
        role: what it is for. A relative error of the score, by noise level or of the clean score, leads to a verdict.
        label: what it is, for people: ``relative RMSE of the clean score``.
        axis: what its coordinate is; a part that has one gets a table and a figure.
        unit: of its values: ``relative``, ``share``, ``ratio``, ``field``, ``1/field``, ``lattice steps``, ...
        known: ``exact``: no draw goes into it, its standard error is zero or there is none; else ``estimated``.
        lower_is_better: direction; ``None`` where neither is better.
        region: where it is taken.
        serves: what verdicts and figures take it for, one of :data:`SERVICES` as ``group: name``; nothing for most.
        logarithmic: whether its values span decades, so that figures show their logarithm.
        classes: names of the classes that a coordinate along ``class`` counts from zero, where they are known before
            anything is measured. Otherwise the name of a part may hold that of its class, see :data:`CLASS`.

    Raises:
        SpecError: a word that none of these takes.
    """

    role: Role
    label: str
    axis: Axis = "none"
    unit: str = ""
    known: Literal["exact", "estimated"] = "estimated"
    lower_is_better: bool | None = None
    region: Region = "whole"
    serves: str = ""
    logarithmic: bool = False
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            _require_one_of(f"Part.{field.name}", getattr(self, field.name), get_args(hints[field.name]))
        known = [f"{group}: {name}" for group, names in SERVICES.items() for name in names]
        _require_one_of("Part.serves", self.serves, ("", *known))
        if self.classes:
            _require_one_of("Part.axis", self.axis, ("class",))

    @property
    def has_coordinate(self) -> bool:
        """Whether its numbers come with a coordinate."""
        return self.axis not in ("none", "size")

    def coordinate_text(self, value: float) -> str:
        """A coordinate for people: the name of a class, ``clean`` for no noise, else the number.

        Example:
            >>> Part("evidence", "mean", "class", classes=("corner", "edge")).coordinate_text(1.0)
            'edge'
        """
        if self.axis == "class" and value in range(len(self.classes)):
            return self.classes[int(value)]
        return "clean" if self.axis == "noise" and value == 0 else f"{value:g}"

    @property
    def judged(self) -> bool:
        """Whether verdicts rest on it: a relative error of the score, by noise level or of the clean score."""
        error = self.role == "error of the score" and self.unit == "relative"
        return error and self.axis in ("none", "noise") and self.region in ("whole", "bulk")


def _require_one_of(where: str, value: Any, choices: tuple[Any, ...]) -> None:
    words = [choice for choice in choices if isinstance(choice, str)]
    if words and value not in words:
        raise SpecError(
            f"{value!r} is not a word that describes a part.",
            where=where,
            expected=f"one of {', '.join(map(repr, words))}",
            got=repr(value),
            fix="choose one of these words; sizetransfer.contracts.parts says what they mean",
        )


def relative_error(label: str, axis: Axis = "none", *, region: Region = "whole") -> Part:
    """A relative error of the student's score."""
    return Part("error of the score", label, axis, unit="relative", lower_is_better=True, region=region)


def generated(source: str, title: str, role: Role = "generated observable") -> dict[str, Part]:
    """The ratios of second moments of one source, by the statistic.

    Args:
        source: one of :data:`SOURCES`.
        title: who generates, for the labels.
        role: of the parts.
    """
    return {
        name: Part(role, f"{name} of {title} over exact fields", unit="ratio", serves=f"{source}: {name}")
        for name in STATISTICS
    }


CLASS = "{class}"
"""In a pattern of names, stands for the name of a class: with ``*/{class}/mean`` the parts ``sites/corner/mean`` and
``sites/edge/mean`` are one profile over the classes ``corner`` and ``edge``, each at its own coordinate."""


def matches(pattern: str, name: str) -> bool:
    """Whether a part has a name that is declared as such."""
    return fnmatch.fnmatchcase(name, pattern.replace(CLASS, "*"))


def split_class(parts: Mapping[str, Part], name: str) -> tuple[str, str]:
    """The name of a part with that of its class left open, and the class; the name and nothing where it holds none.

    Example:
        >>> split_class({"*/{class}/mean": Part("evidence", "mean", "class")}, "sites/corner/mean")
        ('sites/{class}/mean', 'corner')
    """
    pattern = "" if name in parts else next((one for one in parts if matches(one, name)), "")
    if CLASS not in pattern:
        return name, ""
    pieces = re.split(r"(\*|\{class\})", pattern)
    wild = {"*": ".*?", CLASS: "(?P<one>.+?)"}
    found = re.fullmatch("".join(wild.get(piece, re.escape(piece)) for piece in pieces), name)
    if found is None:
        return name, ""
    return f"{name[: found.start('one')]}{CLASS}{name[found.end('one') :]}", found["one"]


def declared(parts: Mapping[str, Part], name: str) -> Part | None:
    """The description of a part: under its own name, else under the first pattern that it matches.

    Example:
        >>> table = {"range_*": Part("response", "effective range", "noise"), "range_0.05": Part("response", "range")}
        >>> declared(table, "range_0.01").axis, declared(table, "range_0.05").axis, declared(table, "total")
        ('noise', 'none', None)
    """
    if name in parts:
        return parts[name]
    return next((part for pattern, part in parts.items() if matches(pattern, name)), None)


def check_parts(parts: object, where: str) -> None:
    """Refuse what is no declaration of parts.

    Raises:
        SpecError: no mapping of names to parts, or a pattern of names that serves a verdict.
    """
    well = isinstance(parts, Mapping) and all(
        isinstance(name, str) and isinstance(part, Part) for name, part in parts.items()
    )
    if not well:
        raise SpecError(
            "The parts of a measure are no declaration.",
            where=where,
            expected="a mapping of names, or patterns of names, to sizetransfer.contracts.parts.Part",
            got=repr(parts)[:200],
            fix="write parts = {'my_error': Part(...)}",
        )
    patterns = [name for name, part in dict(parts).items() if part.serves and ("*" in name or CLASS in name)]  # type: ignore[call-overload]
    if patterns:
        raise SpecError(
            "A pattern of names cannot serve verdicts and figures, which take one number.",
            where=f"{where}.{patterns[0]}",
            expected="a whole name",
            got=repr(patterns[0]),
            fix="declare the part that serves under its own name",
        )
