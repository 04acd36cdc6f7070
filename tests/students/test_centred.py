"""The centred control: a convolutional student from which the mean over sites is hidden."""

from __future__ import annotations

import pytest
import torch
from tolerances import assert_rounding

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.oracle import Context
from sizetransfer.contracts.randomness import seeded_initialisation, stream
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.students.cnn import CNNStudentSpec, centred

FIELD = FieldInfo(dim=2, channels=2)


def build(*, hides_mean: bool):
    with seeded_initialisation("tests", "centred"):
        student = CNNStudentSpec(blocks=1, width=6, centred=hides_mean).build(FIELD)
        torch.nn.init.normal_(next(student.output.parameters()))
    return student.double().eval()


def draw(size=8, batch=2):
    return torch.randn(batch, 2, size, size, generator=stream("tests", "centred"), dtype=torch.float64)


def score(student, x):
    with torch.no_grad():
        return student(x, x.new_full((len(x),), 0.3), Context(Lattice(tuple(x.shape[2:]))))


def test_a_mean_does_not_reach_the_network():
    x = draw()
    mean = x.new_tensor([100.0, -7.0]).reshape(1, 2, 1, 1)
    student = build(hides_mean=True)
    assert student.radius is None
    assert_rounding(score(student, x + mean), score(student, x), condition=float(mean.max()))
    plain = build(hides_mean=False)
    assert plain.radius == 4
    assert (score(plain, x + mean) - score(plain, x)).abs().max() > 1


def test_without_a_mean_it_is_the_local_student():
    x = draw()
    x = x - x.mean((2, 3), keepdim=True)
    expected = score(build(hides_mean=False), x)
    assert_rounding(score(build(hides_mean=True), x), expected)


@pytest.mark.parametrize("live", [0.0, 0.5, 1.0])
def test_the_mean_is_over_live_sites(live):
    x = draw()
    mask = torch.rand(2, 1, 8, 8, generator=stream("tests", "mask"), dtype=x.dtype) < live
    found = centred(x, Context(Lattice((8, 8)), mask=mask))
    assert found.isfinite().all()
    for row in range(2):
        kept = mask[row].expand(2, 8, 8)
        if kept.any():
            means = torch.stack([x[row, c][mask[row, 0]].mean() for c in range(2)])
            assert_rounding(found[row], x[row] - means.reshape(2, 1, 1))
