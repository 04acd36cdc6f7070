"""The held-out denoising loss against what theory says of Gaussian fields, and its pairing."""

from __future__ import annotations

import math

import pytest
import torch
from data_files import dataset, gaussian_fields, write

import sizetransfer as st
from sizetransfer.contracts.student import Student
from sizetransfer.measures.denoising_loss import DenoisingLossSpec

SIZE, LEVELS = 12, (0.3, 1.0)


class Known(Student):
    """The exact score of a teacher, with something added to it."""

    def __init__(self, teacher, added=0.0, radius=None):
        super().__init__(teacher.field, radius=radius)
        self.teacher, self.added = teacher, added

    def forward(self, x, sigma, context):
        return self.teacher.smoothed_score(x, sigma, context) + self.added


@pytest.fixture(scope="module")
def teacher():
    return st.teacher("gaussian", mass=0.5).double()


def measured(teacher, student, **fields):
    spec = DenoisingLossSpec(sigmas=LEVELS, **{"fields": 256, **fields})
    return {(one.part, one.coordinate): one for one in spec.measure(teacher, student, SIZE, sigma=0.1, seed=3)}


def spectrum_of(teacher):
    """Structure factor S(k) on the torus."""
    covariance = teacher.covariance(SIZE, torch.arange(SIZE**2))[0, 0, 0].reshape(SIZE, SIZE)
    return torch.fft.fftn(covariance).real


def near(one, value, errors=4):
    assert abs(one.value - value) < errors * one.standard_error, (one.part, one.value, value, one.standard_error)


def test_the_loss_of_the_exact_score_is_that_of_theory(teacher):
    spectrum = spectrum_of(teacher)
    found = measured(teacher, Known(teacher))
    for level in LEVELS:
        near(found["loss", level], float((spectrum / (spectrum + level**2)).mean()))
        variance = float(spectrum.mean())
        near(found["null", level], variance / (variance + level**2))
        assert found["loss", level].n == 256


def test_the_excess_is_the_squared_error_of_the_score(teacher):
    """A constant c added to the exact score costs sigma^2 c^2; the filter of the whole torus is exact to its fit."""
    found = {added: measured(teacher, Known(teacher, added), reference_fields=4096) for added in (0.0, 0.3)}
    for level in LEVELS:
        rise = found[0.3]["excess", level].value - found[0.0]["excess", level].value
        error = math.hypot(*(one["excess", level].standard_error for one in found.values()))
        assert abs(rise - level**2 * 0.3**2) < 4 * error
        near(found[0.0]["excess", level], 0.0)


def test_differences_are_paired_on_fields_and_noise(teacher):
    found = measured(teacher, Known(teacher))
    for level in LEVELS:
        assert found["excess", level].standard_error < 0.2 * found["loss", level].standard_error
        value = found["loss", level].value - found["linear", level].value
        assert found["excess", level].value == pytest.approx(value, abs=1e-12)
    other = measured(teacher, Known(teacher, 0.5))
    for key in found:
        if key[0] in {"null", "linear", "best"}:
            assert found[key].value == other[key].value


def test_what_a_radius_is_worth_is_told_from_what_the_student_lacks(teacher):
    """A student that is the best filter of radius 1 has no excess over it, and one over the best filter."""
    student = st.student("best-linear", teacher.field, radius=1, fields=4096).double()
    student.fit(teacher, SIZE, seed=0)
    found = measured(teacher, student, reference_fields=4096)
    assert abs(found["excess", 0.3].value) < 1e-3
    assert found["excess_best", 0.3].value > 10 * abs(found["excess", 0.3].value)
    assert found["null", 0.3].value > found["linear", 0.3].value > found["best", 0.3].value


def test_the_batch_changes_no_number(teacher):
    whole = measured(teacher, Known(teacher), fields=10, batch=10)
    for batch in (1, 4):
        found = measured(teacher, Known(teacher), fields=10, batch=batch)
        assert all(math.isclose(found[key].value, whole[key].value, rel_tol=1e-9) for key in whole)


def test_filters_are_fitted_to_training_fields(tmp_path):
    """Of few fields a filter of many sites has learnt the noise: on its own fields it would be better than any."""
    data = dataset(write(tmp_path, "npy", gaussian_fields(48, SIZE)), split={"held_out": 0.5})
    exact = st.teacher("gaussian", mass=0.5).double()
    spec = DenoisingLossSpec(sigmas=(0.3,), fields=24, radii=(5,), reference_fields=512)
    found = {one.part: one for one in spec.measure(data, Known(exact, radius=5), SIZE, sigma=0.1, seed=0)}
    near(found["excess_best"], 0.0, errors=5)
    assert found["loss"].n == 24

    class Everything(type(data)):
        def split(self, part):
            return self

    leaking = Everything(data.spec, data.contents).double()
    wide = DenoisingLossSpec(sigmas=(0.3,), fields=48, radii=(), reference_fields=48)
    leaked = {one.part: one for one in wide.measure(leaking, Known(exact), SIZE, sigma=0.1, seed=0)}
    assert leaked["excess_best"].value > 4 * leaked["excess_best"].standard_error  # judged on what it was fitted to


def parts_of(spec, teacher, student, size):
    return {one.part: one for one in spec.measure(teacher, student, size, sigma=0.1, seed=0)}


def test_sizes_without_training_fields_are_held_against_filters_of_the_training_size(tmp_path):
    """A filter fitted at the training size costs a larger one what its fit lacks, and no more."""
    paths = [write(tmp_path, "npy", gaussian_fields(256, size), f"L{size}") for size in (SIZE, 16)]
    apart = dataset(paths[0], held_out_files=[str(paths[1])], split={"held_out": 0.25})
    exact = st.teacher("gaussian", mass=0.5).double()
    spec = DenoisingLossSpec(sigmas=(0.3,), fields=64, radii=(2,))
    found = parts_of(spec.model_copy(update={"fitted": SIZE}), apart, Known(exact, radius=2), 16)
    known = parts_of(spec, dataset(*paths), Known(exact, radius=2), 16)
    for name in ("null", "linear", "best"):
        error = math.hypot(found[name].standard_error, known[name].standard_error)
        assert abs(found[name].value - known[name].value) < 4 * error
    assert found["excess_best"].value < 4 * found["excess_best"].standard_error  # the exact score loses nothing
    assert list(parts_of(spec, apart, Known(exact, radius=2), 16)) == ["loss"]  # no training size was named


def test_in_boxes_with_walls_the_bulk_counts(tmp_path):
    """Behind a wall a filter of the bulk sees zeros: there, it is not held against anything."""
    box = dataset(write(tmp_path, "npy", gaussian_fields(256, SIZE)), boundary="walls")
    student = st.student("best-linear", box.field, radius=2, fields=128).double()
    student.fit(box.split("training"), SIZE, seed=0)
    found = parts_of(DenoisingLossSpec(sigmas=(0.3,), fields=64, radii=(4,)), box, student, SIZE)
    assert found["margin"].value == 3
    assert abs(found["excess"].value) < 0.01 * found["loss"].value
    assert found["null"].value > found["linear"].value
    near(found["best"], found["linear"].value)


def test_what_no_filter_was_fitted_for_is_missing_and_not_zero(tmp_path):
    """Of a crop of 12 sites a student of radius 3 leaves 6: there is no larger radius to tell what its own costs."""
    crop = dataset(write(tmp_path, "npy", gaussian_fields(64, SIZE)), boundary="crop", layout="BHW")
    spec = DenoisingLossSpec(sigmas=(0.3,), fields=8, radii=(1, 4))
    for radius, best in ((3, False), (1, False), (0, True)):
        student = st.student("best-linear", crop.field, radius=radius, fields=32).double()
        found = parts_of(spec, crop, student, SIZE)
        assert found["margin"].value == max(radius, 1)
        assert ("best" in found, "excess_best" in found) == (best, best)
        assert "linear" in found
    exact = st.teacher("gaussian", mass=0.5).double()
    torus = dataset(write(tmp_path, "npy", gaussian_fields(512, SIZE)))
    assert {"linear", "best"} & set(parts_of(spec, torus, Known(exact, radius=6), SIZE)) == {"best"}
    # Three fields, of which the filters of larger balls learn the noise.
    few = dataset(write(tmp_path, "npy", gaussian_fields(12, SIZE)), layout="BHW", split={"held_out": 0.75})
    spec = DenoisingLossSpec(sigmas=(0.1,), fields=9, radii=(4,))
    assert {"linear", "best"} & set(parts_of(spec, few, Known(exact, radius=0), SIZE)) == {"linear"}
