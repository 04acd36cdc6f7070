"""The clean law of spins at any size as a measure: against enumeration, known exponents, and what must be skipped."""

from __future__ import annotations

import math

import pytest
import torch
from brute_ising import enumerate_spins

import sizetransfer as st
from sizetransfer.contracts.errors import SpecError
from sizetransfer.systems.ising import CRITICAL
from sizetransfer.systems.ising import zero_field_measure as module
from sizetransfer.systems.ising.certificate import ferromagnet_certificate
from sizetransfer.systems.ising.zero_field_measure import ZeroFieldSpec


def measured(size, ratio=1.0, **settings):
    teacher = st.teacher("ising", beta=ratio * CRITICAL).frozen()
    student = st.student("cnn", teacher.field, blocks=1, width=1)
    spec = ZeroFieldSpec.parse({"kind": "zero-field", **settings})
    rows = list(spec.measure(teacher, student, size, sigma=0.1, seed=0))
    assert all(row.n == 1 and row.standard_error == 0 for row in rows if not math.isnan(row.value))
    return {row.part if math.isnan(row.coordinate) else (row.part, row.coordinate): row.value for row in rows}


def test_all_numbers_are_those_of_the_enumerated_spins():
    found = measured(4, 0.8, radii=(0, 1))
    row = enumerate_spins(torch.zeros(4, 4), 0.8 * CRITICAL).covariance[0, 0]
    assert found["susceptibility"] == pytest.approx(float(row.sum()), rel=1e-12)
    assert found["outside", 0.0] == pytest.approx(float(row.sum()) - 1, rel=1e-12)
    corner = [0, 1, 3]
    assert found["outside", 1.0] == pytest.approx(float(row.sum() - row[corner][:, corner].sum()), rel=1e-12)
    assert found["outside", 4.0] == 0
    transform = torch.fft.fft2(row).real
    length = math.sqrt(float(transform[0, 0] / transform[1, 0]) - 1) / (2 * math.sin(math.pi / 4))
    assert found["correlation_length"] == pytest.approx(length, rel=1e-12)


def test_the_budget_is_the_certificate_of_the_noise_range():
    found = measured(8, 0.9, sigma_min=0.3, sigma_max=3.0)["budget"]
    assert found == ferromagnet_certificate(0.9 * CRITICAL, (8, 8)).budget(0.09, 9.0).value
    assert found != measured(8, 0.9, sigma_min=0.3, sigma_max=2.0)["budget"]


def test_certified_radii_and_bounds_are_those_of_the_certificate():
    found = measured(24, 0.5, sigmas=(0.5, 2.0), tolerance=0.2)
    certificate = ferromagnet_certificate(0.5 * CRITICAL, (24, 24))
    for level in (0.5, 2.0):
        assert found["certified_radius", level] == certificate.sufficient_radius(level, 0.2).value
        assert found["locality_bound", level] == certificate.locality_error(4, level).value
    assert found["certified_radius", 0.5] > found["certified_radius", 2.0]
    assert found["locality_bound", 2.0] < 0.2 < found["locality_bound", 0.5]  # R = 4 is certified at sigma = 2 alone
    assert not any("certified_radius" in key for key in measured(4, -0.5) if isinstance(key, tuple))


def exponent(part, ratio):
    small, large = (measured(size, ratio)[part] for size in (16, 32))
    return math.log2(large / small)


def test_susceptibility_and_budget_grow_with_exponent_seven_quarters_at_the_critical_coupling_alone():
    # At L = 16 to 32 corrections to scaling are below 0.01.
    assert exponent("susceptibility", 1.0) == pytest.approx(1.75, abs=0.01)
    assert exponent("budget", 1.0) == pytest.approx(1.75, abs=0.02)
    assert exponent("susceptibility", 0.5) == pytest.approx(0, abs=1e-3)
    assert 0.1 < exponent("susceptibility", 0.95) < 1.5


def test_the_correlation_length_is_that_of_the_critical_torus():
    # Salas and Sokal 2000; at L = 32 it is 0.907.
    assert measured(32)["correlation_length"] / 32 == pytest.approx(0.9050488, abs=0.004)


def test_tables_are_made_once_for_all_students_and_seeds(monkeypatch):
    teacher = st.teacher("ising", beta=0.1234)
    calls = []
    plain = type(teacher).zero_field
    monkeypatch.setattr(type(teacher), "zero_field", lambda self, size: calls.append(size) or plain(self, size))
    module._table.cache_clear()
    for size in (4, 4, 6):
        for beta in (0.1234, 0.1234, 0.2):
            again = st.teacher("ising", beta=beta)
            list(ZeroFieldSpec().measure(again, st.student("cnn", again.field, width=1), size, sigma=0.1, seed=0))
    assert calls == [4, 4, 6, 6]
    module._table.cache_clear()


def test_what_has_no_such_law_is_skipped_by_name():
    spec = ZeroFieldSpec()
    assert spec.lacking(st.teacher("ising")) == []
    for other in ("gaussian", "gaussian-graph"):
        assert spec.lacking(st.teacher(other)) == ["HasSpinCoupling"]
    for boundary in ("open", "cylinder"):
        assert "torus" in spec.lacking(st.teacher("ising", boundary=boundary))[0]


def test_antiferromagnets_have_no_budget():
    found = measured(4, -0.5)
    assert math.isnan(found["budget"])
    assert found["susceptibility"] < 1


def test_an_empty_range_of_noise_is_refused():
    with pytest.raises(SpecError, match="sigma_min < sigma_max"):
        ZeroFieldSpec.parse({"kind": "zero-field", "sigma_min": 1.0, "sigma_max": 1.0})
