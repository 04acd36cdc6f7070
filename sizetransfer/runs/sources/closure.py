"""The modules that some modules need: their imports, the imports of those, and so on.

=====================================  =========================================================================
belongs to                             takes part with
=====================================  =========================================================================
Python, torch                          nothing: a run records their versions itself
the core                               content; imports followed. Its hooks and exports lead to what is used alone
whoever owns a root, and everything    content; imports followed; where they cannot be told, every module of the
outside of the installed               top-level package (of a loose module: everything in its folder)
distributions
other installed distributions          name and version, see :mod:`sizetransfer.runs.sources.distributions`
=====================================  =========================================================================
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from sizetransfer.runs.sources import distributions, notebook
from sizetransfer.runs.sources.live import require_unchanged
from sizetransfer.runs.sources.places import (
    CORE,
    EXTENSIONS,
    Place,
    archive_of,
    content,
    files_below,
    find,
    module_stem,
    sha256,
    unreadable,
)
from sizetransfer.runs.sources.text import WHOLE, Import, Text, read

_ELSEWHERE = ("torch", "torchgen", "functorch")
_SCAFFOLD = f"{CORE}.cli.skeleton.template"
_State = tuple[int, ...]
_cache: dict[tuple[str, bool], tuple[_State, bytes, str, Text]] = {}


class Closure:
    """The modules and distributions that the roots need.

    Args:
        roots: names of modules.

    Raises:
        SpecError: there is no such module, or its code cannot be told.
        RunError: a module was changed after it was imported.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self.modules: dict[str, str] = {}
        self.distributions: dict[str, str] = {}
        self._roots = tuple(roots)
        self._owned = {CORE, *(root.partition(".")[0] for root in self._roots)}
        self._done: set[str] = set()
        self._whole: set[str] = set()
        self._waiting: list[str] = []
        self._places: dict[str, Place | None] = {}
        for root in self._roots:
            self._take_root(root)
        while self._waiting:
            self._take(self._waiting.pop())

    def _find(self, name: str) -> Place | None:
        if name not in self._places:
            self._places[name] = find(name)
        return self._places[name]

    def _take_root(self, root: str) -> None:
        if self._find(root) is not None:
            self._need(root)
        elif root == "__main__":
            self.modules[root] = notebook.digest()
            for name in notebook.imports():
                self._need(name)
        else:
            raise unreadable(root, "no module of this name on the path, or one that has no file")

    def _need(self, name: str) -> None:
        """Importing a module runs the packages that it is in, first the outermost."""
        parts = name.split(".")
        self._waiting += [".".join(parts[:end]) for end in range(len(parts), 0, -1)]

    def _take(self, name: str) -> None:
        if name in self._done:
            return
        self._done.add(name)
        place = self._find(name)
        if place is None or place.top in _ELSEWHERE or place.standard:
            return
        if place.installed and place.top not in self._owned:
            self._note(place)
        elif place.file is None:
            self._take_whole(place)
        elif not (place.installed and place.top in self._whole):
            self._hash(place)

    def _note(self, place: Place) -> None:
        if place.file is not None or not place.folders:
            name, version = distributions.version_of(place)
            self.distributions[name] = version

    def _hash(self, place: Place) -> None:
        source, digest, text = _text_of(place)
        require_unchanged(place, source)
        self.modules[place.name] = digest
        if text.open_ended:
            self._take_whole(place)
        if place.name == CORE or (place.installed and place.top in self._whole):
            return  # the core package imports what it is asked for
        for wanted in text.imports:
            self._follow(place, wanted)
        for name in sorted(text.core):
            self._need_of_core(name)

    def _follow(self, place: Place, wanted: Import) -> None:
        base = _absolute(place, wanted)
        if not base:
            return
        self._need(base)
        if wanted.names == (WHOLE,):
            self._take_star(base)
            return
        for name in wanted.names:
            self._need_from(base, name)

    def _take_star(self, base: str) -> None:
        package = self._find(base)
        if base == CORE:
            self._need_of_core(WHOLE)
        elif package is not None and package.folders and (package.top in self._owned or not package.installed):
            self._take_whole(package)

    def _need_from(self, base: str, name: str) -> None:
        package = self._find(base)
        if package is None or not package.folders:
            return
        exports = _text_of(package)[2].exports if package.top == CORE and package.file else {}
        if name in exports:
            self._need(f"{base}.{exports[name]}")
        elif self._find(f"{base}.{name}") is not None:
            self._need(f"{base}.{name}")

    def _need_of_core(self, name: str) -> None:
        core = self._find(CORE)
        if name == WHOLE and core is not None:
            self._take_files(core, (pair for folder in core.folders for pair in files_below(folder)))
        elif name != WHOLE:
            self._need_from(CORE, name)

    def _take_whole(self, place: Place) -> None:
        top = self._find(place.top)
        if top is None or top.name in self._whole:
            return
        self._whole.add(top.name)
        for folder in top.folders:
            archive = None if os.path.isdir(folder) else archive_of(folder)  # noqa: PTH112 - a string of the import system
            if archive is not None:
                self.modules[f"{top.name} ({archive.name})"] = sha256(archive.read_bytes())
            self._take_files(top, files_below(folder))
        if not top.folders and not top.installed and top.file is not None:
            self._take_files(None, _beside(Path(top.file)))
        if top.installed:
            self._note_requirements(top)

    def _take_files(self, top: Place | None, files: Iterable[tuple[str, str]]) -> None:
        for inside, path in files:
            name = ".".join(filter(None, [top.name if top else "", inside]))
            if name.startswith(_SCAFFOLD):
                continue
            if top is not None and top.installed and top.name != CORE:
                # Reading the imports of a large library takes seconds; what it needs, its metadata say.
                self.modules.setdefault(name, _text_of(Place(name, path), imports=False)[1])
            elif name not in self._done:
                self._done.add(name)
                is_package = Path(path).name.startswith("__init__.")
                found = Place(name, path, (str(Path(path).parent),) if is_package else ())
                self._places[name] = found
                self._hash(found)

    def _note_requirements(self, top: Place) -> None:
        for name in distributions.requirements(top):
            version = distributions.version_by_name(top, name)
            if version is not None and name not in _ELSEWHERE and name not in self._owned:
                self.distributions.setdefault(distributions.normal(name), version)


def strings(place: Place) -> frozenset[str]:
    """The string literals of a module."""
    return _text_of(place)[2].strings


def _absolute(place: Place, wanted: Import) -> str:
    if not wanted.level:
        return wanted.module
    package = (vars(sys.modules["__main__"]).get("__package__") or "") if place.name == "__main__" else place.package
    parts = package.split(".")
    kept = parts[: len(parts) - wanted.level + 1]
    return ".".join(filter(None, [*kept, wanted.module]))


def _beside(file: Path) -> Iterator[tuple[str, str]]:
    """The modules and packages in the folder of a loose module."""
    for path in sorted(file.parent.iterdir()):
        stem = module_stem(path.name)
        if stem is not None and path.is_file():
            yield stem, str(path)
        elif os.path.isfile(path / "__init__.py"):  # noqa: PTH113 - a folder may be closed to us
            yield from ((".".join(filter(None, [path.name, name])), inner) for name, inner in files_below(str(path)))


def _text_of(place: Place, *, imports: bool = True) -> tuple[bytes, str, Text]:
    """Content, digest and text of a module, read again when its file has changed."""
    key, state = (str(place.file), imports), _state(str(place.file))
    known = _cache.get(key)
    if known is None or known[0] != state or not state:
        source = content(place)
        core = place.top == CORE
        text = _read(place, source, core=core) if imports else Text()
        known = state, source if imports else b"", sha256(source), text
        _cache[key] = known
    return known[1], known[2], known[3]


def _read(place: Place, source: bytes, *, core: bool) -> Text:
    # An extension spells out no imports; bytecode without its source cannot be read for them.
    if str(place.file).endswith((".pyc", *EXTENSIONS)):
        return Text(open_ended=str(place.file).endswith(".pyc") and not core)
    return read(source, core=CORE, trusted=core)  # a script needs no suffix


def _state(file: str) -> _State:
    try:
        status = os.stat(file)  # noqa: PTH116 - hundreds of files
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
