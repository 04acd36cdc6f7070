"""Tori without field: Pfaffians against transfer matrices, closed forms of the infinite lattice, and the cache."""

from __future__ import annotations

import math

import pytest
import torch
from brute_ising import enumerate_spins
from tolerances import TOLERANCE

from sizetransfer.contracts.errors import OracleError
from sizetransfer.systems.ising import CRITICAL, IsingModel, Limits, TooLargeError, cache, pfaffian, zero_field
from sizetransfer.systems.ising.infinite import correlation_length, dual, energy

SHAPES = ((2, 2), (3, 3), (2, 3), (4, 5), (6, 8), (8, 8))
RATIOS = (0.0, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6, 1.0, 1.01, 1.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_pfaffians_are_transfer_matrices(shape):
    for ratio in RATIOS:
        beta = ratio * CRITICAL
        found, model, free = zero_field(beta, shape), IsingModel(beta), torch.zeros(1, *shape)
        expected = model.covariance(free, (0, 0))[0]
        assert found.log_partition == pytest.approx(float(model.moments(free).log_partition), rel=1e-13)
        assert float((found.correlation - expected).abs().max()) < 1e-12
        assert found.susceptibility == pytest.approx(float(expected.sum()), rel=1e-12)


def test_small_correlations_keep_their_digits():
    expected = IsingModel(0.1).covariance(torch.zeros(1, 6, 6), (0, 0))[0]
    assert float((zero_field(0.1, (6, 6)).correlation / expected - 1).abs().max()) < 1e-10


def test_an_antiferromagnet_is_a_staggered_ferromagnet():
    found = zero_field(-0.4, (2, 4))
    exact = enumerate_spins(torch.zeros(2, 4), -0.4)
    assert float((found.correlation - exact.covariance[0, 0]).abs().max()) < 1e-13
    assert found.log_partition == pytest.approx(float(exact.log_partition), rel=1e-13)


@pytest.mark.parametrize("ratio", [0.9, 1.0, 1.1])
def test_large_tables_have_the_symmetry_that_their_paths_lack(ratio):
    """Paths go down and then right, so that (a, b) and (b, a) are different matrices."""
    table = zero_field(ratio * CRITICAL, (32, 32)).correlation
    assert float((table - table.T).abs().max()) < 1e-12


def magnetisation(beta: float) -> float:
    """Spontaneous magnetisation, ``(1 - sinh(2 beta)**-4)**(1/8)`` above the critical coupling (Yang 1952), else 0."""
    return (1 - math.sinh(2 * beta) ** -4) ** 0.125 if beta > CRITICAL else 0.0


def test_onsager_and_yang():
    for ratio in (0.6, 0.8, 1.2, 1.5):
        beta = ratio * CRITICAL
        table = zero_field(beta, (48, 48)).correlation
        decay = math.exp(-48 / correlation_length(beta))
        assert abs(float(table[0, 1]) - energy(beta)) < 1e-12 + 10 * decay
        far = math.exp(-24 / correlation_length(beta))
        assert abs(float(table[24, 24]) - magnetisation(beta) ** 2) < 1e-12 + 10 * far
    assert magnetisation(1.2 * CRITICAL) > 0.8
    # Energies differ between temperatures by far more than the tolerance.
    assert abs(energy(0.8 * CRITICAL) - energy(0.801 * CRITICAL)) > 1e-4


def test_energy_at_the_critical_point_has_onsagers_value():
    assert energy(CRITICAL) == pytest.approx(1 / math.sqrt(2), rel=1e-12)
    at = [abs(float(zero_field(CRITICAL, (n, n)).correlation[0, 1]) - 1 / math.sqrt(2)) * n for n in (8, 16, 32)]
    assert at[0] == pytest.approx(at[2], rel=0.01)  # falls like 1/L


def test_energy_is_the_derivative_of_the_partition_function():
    step, beta, shape = 1e-5, 0.45, (7, 7)
    up, down = (zero_field(beta + sign * step, shape).log_partition for sign in (1, -1))
    assert (up - down) / (2 * step) / 98 == pytest.approx(float(zero_field(beta, shape).correlation[0, 1]), rel=1e-8)


def test_the_critical_susceptibility_grows_like_the_seven_fourths():
    values = [zero_field(CRITICAL, (n, n)).susceptibility for n in (16, 32)]
    assert math.log2(values[1] / values[0]) == pytest.approx(1.75, abs=0.01)


@pytest.mark.parametrize("beta", [0.2, 0.35, 0.6])
def test_duality(beta):
    """Z(beta) / (2 sinh 2 beta)^(N/2) up to boundary terms; free energies of both sides agree on large tori."""
    other, shape = dual(beta), (40, 40)
    assert math.sinh(2 * beta) * math.sinh(2 * other) == pytest.approx(1, rel=1e-12)
    free = [zero_field(b, shape).log_partition / 1600 - 0.5 * math.log(math.sinh(2 * b)) for b in (beta, other)]
    # The ordered side has two ground states.
    ordered = int(beta < CRITICAL)
    free[ordered] -= math.log(2) / 1600
    assert free[0] == pytest.approx(
        free[1], abs=10 / 1600 * math.exp(-40 / correlation_length(min(beta, other))) + 1e-14
    )


def test_wrong_sectors_are_caught(monkeypatch):
    right = pfaffian._log_pfaffians

    def wrong(t, shape):
        logs, signs = right(t, shape)
        return logs, signs.abs()

    monkeypatch.setattr(pfaffian, "_log_pfaffians", wrong)
    expected = IsingModel(0.3).covariance(torch.zeros(1, 4, 4), (0, 0))[0]
    assert float((zero_field(0.3, (4, 4)).correlation - expected).abs().max()) > 1e-6


def test_without_interpolation_the_critical_point_has_no_table(monkeypatch):
    monkeypatch.setattr(pfaffian, "NEAR", 0.0)
    broken = zero_field(CRITICAL, (8, 8)).correlation
    expected = IsingModel(CRITICAL).covariance(torch.zeros(1, 8, 8), (0, 0))[0]
    assert not float((broken - expected).abs().max()) < 1e-9


def test_leading_pfaffians():
    a = torch.randn(6, 6, generator=stream_of(3))
    a = a - a.T
    found = pfaffian.leading_pfaffians(a)
    for n in (1, 2, 3):
        assert float(found[n]) ** 2 == pytest.approx(float(torch.linalg.det(a[: 2 * n, : 2 * n])), rel=1e-9)
    assert float(found[1]) == float(a[0, 1])
    four = a[0, 1] * a[2, 3] - a[0, 2] * a[1, 3] + a[0, 3] * a[1, 2]
    assert float(found[2]) == pytest.approx(float(four), rel=1e-10)


def stream_of(seed):
    return torch.Generator().manual_seed(seed)


def test_outside_counts_the_shells():
    table, rounding = zero_field(0.3, (6, 6)), TOLERANCE["measure"][torch.float64]
    assert table.outside(-1) == pytest.approx(table.susceptibility, rel=rounding)
    assert table.outside(3) == 0
    assert table.outside(0) == pytest.approx(table.susceptibility - 1, rel=rounding)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: zero_field(math.inf, (4, 4)), "finite"),
        (lambda: zero_field(0.4, (1, 4)), "two sites"),
        (lambda: zero_field(-0.4, (3, 4)), "antiferromagnet"),
    ],
)
def test_impossible_tables_are_refused(call, name):
    with pytest.raises(OracleError, match=name):
        call()


def test_tables_beyond_the_limits_are_refused_with_the_estimate():
    with pytest.raises(TooLargeError, match="GiB"):
        zero_field(0.4, (1024, 1024))
    with pytest.raises(TooLargeError):
        zero_field(0.4, (16, 16), limits=Limits(seconds=1e-5))


# --- the cache ----------------------------------------------------------------------------------------------------


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_tables_come_from_disk(tmp_path, monkeypatch):
    first = zero_field(0.4, (6, 6), cache=tmp_path)
    assert len(entries(tmp_path)) == 1
    monkeypatch.setattr(pfaffian, "_solve", lambda *_: pytest.fail("computed again"))
    second = zero_field(0.4, (6, 6), cache=tmp_path)
    assert torch.equal(first.correlation, second.correlation)
    assert first.log_partition == second.log_partition


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    zero_field(0.4, (4, 4))
    assert not entries(tmp_path)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "tables"))
    zero_field(0.4, (4, 4))
    assert len(entries(tmp_path / "tables")) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other question"])
def test_corrupted_tables_are_computed_again(tmp_path, monkeypatch, damage):
    expected = zero_field(0.4, (6, 6), cache=tmp_path).correlation
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "other question":
        other = tmp_path / "other"
        zero_field(0.3, (6, 6), cache=other)
        path.write_bytes(next(other.iterdir()).read_bytes())
    else:
        flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        path.write_bytes({"cut": whole[:-40], "flipped": flipped, "empty": b""}[damage])
    assert torch.equal(zero_field(0.4, (6, 6), cache=tmp_path).correlation, expected)
    monkeypatch.setattr(pfaffian, "_solve", lambda *_: pytest.fail("the damaged file is still there"))
    assert torch.equal(zero_field(0.4, (6, 6), cache=tmp_path).correlation, expected)


def test_parameters_do_not_share_a_file(tmp_path):
    for beta, shape in ((0.4, (4, 6)), (0.4, (6, 4)), (0.4 + 1e-15, (4, 6))):
        zero_field(beta, shape, cache=tmp_path)
    assert len(entries(tmp_path)) == 3


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr(cache, "save_file", fails)
    with pytest.raises(OSError, match="full"):
        zero_field(0.4, (4, 4), cache=tmp_path)
    assert not entries(tmp_path)
