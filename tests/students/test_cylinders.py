"""Students on cylinders go around the closed axis and stop at the open ends."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tolerances import TOLERANCE, assert_rounding
from torch import Tensor

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice, pad
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import seeded_initialisation
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student
from sizetransfer.scores.response import jacobian_row
from sizetransfer.scores.tiling import tiled
from sizetransfer.systems.ising import Cylinder
from sizetransfer_verification.conformance import StudentSubject, run_checks

CYLINDER = Cylinder((12, 8))
FIELD = FieldInfo(dim=2, periodic=False, closed=CYLINDER.closed)
STUDENTS: dict[str, dict[str, Any]] = {
    "cnn": {"kind": "cnn", "blocks": 0, "width": 6},
    "cnn-deep": {"kind": "cnn", "blocks": 1, "width": 6},
    "sliding-attention": {"kind": "sliding-attention", "depth": 2, "window": 1, "width": 8, "heads": 2},
    "unet": {"kind": "unet", "levels": 1, "width": 6},
    "spectral": {"kind": "spectral", "blocks": 1, "width": 6, "ranges": 3},
    "optimal-local-ising": {"kind": "optimal-local-ising", "preset": "critical", "radius": 1},
}
EQUIVARIANT = [name for name in STUDENTS if name != "optimal-local-ising"]


def build(name: str, field: FieldInfo = FIELD) -> Student:
    """The student with random weights, those of its output too."""
    with seeded_initialisation("tests", "cylinders"):
        fields = {key: value for key, value in STUDENTS[name].items() if key != "kind"}
        student = st.student(STUDENTS[name]["kind"], field, **fields)
        for parameter in student.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return student.double().eval()


def score(student: Student, x: Tensor, lattice: Lattice = CYLINDER) -> Tensor:
    with torch.no_grad():
        return student(x, x.new_full((len(x),), 0.7), Context(lattice))


def shifted(student: Student, x: Tensor, axis: int, lattice: Lattice = CYLINDER) -> float:
    """Largest change of the score, as a share of the largest, when both are moved by two steps along an axis."""
    moved, whole = score(student, x.roll(2, axis), lattice), score(student, x, lattice)
    return float((moved.roll(-2, axis) - whole).abs().max() / whole.abs().max())


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(2, 1, *CYLINDER.size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", STUDENTS)
def test_translations_around_the_cylinder_move_the_score_and_those_along_it_do_not(name: str, x: Tensor) -> None:
    student = build(name)
    assert shifted(student, x, 3) < TOLERANCE["score"][x.dtype]
    assert shifted(student, x, 2) > 1e-6


@pytest.mark.parametrize("name", EQUIVARIANT)
def test_a_student_that_takes_the_seam_for_a_wall_is_found_out(name: str, x: Tensor) -> None:
    """The students of an open box: what they were on cylinders without the closed axis."""
    assert shifted(build(name, FieldInfo(dim=2, periodic=False)), x, 3) > 1e-6


def test_the_conformance_suite_goes_around_a_cylinder() -> None:
    """The student of an open box, declared for a cylinder, is told by its translations; the right one passes."""
    names = ["student/translation-equivariance", "student/nothing-beyond-the-radius", "student/radius-is-reached"]

    def right(field: FieldInfo) -> Student:
        return build("cnn", field)

    def wrong(field: FieldInfo) -> Student:
        student = build("cnn", FieldInfo(dim=2, periodic=False))
        student.field = field
        return student

    for factory, expected in ((right, []), (wrong, names[:1])):
        report = run_checks(StudentSubject(factory, fields=(FIELD,)), only=names)
        assert [outcome.id for outcome in report.outcomes if outcome.wrong] == expected


@pytest.mark.parametrize("name", ["cnn", "cnn-deep", "sliding-attention", "optimal-local-ising"])
def test_the_radius_goes_around_the_seam_and_ends_at_the_walls(name: str, x: Tensor) -> None:
    student, lattice = build(name), Cylinder((14, 10))
    field = torch.randn(1, 1, *lattice.size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def answer(y: Tensor) -> Tensor:
        return student(y, y.new_full((1,), 0.7), Context(lattice))

    if name == "optimal-local-ising":
        lattice = Cylinder((5, 6))
        field = field[:, :, :5, :6].contiguous()
    row = jacobian_row(answer, field, (0, 0))[0, 0]
    distance = lattice.distance((0, 0))
    assert student.radius is not None
    assert (row[distance > student.radius] == 0).all()
    assert float(row[0, -1].abs()) > 1e-9
    assert float(row[-1, 0].abs()) == 0


def test_the_attention_of_a_cylinder_is_that_of_its_cover(x: Tensor) -> None:
    """Three times around, in an open box: the middle turn sees what the cylinder has."""
    student, box = build("sliding-attention"), build("sliding-attention", FieldInfo(dim=2, periodic=False))
    box.load_state_dict(student.state_dict())
    wide = score(box, torch.cat([x] * 3, dim=3), Lattice((12, 24), periodic=False))
    assert_rounding(wide[..., 8:16], score(student, x))


@pytest.mark.parametrize("name", ["cnn", "cnn-deep", "sliding-attention"])
def test_tiles_of_a_cylinder_give_the_score_of_the_whole(name: str, x: Tensor) -> None:
    student = build(name)
    assert_rounding(score(tiled(student, 3), x), score(student, x))


@pytest.mark.parametrize(("width", "closed"), list(itertools.product((1, 3, 9), ((False, True), (True, False)))))
def test_padding_continues_closed_axes_and_ends_at_walls(width: int, closed: tuple[bool, bool], x: Tensor) -> None:
    padded = pad(x, width, periodic=closed)
    expected = x
    for axis, around in enumerate(closed, start=2):
        places = torch.arange(-width, x.shape[axis] + width)
        taken = expected.index_select(axis, places % x.shape[axis])
        inside = ((places >= 0) & (places < x.shape[axis])).reshape(*(-1 if a == axis else 1 for a in range(4)))
        expected = taken if around else taken * inside
    assert torch.equal(padded, expected)


def test_a_cylinder_is_a_lattice_closed_along_its_second_axis() -> None:
    lattice = Lattice((6, 5), periodic=False, closed=(False, True))
    for other in (Cylinder((6, 5)), lattice):
        assert other.closed_axes == (False, True)
        assert torch.equal(other.distance((0, 0)), lattice.distance((0, 0)))
        assert other.wall_distance()[:, 2].tolist() == [1, 2, 3, 3, 2, 1]
        assert other.wall_distance()[0].tolist() == [1] * 5
    teacher = st.teacher("ising", boundary="cylinder", circumference=5)
    assert teacher.field.closed_axes == (False, True)
    assert FieldInfo.parse(teacher.field.to_json()) == teacher.field


@pytest.mark.parametrize(
    ("periodic", "closed"), [(True, (False, True)), (False, (True,)), (False, (True, True)), (False, (False,) * 2)]
)
def test_closed_axes_that_do_not_fit_are_refused(periodic: bool, closed: tuple[bool, ...]) -> None:
    with pytest.raises(SpecError, match="closed axes"):
        FieldInfo(dim=2, periodic=periodic, closed=closed)
    with pytest.raises(OracleError, match="closed axes"):
        Lattice((4, 4), periodic=periodic, closed=closed)


def test_a_window_that_meets_itself_around_a_cylinder_is_refused() -> None:
    student = build("sliding-attention")
    with pytest.raises(OracleError, match="closed axis"):
        score(student, torch.zeros(1, 1, 12, 2, dtype=torch.float64), Cylinder((12, 2)))
    assert score(student, torch.zeros(1, 1, 2, 8, dtype=torch.float64), Cylinder((2, 8))).shape == (1, 1, 2, 8)


def test_a_cylinder_is_diagnosed() -> None:
    teacher = {"kind": "ising", "boundary": "cylinder", "circumference": 6, "beta_over_critical": 0.5}
    (row,) = st.diagnose(teacher, {"kind": "cnn", "blocks": 0}, sizes=(6,), sigmas=(1.0,), fields=4).rows
    assert row.irreducible is not None
    assert row.irreducible.value < 0.2


def test_a_student_pads_its_hidden_channels_as_its_lattice_goes_on(x: Tensor) -> None:
    student = build("cnn")
    assert torch.equal(student.pad(x, 2), pad(x, 2, periodic=(False, True)))
    student.field = FieldInfo(dim=2, geometry="graph")
    with pytest.raises(OracleError, match="sides to extend"):
        student.pad(x, 2)
