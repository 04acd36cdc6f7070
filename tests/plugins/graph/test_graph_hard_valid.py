"""Students on graphs of the hard-valid teacher, through the ordinary interface: build, train, score, measure."""

from __future__ import annotations

import math

import pytest
import torch

import sizetransfer as st
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import TrainingSpec
from sizetransfer.scores.training import train

pytest.importorskip("sizetransfer_graph", reason="the distribution sizetransfer-graph is not installed")

STUDENTS = {"message-passing": {"depth": 2, "width": 6}, "equivariant": {"depth": 2, "width": 3}}


@pytest.mark.parametrize("kind", STUDENTS)
def test_students_on_graphs_train_on_boxes_with_empty_sites_and_are_measured(kind):
    teacher = st.teacher("hard-valid", preset="local", width=4).double().frozen()
    student = st.student(kind, teacher.field, **STUDENTS[kind]).double()
    train(teacher, student, TrainingSpec(size=4, steps=2, batch=2, objective="mixed"), seed=0)
    student.eval().requires_grad_(False)
    assert student.radius == 2
    fields = teacher.sample(2, 6, generator=stream("graph", kind))
    live, sigma = fields.context.mask, torch.full((2,), 0.3)
    score = student(fields.x, sigma, fields.context)
    assert (score[~live] == 0).all()
    assert (score[live] != 0).all()
    noisy = torch.where(live, fields.x, fields.x + 5)
    assert torch.equal(student(noisy, sigma, fields.context), score)
    found = {m.part: m for m in st.measure("clean-score", fields=2).measure(teacher, student, 6, sigma=0.1, seed=0)}
    assert found["margin"].value == 1
    assert all(math.isfinite(found[part].value) for part in ("relative_rmse", "bulk_relative_rmse"))
