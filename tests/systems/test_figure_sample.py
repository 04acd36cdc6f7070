"""The picture of a sample: what is drawn where, in which order and colour, and what cannot be drawn."""

from __future__ import annotations

import itertools
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from hard_valid_zoo import build, sample, spec
from matplotlib.collections import PatchCollection
from synthetic_run import make_run

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Context, Division, Sample, SiteClasses, Teacher
from sizetransfer.contracts.specs import FieldInfo, TeacherSpec, TrainingSpec
from sizetransfer.drawing import Omitted, style
from sizetransfer.report.data import gather
from sizetransfer.report.drawn import draw
from sizetransfer.systems.hard_valid import pictures as figure_sample
from sizetransfer.systems.hard_valid.pictures import draw_sample
from sizetransfer.systems.hard_valid.scene import Camera, Scene

SIDE_VIEW = Camera(azimuth=-90, elevation=0, distance=4)
"""Along the y axis: x to the right, z up, small y near."""


def painted(axes) -> PatchCollection:
    """The collection that holds balls and tubes; the others are the box."""
    (own,) = [one for one in axes.collections if one.get_rasterized()]
    return own


def scene_axes(scene):
    axes = style.new_figure(3, 3).subplots()
    scene.paint(axes)
    return axes


# --- the scene --------------------------------------------------------------------------------------------------------


def test_camera_looks_along_y_and_near_things_are_larger():
    points = np.array([[4.0, 4, 4], [8, 4, 4], [4, 4, 8], [4, 0, 4], [4, 8, 4], [8, 0, 4]])
    right, up, nearness = SIDE_VIEW.project(points, (8, 8, 8)).T
    np.testing.assert_allclose(right[:3], [0, 4, 0], atol=1e-12)
    np.testing.assert_allclose(up[:3], [0, 0, 4], atol=1e-12)
    assert nearness[3] > nearness[0] > nearness[4]
    assert right[5] == pytest.approx(4 * 32 / 28)  # an eye 32 steps from the centre, 28 from the front


@pytest.mark.parametrize("camera", [Camera(), SIDE_VIEW, Camera(azimuth=20, elevation=50)])
def test_turning_keeps_distances_at_the_centre_of_a_far_view(camera):
    """Projection without perspective is a rotation: right, up and depth are at right angles."""
    far = Camera(camera.azimuth, camera.elevation, distance=1e6)
    right, up, nearness = (far.project(np.eye(3) + 4, (8, 8, 8))).T
    frame = np.stack([right, up, (nearness - 1) * 8e6])
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-3)
    assert np.linalg.det(frame) == pytest.approx(1, abs=1e-3)  # and not a mirror image


def test_what_is_near_is_painted_last_and_what_is_far_is_paler():
    scene = Scene((8, 8, 8), SIDE_VIEW)
    for place in ((1, 0, 1), (1, 7, 1), (1, 3, 1)):
        scene.ball(place, 0.3, (1.0, 0.0, 0.0))
    scene.tube((1, 1, 1), (1, 2, 1), 0.1, (1.0, 0.0, 0.0))
    faces = painted(scene_axes(scene)).get_facecolor()
    assert len(faces) == 3 * 2 + 1  # a ball has a highlight
    green = faces[[0, 2, 4, 5], 1]  # three balls and the tube in the order in which they are painted
    assert list(green) == sorted(green, reverse=True)
    assert green[-1] < 0.1 < green[0]


def test_tube_ends_at_the_surfaces_of_the_balls():
    scene = Scene((4, 4, 4), Camera(azimuth=-90, elevation=0, distance=1e6))
    scene.tube((0, 1, 1), (1, 1, 1), 0.1, (0.0, 0.0, 0.0), (0.3, 0.2))
    (path,) = painted(scene_axes(scene)).get_paths()
    low, high = path.vertices[:, 0].min(), path.vertices[:, 0].max()
    assert low == pytest.approx(0.5 - 2 + 0.3, abs=1e-4)
    assert high == pytest.approx(1.5 - 2 - 0.2, abs=1e-4)
    assert np.ptp(path.vertices[:, 1]) == pytest.approx(0.2, abs=1e-4)


def test_empty_box_is_drawn():
    axes = scene_axes(Scene((2, 3, 4)))
    assert not [one for one in axes.collections if one.get_rasterized()]
    assert [text.get_text() for text in axes.texts] == ["x", "y", "z"]


# --- the picture of a sample ------------------------------------------------------------------------------------------


def test_bonds_are_the_matched_ports_of_the_row():
    teacher = build("medium")
    drawn = sample(teacher, 4, 3)
    codes, x = drawn.labels["ports"][1], drawn.x[1, 0]
    picture = figure_sample._Picture.of(teacher, drawn, 1, "type")
    expected = set()
    for site in itertools.product(range(4), repeat=3):
        for axis in range(3):
            if codes[site] >> (2 * axis) & 1:
                expected.add(frozenset((site, tuple(p + (axis == a) for a, p in enumerate(site)))))
    assert {frozenset(pair) for pair in picture.bonds} == expected
    assert len(picture.bonds) == len(expected)
    assert set(picture.sites) == {tuple(site) for site in codes.nonzero().tolist()}
    for site, kind, value in zip(picture.sites, picture.classes, picture.values, strict=True):
        assert kind + 1 == drawn.labels["types"][1][site]
        assert value == x[site].item()


def test_every_site_and_bond_is_painted_in_both_panels():
    teacher = build("medium")
    drawn = sample(teacher, 4, 2)
    figure = draw_sample(teacher, drawn, row=1)
    picture = figure_sample._Picture.of(teacher, drawn, 1, "type")
    for axes in figure.axes[:2]:
        assert len(painted(axes).get_paths()) == 2 * len(picture.sites) + len(picture.bonds)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*(f"type {k}" for k in range(1, 5)), "bond"]


def test_sign_is_the_hue_of_the_field_and_magnitude_the_size(monkeypatch):
    looks = {}
    monkeypatch.setattr(figure_sample, "_draw", lambda axes, picture, camera, own: looks.update(field=own))
    picture = figure_sample._Picture((2, 2, 2), (), (), (), "type", (2.0, 0.5, 0.0, -0.5, -2.0, -9.0), ())
    figure_sample._draw_field(None, picture, Camera(), 2.0)
    radii, colours = zip(*looks["field"], strict=True)
    assert radii[0] > radii[1] > radii[2] < radii[3] < radii[4] == radii[5]
    warm = [red - blue for red, _, blue in colours]
    assert warm[0] > 0.2
    assert warm[1] > 0.1
    assert warm[2] == pytest.approx(0, abs=0.02)
    assert warm[3] < -0.05
    assert warm[4] < -0.1
    assert colours[4] == colours[5]


def test_settings_of_matplotlib_come_back_and_files_are_the_same():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    teacher = build("medium")
    files = [style.to_bytes(draw_sample(teacher, sample(teacher, 4, 1)), "png") for _ in range(2)]
    assert files[0] == files[1]
    assert dict(mpl.rcParams) == before


class Planar(Teacher):
    """Sites in a plane, of one class and without bonds."""

    def sample(self, batch, size, *, generator):
        return Sample(torch.zeros(1, 1, 3, 3), Context(self.domain(3)))

    def site_classes(self, sample):
        return SiteClasses({"type": Division(("1",), torch.zeros(1, 3, 3, dtype=torch.int64))}, {})


@pytest.mark.parametrize(("row", "division"), [(2, "type"), (-1, "type"), (0, "colour")])
def test_rows_and_divisions_that_are_not_there_are_named(row, division):
    teacher = build("medium")
    with pytest.raises(SpecError, match="cannot be drawn") as caught:
        draw_sample(teacher, sample(teacher, 4, 2), row=row, division=division)
    assert f"row {row} of 2, division {division!r}" in caught.value.got
    assert "motif, type" in caught.value.expected


def test_a_plane_without_bonds_is_refused():
    teacher = Planar(FieldInfo(dim=2))
    with pytest.raises(SpecError, match="three-dimensional box"):
        draw_sample(teacher, teacher.sample(1, 3, generator=None))


def test_a_teacher_without_classes_is_refused():
    teacher = build("medium")
    with pytest.raises(SpecError, match="hard-valid"):
        draw_sample(torch.nn.Identity(), sample(teacher, 4, 1))


# --- the report's figure ----------------------------------------------------------------------------------------------


def report_data(tmp_path, teachers, size):
    run = make_run(tmp_path, train_size=size, sizes=(size, 64))
    experiment = run.experiment.model_copy(update={"teachers": teachers, "training": TrainingSpec(size=size)})
    object.__setattr__(run, "experiment", experiment)
    return gather(run)


def test_families_share_their_ports_and_types(tmp_path):
    data = report_data(tmp_path, {name: spec(name) for name in ("local", "wide")}, 8)
    with style.drawing():
        drawing = draw("hard-valid-sample", data)
        style.settle(drawing.figure)
        files = {kind: style.to_bytes(drawing.figure, kind) for kind in ("png", "svg")}
    titles = [axes.get_title(loc="left") for axes in drawing.figure.axes[:3]]
    assert titles == ["ports and types", "field, local", "field, wide"]
    assert "8 x 8 x 8" in drawing.caption
    assert "of all of them" in drawing.caption
    assert max(map(len, files.values())) < 500_000


def test_fields_that_are_not_shown_are_named(tmp_path):
    names = "abcdefg"
    with style.drawing():
        drawing = draw("hard-valid-sample", report_data(tmp_path, {name: spec("local") for name in names}, 4))
    titles = [axes.get_title(loc="left") for axes in drawing.figure.axes]
    shown = [name for name in names if f"field, {name}" in titles]
    assert shown == list(names[: figure_sample.MOST_TEACHERS])
    assert f"The fields of {', '.join(names[len(shown) :])} are not shown." in drawing.caption


def test_other_labels_are_said_to_be_the_first_teachers_and_large_boxes_are_not_drawn(tmp_path):
    teachers = {"one": spec("local"), "other": spec("local", weights={"empty": 1, "edge": 1, "path": 0})}
    with style.drawing():
        drawing = draw("hard-valid-sample", report_data(tmp_path, teachers, 16))
    assert "8 x 8 x 8" in drawing.caption
    assert "of one" in drawing.caption


def test_blocks_that_do_not_tile_the_small_box_take_the_training_size(tmp_path):
    with style.drawing():
        drawing = draw("hard-valid-sample", report_data(tmp_path, {"threes": spec("local", block=3)}, 9))
    assert "9 x 9 x 9" in drawing.caption


def test_without_a_teacher_of_sites_and_bonds_it_is_omitted(tmp_path):
    omitted = draw("hard-valid-sample", gather(make_run(tmp_path)))
    assert isinstance(omitted, Omitted)
    assert "classes of its sites" in omitted.reason


def test_a_sample_that_cannot_be_drawn_does_not_stop_the_report(tmp_path):
    class PlanarSpec(TeacherSpec):
        kind: Literal["planar"] = "planar"
        has_site_classes: ClassVar[bool] = True

        def build(self):
            return Planar(FieldInfo(dim=2))

    omitted = draw("hard-valid-sample", report_data(tmp_path, {"planar": PlanarSpec()}, 8))
    assert isinstance(omitted, Omitted)
    assert "cannot be drawn" in omitted.reason
