"""Measures against closed forms, on Gaussian fields whose teacher and student are linear.

The teacher is :math:`N(0, (M \\otimes Q)^{-1})` on a torus: Q circulant, with entries that depend on the Chebyshev
distance alone, and M a matrix between channels. Its score is :math:`-(M \\otimes Q)x`; the student's keeps the
entries of Q within its radius. Numbers must agree within ``SIGNIFICANCE`` standard errors, exact ones to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import NonFiniteError, SpecError
from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import Context, Sample, Teacher, draw_fields
from sizetransfer.contracts.randomness import normal
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student
from sizetransfer.measures import clean_score, jacobian, response
from sizetransfer.measures.clean_score import CleanScoreSpec
from sizetransfer.measures.jacobian import JacobianSpec
from sizetransfer.measures.response import ResponseSpec
from sizetransfer.scores.response import Region
from sizetransfer.systems.flow.teacher import FlowTeacherSpec

SIGNIFICANCE = 5.0
ROUNDING = 1e-9
SIZE = 10
# Entries of Q by distance; mixed signs, so that a uniform shift is not the sum of absolute values; none at five.
PRECISION = (4.0, -0.2, -0.06, 0.03, -0.012, 0.0)
COUNTS = (1, 8, 16, 24, 32, 19)
MIXING = torch.tensor([[1.0, 0.3], [0.3, 0.8]], dtype=torch.float64)


def spectrum(radius: int, size: int = SIZE) -> Tensor:
    """Eigenvalues of the circulant matrix whose entries within ``radius`` are those of Q, shape ``*S``."""
    distance = Lattice((size, size)).distance((0, 0))
    entries = torch.tensor(PRECISION)[distance]
    return torch.fft.fft2(torch.where(distance <= radius, entries, 0.0)).real


def filtered(x: Tensor, eigenvalues: Tensor) -> Tensor:
    return torch.fft.ifft2(torch.fft.fft2(x) * eigenvalues).real


def mixed(x: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,bjxy->bixy", matrix, x)


class Gaussian(Teacher):
    """Fields of one channel, or of two with the mixing M."""

    def __init__(self, channels: int) -> None:
        super().__init__(FieldInfo(dim=2, channels=channels))
        self.mixing = MIXING[:channels, :channels]
        values, vectors = torch.linalg.eigh(self.mixing)
        self.root = vectors @ torch.diag(values**-0.5) @ vectors.T
        self.double()

    def sample(self, batch, size, *, generator):
        z = normal((batch, self.field.channels, size, size), generator=generator, like=self.anchor)
        return Sample(filtered(mixed(z, self.root), spectrum(5) ** -0.5), Context(self.domain(size)))

    def score(self, sample):
        return -filtered(mixed(sample.x, self.mixing), spectrum(5))


class Truncated(Student):
    """The teacher's score without the entries beyond the radius."""

    def __init__(self, teacher: Gaussian, radius: int) -> None:
        super().__init__(teacher.field, radius=radius)
        self.mixing = teacher.mixing

    def forward(self, x, sigma, context):
        return -filtered(mixed(x, self.mixing), spectrum(self.radius))


class Exact(Student):
    """The teacher itself, louder by a share of the noise level that it is told."""

    def __init__(self, teacher: Teacher, radius: int | None = None, share: float = 0.0) -> None:
        super().__init__(teacher.field, radius=radius)
        self.teacher = teacher
        self.share = share

    def forward(self, x, sigma, context):
        return self.teacher.score(Sample(x, context)) * (1 + self.share * expand(sigma, x))


def table(measurements: Iterable[Measurement]) -> dict[str | tuple[str, float], Measurement]:
    """By part, or by part and coordinate."""
    rows = list(measurements)
    keys = [m.part if math.isnan(m.coordinate) else (m.part, m.coordinate) for m in rows]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, rows, strict=True))


def deviations(measured: dict, expected: dict) -> dict:
    """The parts that are not what they should be; a missing one raises."""

    def differs(m: Measurement, value: float) -> bool:
        if math.isnan(value) or math.isnan(m.value):
            return math.isnan(value) != math.isnan(m.value)
        error = 0.0 if math.isnan(m.standard_error) else m.standard_error
        return not abs(m.value - value) <= SIGNIFICANCE * error + ROUNDING

    return {key: (measured[key].value, value) for key, value in expected.items() if differs(measured[key], value)}


def shell_sum(power: int, nearest: int, farthest: int, beyond: int = -1) -> float:
    """Sum of powers of the entries of Q over a region, restricted to distances larger than ``beyond``."""
    distances = range(max(nearest, beyond + 1), min(farthest, 5) + 1)
    return sum(COUNTS[d] * PRECISION[d] ** power for d in distances)


def frobenius(channels: int) -> float:
    return MIXING[:channels, :channels].norm().item()


# --- clean score --------------------------------------------------------------------------------------------------


def clean_score_measured(channels: int, radius: int) -> dict:
    teacher = Gaussian(channels)
    spec = CleanScoreSpec(fields=96, batch=40)
    return table(spec.measure(teacher, Truncated(teacher, radius), SIZE, sigma=0.05, seed=1))


def clean_score_expected(channels: int, radius: int) -> dict:
    """E |(Q - Q_r) x|^2 = tr (Q - Q_r)^2 / Q and E |Q x|^2 = tr Q, and the same with M for the channels."""
    exact, missing = spectrum(5), spectrum(5) - spectrum(radius)
    gain = MIXING[:channels, :channels].trace().item() / channels
    spread = torch.linalg.inv(MIXING[:channels, :channels]).trace().item() / channels
    error, size = gain * (missing**2 / exact).mean().item(), gain * exact.mean().item()
    return {
        "relative_rmse": math.sqrt(error / size),
        "rmse": math.sqrt(error),
        "teacher_rms": math.sqrt(size),
        "field_std": math.sqrt(spread * (1 / exact).mean().item()),
    }


over_students = pytest.mark.parametrize(("channels", "radius"), [(1, 0), (1, 1), (1, 3), (2, 1), (2, 2)])


@over_students
def test_clean_score_errors_are_those_of_the_closed_form(channels, radius):
    measured, expected = clean_score_measured(channels, radius), clean_score_expected(channels, radius)
    assert measured.keys() == expected.keys()
    assert not deviations(measured, expected)
    assert all(0 < m.standard_error < 0.05 * m.value for m in measured.values())
    assert {m.n for m in measured.values()} == {96}


def louder_measured() -> dict:
    """A student that is a quarter louder than the exact score."""
    teacher = Gaussian(1)
    return table(CleanScoreSpec().measure(teacher, Exact(teacher, share=1.0), SIZE, sigma=0.25, seed=0))


def test_a_clean_score_error_relative_to_the_student_is_caught(monkeypatch):
    assert not deviations(louder_measured(), {"relative_rmse": 0.25})
    squares = clean_score._squares

    def relative_to_the_student(teacher, student, sample, sigma):
        with torch.no_grad():
            estimate = student(sample.x, torch.full((len(sample.x),), sigma), sample.context)
        (error, _, field), live = squares(teacher, student, sample, sigma)
        return torch.stack([error, estimate.square(), field]), live

    monkeypatch.setattr(clean_score, "_squares", relative_to_the_student)
    assert deviations(louder_measured(), {"relative_rmse": 0.25}).keys() == {"relative_rmse"}


def test_a_closed_form_of_another_radius_is_caught():
    assert "relative_rmse" in deviations(clean_score_measured(1, 1), clean_score_expected(1, 2))


class HalfDead(Teacher):
    """White fields of variance two on three sites of four; the others hold what must not count."""

    def __init__(self) -> None:
        super().__init__(FieldInfo(dim=2))
        self.double()

    def sample(self, batch, size, *, generator):
        live = (torch.arange(size * size) % 4 > 0).reshape(1, 1, size, size).expand(batch, 1, size, size)
        x = math.sqrt(2) * normal((batch, 1, size, size), generator=generator, like=self.anchor)
        return Sample(torch.where(live, x, 50.0), Context(self.domain(size), mask=live))

    def score(self, sample):
        return -sample.x / 2


def test_dead_sites_do_not_count():
    teacher = HalfDead()
    measured = table(CleanScoreSpec(fields=64).measure(teacher, Exact(teacher, share=1.0), 8, sigma=0.25, seed=0))
    expected = {"relative_rmse": 0.25, "rmse": 0.25 * 0.5**0.5, "teacher_rms": 0.5**0.5, "field_std": 2**0.5}
    assert not deviations(measured, expected)


# --- responses ----------------------------------------------------------------------------------------------------

REGIONS = {"near": Region(nearest=0, farthest=2), "far": Region(nearest=3, farthest=8)}


def response_measured(channels: int, radius: int) -> dict:
    teacher = Gaussian(channels)
    spec = ResponseSpec(fields=64, repeats=3, **REGIONS)
    return table(spec.measure(teacher, Truncated(teacher, radius), SIZE, sigma=0.05, seed=1))


def response_expected(channels: int, radius: int) -> dict:
    """Random signs give Frobenius norms over the region, a uniform shift gives signed sums."""
    expected, squares = {}, {}
    gain = frobenius(channels)
    for name, region in REGIONS.items():
        ends = (region.nearest, region.farthest)
        squares[name] = shell_sum(2, *ends)
        inside = squares[name] - shell_sum(2, *ends, radius)
        expected |= {
            f"{name}_error": math.sqrt(shell_sum(2, *ends, radius) / squares[name]),
            f"{name}_teacher": gain * math.sqrt(squares[name]),
            f"{name}_student": gain * math.sqrt(inside),
            f"{name}_shift_error": abs(shell_sum(1, *ends, radius) / shell_sum(1, *ends)),
        }
    return expected | {"far_to_near_teacher": math.sqrt(squares["far"] / squares["near"])}


@over_students
def test_response_errors_are_those_of_the_closed_form(channels, radius):
    measured, expected = response_measured(channels, radius), response_expected(channels, radius)
    assert measured.keys() == expected.keys()
    assert not deviations(measured, expected)
    assert all(m.standard_error < 0.1 * m.value + ROUNDING for m in measured.values())
    # A region wholly outside the radius gives one by construction.
    assert (measured["far_error"].value == pytest.approx(1, abs=1e-12)) == (radius < 3)


def test_a_response_error_relative_to_the_student_is_caught(monkeypatch):
    probe = ResponseSpec._probe
    swapped = lambda self, *arguments: probe(self, *arguments)[[0, 2, 1]]  # noqa: E731
    monkeypatch.setattr(ResponseSpec, "_probe", swapped)
    assert deviations(response_measured(1, 1), response_expected(1, 1)).keys() >= {"far_error", "far_teacher"}


def test_a_uniform_shift_in_place_of_random_signs_is_caught(monkeypatch):
    monkeypatch.setattr(response, "_signs", lambda x, generator: torch.ones_like(x))
    assert deviations(response_measured(1, 3), response_expected(1, 3)).keys() >= {"far_error", "far_teacher"}


def test_a_response_is_undefined_where_the_teacher_has_none():
    teacher = Gaussian(1)
    spec = ResponseSpec(fields=8, repeats=2, far=Region(nearest=5, farthest=5))
    measured = table(spec.measure(teacher, Truncated(teacher, 1), SIZE, sigma=0.05, seed=0))
    assert math.isnan(measured["far_error"].value)
    assert math.isnan(measured["far_shift_error"].value)
    assert measured["far_teacher"].value < 1e-12
    assert measured["far_to_near_teacher"].value < 1e-12
    assert not math.isnan(measured["near_error"].value)


def test_a_student_that_hears_where_the_teacher_does_not_is_told_by_its_size():
    class Listening(Exact):
        def forward(self, x, sigma, context):
            return super().forward(x, sigma, context) + 0.5 * x.roll((5, 5), (2, 3))

    teacher = Gaussian(1)
    spec = ResponseSpec(fields=8, repeats=2, far=Region(nearest=5, farthest=5))
    measured = table(spec.measure(teacher, Listening(teacher), SIZE, sigma=0.05, seed=0))
    assert measured["far_student"].value == pytest.approx(0.5, rel=1e-9)
    assert math.isnan(measured["far_error"].value)


# --- Jacobians ----------------------------------------------------------------------------------------------------


def jacobian_measured(channels: int, radius: int) -> dict:
    teacher = Gaussian(channels)
    spec = JacobianSpec(fields=3, sites=3, epsilons=(0.5, 0.1, 0.05), **REGIONS)
    return table(spec.measure(teacher, Truncated(teacher, radius), SIZE, sigma=0.05, seed=1))


def jacobian_expected(channels: int, radius: int) -> dict:
    """Rows of a linear score are constant, so every number is exact."""
    gain = frobenius(channels)
    expected: dict = {}
    for name, seen in (("teacher", 5), ("student", radius)):
        sizes = [gain * abs(q) if d <= seen else 0.0 for d, q in enumerate(PRECISION)]
        tails = [sum(COUNTS[d] * sizes[d] for d in range(r + 1, 6)) for r in range(6)]
        expected |= {(f"profile_{name}", float(d)): size for d, size in enumerate(sizes)}
        expected |= {(f"tail_{name}", float(r)): tail for r, tail in enumerate(tails)}
        for epsilon in (0.5, 0.1, 0.05):
            reached = (r for r in range(6) if tails[r] <= epsilon * tails[0])
            expected[(f"range_{name}", epsilon)] = float(next(reached))
    expected |= {("profile_error", float(d)): float(d > radius) for d in range(5)} | {("profile_error", 5.0): math.nan}
    for name, region in REGIONS.items():
        ends = (region.nearest, region.farthest)
        expected[f"{name}_error"] = math.sqrt(shell_sum(2, *ends, radius) / shell_sum(2, *ends))
    far, near = (shell_sum(2, region.nearest, region.farthest) for region in (REGIONS["far"], REGIONS["near"]))
    expected["far_to_near_teacher"] = math.sqrt(far / near)
    return expected | {"outside_share": shell_sum(2, 0, 5, radius) / shell_sum(2, 0, 5)}


@pytest.mark.parametrize(("channels", "radius"), [(1, 1), (1, 3), (2, 1), (2, 2)])
def test_jacobian_profiles_tails_ranges_and_shares_are_those_of_the_closed_form(channels, radius):
    measured, expected = jacobian_measured(channels, radius), jacobian_expected(channels, radius)
    assert measured.keys() == expected.keys()
    assert not deviations(measured, expected)
    assert {m.n for m in measured.values()} == {3}


def test_a_jacobian_error_relative_to_the_student_is_caught(monkeypatch):
    rows, calls = jacobian._rows, []

    def exchanged(score, x, site):
        """The student's row where the teacher's is asked for, and the other way round."""
        calls.append(rows(score, x, site))
        return calls[-1] * (0.5 if len(calls) % 2 else 1.0)

    monkeypatch.setattr(jacobian, "_rows", exchanged)
    wrong = deviations(jacobian_measured(1, 3), jacobian_expected(1, 3))
    assert wrong.keys() >= {"near_error", ("profile_teacher", 0.0), ("profile_error", 0.0)}


def test_a_profile_that_is_not_averaged_over_its_shell_is_caught(monkeypatch):
    per_site = jacobian._per_site
    monkeypatch.setattr(jacobian, "_per_site", lambda sums, counts, *rest: per_site(sums, torch.ones(len(sums)), *rest))
    assert ("profile_teacher", 1.0) in deviations(jacobian_measured(1, 3), jacobian_expected(1, 3))


def test_a_global_student_has_no_share_outside():
    teacher = Gaussian(1)
    measured = table(JacobianSpec(fields=2, sites=1).measure(teacher, Exact(teacher), SIZE, sigma=0.05, seed=0))
    assert "outside_share" not in measured


class Chain(Teacher):
    """A Gaussian on an open chain in which every site hears every other."""

    def __init__(self) -> None:
        super().__init__(FieldInfo(dim=1, periodic=False))

    def precision(self, size: int) -> Tensor:
        places = torch.arange(size, dtype=torch.float64)
        return torch.eye(size, dtype=torch.float64) + torch.exp(-0.3 * (places[:, None] - places).abs())

    def sample(self, batch, size, *, generator):
        return Sample(torch.randn(batch, 1, size, generator=generator), Context(self.domain(size)))

    def score(self, sample):
        return -sample.x @ self.precision(sample.x.shape[-1])


def test_sites_near_a_wall_keep_their_farthest_shells():
    """Reference sites 0 and 1 of a chain of six: only the first has a shell at distance five."""
    teacher = Chain().double()
    spec = JacobianSpec(fields=2, sites=2, far=Region(nearest=3, farthest=5))
    measured = table(spec.measure(teacher, Exact(teacher, radius=2), 6, sigma=0.05, seed=0))
    rows = teacher.precision(6)[:2]
    distance = (torch.arange(6) - torch.arange(2)[:, None]).abs()
    expected = {
        "outside_share": (rows[distance > 2].square().sum() / rows.square().sum()).item(),
        ("tail_teacher", 2.0): rows[distance > 2].sum().item() / 2,
    }
    expected |= {("profile_teacher", float(d)): rows[distance == d].mean().item() for d in range(6)}
    assert not deviations(measured, expected)


def test_a_radius_beyond_the_lattice_leaves_nothing_outside():
    teacher = Gaussian(1)
    student = Exact(teacher, radius=7)
    measured = table(JacobianSpec(fields=2, sites=1).measure(teacher, student, SIZE, sigma=0.05, seed=0))
    assert measured["outside_share"].value == 0


# --- every measure ------------------------------------------------------------------------------------------------

SPECS = {
    "clean-score": CleanScoreSpec(fields=4, batch=3),
    "response": ResponseSpec(fields=4, repeats=1, far=Region(nearest=3, farthest=4)),
    "jacobian": JacobianSpec(fields=3, far=Region(nearest=3, farthest=4)),
}
over_measures = pytest.mark.parametrize("name", SPECS)


@over_measures
def test_the_exact_score_has_no_error(name):
    teacher = FlowTeacherSpec.parse({"preset": "medium-range"}).build().double().frozen()
    measured = table(SPECS[name].measure(teacher, Exact(teacher, radius=2), 8, sigma=0.05, seed=0))
    errors = [m for key, m in measured.items() if "error" in str(key) or "rmse" in str(key)]
    assert errors
    assert all(m.value == 0 for m in errors)
    for key, m in measured.items():
        if "teacher" in str(key) and (twin := _twin(key)) in measured:
            assert measured[twin].value == m.value


@over_measures
def test_a_score_that_is_not_finite_stops_the_measure(name):
    teacher = Gaussian(1)
    with pytest.raises(NonFiniteError, match="not finite") as caught:
        list(SPECS[name].measure(teacher, Exact(teacher, share=math.nan), SIZE, sigma=0.05, seed=0))
    assert caught.value.where.startswith(name)


def _twin(key: str | tuple[str, float]) -> str | tuple[str, float]:
    """The student's part for the teacher's."""
    if isinstance(key, tuple):
        return key[0].replace("teacher", "student"), key[1]
    return key.replace("teacher", "student")


def test_the_share_outside_follows_from_the_rows_of_the_teacher():
    teacher = FlowTeacherSpec.parse({"preset": "medium-range"}).build().double().frozen()
    spec = JacobianSpec(fields=3, far=Region(nearest=3, farthest=4))
    measured = table(spec.measure(teacher, Exact(teacher, radius=2), 8, sigma=0.05, seed=4))
    fields = draw_fields(teacher, 3, 8, generator=jacobian.stream(4, "jacobian", 8))
    outside = total = 0.0
    for site in ((0, 0), (0, 1)):
        rows = torch.autograd.functional.jacobian(
            lambda x, site=site: teacher.score(fields.with_x(x))[(slice(None), 0, *site)], fields.x
        )
        squares = torch.stack([rows[b, b, 0] for b in range(3)]) ** 2
        outside += squares[:, fields.context.domain.distance(site) > 2].sum().item()
        total += squares.sum().item()
    assert 0.01 < measured["outside_share"].value < 0.99
    assert measured["outside_share"].value == pytest.approx(outside / total, rel=1e-10)


@over_measures
def test_the_student_is_asked_at_the_given_noise_level(name):
    teacher = Gaussian(1)
    student = Exact(teacher, radius=1, share=1.0)
    measured = table(SPECS[name].measure(teacher, student, SIZE, sigma=0.25, seed=0))
    part = "relative_rmse" if name == "clean-score" else "near_error"
    assert measured[part].value == pytest.approx(0.25, rel=1e-9)


@over_measures
def test_the_seed_and_the_size_name_the_fields(name):
    teacher = FlowTeacherSpec.parse({"preset": "short-range-simple"}).build().double().frozen()
    part = {"clean-score": "teacher_rms", "response": "near_teacher", "jacobian": ("profile_teacher", 0.0)}[name]

    def value(seed: int, size: int = 8) -> float:
        return table(SPECS[name].measure(teacher, Exact(teacher, 1), size, sigma=0.1, seed=seed))[part].value

    assert value(0) == value(0)
    assert len({value(0), value(1), value(0, 10)}) == 3


@pytest.mark.parametrize("name", ["response", "jacobian"])
def test_a_region_beyond_the_lattice_is_refused(name):
    teacher = Gaussian(1)
    spec = SPECS[name].model_copy(update={"far": Region(nearest=6, farthest=9)})
    with pytest.raises(SpecError, match="region is empty"):
        list(spec.measure(teacher, Exact(teacher), SIZE, sigma=0.05, seed=0))
