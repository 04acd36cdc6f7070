"""Which teachers, students, measures, figures, experiments, executors and commands there are, and whose they are.

Built-ins and plugins come in through the same hooks (:mod:`sizetransfer.registry.hooks`). A name is looked for among
the built-ins first; only when it is not there are the plugins imported. So a command that needs built-ins alone neither
waits for plugins nor suffers from broken ones.
"""

from __future__ import annotations

import functools
import inspect
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from sizetransfer.contracts.errors import SpecError
from sizetransfer.registry.hooks import ExecutorFactory, FigureFunction
from sizetransfer.registry.plugins import (
    CORE,
    RESTRICTION,
    Plugin,
    PluginRecord,
    built_in_plugin,
    core_version,
    discover,
    names_to_choose,
)

if TYPE_CHECKING:
    from sizetransfer.contracts.events import Event
    from sizetransfer.contracts.specs import Family, KindSpec

Sort = Literal["teacher", "student", "measure", "figure", "experiment", "executor", "command"]

SYSTEMS = (
    "flow",
    "gaussian",
    "hard_valid",
    "ising",
    "phi4",
    "dataset",
)
"""Folders of ``sizetransfer.systems``. Nothing else outside them knows of any: without a folder and its line here,
everything goes on without that system."""

BUILT_IN_MODULES = tuple(
    f"{CORE}.{name}"
    for name in (
        *("students", "report", "measures", "runs"),
        *(f"systems.{system}.plugin" for system in SYSTEMS),
        "teachers",  # last: the first kind of a family is the example that messages give
    )
)
"""The list of built-in plugins."""

ELSEWHERE: Mapping[tuple[Sort, str], str] = {
    ("student", "message-passing"): "sizetransfer-graph",
    ("student", "equivariant"): "sizetransfer-graph",
    ("command", "verify"): "sizetransfer-verification",
}
"""Names of this project that distributions of their own hold, so that an error can say what to install."""

FAMILIES: tuple[Family, ...] = ("teacher", "student", "measure")
SORTS: tuple[Sort, ...] = (*FAMILIES, "figure", "experiment", "executor")


@dataclass(frozen=True)
class Entry:
    """A registered name: its value and the plugin that registered it."""

    name: str
    value: Any
    plugin: Plugin

    @property
    def distribution(self) -> str:
        """The distribution that it belongs to."""
        return self.plugin.record.distribution

    @property
    def version(self) -> str:
        """The version of that distribution."""
        return self.plugin.record.version


@dataclass(frozen=True)
class KindEntry:
    """A registered kind, its specification class and the distribution that it belongs to."""

    kind: str
    spec_class: type[KindSpec]
    distribution: str
    version: str


class Registry:
    """Names of everything that is registered.

    Args:
        built_in: modules that are registered first.
        find_plugins: finds the installed plugins; it is called once, when plugins are needed.
    """

    def __init__(
        self,
        *,
        built_in: Sequence[str] = BUILT_IN_MODULES,
        find_plugins: Callable[[], list[Plugin]] = discover,
    ) -> None:
        self._built_in = [built_in_plugin(module) for module in built_in]
        self._find_plugins = find_plugins
        self._plugins: list[Plugin] | None = None
        self._tables: dict[str, dict[str, Entry]] = {sort: {} for sort in get_args(Sort)}
        self._listeners: tuple[Plugin, ...] = ()
        self._muted: set[Plugin] = set()
        self._lock = threading.RLock()

    def lookup(self, family: Family, kind: str) -> type[KindSpec]:
        """Return the specification class of a kind.

        Raises:
            SpecError: nothing has registered the kind; names the nearest kinds, whose they are, and the broken
                plugins that may have held it.
        """
        spec_class: type[KindSpec] = self.entry(family, kind).value
        return spec_class

    def first(self, family: Family, wanted: Callable[[type[KindSpec]], bool]) -> type[KindSpec] | None:
        """The first specification class that is wanted; plugins are imported only if none that is built in is."""
        with self._lock:
            for built_in in (True, False):
                self._collect(family, self._built_in if built_in else self._loaded_plugins())
                found: list[type[KindSpec]] = [entry.value for entry in self._tables[family].values()]
                if any(map(wanted, found)):
                    return next(filter(wanted, found))
        return None

    def kinds(self, family: Family) -> dict[str, KindEntry]:
        """All kinds of a family by name, those of plugins included."""
        return {
            name: KindEntry(name, entry.value, entry.distribution, entry.version)
            for name, entry in self.entries(family).items()
        }

    def example(self, family: Family) -> str:
        """A kind that a message can name: the first that is built in; no plugin is imported."""
        with self._lock:
            self._collect(family, self._built_in)
            return next(iter(self._tables[family]), "NAME")

    def experiments(self) -> dict[str, Path]:
        """The experiment files by name."""
        return {name: entry.value for name, entry in self.entries("experiment").items()}

    def experiment(self, name: str) -> Path:
        """The file of one experiment; plugins are imported only if it is not built in.

        Raises:
            SpecError: there is no such experiment.
        """
        path: Path = self.entry("experiment", name).value
        return path

    def executor(self, name: str) -> ExecutorFactory:
        """One factory of executors; plugins are imported only if it is not built in.

        Raises:
            SpecError: there is no such executor.
        """
        factory: ExecutorFactory = self.entry("executor", name).value
        return factory

    def figures(self) -> dict[str, FigureFunction]:
        """The functions that draw figures, by name."""
        return {name: entry.value for name, entry in self.entries("figure").items()}

    def figure(self, name: str) -> FigureFunction:
        """The function that draws one figure; plugins are imported only if it is not built in.

        Raises:
            SpecError: there is no such figure.
        """
        function: FigureFunction = self.entry("figure", name).value
        return function

    def commands(self, reserved: Iterable[str] = ()) -> dict[str, Entry]:
        """The commands that plugins add to the command line.

        Args:
            reserved: names of the built-in commands, which no plugin may take.
        """
        with self._lock:
            for plugin in self._loaded_plugins():
                if plugin.has("register_commands") and "register_commands" not in plugin.called:
                    self._collect_commands(plugin, set(reserved))
        return dict(self._tables["command"])

    def owner_versions(self, families_and_kinds: Iterable[tuple[Family, str]]) -> dict[str, str]:
        """Versions of the distributions that these kinds belong to, and of the core.

        Raises:
            SpecError: nothing has registered one of the kinds.
        """
        entries = [self.entry(family, kind) for family, kind in families_and_kinds]
        versions = {CORE: core_version(), **{entry.distribution: entry.version for entry in entries}}
        return dict(sorted(versions.items()))

    def plugins(self) -> tuple[PluginRecord, ...]:
        """Every installed plugin, healthy or not, after all of them have been imported and asked for their names."""
        with self._lock:
            for sort in SORTS:
                self.entries(sort)
            self.commands()
            return tuple(plugin.record for plugin in self._discovered())

    def installed(self) -> tuple[Plugin, ...]:
        """Every installed plugin, as far as it has been imported."""
        with self._lock:
            return tuple(self._discovered())

    def owners(self, sorts_and_names: Iterable[tuple[Sort, str]]) -> tuple[str, ...]:
        """What ``SIZETRANSFER_PLUGINS`` must name for another process to find these names, and no other plugin.

        Args:
            sorts_and_names: what is needed: ``("student", "cnn")``, ``("executor", "local")``, ...

        Returns:
            ``none`` where all are built in. A distribution comes by its name, or, where the name would choose another
            plugin too, by each of its entry points.

        Raises:
            SpecError: nothing has registered one of the names.
        """
        entries = [self.entry(sort, name) for sort, name in sorts_and_names]
        records = [entry.plugin.record for entry in entries if not entry.plugin.built_in]
        if not records:
            return ("none",)
        installed = [plugin.record for plugin in self._discovered()]
        return tuple(dict.fromkeys(name for record in records for name in names_to_choose(record, installed)))

    def listeners(self) -> tuple[Plugin, ...]:
        """Import the plugins, and keep to those that listen now: only they are told of events from here on.

        To be called before the trials of a run begin, so that no plugin is imported among them.
        """
        with self._lock:
            self._listeners = tuple(plugin for plugin in self._loaded_plugins() if plugin.has("on_event"))
            return self._listeners

    def emit(self, event: Event) -> None:
        """Tell the plugins that :meth:`listeners` found what happened; nothing is imported.

        A plugin that raises is recorded, named in one warning, and told nothing more.
        """
        for plugin in [listener for listener in self._listeners if listener not in self._muted]:
            failures = plugin.record.error
            plugin.call("on_event", event=event)
            if plugin.record.error != failures:
                self._muted.add(plugin)
                warnings.warn(f"A plugin is told nothing more of this run. {plugin.record}", stacklevel=2)

    def entry(self, sort: Sort, name: str) -> Entry:
        """Return what is registered under a name, importing plugins only if it is not built in.

        Raises:
            SpecError: nothing is.
        """
        with self._lock:
            self._collect(sort, self._built_in)
            if name not in self._tables[sort]:
                self._collect(sort, self._loaded_plugins())
            if name not in self._tables[sort]:
                raise self._unknown(sort, name)
            return self._tables[sort][name]

    def require(self, sort: Sort, names: Iterable[str], *, where: str) -> None:
        """Refuse names under which nothing is registered.

        Args:
            sort: of what.
            names: that are asked for.
            where: the field that holds them, for messages.

        Raises:
            SpecError: with the nearest names, and whose they are.
        """
        for name in names:
            try:
                self.entry(sort, name)
            except SpecError as error:
                error.where = error.where or where
                raise

    def entries(self, sort: Sort) -> dict[str, Entry]:
        """Everything of one sort, from built-ins and plugins."""
        with self._lock:
            self._collect(sort, [*self._built_in, *self._loaded_plugins()])
            return dict(self._tables[sort])

    def trouble(self) -> tuple[PluginRecord, ...]:
        """Records of the plugins that are known to be broken so far; imports nothing."""
        return tuple(plugin.record for plugin in self._plugins or () if plugin.record.status == "broken")

    def _discovered(self) -> list[Plugin]:
        if self._plugins is None:
            self._plugins = self._find_plugins()
        return self._plugins

    def _loaded_plugins(self) -> list[Plugin]:
        plugins = self._discovered()
        for plugin in plugins:
            plugin.load()
        return plugins

    def _collect(self, sort: Sort, plugins: Iterable[Plugin]) -> None:
        hook = f"register_{sort}s"
        others: Mapping[Sort, Callable[..., None]] = {
            "figure": self._register_figure,
            "experiment": self._register_experiment,
            "executor": self._register_executor,
        }
        register = others.get(sort, self._register_kind)
        for plugin in plugins:
            if plugin.built_in:
                plugin.load()
            if plugin.has(hook) and hook not in plugin.called:
                plugin.call(hook, register=functools.partial(register, sort, plugin))

    def _collect_commands(self, plugin: Plugin, reserved: set[str]) -> None:
        import click

        group = click.Group()
        plugin.call("register_commands", cli=group)
        for name, command in group.commands.items():
            if name in reserved:
                self._refuse_clash("command", name, plugin, f"{CORE} {core_version()}")
            else:
                self._add("command", name, command, plugin)

    def _register_kind(self, sort: Sort, plugin: Plugin, spec_class: object) -> None:
        kind, problem = _kind_of(sort, spec_class)
        if problem:
            plugin.fail(
                "register", problem, "see register_teachers in sizetransfer.registry.hooks for what can be registered"
            )
        else:
            self._add(sort, kind, spec_class, plugin)

    def _register_experiment(self, sort: Sort, plugin: Plugin, file: str | Path) -> None:
        path = Path(file)
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            plugin.fail("register", f"{path} was registered as an experiment but is no YAML file.", "register a file")
        else:
            self._add(sort, path.stem, path, plugin)

    def _register_executor(self, sort: Sort, plugin: Plugin, name: object, factory: object) -> None:
        if not isinstance(name, str) or not callable(factory):
            problem = f"An executor is a name and a factory, not {name!r} and {factory!r}."
            plugin.fail("register", problem, "call register(name, factory)")
        else:
            self._add(sort, name, factory, plugin)

    def _register_figure(self, sort: Sort, plugin: Plugin, name: object, function: object) -> None:
        plain = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)
        if not plain or not callable(function):
            problem = f"A figure is a name that a file can have and a function, not {name!r} and {function!r}."
            plugin.fail(
                "register",
                problem,
                "call register(name, function), see register_figures in sizetransfer.registry.hooks",
            )
        else:
            self._add(sort, str(name), function, plugin)

    def _add(self, sort: Sort, name: str, value: object, plugin: Plugin) -> None:
        earlier = self._tables[sort].get(name)
        if earlier is not None:
            self._refuse_clash(sort, name, plugin, earlier.plugin.record.owner)
            return
        self._tables[sort][name] = Entry(name, value, plugin)
        plugin.provide(f"{sort} {name}")

    def _refuse_clash(self, sort: Sort, name: str, plugin: Plugin, earlier: str) -> None:
        problem = (
            f"The {sort} {name!r} is registered twice: by {earlier}, which keeps it, and by {plugin.record.owner}."
        )
        plugin.fail("register", problem, f"rename {name!r} in {plugin.record.distribution}, or leave that plugin out")

    def _unknown(self, sort: Sort, name: str) -> SpecError:
        from sizetransfer.contracts.specs import did_you_mean

        table = self._tables[sort]
        owners = [f"{known} ({entry.distribution} {entry.version})" for known, entry in table.items()]
        elsewhere = ELSEWHERE.get((sort, name))
        hints = [did_you_mean(name, table) or f"`sizetransfer list {sort}s` shows what there is."]
        hints = [f"pip install {elsewhere}, which holds it."] if elsewhere else hints
        hints += [
            f"A broken plugin may have held the name: {record} To mend it: {record.fix}." for record in self.trouble()
        ]
        disabled = [p.record.distribution for p in self._discovered() if p.record.status == "disabled"]
        hints += [f"{RESTRICTION} leaves out {', '.join(disabled)}."] if disabled else []
        return SpecError(
            f"Unknown {sort} {name!r}.",
            expected=f"one of {', '.join(owners)}" if owners else f"a registered {sort}; there is none",
            got=repr(name),
            fix=" ".join(hints),
        )


def _kind_of(family: str, spec_class: object) -> tuple[str, str]:
    """Return the kind of a specification class, and what is wrong with registering it in the family, if anything."""
    from sizetransfer.contracts.specs import MeasureSpec, StudentSpec, TeacherSpec

    bases: dict[str, type[KindSpec]] = {"teacher": TeacherSpec, "student": StudentSpec, "measure": MeasureSpec}
    base = bases[family]
    if not isinstance(spec_class, type) or not issubclass(spec_class, base):
        return "", f"{spec_class!r} was registered as a {family} but is no subclass of {base.__name__}."
    if inspect.isabstract(spec_class):
        return "", f"{spec_class.__name__} does not define {', '.join(sorted(spec_class.__abstractmethods__))}."
    field = spec_class.model_fields["kind"]
    if get_origin(field.annotation) is not Literal or get_args(field.annotation) != (field.default,):
        return "", f"{spec_class.__name__} has no kind of its own: it needs the field kind: Literal['name'] = 'name'."
    return spec_class.kind_name(), ""


@functools.cache
def default_registry() -> Registry:
    """The registry of this process, made on first use."""
    return Registry()
