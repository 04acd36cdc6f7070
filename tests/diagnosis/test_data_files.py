"""Files of every kind are diagnosed as the arrays that they hold, in parts; what cannot be diagnosed is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from data_files import KINDS, dataset, gaussian_fields, write

import sizetransfer as st
from sizetransfer.cli import cli
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.stored import ReadsFiles, StoredFields
from sizetransfer.diagnosis.from_data import ArrayFields, DataDiagnosis
from sizetransfer.diagnosis.from_data.asked import names_data, stored_of
from sizetransfer.registry import default_registry

QUESTION = {"radii": (2,), "sigmas": (0.5,)}
FIELDS = gaussian_fields(32, 12)
INTEGERS = np.round(100 * FIELDS).astype("<i2")


def numbers(found: DataDiagnosis) -> list[object]:
    """What a diagnosis found, without names and times."""
    data = found.to_json()
    return [data[name] for name in ("ranges", "changes", "radii", "boxes", "deviation") if name != "radii"] + [
        [one["generated"] for one in data["radii"]]
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_its_array(tmp_path, kind):
    found = st.diagnose(str(write(tmp_path, kind, FIELDS)), **QUESTION)
    assert numbers(found) == numbers(st.diagnose(data=FIELDS[:, None], **QUESTION))
    assert any("32 fields of 1 channel on 12 x 12 sites (layout BHW" in note for note in found.notes)


@pytest.mark.parametrize("dtype", [">f8", ">i2", "<i8"])
def test_types_and_byte_orders_are_their_numbers(tmp_path, dtype):
    found = st.diagnose(write(tmp_path, "npy", INTEGERS.astype(dtype)), **QUESTION)
    assert numbers(found) == numbers(st.diagnose(data=INTEGERS[:, None].astype(float), **QUESTION))


@pytest.mark.parametrize(
    ("layout", "axes", "said"),
    [("BHWC", (0, 2, 3, 1), True), ("CBWH", (1, 0, 3, 2), False), ("BCHW", (0, 1, 2, 3), True)],
)
def test_layouts_are_read_as_written_or_recognised(tmp_path, layout, axes, said):
    two = np.stack([FIELDS, np.roll(FIELDS, 1, axis=0)], 1)
    path = write(tmp_path, "npy", two.transpose(axes))
    expected = numbers(st.diagnose(data=two, **QUESTION))
    found = st.diagnose(path, layout=layout, **QUESTION)
    assert numbers(found) == expected
    assert not any("layout" in note for note in found.notes)
    if said:
        recognised = st.diagnose(path, **QUESTION)
        assert numbers(recognised) == expected
        assert any(f"layout {layout}, by shape" in note for note in recognised.notes)


def test_the_command_takes_layouts_arrays_and_several_files(tmp_path):
    larger = gaussian_fields(16, 24)
    first, second = write(tmp_path, "npz", FIELDS[..., None]), write(tmp_path, "npy", larger, "larger")
    np.savez(tmp_path / "two.npz", other=FIELDS, fields=FIELDS[..., None])
    arguments = ["diagnose", "--layout", "BHWC", "--radius", "2", "--sigma", "0.5", "--json"]
    alone = CliRunner().invoke(cli, [*arguments, "--data", str(first)], catch_exceptions=False)
    named = f"{{path: {tmp_path / 'two.npz'}, array: fields}}"
    chosen = CliRunner().invoke(cli, [*arguments, "--data", named], catch_exceptions=False)
    assert json.loads(chosen.stdout)["ranges"] == json.loads(alone.stdout)["ranges"]
    both = CliRunner().invoke(cli, ["diagnose", "--data", str(second), "--data", named.replace("fields}", "other}")])
    assert "32 fields of L = 12; 16 fields of L = 24" in both.output
    assert both.output.count("layout BHW, by shape") == 2
    several = CliRunner().invoke(cli, ["diagnose", "--data", str(tmp_path / "two.npz")])
    assert several.exit_code == 2
    assert "array: fields" in several.output


def test_files_of_one_size_are_one_set(tmp_path):
    parts = [write(tmp_path, "npy", part, name) for part, name in ((FIELDS[:10], "a"), (FIELDS[10:], "b"))]
    stored = stored_of(parts)
    assert stored.count(12) == 32
    assert np.array_equal(stored.rows(12, slice(8, 15))[:, 0].numpy(), FIELDS[8:15])
    assert np.array_equal(stored.rows(12, [25, 3])[:, 0].numpy(), FIELDS[[25, 3]])


def test_pictures_are_cut_as_arrays_are(tmp_path):
    picture = gaussian_fields(1, 128)
    for array in (picture, picture[0]):
        stored = stored_of(write(tmp_path, "npy", array), "crop", "HW" if array.ndim == 2 else None)
        expected = ArrayFields(picture[:, None], "crop")
        (side,) = stored.sizes()
        assert (side, stored.count(side)) == (*expected.sizes(), expected.count(side))
        assert torch.equal(stored.rows(side, slice(None)), expected.rows(side, slice(None)))


def test_a_teacher_of_files_has_its_fields_in_the_order_of_the_files(tmp_path):
    teacher = dataset(write(tmp_path, "npy", FIELDS), units="centred")
    assert isinstance(teacher, StoredFields)
    assert names_data(teacher)
    assert not names_data(st.teacher("gaussian"))
    assert torch.allclose(
        teacher.rows(12, slice(3, 7))[:, 0] + teacher.contents.scale.mean[0], torch.tensor(FIELDS[3:7])
    )
    parts = [teacher.split(part) for part in ("training", "held out")]
    assert sum(part.count(12) for part in parts) == teacher.count(12) == 32
    spec = {"kind": "dataset", "files": [str(write(tmp_path, "npy", FIELDS))], "boundary": "periodic"}
    assert numbers(st.diagnose(data=spec, **QUESTION)) == numbers(st.diagnose(data=FIELDS[:, None], **QUESTION))


def test_masks_and_conditions_are_refused_by_name(tmp_path):
    path, mask = write(tmp_path, "npy", FIELDS), write(tmp_path, "npy", np.ones((12, 12), bool), "mask")
    for name in ("mask", "condition"):
        spec = {"kind": "dataset", "files": [{"path": str(path), name: str(mask)}], "boundary": "periodic"}
        for data in (spec, spec["files"][0]):
            with pytest.raises(SpecError, match=f"with a {name} are not diagnosed"):
                st.diagnose(data=data, **QUESTION)


@pytest.mark.parametrize(
    ("data", "options", "what"),
    [
        ("nowhere.npy", {}, "does not exist"),
        ("nowhere.pt", {}, "does not exist"),
        (FIELDS[:, None], {"layout": "BCHW"}, "layout is that of files"),
        (ArrayFields(FIELDS[:, None]), {"boundary": "crop"}, "boundary is that of files"),
        ([], {}, "no data"),
        (["a.npy", FIELDS], {}, "no data"),
        ({"kind": "gaussian"}, {}, "no stored fields"),
        ({"path": "nowhere.npy", "arrray": "x"}, {}, "arrray"),
    ],
)
def test_what_is_no_data_is_named(data, options, what):
    with pytest.raises(SpecError, match=what):
        st.diagnose(data=data, **QUESTION, **options)


def test_the_reader_is_found_by_what_it_declares(monkeypatch):
    reader = default_registry().first("teacher", lambda spec: isinstance(spec, ReadsFiles))
    assert reader is not None
    assert ".npy" in reader.file_suffixes
    monkeypatch.setattr("sizetransfer.diagnosis.from_data.asked._reader", lambda: None)
    assert not names_data("fields.npy")
    with pytest.raises(SpecError, match="Nothing that is installed reads files"):
        st.diagnose(data="fields.npy")


def sparse(path: Path, count: int, side: int, every: int) -> Path:
    """A file that is a hole but for some fields."""
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, side, side)))
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {**header, "shape": (count, side, side)})
        stream.truncate(stream.tell() + 8 * count * side * side)
    array = np.lib.format.open_memmap(path, mode="r+")
    for row in range(0, count, every):
        array[row] = np.random.default_rng(row).standard_normal((side, side))
    return path


def test_some_fields_of_a_large_file_are_read(tmp_path):
    """Four gigabytes; those that are asked for are evenly spread."""
    path = sparse(tmp_path / "large.npy", 2**15, 128, 2**9)
    found = st.diagnose(path, fields=64, **QUESTION)
    assert path.stat().st_size > 2**32
    assert found.sizes[0].fields == 64
    # Every field that was read is white noise of deviation one.
    assert found.deviation == 1.0


LIMITED = """
import resource, sys
import sizetransfer as st
st.diagnose(data=sys.argv[2], radii=(2,), sigmas=(0.5,))  # imports what there is, and fills caches
with open("/proc/self/status") as status:
    used = next(int(line.split()[1]) for line in status if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 2**28, used + 2**28))
found = st.diagnose(data=sys.argv[1], radii=(2,), sigmas=(0.5,))
print(found.sizes[0].fields)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits as Linux has them")
def test_a_file_larger_than_the_memory_is_read_in_parts(tmp_path):
    """Half a gigabyte, in a process that may allocate half of that."""
    path = sparse(tmp_path / "large.npy", 2**12, 128, 2**3)
    small = write(tmp_path, "npy", gaussian_fields(64, 16))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(small)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "4096\n", done.stderr
    assert path.stat().st_size > 2**29
