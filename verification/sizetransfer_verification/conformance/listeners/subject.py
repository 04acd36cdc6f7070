"""A listener under examination: a plugin with ``on_event``, or a function."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any, Literal

import pluggy

from sizetransfer.contracts.events import Event
from sizetransfer.registry import hooks
from sizetransfer.registry.plugins import Plugin, PluginRecord
from sizetransfer_verification.conformance.case import Case
from sizetransfer_verification.conformance.subjects import check_case

Listener = Callable[[Event], None]

EVENTS = (
    Event("started", "0" * 16, "ring / narrow / seed 0"),
    Event("step", "0" * 16, "ring / narrow / seed 0", done=0.4, step=2, loss=0.9),
    Event("trained", "0" * 16, "ring / narrow / seed 0", done=0.8, step=4, loss=0.8),
    Event("measured", "0" * 16, "ring / narrow / seed 0", done=0.9, step=4, detail="error at size 6"),
    Event("finished", "0" * 16, "ring / narrow / seed 0", done=1.0, step=4),
    Event("reused", "1" * 16, "ring / narrow / seed 1", done=1.0, step=4),
    Event("failed", "2" * 16, "ring / wide / seed 0", detail="It broke, with \N{LATIN SMALL LETTER E WITH ACUTE}."),
)
"""One event of every kind."""


class ListenerSubject:
    """A listener under examination.

    Attributes:
        name: for reports.
        family: ``listener``.
    """

    family: Literal["listener"] = "listener"

    def __init__(self, listener: PluginRecord | Listener, *, seed: int = 0, name: str | None = None) -> None:
        self.seed = seed
        self._listener = listener
        called = listener.entry_point if isinstance(listener, PluginRecord) else getattr(listener, "__name__", "")
        self.name = name or called or repr(listener)

    def notes(self) -> tuple[str, ...]:
        return ()

    def check_case(self, case: Case) -> None:
        """Refuse an example that no report shows.

        Raises:
            SpecError: it is not the one case that there is.
        """
        check_case(case, members=1, devices=("cpu",))

    def cases(self) -> tuple[Case, ...]:
        """The one case: a small experiment."""
        return (Case(seed=self.seed),)

    def tell(self, event: Event) -> None:
        """Tell the listener of an event, without the guards of a run: what it raises comes through."""
        if not isinstance(self._listener, PluginRecord):
            self._listener(event)
            return
        manager = pluggy.PluginManager(hooks.PROJECT)
        manager.add_hookspecs(hooks)
        target: Any = EntryPoint("listener", self._listener.value, hooks.PROJECT).load()
        manager.register(target)
        manager.hook.on_event(event=event)

    def plugin(self, before: Listener) -> Plugin:
        """A plugin, not loaded, that a run tells of events as it tells any; ``before`` is told first."""
        listen = self.tell

        def on_event(event: Event) -> None:
            before(event)
            listen(event)

        module = types.ModuleType(f"listener_under_examination_{id(self)}")
        module.on_event = hooks.hookimpl(on_event)  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        return Plugin(PluginRecord("listener-under-examination", "0", self.name, module.__name__))
