"""What a name stands for: everything of that kind, and everything that a distribution of that name registers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from sizetransfer.contracts.errors import PluginError, SizetransferError, SpecError
from sizetransfer.contracts.specs import did_you_mean
from sizetransfer.registry import Entry, Registry, Sort, default_registry
from sizetransfer.registry.plugins import Plugin
from sizetransfer_verification.conformance.executors.subject import ExecutorSubject
from sizetransfer_verification.conformance.listeners.subject import ListenerSubject
from sizetransfer_verification.conformance.measures.bench import Candidate
from sizetransfer_verification.conformance.measures.subject import MeasureSubject
from sizetransfer_verification.conformance.subject import Subject
from sizetransfer_verification.conformance.subjects import StudentSubject, TeacherSubject

Named = str | Mapping[str, object]
SPECIFIED: tuple[Sort, ...] = ("teacher", "student", "measure")
CHECKED: tuple[Sort, ...] = (*SPECIFIED, "executor")
"""Sorts of names that have a contract; listeners have one too, and no names."""


@dataclass(frozen=True)
class Inventory:
    """What a name stands for.

    Attributes:
        name: as it was given.
        subjects: what there is a contract for.
        unchecked: everything else that the distribution registers, with the reason why it is not checked.
        broken: what should be checked and cannot be, with the error: it fails.
    """

    name: str
    subjects: tuple[Subject, ...]
    unchecked: tuple[tuple[str, str], ...] = ()
    broken: tuple[tuple[str, str], ...] = ()

    @property
    def listing(self) -> str:
        """One line: what is checked."""
        names = [f"{subject.family} {subject.name}" for subject in self.subjects]
        return f"{self.name}: {len(names)} to check: {', '.join(names) or 'nothing'}"

    def to_json(self) -> dict[str, Any]:
        """What is not checked, as JSON-compatible data."""
        return {"name": self.name, "unchecked": dict(self.unchecked), "broken": dict(self.broken)}


@dataclass(frozen=True)
class _Item:
    """Something to check, not built yet."""

    what: str
    build: Callable[[], Subject]


def inventory(given: Named, registry: Registry | None = None) -> Inventory:
    """Everything that a name stands for.

    A name is a kind (``kind:preset`` likewise, and a mapping as text), of a teacher, a student, a measure or all three;
    the name of an executor; or a distribution, which stands for all that it registers. Where it is several of these, it
    stands for all of them.

    Raises:
        SpecError: nothing has that name, or the text is no mapping.
    """
    registry = registry or default_registry()
    if isinstance(given, str) and "{" in given:
        given = _mapping(given)
    kind = given.split(":")[0].strip() if isinstance(given, str) else str(given.get("kind"))
    named = [sort for sort in CHECKED if kind in registry.entries(sort)]
    items = {f"{sort} {kind}": _Item(f"{sort} {kind}", _builder(sort, given, ())) for sort in named}
    entries, plugins = _of_distribution(kind, registry) if isinstance(given, str) else ([], [])
    if not named and not entries and not plugins:
        raise _unknown(kind, given, registry)
    unchecked: dict[str, str] = {}
    own = _own_teachers(entries)
    for sort, entry in entries:
        what, reason = f"{sort} {entry.name}", _not_checked(sort, entry)
        if reason and what not in items:
            unchecked[what] = reason
        elif not reason:
            items.setdefault(what, _Item(what, _builder(sort, entry.name, own)))
    for plugin in plugins:
        if plugin.has("on_event"):
            name = f"{plugin.record.distribution}:{plugin.record.entry_point}"
            items[f"listener {name}"] = _Item(f"listener {name}", partial(ListenerSubject, plugin.record, name=name))
    subjects, broken = _built(items.values())
    broken += [(f"plugin {p.record.owner}", str(p.record.error)) for p in plugins if p.record.status == "broken"]
    label = given if isinstance(given, str) else str(dict(given))
    return Inventory(label, tuple(subjects), tuple(unchecked.items()), tuple(broken))


def _built(items: Iterable[_Item]) -> tuple[list[Subject], list[tuple[str, str]]]:
    """What can be built; of what cannot, the error. Where there is nothing else, the error is raised."""
    wanted = list(items)
    subjects: list[Subject] = []
    broken: list[tuple[str, str]] = []
    for item in wanted:
        try:
            subjects.append(item.build())
        except SizetransferError as error:
            if len(wanted) == 1:
                raise
            broken.append((item.what, str(error)))
    return subjects, broken


def _builder(sort: Sort, given: Named, teachers: tuple[Candidate, ...]) -> Callable[[], Subject]:
    if sort == "measure":
        return partial(MeasureSubject, given, teachers=teachers)
    if sort == "executor":
        return lambda: ExecutorSubject(str(given))
    return partial(TeacherSubject if sort == "teacher" else StudentSubject, given)


def _of_distribution(name: str, registry: Registry) -> tuple[list[tuple[Sort, Entry]], list[Plugin]]:
    """What the distribution of that name registers, of every sort that there is, and its plugins."""
    registry.plugins()  # imports all of them and asks for their names
    tables: dict[Sort, dict[str, Entry]] = {sort: _table(sort, registry) for sort in get_args(Sort)}
    entries = [(sort, entry) for sort, table in tables.items() for entry in table.values()]
    own = [(sort, entry) for sort, entry in entries if _same(entry.distribution, name)]
    return own, [plugin for plugin in registry.installed() if _same(plugin.record.distribution, name)]


def _table(sort: Sort, registry: Registry) -> dict[str, Entry]:
    return registry.commands() if sort == "command" else registry.entries(sort)


def _same(one: str, other: str) -> bool:
    """Names of distributions compare without case and with all separators alike."""
    return re.sub(r"[-_.]+", "-", one).lower() == re.sub(r"[-_.]+", "-", other).lower()


def _not_checked(sort: Sort, entry: Entry) -> str:
    """Why an entry of a distribution is not checked; empty where it is."""
    if sort not in CHECKED:
        return f"there is no contract for {sort}s"
    if sort not in SPECIFIED:
        return ""
    required = [name for name, field in entry.value.model_fields.items() if field.is_required()]
    example = "{kind: " + ", ".join([entry.name, *(f"{name}: ..." for name in required)]) + "}"
    return f"it needs {', '.join(required)}: sizetransfer verify plugin '{example}'" if required else ""


def _own_teachers(entries: Iterable[tuple[Sort, Entry]]) -> tuple[Candidate, ...]:
    """The distribution's own teachers, on which its measures are tried before others."""
    own = [entry for sort, entry in entries if sort == "teacher" and not _not_checked(sort, entry)]
    return tuple(Candidate(entry.name, f"own {entry.name}", partial(_teacher, entry)) for entry in own)


def _teacher(entry: Entry) -> Any:
    return entry.value().build()


def _mapping(text: str) -> dict[str, object]:
    import yaml

    try:
        data = yaml.safe_load(text)
        found = "" if isinstance(data, dict) else f"a {type(data).__name__}"
    except yaml.YAMLError as error:
        found = str(error)
    if found:
        raise SpecError(
            "The mapping cannot be read.", where=text, expected="YAML", got=found, fix="quote it for the shell"
        )
    return dict(data)


def _unknown(kind: str, given: Named, registry: Registry) -> SpecError:
    known = list(dict.fromkeys(name for sort in CHECKED for name in registry.entries(sort)))
    installed = [plugin.record.distribution for plugin in registry.installed()]
    trouble = "; ".join(map(str, registry.trouble()))
    return SpecError(
        f"There is no teacher, student, measure, executor or plugin {kind!r}.",
        where="verify plugin",
        expected=f"a kind ({', '.join(known)}) or a distribution ({', '.join(dict.fromkeys(installed))})",
        got=repr(given) + (f"; broken plugins: {trouble}" if trouble else ""),
        fix=did_you_mean(kind, [*known, *installed])
        or "`sizetransfer list` and `sizetransfer plugins` show what there is",
    )


def require_whole(found: Inventory) -> Iterator[Subject]:
    """The subjects of an inventory of which nothing is broken.

    Raises:
        PluginError: something cannot be checked.
    """
    if found.broken:
        raise PluginError(
            f"Not all of {found.name!r} can be checked.",
            where=", ".join(what for what, _ in found.broken),
            expected="everything that it registers to be built",
            got="; ".join(error for _, error in found.broken),
            fix="mend it; `sizetransfer plugins` shows what is wrong with plugins",
        )
    yield from found.subjects
