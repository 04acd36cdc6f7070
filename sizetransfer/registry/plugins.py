"""Plugins: found by their metadata, imported when needed, each kept apart from the others.

Nothing here raises because of a plugin: whatever goes wrong becomes the plugin's :class:`PluginRecord`.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import os
import random
import re
import sys
import traceback
import types
import urllib.parse
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pluggy

from sizetransfer.contracts.errors import PluginError, SizetransferError, described
from sizetransfer.registry import hooks

Phase = Literal["discover", "import", "register", "event", "command"]
Status = Literal["found", "loaded", "broken", "disabled"]

CORE = "sizetransfer"
"""The distribution that the built-ins belong to."""

RESTRICTION = "SIZETRANSFER_PLUGINS"
"""Environment variable: ``none``, or what to load, separated by commas: distributions, entry points, or
``distribution:entry-point`` with the characters of either that are no letters, digits, ``-``, ``_`` or ``.`` in percent
encoding."""

HOOK_NAMES = tuple(name for name, value in vars(hooks).items() if hasattr(value, f"{hooks.PROJECT}_spec"))
_PHASES: Mapping[str, Phase] = {"on_event": "event", "register_commands": "command"}


@dataclass(frozen=True)
class PluginRecord:
    """What is known of one plugin.

    Attributes:
        distribution, version: the installed distribution that it belongs to.
        entry_point, value: the name and the target of its entry point.
        phase: how far it came, or where it failed.
        status: ``found`` (not imported), ``loaded``, ``broken``, or ``disabled`` by ``SIZETRANSFER_PLUGINS``.
        error: what went wrong.
        fix: what to do about it.
        provides: what it has registered so far, for example ``student cnn``.
    """

    distribution: str
    version: str
    entry_point: str
    value: str
    phase: Phase = "discover"
    status: Status = "found"
    error: str | None = None
    fix: str | None = None
    provides: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """Distribution, version and entry point, for messages."""
        return f"{self.distribution} {self.version} (entry point {self.entry_point})"

    def __str__(self) -> str:
        return f"{self.owner}: {self.error or self.status}"


class Plugin:
    """One plugin with a pluggy manager of its own.

    pluggy stops the call of a hook at the first exception; with a manager for each plugin an exception stays
    with the plugin that raised it.

    Args:
        record: what its metadata says.
        built_in: whether it is part of this distribution; then errors are raised instead of recorded.
    """

    def __init__(self, record: PluginRecord, *, built_in: bool = False) -> None:
        self.record = record
        self.built_in = built_in
        self.called: set[str] = set()
        self._usable = False
        self._manager = pluggy.PluginManager(hooks.PROJECT)
        self._manager.add_hookspecs(hooks)

    def load(self) -> None:
        """Import the plugin and check its hooks, unless that has been tried or the plugin is disabled."""
        if self.record.status != "found":
            return
        with self._isolated("import"):
            module = _import(self.record.value)
            self.record = replace(self.record, phase="register")
            with self._isolated("register"):
                self._check_and_register(module)
                self.record = replace(self.record, status="loaded")
                self._usable = True

    def call(self, hook: str, **arguments: object) -> None:
        """Call one hook of the plugin; what it raises becomes its record."""
        with self._isolated(_PHASES.get(hook, "register")):
            getattr(self._manager.hook, hook)(**arguments)
        self.called.add(hook)

    def has(self, hook: str) -> bool:
        """Whether the plugin passed its checks and implements the hook.

        A plugin of which one registration was refused, or one hook failed, keeps its other hooks.
        """
        return self._usable and bool(getattr(self._manager.hook, hook).get_hookimpls())

    def provide(self, what: str) -> None:
        """Note that the plugin has registered something."""
        self.record = replace(self.record, provides=(*self.record.provides, what))

    def fail(self, phase: Phase, error: str, fix: str) -> None:
        """Record what is wrong; earlier problems stay in the record.

        Raises:
            PluginError: the plugin is built in.
        """
        if self.built_in:
            raise PluginError(error, where=self.record.owner, fix=fix)
        errors = [*filter(None, [self.record.error]), error]
        fixes = [*filter(None, [self.record.fix]), fix]
        self.record = replace(
            self.record, phase=phase, status="broken", error="\n".join(errors), fix="\n".join(dict.fromkeys(fixes))
        )

    @contextlib.contextmanager
    def _isolated(self, phase: Phase) -> Iterator[None]:
        try:
            # What a plugin prints must not end up in output that a program reads.
            with contextlib.redirect_stdout(sys.stderr), settings_kept():
                yield
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if self.built_in:
                raise
            self.fail(phase, describe(error), self._remedy(phase, error))

    def _check_and_register(self, module: object) -> None:
        problem = _unknown_hook(module)
        if problem:
            raise PluginError(problem)
        self._manager.register(module, self.record.entry_point)
        self._manager.check_pending()
        if not self._manager.get_hookcallers(module):
            raise PluginError(f"{self.record.value} implements no hook: none of its functions is marked with hookimpl.")

    def _remedy(self, phase: Phase, error: BaseException) -> str:
        owner, leave_out = self.record.distribution, f"or leave it out: {RESTRICTION} names the plugins to load"
        if isinstance(error, ModuleNotFoundError) and error.name:
            return f"install the module {error.name!r}, or reinstall {owner} with its dependencies, {leave_out}"
        if isinstance(error, pluggy.PluginValidationError):
            return (
                f"the hooks and their arguments are listed in sizetransfer.registry.hooks; update {owner}, {leave_out}"
            )
        return f"update or uninstall {owner}, {leave_out}"


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Whatever the block does to the settings of torch and to the global random generators is put back.

    Where the block is what imports torch, they are put back to what they were right after that. Nothing here imports
    torch.
    """
    python = random.getstate()
    try:
        with contextlib.ExitStack() as undone, _once_torch_is_there(lambda: undone.enter_context(_undisturbed())):
            yield
    finally:
        random.setstate(python)


@contextlib.contextmanager
def _once_torch_is_there(act: Callable[[], object]) -> Iterator[None]:
    watch = _TorchWatch(act)
    if "torch" in sys.modules:
        act()
    else:
        sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        watch.stop()


class _TorchWatch(importlib.abc.MetaPathFinder):
    """Acts once, right after torch has been imported for the first time."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def stop(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torch":
            return None
        self.stop()
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            self._act_after(spec.loader)
        return spec

    def _act_after(self, loader: Any) -> None:
        load = loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            del loader.exec_module  # the method of its class is there again
            load(module)
            self._act()

        loader.exec_module = exec_module


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    import numpy as np
    import torch

    settings: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_default_device, lambda device: torch.set_default_device(None if device.type == "cpu" else device)),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    )
    before = [(read, write, read()) for read, write in settings]
    own, numpy = torch.default_generator.get_state(), np.random.get_state(legacy=False)  # noqa: NPY002
    try:
        yield
    finally:
        for read, write, value in before:
            if read() != value:
                write(value)
        torch.default_generator.set_state(own)
        np.random.set_state(numpy)  # noqa: NPY002


def describe(error: BaseException) -> str:
    """One line: type, message and, where the error comes from a file, the file and line."""
    if isinstance(error, SizetransferError):
        text = f"{type(error).__name__}: {error.what}"
    else:
        text = " ".join(described(error).split())
    if isinstance(error, PluginError | pluggy.PluginValidationError):
        return text.removeprefix(f"{type(error).__name__}: ")
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    place = f" ({outside[-1].filename}, line {outside[-1].lineno})" if outside else ""
    return f"{text}{place}"


def _import(value: str) -> object:
    """Import the target ``module`` or ``module:attribute`` of an entry point."""
    match = importlib.metadata.EntryPoint.pattern.match(value)
    if match is None:
        raise PluginError(f"The target {value!r} of the entry point is not of the form module or module:attribute.")
    target: object = importlib.import_module(match["module"])
    for name in filter(None, (match["attr"] or "").split(".")):
        target = getattr(target, name)
    return target


def _unknown_hook(module: object) -> str:
    """Describe a function that looks like a hook but would never be called, or return nothing."""
    for name in dir(module):
        function = inspect.getattr_static(module, name, None)
        options = getattr(function, f"{hooks.PROJECT}_impl", None)
        if options is None:
            if name in HOOK_NAMES and inspect.isfunction(function) and not hasattr(function, f"{hooks.PROJECT}_spec"):
                return f"{name} has the name of a hook but is not marked with hookimpl, so it would never be called."
            continue
        hook = options.get("specname") or name
        if hook not in HOOK_NAMES and not options.get("optionalhook"):
            near = difflib.get_close_matches(hook, HOOK_NAMES, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            return f"There is no hook {hook!r}; the hooks are {', '.join(HOOK_NAMES)}.{hint}"
    return ""


def discover(environment: Mapping[str, str] = os.environ) -> list[Plugin]:
    """Find the installed plugins without importing them, in alphabetical order of their distributions."""
    records = sorted(_records(), key=lambda record: (_normal(record.distribution), record.entry_point))
    return [Plugin(record) for record in _restrict(records, environment.get(RESTRICTION, "").strip())]


def _records() -> Iterator[PluginRecord]:
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        text = _entry_point_text(distribution)
        if f"[{hooks.PROJECT}]" not in text:
            continue
        name, version = _identity(distribution)
        # An earlier directory on sys.path hides a later copy of the same distribution.
        if _normal(name) not in seen:
            seen.add(_normal(name))
            yield from _records_of(distribution, name, version)


def _entry_point_text(distribution: importlib.metadata.Distribution) -> str:
    try:
        return distribution.read_text("entry_points.txt") or ""
    except (OSError, UnicodeDecodeError):
        return ""


def _identity(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """Name and version; an installation that lost its metadata is called by its directory."""
    path = getattr(distribution, "_path", None)
    name = _field(distribution, "Name") or (path.name.split("-")[0] if path is not None else "unnamed")
    return name, _field(distribution, "Version") or "unknown"


def _field(distribution: importlib.metadata.Distribution, name: str) -> str:
    """One field of the metadata; empty where it is missing, or where there are no metadata to read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return str(distribution.metadata[name] or "").strip()
    return ""


def _records_of(distribution: importlib.metadata.Distribution, name: str, version: str) -> Iterator[PluginRecord]:
    try:
        points = [point for point in distribution.entry_points if point.group == hooks.PROJECT]
    except (TypeError, ValueError) as error:
        yield PluginRecord(
            name,
            version,
            "unreadable",
            "entry_points.txt",
            status="broken",
            error=f"The entry points of {name} cannot be read: {describe(error)}",
            fix=f"reinstall {name}",
        )
        return
    for point in points:
        yield PluginRecord(name, version, point.name, point.value)


def _normal(name: str) -> str:
    """Names of distributions compare without case and with all separators alike."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _restrict(records: list[PluginRecord], restriction: str) -> list[PluginRecord]:
    """Disable the plugins that the restriction does not name."""
    if not restriction:
        return records
    wanted = {_normal(name.strip()) for name in restriction.split(",") if name.strip()} - {"none"}
    kept = [
        record if _names(record) & wanted or record.status == "broken" else replace(record, status="disabled")
        for record in records
    ]
    known: set[str] = set().union(*map(_names, records))
    return kept + [_missing(name, known) for name in sorted(wanted - known)]


def _names(record: PluginRecord) -> set[str]:
    return {_normal(record.distribution), _normal(record.entry_point), _normal(_exact(record))}


def _exact(record: PluginRecord) -> str:
    """A name that no other plugin has."""
    return ":".join(urllib.parse.quote(part, safe="") for part in (record.distribution, record.entry_point))


def names_to_choose(record: PluginRecord, installed: Iterable[PluginRecord]) -> tuple[str, ...]:
    """What ``SIZETRANSFER_PLUGINS`` must name to load the distribution of a plugin and nothing else."""
    name = record.distribution
    chosen = [other for other in installed if _normal(name) in _names(other)]
    plain = re.fullmatch(r"[\w.-]+", name) and _normal(name) != "none"
    if plain and all(_normal(other.distribution) == _normal(name) for other in chosen):
        return (name,)
    return tuple(_exact(other) for other in chosen if _normal(other.distribution) == _normal(name))


def _missing(name: str, known: Iterable[str]) -> PluginRecord:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    fix = f"did you mean {' or '.join(map(repr, near))}?" if near else "`sizetransfer plugins` lists those installed"
    error = f"{RESTRICTION} names {name!r}, and no such plugin is installed"
    warnings.warn(f"{error}; {fix}", stacklevel=2)
    return PluginRecord(name, "not installed", name, "", status="broken", error=error, fix=fix)


def core_version() -> str:
    """The version that the metadata of this distribution say; ``unknown`` where they say none."""
    try:
        return _identity(importlib.metadata.distribution(CORE))[1]
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def built_in_plugin(module: str) -> Plugin:
    """The plugin that a module of this distribution is."""
    name = module.removesuffix(".plugin").rpartition(".")[2]
    return Plugin(PluginRecord(CORE, core_version(), name, module), built_in=True)
