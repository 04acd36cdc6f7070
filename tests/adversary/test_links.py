"""Nothing is written through a link that leads out of a run directory."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from pathlib import Path

import adversary_zoo
import pytest
from adversary_zoo import remains

from sizetransfer.contracts.errors import RunError
from sizetransfer.runs.storage import RunWarning

KEY = "<key>"
FILES = (
    *("experiment.json", "manifest.json", "records.parquet", "records.csv", "verdicts.json", "report.html", ".lock"),
    *("figures/training.svg", "figures/training.png"),
    *(f"trainings/{KEY}/{name}" for name in ("training.json", "student.safetensors", "student.json", "training.csv")),
    *(f"trainings/{KEY}/{name}" for name in ("checkpoint.safetensors", "checkpoint.safetensors.tmp", "error.txt")),
    *(f"trainings/{KEY}/{name}" for name in (".lock", f"measurements/{KEY}.json")),
)
FOLDERS = ("trainings", f"trainings/{KEY}", f"trainings/{KEY}/measurements", "figures")
REFUSED = ("A link leads out of the directory", "The run directory cannot be used")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    adversary_zoo.run_and_report(str(out), adversary_zoo.experiment().to_json())
    return out


def place(out: Path, name: str) -> Path:
    """The path of a name in which ``<key>`` stands for the only key that there is."""
    path = out
    for part in Path(name).parts:
        stem, dot, ending = part.partition(".")
        known = [entry.name for entry in path.glob(f"????????????????{dot}{ending}")] if stem == KEY else [part]
        path /= known[0]
    return path


def untouched(folder: Path) -> dict[str, str]:
    """Everything below a folder: names, content, and times of change."""
    return {
        str(path.relative_to(folder)): f"{path.lstat().st_mtime_ns} {path.lstat().st_nlink} {_content(path)}"
        for path in sorted(folder.rglob("*"))
    }


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"


def give_again(out: Path, *, fresh: bool = False) -> str | None:
    """Give the command again; what the refusal says, if there is one: of the run, or of its only trial."""
    from sizetransfer.report import write_report
    from sizetransfer.runs.runner import run

    registry = adversary_zoo.registry()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        try:
            again = run(
                adversary_zoo.experiment(), out, executor="serial", registry=registry, device="cpu", fresh=fresh
            )
            write_report(again)
        except RunError as error:
            return str(error)
    return again.failures[0]["error"] if again.failures else None


LEFTOVERS = (".records.csv.17.partial", "checkpoint.safetensors.tmp", "notes.txt")


def check(out: Path, finished: Path, said: str | None, link: Path) -> None:
    if said is not None:
        assert any(text in said for text in REFUSED), said
        assert link.name in said
        link.unlink()
        assert give_again(out) is None
    elif link.is_symlink() and link.is_dir():  # was read through; what it leads to is compared in its place
        there = link.resolve()
        link.unlink()
        shutil.copytree(there, link, ignore=shutil.ignore_patterns(*LEFTOVERS))
    assert remains(out) == remains(finished)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, "whole") for name in FILES),
        *(
            pytest.param(name, content, marks=() if name.endswith("training.json") else pytest.mark.adversary)
            for name in FILES
            for content in ("dangling", "loop")
        ),
    ],
)
def test_files_that_are_links(finished, tmp_path, name, content):
    out, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(finished, out)
    outside.mkdir()
    link = place(out, name)
    if content == "whole":
        (outside / "file").write_bytes(link.read_bytes() if link.is_file() else b"not ours")
    link.unlink(missing_ok=True)
    link.symlink_to(link.name if content == "loop" else outside / "file")
    before = untouched(outside)
    said = give_again(out)
    assert untouched(outside) == before
    check(out, finished, said, link)


@pytest.mark.parametrize(
    ("content", "fresh"),
    [
        ("damaged", False),
        ("whole", True),
        *(pytest.param(*case, marks=pytest.mark.adversary) for case in (("whole", False), ("empty", False))),
        *(pytest.param(*case, marks=pytest.mark.adversary) for case in (("damaged", True), ("empty", True))),
    ],
)
@pytest.mark.parametrize("name", FOLDERS)
def test_folders_that_are_links(finished, tmp_path, name, content, fresh):
    out, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(finished, out)
    link = place(out, name)
    link.rename(outside)
    if content == "empty":
        shutil.rmtree(outside)
        outside.mkdir()
    if content == "damaged":
        for path in list(outside.rglob("*.json")):
            path.write_bytes(path.read_bytes()[:-9] + b"x\n")
    for leftover in LEFTOVERS:
        (outside / leftover).write_text("not ours")
    link.symlink_to(outside)
    before = untouched(outside)
    said = give_again(out, fresh=fresh)
    assert untouched(outside) == before
    assert said is not None or (content == "whole" and not fresh)  # which is reading alone
    check(out, finished, said, link)


def test_a_store_that_was_given_may_be_a_link(finished, tmp_path):
    from sizetransfer.runs.runner import run

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "elsewhere")
    where = {"executor": "serial", "registry": adversary_zoo.registry(), "device": "cpu"}
    assert run(adversary_zoo.experiment(), tmp_path / "run", store=tmp_path / "store", **where).complete
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_the_name_of_a_half_written_file_is_no_way_out(finished, tmp_path, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    folders = [out, out / "figures", place(out, f"trainings/{KEY}"), place(out, f"trainings/{KEY}/measurements")]

    def planted(path: Path, *arguments: object, **keywords: object) -> None:
        """Plant a link at every name that is about to be written, after all tidying."""
        for folder in folders:
            for name in ("manifest.json", "records.csv", "report.html", "training.svg"):
                link = folder / f".{name}.{os.getpid()}.partial"
                if folder.is_dir() and not link.is_symlink():
                    link.symlink_to(outside)
        whole(path, *arguments, **keywords)

    from sizetransfer.report import page
    from sizetransfer.runs import directory

    whole = directory.write_atomically
    monkeypatch.setattr(directory, "write_atomically", planted)
    monkeypatch.setattr(page, "write_atomically", planted)
    said = give_again(out)
    assert said is None
    assert outside.read_text() == "not ours"
