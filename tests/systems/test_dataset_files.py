"""Files of fields: every kind, layout and type gives the same numbers, and what is wrong with them is named."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import KINDS, dataset, drawn, gaussian_fields, write

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import SizetransferError, SpecError
from sizetransfer.systems.dataset import readers
from sizetransfer.systems.dataset.layouts import candidates, named, recognised
from sizetransfer.systems.dataset.readers import open_array
from sizetransfer_verification import check_teacher

COUNT, SIZE = 12, 6
TYPES = (">f8", "<f4", ">f4", ">i2", "u1", "<i8")


def plain(dim=2, channels=1, dtype="<f8"):
    """Fields ``(B, C, *S)`` whose numbers every type can hold."""
    numbers = np.random.default_rng(3).integers(0, 100, (COUNT, channels, *(SIZE,) * dim))
    return numbers.astype(dtype)


def all_fields(teacher, size=SIZE):
    """Every field once, in the order of its first number."""
    found = drawn(teacher, teacher.independent_fields(size), size, "all").x
    return sorted(found.flatten(1).tolist())


def expected(array):
    return sorted(array.astype(float).reshape(len(array), -1).tolist())


def refusal(*paths, **fields):
    with pytest.raises(SizetransferError) as caught:
        dataset(*paths, **fields)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "dtype"), [*itertools.product(KINDS, ("<f8", "<f4")), *(("npy", t) for t in TYPES)])
def test_every_kind_of_file_gives_its_fields(tmp_path, kind, dtype):
    array = plain(channels=2, dtype=dtype)
    teacher = dataset(write(tmp_path, kind, array), layout="BCHW")
    assert all_fields(teacher) == expected(array)
    assert drawn(teacher, 2, SIZE, 0).x.dtype == torch.float64


def test_half_precision_of_safetensors_is_read(tmp_path):
    array = plain()[:, 0]
    path = tmp_path / "half.safetensors"
    from safetensors.torch import save_file

    save_file({"x": torch.from_numpy(array).bfloat16()}, path)
    assert all_fields(dataset(path)) == expected(array)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", ["npy", "zarr", "h5", "safetensors"])
def test_every_layout_gives_the_same_fields(tmp_path, dim, kind):
    array, letters = plain(dim, channels=2), "BC" + {1: "L", 2: "HW", 3: "DHW"}[dim]
    orders = list(itertools.permutations(letters)) if kind == "npy" else [tuple(letters), tuple(letters[::-1])]
    for number, order in enumerate(orders):
        stored = array.transpose([letters.index(letter) for letter in order])
        path = write(tmp_path, kind, np.ascontiguousarray(stored), f"a{number}")
        assert all_fields(dataset(path, layout="".join(order))) == expected(array)


def test_columns_first_are_read(tmp_path):
    array = plain()
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    np.savez(tmp_path / "a.npz", np.asfortranarray(array))
    for name in ("a.npy", "a.npz"):
        assert all_fields(dataset(tmp_path / name, layout="BCHW")) == expected(array)


@pytest.mark.parametrize(
    ("shape", "options", "text"),
    [
        ((40, 9, 9), {}, "BHW"),
        ((40, 9), {}, "BL"),
        ((40, 9, 9, 3), {}, "BHWC"),
        ((40, 3, 9, 9), {}, "BCHW"),
        ((40, 9, 9, 9), {}, "BDHW"),
        ((40, 9, 9, 9, 3), {}, "BDHWC"),
        ((40, 3, 9), {}, None),
        ((40, 3, 9), {"dim": 1}, "BCL"),
        ((40, 9, 12, 2), {"cubic": False}, None),
        ((40, 9, 12, 2), {"cubic": False, "dim": 2}, "BHWC"),
        ((40, 4, 4, 4), {"dim": 2, "channels": 4}, None),
        ((3, 9, 9), {}, None),
        ((3, 9, 9), {"channels": 3}, "CHW"),
        ((1, 9, 9), {}, "BHW"),
        ((9, 9), {"cubic": False}, None),
        ((9, 9), {"cubic": False, "dim": 2}, "HW"),
        ((40, 9, 12), {}, None),
    ],
)
def test_a_layout_is_recognised_where_one_reading_fits(shape, options, text):
    if text is not None:
        assert recognised(shape, "here", **options).text == text
        return
    with pytest.raises(SpecError) as caught:
        recognised(shape, "here", **options)
    given = {"dim": None, "channels": None, "cubic": True, **options}
    assert all(one.text in str(caught.value) for one in candidates(shape, **given))


def test_what_was_recognised_is_said_and_what_was_written_is_not(tmp_path):
    path = write(tmp_path, "npy", plain()[:, 0])
    assert "12 fields of 1 channel on 6 x 6 sites (layout BHW" in dataset(path).notes[0]
    assert not any("layout" in note for note in dataset(path, layout="BHW").notes)


@pytest.mark.parametrize("text", ["BHH", "BQ", "", "BCC", "BHD", "BHWX"])
def test_a_layout_that_is_none_is_refused(text):
    with pytest.raises(SpecError, match="a letter an axis"):
        named(text, "layout")


def test_one_of_several_arrays_is_named(tmp_path):
    array = plain()[:, 0]
    path = tmp_path / "two.npz"
    np.savez(path, a=array, b=array + 1)
    said = refusal(path)
    assert "a (12, 6, 6), b (12, 6, 6)" in said
    assert "array: a" in said
    assert all_fields(dataset({"path": str(path), "array": "b"})) == expected(array + 1)
    assert "no array 'c'" in refusal({"path": str(path), "array": "c"})


def _pickled(path):
    np.save(path / "p.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    return path / "p.npy"


def _pickled_member(path):
    np.savez(path / "p.npz", a=np.array([{}, 1], dtype=object))
    return path / "p.npz"


def _truncated(path):
    found = write(path, "npy", plain()[:, 0])
    found.write_bytes(found.read_bytes()[:-100])
    return found


def _garbage(name):
    def made(path):
        (path / name).write_bytes(b"no file of this kind")
        return path / name

    return made


def _named_as(name):
    def made(path):
        (path / name).touch()
        return path / name

    return made


def _complex(path):
    return write(path, "npy", plain()[:, 0] * 1j)


BAD_FILES = {
    "missing": (lambda path: path / "nowhere.npy", "does not exist"),
    "pickled": (_pickled, "Python objects"),
    "pickled member": (_pickled_member, "Python objects"),
    "truncated": (_truncated, "cannot be read"),
    "torch's own": (_named_as("fields.pt"), "kind of a file"),
    "no suffix": (_named_as("fields"), "no suffix"),
    "complex": (_complex, "two channels"),
    **{f"garbage {name}": (_garbage(name), "cannot be read") for name in ("a.npy", "a.npz", "a.safetensors", "a.h5")},
    "garbage zarr": (_garbage("a.zarr"), "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_read_is_named(tmp_path, case):
    make, said = BAD_FILES[case]
    path = make(tmp_path)
    text = refusal(path)
    assert said in text
    assert str(path) in text
    assert "fix:" in text


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = write(tmp_path, "zarr", plain()[:, 0])

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(readers.importlib, "import_module", missing)
    assert 'pip install "sizetransfer[data]"' in refusal(path)


def test_a_large_compressed_array_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path, "packed.npz", plain()[:, 0])
    monkeypatch.setattr(readers, "LARGEST_UNPACKED", 100)
    assert "too large to be unpacked" in refusal(path)
    assert open_array(write(tmp_path, "npz", plain()[:, 0])).shape == (COUNT, SIZE, SIZE)


def test_numbers_that_are_not_finite_are_named_with_sample_channel_and_site(tmp_path):
    array = plain(channels=2)
    array[7, 1, 2, 3] = np.nan
    text = refusal(write(tmp_path, "npy", array), layout="BCHW", split={"by": "sequence"})
    assert "sample 7, channel 1, site (2, 3)" in text
    array[7, 1, 2, 3], array[11, 0, 5, 5] = 0, -np.inf
    held_out = dataset(write(tmp_path, "npy", array), layout="BCHW", split={"by": "sequence"}).split("held out")
    with pytest.raises(SpecError, match=r"sample 11, channel 0, site \(5, 5\)"):
        drawn(held_out, held_out.independent_fields(SIZE), SIZE, 0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1])
def test_a_constant_channel_is_named(tmp_path, value):
    array = plain(channels=2)
    array[:, 1] = value
    assert "channel 1" in refusal(write(tmp_path, "npy", array), layout="BCHW")


def test_one_sample_is_too_few(tmp_path):
    for count in (1, 2):
        text = refusal(write(tmp_path, "npy", plain()[:count, 0]), layout="BHW")
        assert "at least 3 samples" in text
        assert f"got:      {count}" in text


def test_sizes_that_contradict_the_domain_are_named(tmp_path):
    oblong = np.random.default_rng(0).standard_normal((9, 6, 8))
    path = write(tmp_path, "npy", oblong)
    assert "the same number of sites" in refusal(path, layout="BHW")
    assert "No layout fits" in refusal(path)
    square = write(tmp_path, "npy", plain()[:, 0], "square")
    assert "fields of 3 axes" in refusal(square, layout="BHW", dim=3)
    assert "2 channels" in refusal(square, layout="BHW", channels=2)
    assert "does not fit the array" in refusal(square, layout="BCHW")
    other = write(tmp_path, "npy", plain(channels=2), "other")
    assert "not alike" in refusal({"path": str(square), "layout": "BHW"}, {"path": str(other), "layout": "BCHW"})
    assert "given twice" in refusal(square, square)


def test_units_are_the_data_s_or_said(tmp_path):
    array = plain(channels=2).astype(float) * [[[[3.0]], [[0.5]]]] + [[[[50.0]], [[-900.0]]]]
    path = write(tmp_path, "npy", array)
    scaled = {units: dataset(path, layout="BCHW", units=units) for units in ("data", "centred", "standard")}
    train = scaled["data"].split("training")
    raw = drawn(train, train.independent_fields(SIZE), SIZE, 0).x
    deviation, mean = raw.std((0, 2, 3), correction=0), raw.mean((0, 2, 3))
    assert scaled["data"].field.sigma_data == pytest.approx(float(deviation.square().mean().sqrt()))
    assert scaled["standard"].field.sigma_data == 1.0
    shape = (1, 2, 1, 1)
    for units, wanted in (
        ("centred", raw - mean.reshape(shape)),
        ("standard", (raw - mean.reshape(shape)) / deviation.reshape(shape)),
    ):
        own = scaled[units].split("training")
        found = drawn(own, own.independent_fields(SIZE), SIZE, 0).x
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-10)
        assert any(f"fields {units} (" in note for note in scaled[units].notes)
    assert any("larger than the deviation" in note for note in scaled["data"].notes)


def test_masks_and_conditions_come_with_their_fields(tmp_path):
    array = plain()[:, 0].astype(float)
    dead = np.zeros((COUNT, SIZE, SIZE), bool)
    dead[:, 0, 0] = True
    array[dead] = np.nan
    path, mask = write(tmp_path, "npy", array), write(tmp_path, "npz", ~dead, "mask")
    condition = write(tmp_path, "npy", array[..., None] * [1.0, 2.0], "condition")
    file = {"path": str(path), "mask": str(mask), "condition": {"path": str(condition), "layout": "BHWC"}}
    teacher = dataset(file, layout="BHW")
    assert teacher.field.condition_channels == 2
    sample = drawn(teacher, 5, SIZE, 0)
    live = sample.context.mask
    assert live.shape == (5, 1, SIZE, SIZE)
    assert (~live).sum() == 5
    assert (sample.x[..., 0, 0] == 0).all()
    two = torch.cat([sample.x, 2 * sample.x], 1)
    assert torch.equal(torch.where(live, sample.context.condition, 0.0), two)


def test_one_mask_serves_all_fields(tmp_path):
    path = write(tmp_path, "npy", plain()[:, 0])
    one = np.ones((SIZE, SIZE))
    one[2] = 0
    mask = write(tmp_path, "npy", one, "mask")
    sample = drawn(dataset({"path": str(path), "mask": str(mask)}), 3, SIZE, 0)
    assert (sample.context.mask == torch.tensor(one != 0)).all()
    wrong = write(tmp_path, "npy", one[1:], "wrong")
    assert "does not fit its fields" in refusal({"path": str(path), "mask": str(wrong)})


def test_a_file_larger_than_memory_is_read_as_it_is_wanted(tmp_path):
    """Four gigabytes, nearly all of them a hole in the file; a few fields of them are in memory at a time."""
    path, side, count = tmp_path / "large.npy", 256, 8192
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, side, side)))
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {**header, "shape": (count, side, side)})
        start = stream.tell()
        stream.truncate(start + 8 * count * side * side)
    array = np.lib.format.open_memmap(path, mode="r+")
    for row in range(0, count, 128):
        array[row] = np.random.default_rng(row).standard_normal((side, side))
    del array
    tracemalloc.start()
    teacher = dataset(path, split={"by": "sequence"})
    drawn(teacher.split("training"), 8, side, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 2**32
    assert peak < 2**28
    assert any("the scale was measured on" in note for note in teacher.notes)


def test_a_specification_is_read_back_and_its_files_take_part(tmp_path):
    path = write(tmp_path, "npy", gaussian_fields(8, 6))
    spec = dataset(path).spec
    assert type(spec).parse(spec.to_json()) == spec
    assert spec.reads() == (Path(path),)
    with pytest.raises(SizetransferError, match="boundary"):
        st.teacher("dataset", files=[str(path)])


@pytest.mark.slow
def test_data_keep_the_contract_of_a_teacher(tmp_path):
    teacher = dataset(write(tmp_path, "npy", gaussian_fields(6144, 4)), layout="BHW", translation_period=1, even=True)
    check_teacher(teacher).raise_if_failed()


def test_axes_may_be_closed_or_have_walls(tmp_path):
    """A cylinder: a filter of the bulk is the same along it, and sees nothing beyond the walls."""
    path = write(tmp_path, "npy", gaussian_fields(64, 8))
    cylinder = dataset(path, boundary=["walls", "periodic"], layout="BHW")
    assert cylinder.domain(8) == Lattice((8, 8), periodic=False, closed=(False, True))
    with pytest.raises(st.SpecError, match="some axes close"):
        st.diagnose(data=cylinder)
    student = st.student("best-linear", cylinder.field, radius=1, fields=32).double()
    student.fit(cylinder.split("training"), 8, seed=0)
    spec = st.measure("denoising-loss", sigmas=[0.3], fields=16, radii=[2])
    found = {one.part: one.value for one in spec.measure(cylinder, student, 8, sigma=0.1, seed=0)}
    assert found["margin"] == 2
    assert found["linear"] < found["null"]
    alike = dataset(path, boundary=["periodic", "periodic"], layout="BHW")
    assert alike.field == dataset(path, layout="BHW").field
    for wrong in (["walls", "periodic", "walls"], []):
        with pytest.raises(SpecError, match="axes of the lattice"):
            dataset(path, boundary=wrong, layout="BHW")
    with pytest.raises(SizetransferError):
        dataset(path, boundary=["crop", "periodic"], layout="BHW")
