"""Damaged files: each is named or done again, never used, and the records stay what they were."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import adversary_zoo
import pytest
from adversary_zoo import remains

from sizetransfer.contracts.errors import RunError
from sizetransfer.report import write_report
from sizetransfer.runs.opened import read_run
from sizetransfer.runs.runner import run
from sizetransfer.runs.storage import RunWarning, sealed, to_bytes

VIEW = ("experiment.json", "manifest.json", "records.parquet")
WRITTEN_ONLY = ("records.csv", "verdicts.json", "report.html", "figures/training.svg", "figures/training.png")
STORED = ("training.json", "student.safetensors", "student.json", "training.csv")
WAYS = ("first bit", "middle bit", "last bit", "cut", "longer", "empty", "missing", "other", "folder")
LONG = pytest.mark.adversary


def cases(names, ways, short) -> list:
    """Names times ways; those whose way is not among the short ones belong to the long form."""
    return [
        pytest.param(name, way, marks=() if way in short else LONG, id=f"{name}-{way}")
        for name in names
        for way in ways
    ]


NOT_DONE_YET = {("training.json", "missing"), ("measurement", "missing")}
"""What is not there has not been done yet, which is no damage."""


def trained(out: Path, seed: int) -> Path:
    """The folder of the training with this seed."""
    manifest = json.loads((out / "manifest.json").read_text())
    return out / "trainings" / next(trial["trial"] for trial in manifest["trials"] if trial["seed"] == seed)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of two seeds, so that every file has another valid one of its kind."""
    out = tmp_path_factory.mktemp("finished") / "run"
    write_report(give(out))
    return out


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A run of another experiment of the same name."""
    out = tmp_path_factory.mktemp("other") / "run"
    write_report(give(out, seeds=[1, 3], title="Another"))
    return out


def give(out: Path, **changes: object):
    experiment = adversary_zoo.experiment(**{"seeds": [0, 1], **changes})
    return run(experiment, out, executor="serial", registry=adversary_zoo.registry(), device="cpu")


def spoil(path: Path, way: str, other: Path) -> None:
    whole = path.read_bytes()

    def flipped(place: int) -> bytes:
        return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]

    def folder() -> None:
        path.unlink()
        path.mkdir()

    ways: dict[str, Callable[[], object]] = {
        "first bit": lambda: path.write_bytes(flipped(0)),
        "middle bit": lambda: path.write_bytes(flipped(len(whole) // 2)),
        "last bit": lambda: path.write_bytes(flipped(len(whole) - 2)),
        "cut": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "longer": lambda: path.write_bytes(whole + b"\0"),
        "empty": lambda: path.write_bytes(b""),
        "missing": path.unlink,
        "other": lambda: shutil.copy(other, path),
        "folder": folder,
    }
    ways[way]()


def give_again(out: Path) -> list[str]:
    """Give the command again and report; what was said: warnings, the error of the run, errors of trials."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            again = give(out)
            write_report(again)
            errors = [failure["error"] for failure in again.failures]
        except RunError as error:
            errors = [str(error)]
    assert {warning.category for warning in caught} <= {RunWarning, UserWarning}
    return [*(str(warning.message) for warning in caught), *errors]


def check_again(out: Path, finished: Path, path: Path, way: str, *, silent: bool) -> None:
    """The next run names the file, or has to name none; once a folder in its place is gone, all is as it was."""
    said = give_again(out)
    if way == "folder" and path.is_dir():
        assert any(path.name in text for text in said)
        path.rmdir()
        said += give_again(out)
    assert silent or any(path.name in text for text in said), said
    assert remains(out) == remains(finished)
    assert give_again(out) == []


@pytest.mark.parametrize(("name", "way"), cases(VIEW, WAYS, {"middle bit", "empty", "other", "folder"}))
def test_the_view(finished, other, tmp_path, name, way):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    spoil(out / name, way, other / name)
    with pytest.raises(RunError) as caught:
        read_run(out, registry=adversary_zoo.registry())
    assert name in str(caught.value) or way in {"missing", "folder", "other"}
    # Its name, by which the directory is known, is in two of the files.
    check_again(out, finished, out / name, way, silent=name != "experiment.json" or way == "other")


@pytest.mark.parametrize(("name", "way"), cases(WRITTEN_ONLY, WAYS, {"folder"}))
def test_what_is_written_and_never_read(finished, other, tmp_path, name, way):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    records = read_run(out, registry=adversary_zoo.registry()).records
    spoil(out / name, way, other / name)
    assert read_run(out, registry=adversary_zoo.registry()).records.equals(records)
    check_again(out, finished, out / name, way, silent=True)


@pytest.mark.parametrize(("name", "way"), cases([*STORED, "measurement"], WAYS, {"middle bit", "other", "folder"}))
def test_the_store(finished, tmp_path, name, way):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    path, another = (
        min((trained(out, seed) / "measurements").glob("*.json"))
        if name == "measurement"
        else trained(out, seed) / name
        for seed in (0, 1)
    )
    spoil(path, way, another)
    if name != "measurement":
        there = read_run(out, registry=adversary_zoo.registry())
        for read in (there.student, there.training):
            with pytest.raises(RunError, match=r"damaged|not finished"):
                read("white", "student", 0)
        assert there.student("white", "student", 1) is not None
    gone = name if way != "folder" else ""
    check_again(out, finished, path, way, silent=(name, way) in NOT_DONE_YET or (gone == "" and way == "folder"))


@pytest.mark.parametrize("way", ["middle bit", pytest.param("cut", marks=LONG), "other", "folder"])
def test_a_checkpoint(finished, tmp_path, way, monkeypatch):
    """Of a run that stopped in the second training."""
    import sizetransfer.scores.training

    out = tmp_path / "run"
    kept: list[bytes] = []
    save = sizetransfer.scores.training.save_file

    def stop_at_the_fourth(tensors, path, **keywords):
        save(tensors, path, **keywords)
        kept.append(path.read_bytes())
        if len(kept) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sizetransfer.scores.training, "save_file", stop_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            give(out)
    (checkpoint,) = out.rglob("checkpoint.safetensors")
    (tmp_path / "other").write_bytes(kept[0])
    spoil(checkpoint, way, tmp_path / "other")
    said = give_again(out)
    assert any("checkpoint.safetensors" in text for text in said)
    if way == "folder":
        checkpoint.rmdir()
    write_report(give(out))
    assert remains(out) == remains(finished)


def test_files_of_one_training_under_the_name_of_another(finished, tmp_path):
    """Whole, with digests that fit: the key inside tells."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    first, second = trained(out, 0), trained(out, 1)
    for name in STORED:
        shutil.copy(second / name, first / name)
    check_again(out, finished, first / "training.json", "other", silent=False)
    shutil.rmtree(first)
    shutil.copytree(second, first)
    shutil.rmtree(first / "measurements")
    check_again(out, finished, first / "training.json", "other", silent=False)


def test_weights_of_another_training_with_their_digest(finished, tmp_path):
    """Somebody who can seal can lie about weights; about the training's key or specification they are found out."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    first, second = trained(out, 0), trained(out, 1)
    shutil.copy(second / "student.json", first / "student.json")
    body = json.loads((first / "training.json").read_text())
    body.pop("digest")
    body["digests"] = json.loads((second / "training.json").read_text())["digests"]
    shutil.copy(second / "student.safetensors", first / "student.safetensors")
    shutil.copy(second / "training.csv", first / "training.csv")
    (first / "training.json").write_bytes(to_bytes(sealed(body)))
    there = read_run(out, registry=adversary_zoo.registry())
    with pytest.raises(RunError, match="another specification"):
        there.student("white", "student", 0)


def test_a_measurement_under_the_name_of_another(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    first, second = sorted((trained(out, 0) / "measurements").glob("*.json"))
    shutil.copy(second, first)
    check_again(out, finished, first, "other", silent=False)


@pytest.mark.parametrize("name", ["records.parquet", "student.safetensors", "measurement"])
def test_a_file_that_may_not_be_read(finished, tmp_path, monkeypatch, name):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    folder = trained(out, 0)
    paths = {name: out / name, **{stored: folder / stored for stored in STORED}}
    path = min((folder / "measurements").glob("*.json")) if name == "measurement" else paths[name]
    whole = Path.read_bytes

    def forbidden(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return whole(self)

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    said = give_again(out)
    assert any(path.name in text and "EACCES" in text for text in said)
    monkeypatch.undo()
    assert give_again(out) == []
    assert remains(out) == remains(finished)
