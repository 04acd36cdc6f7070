"""Crops: sites whose receptive field leaves the crop count in no loss and no measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_files import dataset, drawn, gaussian_fields, write

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import OracleError, SizetransferError, SpecError
from sizetransfer.contracts.oracle import Context, Sample, Teacher
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import FieldInfo, TrainingSpec
from sizetransfer.contracts.student import Student
from sizetransfer.measures import denoising_loss as denoising_loss_measure
from sizetransfer.scores.references import estimate_moments
from sizetransfer.scores.training import denoising_loss, train

BLOCKS = {"by": "blocks", "block": 16, "gap": 4}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """One field of 96 x 96 sites."""
    return write(tmp_path_factory.mktemp("image"), "npy", gaussian_fields(1, 96))


def crops(image, **fields):
    return dataset(image, boundary="crop", layout="BHW", **{"split": BLOCKS, **fields})


class Cut(Teacher):
    """Windows of large tori of Gaussian fields, as crops or as boxes with walls."""

    def __init__(self, *, crop: bool, margin: int = 8) -> None:
        super().__init__(FieldInfo(dim=2, periodic=False, crop=crop, sigma_data=0.6))
        self.whole, self.margin = st.teacher("gaussian", mass=0.5).double(), margin

    def sample(self, batch, size, *, generator):
        large = self.whole.sample(batch, size + 2 * self.margin, generator=generator).x
        inside = slice(self.margin, self.margin + size)
        return Sample(large[..., inside, inside].to(self.anchor), Context(self.domain(size)))


class Exact(Student):
    """The best linear filter of the torus on the crop, and nonsense at every site that sees beyond its sides."""

    def __init__(self, field, radius, nonsense=0.0):
        super().__init__(field, radius=radius)
        self.nonsense = nonsense

    def forward(self, x, sigma, context):
        score = -x / (sigma**2 + self.field.sigma_data**2)[:, None, None, None]
        known = context.domain.bulk(self.radius)
        return torch.where(known, score, score + self.nonsense)


def test_sites_that_count_are_those_that_see_no_side():
    crop = Lattice((7, 9), periodic=False, crop=True)
    counted = crop.counted(2)
    assert counted.sum() == 3 * 5
    assert counted[2:5, 2:7].all()
    assert crop.counted(0).all()
    assert not crop.counted(4).any()
    assert Lattice((7, 9), periodic=False).counted(2) is None
    assert Lattice((7, 9)).counted(2) is None
    assert crop != Lattice((7, 9), periodic=False)
    with pytest.raises(OracleError, match="without a radius"):
        crop.counted(None)


def test_dead_sites_do_not_count_in_a_crop_either():
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[0, 0, 2, 2] = False
    counted = Context(Lattice((5, 5), periodic=False, crop=True), mask=mask).counted(1)
    assert counted.sum((1, 2, 3)).tolist() == [8, 9]
    assert Context(Lattice((5, 5)), mask=mask).counted(1) is mask


@pytest.mark.parametrize("fields", [{"periodic": True}, {"periodic": False, "closed": (True, False)}])
def test_a_crop_is_open_along_every_axis(fields):
    with pytest.raises(SizetransferError, match="open sides"):
        FieldInfo(dim=2, crop=True, **fields)
    with pytest.raises(OracleError, match="open sides"):
        Lattice((4, 4), fields["periodic"], fields.get("closed"), crop=True)


@pytest.mark.parametrize("radius", [1, 3])
def test_nonsense_near_the_sides_changes_no_loss_of_training(radius):
    teacher = Cut(crop=True).double()
    sample = teacher.sample(4, 10, generator=stream("crop"))
    spec = TrainingSpec(size=10)
    losses = [
        denoising_loss(teacher, Exact(teacher.field, radius, bad), spec, sample, generator=stream("noise"))
        for bad in (0.0, 1e6)
    ]
    assert losses[0] == losses[1]
    box = Cut(crop=False).double()
    walls = Sample(sample.x, Context(box.domain(10)))
    wrong = denoising_loss(box, Exact(box.field, radius, 1e6), spec, walls, generator=stream("noise"))
    assert wrong > 1e6 * losses[0]


def test_a_site_too_many_would_be_found():
    """A student that claims a smaller radius than its nonsense has is seen: the test above can fail."""
    teacher = Cut(crop=True).double()
    sample = teacher.sample(4, 10, generator=stream("crop"))

    class Claims(Exact):
        def forward(self, x, sigma, context):
            score = -x / (sigma**2 + self.field.sigma_data**2)[:, None, None, None]
            return torch.where(context.domain.bulk(self.radius + 1), score, score + self.nonsense)

    spec = TrainingSpec(size=10)
    losses = [
        denoising_loss(teacher, Claims(teacher.field, 2, bad), spec, sample, generator=stream("noise"))
        for bad in (0.0, 1e6)
    ]
    assert losses[1] > 1e6 * losses[0]


def test_nonsense_near_the_sides_changes_no_measured_loss():
    teacher = Cut(crop=True).double()
    spec = st.measure("denoising-loss", sigmas=[0.3], fields=32, reference_fields=128)
    rows = [
        {one.part: one.value for one in spec.measure(teacher, Exact(teacher.field, 2, bad), 10, sigma=0.1, seed=0)}
        for bad in (0.0, 1e6)
    ]
    assert rows[0] == rows[1]
    assert set(rows[0]) == {"margin", "loss", "null", "linear", "excess"}  # of no larger radius in a crop of 10


def test_the_filter_of_crops_is_fitted_to_what_is_known(monkeypatch):
    """Sites beyond the sides of a crop are no zeros, as they are beyond walls."""
    teacher, found = Cut(crop=True).double(), []

    def kept(*arguments, **named):
        found.append(estimate_moments(*arguments, **named))
        return found[-1]

    monkeypatch.setattr(denoising_loss_measure, "estimate_moments", kept)
    spec = st.measure("denoising-loss", sigmas=[0.3], fields=8, reference_fields=37, radii=[1, 8])
    rows = list(spec.measure(teacher, Exact(teacher.field, 3), 9, sigma=0.1, seed=0))
    assert {one.part for one in rows} == {"margin", "loss", "null", "linear", "excess"}
    (moments,) = found
    assert int(moments.steps.abs().max()) == 3  # no filter that would see beyond the sides
    assert (moments.live == 1).all()
    assert estimate_moments(drawn(teacher, 4, 9, "box"), 3).live.min() < 1  # with the margin of a box with walls


def test_measures_without_a_rule_for_crops_are_skipped_by_name():
    teacher = Cut(crop=True)
    kinds = ("generation", "clean-score", "smoothed-score", "response", "jacobian", "second-order-forecast")
    skipped = {kind: st.measure(kind).lacking(teacher) for kind in kinds}
    assert all("whole fields (its fields are crops)" in lacking for lacking in skipped.values())
    assert st.measure("denoising-loss").lacking(teacher) == []
    assert st.measure("generation").lacking(Cut(crop=False)) == []


def test_crops_too_small_for_the_radius_are_refused(image):
    teacher = crops(image)
    student = st.student("cnn", teacher.field, blocks=3, width=2).double()
    assert student.radius == 8
    with pytest.raises(SpecError, match="at least 2 R \\+ 1 = 17"):
        train(teacher, student, TrainingSpec(size=16, steps=1), seed=0)
    world = st.student("spectral", teacher.field.model_copy(update={"crop": False, "periodic": True})).double()
    with pytest.raises(OracleError, match="without a radius"):
        train(teacher, world, TrainingSpec(size=16, steps=1), seed=0)


def test_windows_lie_in_the_blocks_of_their_side(image):
    teacher, whole = crops(image), torch.from_numpy(np.load(image))[0]
    place = {float(value): divmod(number, 96) for number, value in enumerate(whole.flatten())}
    blocks = {name: {one.low for one in regions} for name, regions in teacher.contents.parts.items()}
    corners = {"training": set(), "held out": set()}
    for step in range(40):
        for name in corners:
            own = teacher.split(name)
            x = drawn(own, 2, 6, "windows", step).x
            corners[name] |= {place[float(one[0, 0, 0])] for one in x}
            assert all(
                torch.equal(one[0], whole[a : a + 6, b : b + 6]) for one in x for a, b in [place[float(one[0, 0, 0])]]
            )
    for name, found in corners.items():
        for corner in found:
            low = tuple(site // 20 * 20 for site in corner)
            assert low in blocks[name]
            assert all(at + 6 <= start + 16 for at, start in zip(corner, low, strict=True))
    assert len(corners["training"]) > 60  # at random places
    assert all(site % 20 in {0, 6} for corner in corners["held out"] for site in corner)  # side by side


def test_held_out_windows_of_a_crop_are_counted(image):
    teacher = crops(image).split("held out")
    blocks = teacher.independent_fields(16)
    assert teacher.independent_fields(8) == 4 * blocks
    assert teacher.independent_fields(6) == 4 * blocks
    with pytest.raises(OracleError, match=f"at most {4 * blocks} held out"):
        drawn(teacher, 4 * blocks + 1, 8, "x")
    with pytest.raises(OracleError, match="at most 16"):
        drawn(teacher, 1, 17, "x")
    x = drawn(teacher, 4 * blocks, 8, "x").x
    assert len({tuple(one.flatten().tolist()) for one in x}) == 4 * blocks


def test_an_image_is_one_sample_unless_it_is_cut(image):
    with pytest.raises(SpecError, match="boundary: crop and split"):
        dataset(image, layout="BHW")
    with pytest.raises(SpecError, match="at least 3 blocks of 90 sites"):
        crops(image, split={"by": "blocks", "block": 90})
    with pytest.raises(SpecError, match="boundary: crop for a split by blocks"):
        dataset(image, layout="BHW", split=BLOCKS)


def test_a_best_linear_student_of_crops_is_fitted_to_what_is_known(image):
    teacher = crops(image).split("training")
    student = st.student("best-linear", teacher.field, radius=5, fields=10).double()
    student.fit(teacher, 16, seed=0)
    assert (dict(student.named_buffers())["live"] == 1).all()
    box = estimate_moments(drawn(teacher, 4, 16, "box"), 5)  # with the margin of a box with walls
    assert box.live.min() < 1


def test_of_crops_the_law_is_measured_and_no_score():
    """Pairs within a crop say the covariance; what lies beyond its sides is no zero, as it is beyond walls."""
    spec = st.measure("linear-references", fields=256, radii=[1], fitted=12)
    found, exact = {}, st.teacher("gaussian", mass=1.0).double()
    for crop in (True, False):
        teacher = Cut(crop=crop).double()
        teacher.whole = exact
        student = Exact(teacher.field, 2)
        found[crop] = {one.part: one for one in spec.measure(teacher, student, 12, sigma=0.1, seed=0)}
    assert set(found[True]) == {"site_variance", "nearest_covariance", "zero_mode", "correlation_length_squared"}
    covariance = exact.covariance(28, torch.arange(2))[0, 0, 0]
    for name, value in zip(("site_variance", "nearest_covariance"), covariance.tolist(), strict=True):
        one = found[True][name]
        assert abs(one.value - value) < 4 * one.standard_error
    length = found[True]["correlation_length_squared"]
    assert abs(length.value - 1.0) < 4 * length.standard_error  # 1/m

    class Known(Cut):
        def score(self, sample):
            return -sample.x  # what a function says of a field that it sees a part of

    parts = {}
    for crop in (True, False):
        teacher = Known(crop=crop).double()
        student = Exact(teacher.field, 2)
        parts[crop] = {one.part for one in spec.measure(teacher, student, 12, sigma=0.1, seed=0)}
    assert parts[False] - parts[True] >= {"null", "linear"}
