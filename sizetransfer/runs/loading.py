"""Experiments from YAML files: presets, overrides, and errors that say where.

A file holds the fields of :class:`~sizetransfer.runs.trials.Experiment` and, if it likes, ``presets``::

    name: figure2
    training: {size: 32, steps: 1500}
    presets:
      quick: {training: {steps: 300}}

A preset, and then the overrides, are laid over the file: mappings are merged, lists and scalars replaced. Null
removes what is below it, so that a default applies or an entry of the grid goes; a mapping with another ``kind``
replaces the one below.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sizetransfer.contracts.errors import SizetransferError, SpecError
from sizetransfer.contracts.specs import Family, did_you_mean
from sizetransfer.registry import Registry, default_registry
from sizetransfer.runs.directory import EXPERIMENT, RunDirectory
from sizetransfer.runs.trials import Experiment
from sizetransfer.runs.yaml_text import parse_json, parse_yaml

DEFAULT_PRESET = "quick"
_NAMED = (("teachers",), ("students",), ("evaluation", "measures"))
_OPTIONAL: Mapping[str, Family] = {"teachers": "teacher", "students": "student"}
_NOTHING: Mapping[str, object] = {}


def load(
    name_or_path: str | Path,
    *,
    preset: str | None = None,
    overrides: Mapping[str, object] = _NOTHING,
    registry: Registry | None = None,
) -> Experiment:
    """Read an experiment and resolve it to the last field.

    Args:
        name_or_path: the name of a registered experiment, a YAML file, an ``experiment.json`` that a run has
            saved, or the directory of that run.
        preset: one of the file's presets; without it ``quick`` is taken if the file has it.
        overrides: values by dotted path, for example ``{"training.steps": 300}``; they are applied last.
        registry: finds kinds and experiments; by default that of this process.

    Returns:
        The experiment; teachers and students that it calls optional and whose kind is not installed stand in
        ``left_out``.

    Raises:
        SpecError: no such experiment, preset or field; a wrong value; malformed YAML, with line and column.
        RunError: the run directory's file is damaged.
    """
    registry = registry or default_registry()
    path = _find(name_or_path, registry)
    if Path(name_or_path).is_dir():  # a run's own file, which holds its digest; a copy of it may be edited
        RunDirectory(Path(name_or_path)).read(EXPERIMENT)
    data = _read(path)
    named = {name for group in (*_OPTIONAL, "left_out") for name in _mapping(data.get(group))}
    presets = data.pop("presets", None) or {}
    chosen = _choose(preset, data.get("preset"), presets, path)
    if chosen is not None and chosen in presets:
        data = merged(data, presets[chosen])
    for dotted, value in overrides.items():
        data = _overridden(data, dotted, value)
    data = _without_missing({"name": path.stem, **data, "preset": chosen}, named, registry)
    try:
        experiment = Experiment.parse(data, lookup=registry.lookup)
        if not Path(name_or_path).is_dir():
            for spec in (*experiment.teachers.values(), *experiment.students.values()):
                spec.look_beside(path.parent)
        registry.require("figure", experiment.report.figures, where="report.figures")
        return experiment
    except SizetransferError as error:
        error.where = f"{path}: {error.where}" if error.where else str(path)
        raise


def _without_missing(data: dict[str, Any], named: set[str], registry: Registry) -> dict[str, Any]:
    """Leave out the optional teachers and students whose kind is not registered, and say why.

    Args:
        data: the experiment with preset and overrides.
        named: those of the file itself, of which preset or overrides may have removed some.
        registry: knows the kinds.

    Raises:
        SpecError: one that was never there is called optional.
    """
    groups = {group: dict(_mapping(data[group])) for group in _OPTIONAL if group in data}
    left_out, optional = dict(_mapping(data.get("left_out"))), data.get("optional") or ()
    for name in optional if isinstance(optional, list | tuple) else ():
        _check_optional(name, named, [one for entries in groups.values() for one in entries])
        for group, entries in groups.items():
            reason = _why_missing(_OPTIONAL[group], entries.get(name), registry)
            if reason is not None:
                del entries[name]
                left_out[name] = reason
    return {**data, **groups, "left_out": left_out} if left_out else data


def _check_optional(name: object, named: set[str], there: Sequence[str]) -> None:
    """Refuse a name that nothing has.

    Raises:
        SpecError: neither a teacher nor a student is called so.
    """
    if name not in named and name not in there:
        raise SpecError(
            "There is no such teacher or student to be optional.",
            where="optional",
            expected=f"names of teachers and students: {', '.join(map(str, there))}",
            got=repr(name),
            fix=did_you_mean(str(name), map(str, there)) or "take the name out",
        )


def _why_missing(family: Family, entry: object, registry: Registry) -> str | None:
    """Why the kind of an entry is not there; none where it is, or where there is no entry."""
    kind = _mapping(entry).get("kind")
    if isinstance(kind, str):
        try:
            registry.lookup(family, kind)
        except SpecError as error:
            return " ".join(filter(None, [error.what, error.fix]))
    return None


def _mapping(value: object) -> Mapping[str, Any]:
    """The value itself, or nothing if it is no mapping: validation reports that."""
    return value if isinstance(value, Mapping) else {}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, by the rules of the module's docstring."""
    result = dict(below)
    for name, value in above.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            base = result.get(name)
            mergeable = isinstance(base, Mapping) and value.get("kind", base.get("kind")) == base.get("kind")
            result[name] = merged(base if mergeable and isinstance(base, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def _find(name_or_path: str | Path, registry: Registry) -> Path:
    path = Path(name_or_path)
    if path.is_dir() and (path / "experiment.json").is_file():
        return path / "experiment.json"
    written_as_path = isinstance(name_or_path, Path) or len(path.parts) > 1 or path.suffix in {".yaml", ".yml", ".json"}
    if not written_as_path:
        return registry.experiment(str(name_or_path))
    if not path.is_file():
        raise SpecError(
            "There is no such experiment file.",
            where=str(path),
            expected="a YAML file, an experiment.json, a run directory, or the name of an experiment: "
            + ", ".join(sorted(registry.experiments())),
            got="a directory without experiment.json" if path.is_dir() else "nothing",
            fix=did_you_mean(path.stem, registry.experiments()) or "correct the path",
        )
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            "The experiment file cannot be read.", where=str(path), expected="text in UTF-8", got=str(error)
        ) from error
    data = parse_json(text, path) if path.suffix == ".json" else parse_yaml(text, path)
    if path.name == "experiment.json" and isinstance(data, dict):
        data.pop("digest", None)  # of the file as a run wrote it; a copy may be edited
    if not isinstance(data, Mapping):
        raise SpecError(
            "An experiment must be a mapping of fields.",
            where=str(path),
            expected="fields such as name, teachers, students, training, evaluation",
            got="an empty file" if data is None else type(data).__name__,
            fix="`sizetransfer show quickstart` prints one that works",
        )
    return dict(data)


def _choose(asked: str | None, own: object, presets: object, path: Path) -> str | None:
    """The preset to take: the one asked for, or the file's own, or the default."""
    if not isinstance(presets, Mapping) or not all(isinstance(fields, Mapping) for fields in presets.values()):
        raise SpecError(
            "Presets must be mappings of fields.",
            where=f"{path}: presets",
            expected="for example presets: {quick: {training: {steps: 300}}}",
            got=repr(presets)[:80],
            fix="give every preset the fields that it changes",
        )
    preset = own if asked is None else asked
    if preset is None:
        return DEFAULT_PRESET if DEFAULT_PRESET in presets else None
    # A resolved experiment has no presets left, and still says which one it came from.
    resolved = not presets and preset == own
    if not isinstance(preset, str) or (preset not in presets and not resolved):
        raise SpecError(
            f"Unknown preset {preset!r}.",
            where=str(path),
            expected=f"one of {', '.join(map(str, presets))}" if presets else "no preset: the experiment has none",
            got=repr(preset),
            fix=did_you_mean(str(preset), map(str, presets))
            or ("choose one of the presets above" if presets else "leave it out, or name the experiment, not the file"),
        )
    return preset


def _overridden(data: dict[str, Any], dotted: str, value: object) -> dict[str, Any]:
    """Lay one override over the data."""
    path = _split(data, dotted)
    if path[0] in {"preset", "presets"}:
        raise SpecError(
            "A preset is not a field.",
            where=dotted,
            fix="choose one with --preset, or preset=... in Python",
        )
    _check_path(data, path, value)
    nested: object = value
    for name in reversed(path):
        nested = {name: nested}
    return merged(data, nested if isinstance(nested, dict) else {})


def _split(data: Mapping[str, Any], dotted: str) -> tuple[str, ...]:
    """Split a dotted path; names that hold dots themselves are recognised where they exist."""
    steps, path = dotted.split("."), []
    here: object = data
    while steps:
        count = 1
        if isinstance(here, Mapping):
            fitting = [n for n in range(len(steps), 0, -1) if ".".join(steps[:n]) in here]
            count = fitting[0] if fitting else 1
        name = ".".join(steps[:count])
        path.append(name)
        here = here.get(name) if isinstance(here, Mapping) else None
        del steps[:count]
    return tuple(path)


def _check_path(data: Mapping[str, Any], path: tuple[str, ...], value: object) -> None:
    """Refuse what validation could only report in a roundabout way: unknown entries, and fields of what has none."""
    here: object = data
    for depth, name in enumerate(path):
        where = ".".join(path[: depth + 1])
        if not isinstance(here, Mapping):
            raise SpecError(
                f"{'.'.join(path[:depth])} has no fields.",
                where=where,
                expected=f"a value for {'.'.join(path[:depth])}",
                got=f"a field {name!r} of {json.dumps(here, default=str)}",
                fix="lists and scalars are replaced as a whole",
            )
        if path[:depth] in _NAMED and name not in here and not (depth == len(path) - 1 and isinstance(value, Mapping)):
            raise SpecError(
                f"Unknown entry {name!r}.",
                where=where,
                expected=f"one of {', '.join(map(str, here))}",
                got=repr(name),
                fix=did_you_mean(name, map(str, here)) or "give a whole specification to add an entry",
            )
        if name not in here:
            return
        here = here[name]
