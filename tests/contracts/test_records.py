"""Rows of records: what becomes of a number on its way into a measurement and a record, and back."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from sizetransfer.contracts.quantity import Quantity
from sizetransfer.contracts.records import Measurement, Record
from sizetransfer.numerics.statistics import mean, root_ratio


def test_a_measurement_is_a_number_under_a_name():
    a, c = torch.tensor([1.0, 9.0]), torch.tensor([1.0, 3.0])
    found = Measurement.of("error", root_ratio(a, c), 3.0)
    assert (found.part, found.n, found.coordinate) == ("error", 2, 3.0)
    assert (found.value, found.standard_error) == (root_ratio(a, c).value, root_ratio(a, c).error)
    assert found.sums == ((1.0, 9.0), (1.0, 3.0))
    assert math.isnan(Measurement.of("error", root_ratio(a, c)).coordinate)


def test_the_sums_of_a_mean_are_its_values_over_ones():
    assert Measurement.of("mean", mean(torch.tensor([1.0, 9.0]))).sums == ((1.0, 9.0), (1.0, 1.0))


def test_sums_do_not_change_with_the_tensor_that_they_came_from():
    values = torch.tensor([1.0, 9.0], dtype=torch.float64)
    found = mean(values)
    values.zero_()
    assert Measurement.of("mean", found).sums == ((1.0, 9.0), (1.0, 1.0))


@pytest.mark.parametrize("quantity", [Quantity(0.5), Quantity.estimated(0.5, 0.1, 8), Quantity.estimated(0.5, 0.0, 8)])
def test_the_number_comes_back(quantity):
    assert Measurement.of("part", quantity).quantity == quantity


def test_one_draw_is_no_exact_number():
    alone = Measurement.of("part", mean(torch.tensor([4.0])))
    assert alone.n == 1
    assert alone.quantity.kind == "estimate"
    assert math.isnan(alone.quantity.upper(0.01))


def test_a_record_is_a_measurement_and_its_origin():
    origin = {
        "experiment": "figure2",
        "teacher": "medium",
        "student": "cnn",
        "radius": None,
        "seed": 1,
        "train_size": 32,
        "size": 64,
        "sigma": 0.05,
        "measure": "clean-score",
    }
    measurement = Measurement("relative_rmse", 0.2, 0.01, 8)
    numbers = dataclasses.asdict(measurement)
    assert numbers.pop("sums") is None
    row = Record(**origin, **numbers).row()
    assert row == {**origin, **numbers} | {"coordinate": row["coordinate"]}
    assert math.isnan(row["coordinate"])
