"""Tiled scores against whole ones: other shapes, so the same to rounding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tolerances import assert_rounding
from torch import Tensor

from sizetransfer.contracts.domain import Graph, Lattice
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student
from sizetransfer.scores import tiling
from sizetransfer.scores.response import jacobian_row, student_score
from sizetransfer.scores.sampling import SamplerSpec, generate
from sizetransfer.scores.tiling import TiledStudent, tiled
from sizetransfer.students.cnn import CNNStudentSpec

# Lattice, tile, periodic: tiles that divide the lattice, that do not, that are one site, that are wider than an axis,
# and receptive fields that go around the torus.
TORI = [((64,), 16, True), ((30,), 7, True), ((24, 24), 8, True), ((16, 28), 6, True), ((6, 4), 1, True)]
TORI += [((8, 30), 12, True), ((6, 6), 4, True), ((6, 4, 6), 4, True)]
BOXES = [((24,), 5, False), ((24, 24), 8, False), ((9, 20), 7, False), ((4, 18), 6, False), ((4, 5, 10), 4, False)]
over_lattices = pytest.mark.parametrize(("size", "tile", "periodic"), TORI + BOXES, ids=str)


def make_student(dim: int, periodic: bool, *, width: int = 8, dtype: torch.dtype = torch.float64) -> Student:
    """A CNN of radius 4 with weights as large as after training, everywhere different from zero."""
    field = FieldInfo(dim=dim, channels=2, periodic=periodic, condition_channels=1)
    student = CNNStudentSpec(blocks=1, width=width).build(field)
    random = stream("weights", dim)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=random))
    return student.to(dtype).eval()


def make_input(
    size: tuple[int, ...], periodic: bool, *, batch: int = 2, masked: bool = False, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Context]:
    random, lattice = stream("fields", *size), Lattice(size, periodic)
    x = torch.randn((batch, 2, *size), generator=random)
    sigma = 0.1 + torch.rand(batch, generator=random)
    condition = (2 * lattice.parity() - 1).to(dtype).expand(batch, 1, *size)
    mask = torch.rand((batch, 1, *size), generator=random) < 0.8 if masked else None
    return x.to(dtype), sigma.to(dtype), Context(lattice, condition, mask)


def scores(student: Student, tile: int, *inputs: object) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return student(*inputs), tiled(student, tile)(*inputs)


@over_lattices
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_tiled_score_is_the_whole_score(size, tile, periodic, masked, batch):
    student = make_student(len(size), periodic)
    whole, pieces = scores(student, tile, *make_input(size, periodic, masked=masked, batch=batch))
    assert_rounding(pieces, whole)


@over_lattices
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_wide_students_in_either_precision(size, tile, periodic, dtype, batch):
    """Widths and batches at which the libraries choose other kernels than for the narrow student."""
    student = make_student(len(size), periodic, width=32, dtype=dtype)
    whole, pieces = scores(student, tile, *make_input(size, periodic, batch=batch, dtype=dtype))
    assert_rounding(pieces, whole)


@pytest.mark.parametrize(("size", "tile", "periodic"), [TORI[2], BOXES[1]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_repeated_on_the_same_tiles_it_has_the_same_bits(size, tile, periodic, dtype):
    student, inputs = make_student(len(size), periodic, dtype=dtype), make_input(size, periodic, dtype=dtype)
    assert torch.equal(tiled(student, tile)(*inputs), tiled(student, tile)(*inputs))


@pytest.mark.parametrize(("size", "tile", "periodic"), [TORI[2], TORI[3], BOXES[1], BOXES[2]], ids=str)
def test_halo_one_site_too_narrow_shows(size, tile, periodic):
    student, inputs = make_student(len(size), periodic), make_input(size, periodic)
    narrow = TiledStudent(student, tile, student.radius - 1)
    assert (narrow(*inputs) - student(*inputs)).abs().max() > 1e-6


@pytest.mark.parametrize(("size", "tile"), [((24, 24), 7), ((30,), 7)])
def test_sublattice_that_starts_anew_in_every_tile_shows(size, tile, monkeypatch):
    """An odd tile begins on the other sublattice: a condition rebuilt from the cut's own coordinates is wrong."""
    take = tiling._take_context

    def rebuilt(context, cuts, lattice):
        own = take(context, cuts, lattice)
        return replace(own, condition=(2 * own.domain.parity() - 1).expand_as(own.condition).to(own.condition))

    student, inputs = make_student(len(size), True), make_input(size, True)
    whole, pieces = scores(student, tile, *inputs)
    assert_rounding(pieces, whole)
    monkeypatch.setattr(tiling, "_take_context", rebuilt)
    whole, pieces = scores(student, tile, *inputs)
    assert (pieces - whole).abs().max() > 1e-3


class Watched(Student):
    """Remembers what it was shown."""

    def __init__(self, student: Student) -> None:
        super().__init__(student.field, radius=student.radius)
        self.student = student
        self.shapes: set[tuple[int, ...]] = set()
        self.domains: set[Lattice] = set()

    def forward(self, x, sigma, context):
        self.shapes.add(tuple(x.shape[2:]))
        self.domains.add(context.domain)
        assert context.condition.shape[2:] == context.mask.shape[2:] == x.shape[2:]
        return self.student(x, sigma, context)


@pytest.mark.parametrize(
    ("size", "tile", "periodic", "shapes"),
    [
        ((50, 50), 12, True, {(20, 20)}),
        ((50, 8), 12, True, {(20, 8)}),
        ((50,), 12, True, {(20,)}),
        ((48,), 12, False, {(16,), (20,)}),
        ((12, 12), 12, True, {(12, 12)}),
    ],
)
def test_student_sees_tiles_with_halos_only(size, tile, periodic, shapes):
    watched = Watched(make_student(len(size), periodic))
    with torch.no_grad():
        tiled(watched, tile)(*make_input(size, periodic, masked=True))
    assert watched.shapes == shapes
    assert watched.domains == {Lattice(shape, periodic) for shape in shapes}


@pytest.mark.parametrize("periodic", [True, False])
def test_response_of_the_tiled_score(periodic):
    """Tiled students are students: Jacobian rows come out as those of the whole, across tiles."""
    student = make_student(2, periodic)
    x, _, context = make_input((14, 16), periodic)
    rows = [jacobian_row(student_score(own, 0.3, context), x, (7, 8)) for own in (student, tiled(student, 4))]
    assert_rounding(rows[1], rows[0])
    assert rows[0].abs().max() > 0.01


def test_reverse_process_on_tiles_gives_the_same_fields():
    student = make_student(2, True, width=32)
    x, _, context = make_input((20, 20), True)
    spec = SamplerSpec(steps=3)
    whole, pieces = (
        generate(own, spec, x, context=context, generator=stream("fields")) for own in (student, tiled(student, 8))
    )
    assert_rounding(pieces, whole, condition=2 * spec.steps)


def test_parameters_field_and_mode_are_the_students():
    student = make_student(2, True)
    own = tiled(student, 8)
    assert own.radius == student.radius == 4
    assert own.field == student.field
    assert not own.training
    assert [*map(id, own.parameters())] == [*map(id, student.parameters())]


def test_global_student_is_refused():
    student = make_student(2, True)
    student.radius = None
    with pytest.raises(SpecError, match="global student"):
        tiled(student, 8)


@pytest.mark.parametrize("tile", [0, -3])
def test_tile_without_sites_is_refused(tile):
    with pytest.raises(SpecError, match="no sites"):
        tiled(make_student(2, True), tile)


def test_domain_that_is_no_lattice_is_refused():
    student = make_student(1, True)
    x, sigma, context = make_input((3,), True)
    path = Graph(3, torch.tensor([[0, 1], [1, 2]]))
    with pytest.raises(SpecError, match="Only fields on lattices"):
        tiled(student, 2)(x, sigma, replace(context, domain=path))
