"""The version of the distribution that an installed module is from: by its metadata if they are true, or by its code.

Metadata are believed when the list of installed files (``RECORD``) has the imported file with the digest that it has
now and every other source file of its package with the size that it has now. An edit among the installed files that
keeps the size of a file that is not imported by name is not seen.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from sizetransfer.runs.sources.places import SITES, Place, files_below, module_stem, sha256

_FIELD = re.compile(r"^(Name|Version|Requires-Dist): *(\S.*?) *$", re.MULTILINE)
_known: dict[tuple[str, str], tuple[tuple[int, ...], tuple[str, str]]] = {}


def version_of(place: Place) -> tuple[str, str]:
    """Name and version of the distribution that an installed module comes from.

    Without metadata, or where they have no name or version, or are not those of the files, the name is that of the
    top-level package and the version is ``code`` with the digest of its files.
    """
    site, inside = _split(place.anywhere)
    state = _state(site, place.anywhere)
    known = _known.get((place.name, place.anywhere))
    if known is None or known[0] != state:
        known = _known[place.name, place.anywhere] = state, _told(site, inside, place)
    return known[1]


def requirements(place: Place) -> list[str]:
    """Names of the distributions that the module's distribution says it needs."""
    site, inside = _split(place.anywhere)
    metadata = _metadata(_owner(site, inside))
    needed = [value for field, value in metadata if field == "Requires-Dist" and "extra ==" not in value]
    return [re.split(r"[^\w.-]", value)[0] for value in needed]


def version_by_name(site_of: Place, name: str) -> str | None:
    """The version that a distribution beside a module claims, if it is installed there."""
    site, _ = _split(site_of.anywhere)
    found = [path for path in _records(site) if normal(path.name.split("-")[0]) == normal(name)]
    return dict(_metadata(found[0])).get("Version") if len(found) == 1 else None


def _split(path: str) -> tuple[Path, str]:
    parts = Path(path).parts
    last = max(index for index, part in enumerate(parts) if part in SITES)
    return Path(*parts[: last + 1]), "/".join(parts[last + 1 :])


def _state(site: Path, path: str) -> tuple[int, ...]:
    return tuple(where.stat().st_mtime_ns for where in (site, Path(path)) if where.exists())


def _told(site: Path, inside: str, place: Place) -> tuple[str, str]:
    folder = _owner(site, inside)
    fields = {field: value for field, value in _metadata(folder) if field != "Requires-Dist"}
    if folder is not None and len(fields) == 2 and _true(site, inside, folder):
        return normal(fields["Name"]), fields["Version"]
    top = module_stem(inside.partition("/")[0]) or inside.partition("/")[0]
    return normal(fields.get("Name", top)), f"code {_digest_of(site / inside.partition('/')[0], place)}"


def _records(site: Path) -> list[Path]:
    return sorted([*site.glob("*.dist-info"), *site.glob("*.egg-info")])


def _owner(site: Path, inside: str) -> Path | None:
    """The metadata of the one distribution that installed a file; nothing where none or several claim it."""
    top = normal(inside.partition("/")[0].partition(".")[0])
    folders = _records(site)
    near = [folder for folder in folders if normal(folder.name.split("-")[0]) == top]
    claims = [folder for folder in near if inside in _files(folder)]
    claims = claims or [folder for folder in folders if f"\n{inside}," in "\n" + _text(folder / "RECORD")]
    return claims[0] if len(claims) == 1 and len(near) <= 1 else None


def normal(name: str) -> str:
    """Names of distributions compare without case and with all separators alike."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _metadata(folder: Path | None) -> list[tuple[str, str]]:
    if folder is None:
        return []
    header = _text(folder / "METADATA").partition("\n\n")[0]
    return [(match[1], match[2]) for match in _FIELD.finditer(header)]


def _files(folder: Path) -> dict[str, tuple[str, str]]:
    rows = csv.reader(_text(folder / "RECORD").splitlines())
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def _true(site: Path, inside: str, folder: Path) -> bool:
    files = _files(folder)
    top = inside.partition("/")[0]
    sources = ((name, size) for name, (_, size) in files.items() if name.startswith(f"{top}/") and name.endswith(".py"))
    return _same(site / inside, files.get(inside, ("", ""))[0]) and all(
        not size or _size(site / name) == size for name, size in sources
    )


def _same(path: Path, claimed: str) -> bool:
    if not path.is_file():
        return not claimed  # a namespace package has no file
    kind, _, value = claimed.partition("=")
    if kind not in hashlib.algorithms_guaranteed:
        return False
    digest = hashlib.new(kind, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == value


def _size(path: Path) -> str:
    try:
        return str(path.stat().st_size)
    except OSError:
        return "missing"


def _digest_of(top: Path, place: Place) -> str:
    files = dict(_all(top)) if top.is_dir() else {place.name: place.anywhere}
    listed = [
        f"{name} {sha256(Path(path).read_bytes())}" for name, path in sorted(files.items()) if Path(path).is_file()
    ]
    return sha256("\n".join(listed).encode())


def _all(top: Path) -> Iterator[tuple[str, str]]:
    yield from files_below(str(top))
