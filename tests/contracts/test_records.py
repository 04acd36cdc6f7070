"""Values and standard errors of records against direct loops, a bootstrap and known distributions."""

from __future__ import annotations

import dataclasses
import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tolerances import TOLERANCE

from sizetransfer.contracts.records import Measurement, Record, mean, ratio, root_ratio

positive = st.floats(1e-3, 1e3)


def leave_one_out(a, c):
    """Jackknife standard error of sqrt(sum a / sum c), one loop per omission."""
    n = len(a)
    left_out = [math.sqrt(sum(a[:b] + a[b + 1 :]) / sum(c[:b] + c[b + 1 :])) for b in range(n)]
    centre = sum(left_out) / n
    return math.sqrt((n - 1) / n * sum((value - centre) ** 2 for value in left_out))


@given(st.lists(st.tuples(positive, positive), min_size=2, max_size=12))
def test_root_ratio_is_the_jackknife_of_the_formula(pairs):
    a, c = map(list, zip(*pairs, strict=True))
    record = root_ratio(torch.tensor(a), torch.tensor(c), "error", coordinate=3.0)
    assert record.value == pytest.approx(math.sqrt(sum(a) / sum(c)), rel=1e-12)
    assert record.standard_error == pytest.approx(leave_one_out(a, c), rel=1e-6, abs=1e-9 * record.value)
    assert (record.part, record.n, record.coordinate) == ("error", len(a), 3.0)


def test_root_ratio_agrees_with_a_bootstrap(generator):
    n, resamples = 300, 3000
    c = torch.rand(n, generator=generator).exp()
    a = c * (0.2 + 0.1 * torch.rand(n, generator=generator))
    rows = torch.randint(n, (resamples, n), generator=generator)
    bootstrap = (a[rows].sum(1) / c[rows].sum(1)).sqrt().std().item()
    # a standard deviation over 3000 resamples is known to 1.3 %, and that over 300 draws to 4 %
    assert root_ratio(a, c, "error").standard_error == pytest.approx(bootstrap, rel=0.1)


signed = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(signed, positive), min_size=2, max_size=12))
def test_a_ratio_is_the_jackknife_of_the_formula(pairs):
    a, c = map(list, zip(*pairs, strict=True))
    record = ratio(torch.tensor(a), torch.tensor(c), "ratio", coordinate=3.0)
    n, total, below = len(a), math.fsum(a), math.fsum(c)
    left_out = [(total - a[b]) / (below - c[b]) for b in range(n)]
    variance = (n - 1) / n * math.fsum((one - math.fsum(left_out) / n) ** 2 for one in left_out)
    scale = max(map(abs, left_out)) + abs(record.value)
    assert record.value == pytest.approx(total / below, rel=1e-6, abs=1e-6 * scale)
    assert record.standard_error == pytest.approx(math.sqrt(variance), rel=1e-4, abs=1e-5 * scale)
    assert (record.part, record.n, record.coordinate) == ("ratio", n, 3.0)


def test_a_ratio_is_of_sums_and_keeps_its_sign():
    record = ratio(torch.tensor([-1.0, 9.0]), torch.tensor([1.0, 3.0]), "ratio")
    assert record.value == 2.0  # the mean of ratios is 1, the root sqrt(2), the ratio of roots not a number
    assert record.standard_error == 2.0  # left out: 3 and -1
    assert record.sums == ((-1.0, 9.0), (1.0, 3.0))
    assert ratio(torch.tensor([1.0, -3.0]), torch.tensor([1.0, 1.0]), "ratio").value == -1.0


def test_a_ratio_of_nothing_has_no_value_and_of_one_draw_no_error():
    nothing = ratio(torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0]), "ratio")
    assert math.isnan(nothing.value)
    one = ratio(torch.tensor([1.0]), torch.tensor([4.0]), "ratio")
    assert (one.value, one.n) == (0.25, 1)
    assert math.isnan(one.standard_error)
    # Without the second draw nothing is left to divide by.
    alone = ratio(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0]), "ratio")
    assert alone.value == 1.0
    assert math.isnan(alone.standard_error)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_ratio_with_a_draw_that_is_not_finite_keeps_no_sums(bad):
    for a, c in (([bad, 1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, bad])):
        record = ratio(torch.tensor(a), torch.tensor(c), "ratio")
        assert math.isnan(record.value)
        assert math.isnan(record.standard_error)
        assert record.sums is None
        assert record.n == 2


def test_the_error_of_a_ratio_covers_the_truth_where_its_terms_are_paired(generator):
    repetitions, n = 400, 50
    exact = 1 + torch.rand(repetitions, n, generator=generator)
    made = 0.9 * exact + 0.1 * torch.randn(repetitions, n, generator=generator)
    records = [ratio(a, c, "ratio") for a, c in zip(made, exact, strict=True)]
    covered = statistics.mean(abs(record.value - 0.9) < 2 * record.standard_error for record in records)
    assert 0.90 < covered < 0.98
    # As if the two sums were independent, the error would be several times as large.
    apart = [float((a.var() / n).sqrt() / c.mean()) for a, c in zip(made, exact, strict=True)]
    assert statistics.mean(record.standard_error for record in records) < 0.5 * statistics.mean(apart)


def test_standard_error_covers_the_truth(generator):
    repetitions, n = 400, 50
    squares = torch.randn(repetitions, n, generator=generator) ** 2
    references = 4 * (1 + torch.rand(repetitions, n, generator=generator))
    truth = math.sqrt(1 / 6)
    records = [root_ratio(a, c, "error") for a, c in zip(squares, references, strict=True)]
    covered = statistics.mean(abs(record.value - truth) < 2 * record.standard_error for record in records)
    assert 0.90 < covered < 0.98


def test_pooling_precedes_the_root():
    record = root_ratio(torch.tensor([0.0, 8.0]), torch.tensor([1.0, 1.0]), "error")
    assert record.value == 2.0  # the mean of the single ratios' roots would be sqrt(2)


@pytest.mark.parametrize("n", [1, 4])
def test_a_vanishing_reference_has_no_ratio(n):
    record = root_ratio(torch.ones(n), torch.zeros(n), "error")
    assert math.isnan(record.value)
    assert math.isnan(record.standard_error)
    assert record.n == n


def test_one_draw_has_no_standard_error():
    assert math.isnan(root_ratio(torch.tensor([4.0]), torch.tensor([1.0]), "error").standard_error)
    assert math.isnan(mean(torch.tensor([4.0]), "value").standard_error)
    assert mean(torch.tensor([4.0]), "value").value == 4.0


def test_a_reference_that_rests_on_one_draw_has_no_standard_error():
    record = root_ratio(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.0, 3.0, 0.0]), "error")
    assert record.value == 1.0
    assert math.isnan(record.standard_error)


def test_an_exact_student_has_error_zero():
    record = root_ratio(torch.zeros(5), torch.ones(5), "error")
    assert (record.value, record.standard_error) == (0.0, 0.0)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12))
def test_mean_has_the_standard_error_of_the_mean(values):
    record = mean(torch.tensor(values), "shift", coordinate=2.0)
    assert record.value == pytest.approx(statistics.fmean(values), abs=1e-11)
    assert record.standard_error == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-10)
    assert (record.part, record.n, record.coordinate) == ("shift", len(values), 2.0)


def test_single_precision_is_summed_in_double():
    values = torch.full((1000,), 0.1, dtype=torch.float32)
    single, rounding = float(values[0]), TOLERANCE["measure"][torch.float64]
    assert mean(values, "value").value == pytest.approx(single, rel=rounding)
    ratio = root_ratio(values, torch.ones(1000, dtype=torch.float32), "error")
    assert ratio.value == pytest.approx(math.sqrt(single), rel=rounding)


def test_a_number_without_coordinate_has_none():
    assert math.isnan(mean(torch.ones(3), "value").coordinate)
    assert math.isnan(root_ratio(torch.ones(3), torch.ones(3), "error").coordinate)


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
