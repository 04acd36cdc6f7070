"""Measures of fields with dead sites and walls, against dense Jacobians and against definitions written by hand."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch
from tolerances import TOLERANCE
from torch import Tensor

import sizetransfer as st
from sizetransfer.contracts.domain import Lattice
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.oracle import Context, Sample, Teacher, draw_fields
from sizetransfer.contracts.randomness import normal, stream
from sizetransfer.contracts.specs import FieldInfo
from sizetransfer.contracts.student import Student
from sizetransfer.measures import clean_score, response
from sizetransfer.measures.clean_score import CleanScoreSpec
from sizetransfer.measures.jacobian import JacobianSpec
from sizetransfer.measures.response import ResponseSpec
from sizetransfer.scores.response import Region, own_sites, reference_sites

ROUNDING = 1e-9
SIZE = 5
LEVEL = 0.05


@lru_cache
def distances(lattice: Lattice) -> Tensor:
    """Chebyshev distances of all pairs of sites of a square, ``(N, N)``."""
    return torch.stack([lattice.distance(divmod(site, lattice.size[0])).flatten() for site in range(lattice.sites)])


class Linear(Teacher):
    """Fields in an open square, dead where a drawn mask says so, with a linear score that dead sites take no part in.

    The score is ``-W Q W x`` with Q dense and W the mask; ``leaks`` adds what a dead site would contribute.
    """

    def __init__(self, *, live: float = 0.6, leaks: bool = False, periodic: bool = False) -> None:
        super().__init__(FieldInfo(dim=2, periodic=periodic))
        self.live, self.leaks = live, leaks
        self.double()

    def matrix(self, size: int) -> Tensor:
        noise = torch.randn(size**2, size**2, generator=stream("dense", size))
        return (noise + noise.T) * 0.5 ** distances(self.domain(size)).double() + 4 * torch.eye(size**2)

    def sample(self, batch, size, *, generator):
        mask = torch.rand(batch, 1, size, size, generator=generator) < self.live
        x = normal((batch, 1, size, size), generator=generator, like=self.anchor) * mask
        return Sample(x, Context(self.domain(size), mask=mask if self.live < 1 else None))

    def score(self, sample):
        return self.apply(sample.x, sample.context, self.matrix(sample.x.shape[-1]))

    def apply(self, x: Tensor, context: Context, matrix: Tensor) -> Tensor:
        live = 1.0 if context.mask is None or self.leaks else context.mask.to(x)
        return -live * ((live * x).flatten(1) @ matrix).reshape(x.shape)


class Near(Student):
    """The score of a linear teacher without what lies beyond the radius, and a little too quiet."""

    def __init__(self, teacher: Linear, radius: int | None) -> None:
        super().__init__(teacher.field, radius=radius)
        self.teacher = teacher

    def matrix(self, size: int) -> Tensor:
        exact = self.teacher.matrix(size)
        near = 1 if self.radius is None else distances(self.teacher.domain(size)) <= self.radius
        return 0.9 * exact * near

    def forward(self, x, sigma, context):
        return self.teacher.apply(x, context, self.matrix(x.shape[-1]))


def table(measurements) -> dict:
    rows = list(measurements)
    found = {m.part if math.isnan(m.coordinate) else (m.part, m.coordinate): m for m in rows}
    assert len(found) == len(rows)
    return found


def dense_rows(teacher: Linear, student: Near, sample: Sample, sites: Tensor) -> tuple[Tensor, Tensor]:
    """Jacobian rows at one site of every field, by autograd of the whole field: ``(B, *S)`` of teacher and student."""
    found = []
    for score in (lambda x, c: teacher.score(Sample(x, c)), lambda x, c: student(x, torch.full((1,), LEVEL), c)):
        rows = []
        for row, site in enumerate(sites.tolist()):
            context = Context(sample.context.domain, mask=sample.context.mask[row : row + 1])
            full = torch.autograd.functional.jacobian(lambda x, c=context, s=score: s(x, c), sample.x[row : row + 1])
            rows.append(full[0, 0, site[0], site[1], 0, 0])
        found.append(torch.stack(rows))
    return found[0], found[1]


# --- reference sites ------------------------------------------------------------------------------------------------


def drawn(batch: int, size: int, live: float) -> Context:
    return Linear(live=live).sample(batch, size, generator=stream("reference", size)).context


def test_reference_sites_are_live_of_the_bulk_and_each_is_taken_once():
    context = drawn(20, 9, 0.5)
    wanted = torch.tensor(reference_sites(context.domain, 3, 2)).expand(20, -1, -1)
    sites, kept = own_sites(context, wanted, 2)
    assert kept.all()
    for row in range(20):
        chosen = {tuple(site) for site in sites[row].tolist()}
        assert len(chosen) == 3
        assert all(context.mask[row, 0][site] and context.domain.bulk(2)[site] for site in chosen)
    assert len({tuple(sites[row].flatten().tolist()) for row in range(20)}) > 1


def test_reference_sites_stay_where_they_are_live():
    wanted = torch.tensor(reference_sites(Lattice((6, 6), periodic=False), 4)).expand(2, -1, -1)
    for context in (Context(Lattice((6, 6), periodic=False)), drawn(2, 6, 1.1)):
        assert torch.equal(own_sites(context, wanted)[0], wanted)
    full = Context(Lattice((6, 6), periodic=False), mask=torch.ones(2, 1, 6, 6, dtype=torch.bool))
    assert torch.equal(own_sites(full, wanted)[0], wanted)


def test_a_dead_reference_site_goes_to_the_nearest_live_one_of_its_sublattice():
    mask = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    mask[0, 0, 2, 3] = mask[0, 0, 0, 2] = True  # one step away, and two
    sites, kept = own_sites(Context(Lattice((5, 5), periodic=False), mask=mask), torch.tensor([[[2, 2]]]))
    assert sites.tolist() == [[[0, 2]]]
    assert kept.all()
    mask[0, 0, 0, 2] = False
    sites, _ = own_sites(Context(Lattice((5, 5), periodic=False), mask=mask), torch.tensor([[[2, 2]]]))
    assert sites.tolist() == [[[2, 3]]]


def test_fields_without_live_sites_are_left_out_and_none_at_all_is_refused():
    mask = torch.zeros(3, 1, 6, 6, dtype=torch.bool)
    mask[1] = True
    context = Context(Lattice((6, 6), periodic=False), mask=mask)
    wanted = torch.tensor(reference_sites(context.domain, 2, 1)).expand(3, -1, -1)
    assert own_sites(context, wanted, 1)[1].tolist() == [False, True, False]
    mask[1] = False
    with pytest.raises(SpecError, match="No field has enough live sites"):
        own_sites(context, wanted, 1)


# --- responses ------------------------------------------------------------------------------------------------------

REGIONS = {"near": Region(nearest=0, farthest=1), "far": Region(nearest=2, farthest=3)}
FIELDS = 6


def response_of(teacher: Linear) -> dict:
    spec = ResponseSpec(fields=FIELDS, repeats=200, **REGIONS)
    return table(spec.measure(teacher, Near(teacher, 2), SIZE, sigma=LEVEL, seed=1))


def response_expected(teacher: Linear) -> dict:
    """Frobenius norms of dense rows over the live sites of each region, and signed sums for the shift."""
    sample = draw_fields(teacher, FIELDS, SIZE, generator=stream(1, "response", SIZE))
    wanted = torch.tensor(reference_sites(sample.context.domain, FIELDS))[:, None]
    sites, kept = own_sites(sample.context, wanted)
    exact, learned = dense_rows(teacher, Near(teacher, 2), sample, sites[:, 0])
    live = sample.context.mask[:, 0]
    masks = {
        name: live & torch.stack([region.mask(sample.context.domain, tuple(s)) for s in sites[:, 0].tolist()])
        for name, region in REGIONS.items()
    }
    kept = kept & torch.stack([mask.flatten(1).any(1) for mask in masks.values()]).all(0)
    expected = {}
    for name, mask in masks.items():
        a, b = (mask[kept] * rows[kept] for rows in (exact, learned))
        squares = [v.square().sum() for v in (b - a, a, b)]
        sums = [v.sum((1, 2)).square().sum() for v in (b - a, a)]
        expected[f"{name}_error"] = float((squares[0] / squares[1]).sqrt())
        expected[f"{name}_teacher"] = float((squares[1] / kept.sum()).sqrt())
        expected[f"{name}_student"] = float((squares[2] / kept.sum()).sqrt())
        expected[f"{name}_shift_error"] = float((sums[0] / sums[1]).sqrt())
    return expected


def wrong(measured: dict, expected: dict) -> set[str]:
    """Parts that are off. Signs are 200 a field: relative errors of squares stay below a tenth, shifts are exact."""
    limit = {part: ROUNDING if "shift" in part else 0.1 * abs(value) for part, value in expected.items()}
    return {part for part, value in expected.items() if not abs(measured[part].value - value) <= limit[part]}


def test_masked_responses_are_those_of_dense_jacobians():
    teacher = Linear()
    measured = response_of(teacher)
    assert not wrong(measured, response_expected(teacher))
    assert {m.n for m in measured.values()} == {FIELDS}


def test_a_response_measure_that_perturbs_dead_sites_is_caught(monkeypatch):
    # Where the score itself ignores dead sites, nothing is left to see; one that listens to them gives it away.
    assert not wrong(response_of(Linear(leaks=True)), response_expected(Linear(leaks=True)))
    monkeypatch.setattr(response, "_live", lambda masks, context: masks)
    assert wrong(response_of(Linear(leaks=True)), response_expected(Linear(leaks=True)))


def test_a_response_measure_that_probes_dead_sites_is_caught(monkeypatch):
    expected = response_expected(Linear(live=0.35))
    assert not wrong(response_of(Linear(live=0.35)), expected)
    everywhere = lambda context, wanted, margin=0: (wanted, torch.ones(len(wanted), dtype=torch.bool))  # noqa: E731
    monkeypatch.setattr(response, "own_sites", everywhere)
    assert wrong(response_of(Linear(live=0.35)), expected) >= {"near_teacher", "far_teacher"}


def test_the_hard_valid_teacher_refuses_a_measure_that_ignores_the_mask(monkeypatch):
    teacher = st.teacher("hard-valid", preset="local", width=4).double().frozen()
    student = st.student("cnn", teacher.field, blocks=0, width=4).double()
    spec = ResponseSpec(fields=2, repeats=1, **REGIONS)
    assert table(spec.measure(teacher, student, 4, sigma=LEVEL, seed=0))["near_teacher"].value > 0
    monkeypatch.setattr(response, "_live", lambda masks, context: masks)
    with pytest.raises(st.OracleError, match="field on empty"):
        list(spec.measure(teacher, student, 4, sigma=LEVEL, seed=0))


def test_fields_probed_where_no_site_is_so_far_away_are_left_out():
    """From the middle of a square of five sites a side none is three steps away; from its corners some are."""
    teacher = Linear(live=1.0)
    far = {"near": Region(nearest=0, farthest=1), "far": Region(nearest=3, farthest=4)}
    measured = table(
        ResponseSpec(fields=25, repeats=1, **far).measure(teacher, Near(teacher, 2), SIZE, sigma=LEVEL, seed=3)
    )
    assert {m.n for m in measured.values()} == {24}
    assert measured["far_error"].value == pytest.approx(1.0)
    rows = table(JacobianSpec(fields=2, sites=25, **far).measure(teacher, Near(teacher, 2), SIZE, sigma=LEVEL, seed=3))
    assert rows["far_error"].value == pytest.approx(1.0)
    beyond = ResponseSpec(fields=2, margin=1, near=far["near"], far=Region(nearest=4, farthest=5))
    with pytest.raises(SpecError, match="region is empty"):
        list(beyond.measure(teacher, Near(teacher, 2), SIZE, sigma=LEVEL, seed=3))


def test_fields_whose_region_is_dead_are_left_out_and_counted():
    few = ResponseSpec(fields=24, repeats=2, **REGIONS)
    teacher = Linear(live=0.12)
    measured = table(few.measure(teacher, Near(teacher, 2), SIZE, sigma=LEVEL, seed=3))
    counts = {m.n for m in measured.values()}
    assert len(counts) == 1
    assert 2 <= counts.pop() < 24
    with pytest.raises(SpecError, match="No field has"):
        table(few.measure(Linear(live=0.0), Near(teacher, 2), SIZE, sigma=LEVEL, seed=3))


# --- Jacobian rows --------------------------------------------------------------------------------------------------


def jacobian_of(teacher: Linear, sites: int = 2) -> dict:
    spec = JacobianSpec(fields=FIELDS, sites=sites, **REGIONS)
    return table(spec.measure(teacher, Near(teacher, 2), SIZE, sigma=LEVEL, seed=1))


def jacobian_expected(teacher: Linear, sites: int = 2) -> dict:
    sample = draw_fields(teacher, FIELDS, SIZE, generator=stream(1, "jacobian", SIZE))
    domain, live = sample.context.domain, sample.context.mask[:, 0]
    own, _ = own_sites(sample.context, torch.tensor(reference_sites(domain, sites)).expand(FIELDS, -1, -1))
    count, absolute = torch.zeros(SIZE), torch.zeros(SIZE)
    squares, errors = torch.zeros(SIZE), torch.zeros(SIZE)
    for index in range(sites):
        exact, learned = dense_rows(teacher, Near(teacher, 2), sample, own[:, index])
        for row in range(FIELDS):
            distance = domain.distance(tuple(own[row, index].tolist()))
            for shell in range(SIZE):
                there = live[row] & (distance == shell)
                count[shell] += there.sum()
                absolute[shell] += exact[row][there].abs().sum()
                squares[shell] += exact[row][there].square().sum()
                errors[shell] += (learned - exact)[row][there].square().sum()
    expected = {("profile_teacher", float(d)): float(absolute[d] / count[d]) for d in range(SIZE)}
    expected |= {("profile_error", float(d)): float((errors[d] / squares[d]).sqrt()) for d in range(SIZE)}
    expected |= {("tail_teacher", 1.0): float(absolute[2:].sum() / FIELDS / sites)}
    expected |= {"outside_share": float(squares[3:].sum() / squares.sum())}
    expected |= {"far_to_near_teacher": float((squares[2:4].sum() / squares[:2].sum()).sqrt())}
    return expected | {"far_error": float((errors[2:4].sum() / squares[2:4].sum()).sqrt())}


def test_ratios_of_rows_rest_on_the_fields_that_have_live_sites_in_both_regions():
    teacher = Linear(live=0.12)
    measured = table(
        JacobianSpec(fields=24, sites=1, **REGIONS).measure(teacher, Near(teacher, 2), SIZE, sigma=LEVEL, seed=1)
    )
    sample = draw_fields(teacher, 24, SIZE, generator=stream(1, "jacobian", SIZE))
    domain, live = sample.context.domain, sample.context.mask[:, 0]
    sites, kept = own_sites(sample.context, torch.tensor(reference_sites(domain, 1)).expand(24, -1, -1))
    rows, _ = dense_rows(teacher, Near(teacher, 2), sample, sites[:, 0])
    inside = {
        name: live & torch.stack([region.mask(domain, tuple(site)) for site in sites[:, 0].tolist()])
        for name, region in REGIONS.items()
    }
    both = kept & inside["near"].flatten(1).any(1) & inside["far"].flatten(1).any(1)
    far, near = ((inside[name] * rows.square())[both].sum() for name in ("far", "near"))
    assert both.sum() < kept.sum()
    assert measured["far_to_near_teacher"].n == both.sum()
    assert measured["far_to_near_teacher"].value == pytest.approx(float((far / near).sqrt()), rel=1e-12)


def test_a_region_at_a_negative_distance_is_refused():
    with pytest.raises(SpecError, match="nearest"):
        st.measure("jacobian", near={"nearest": -1, "farthest": 2})


@pytest.mark.parametrize("sites", [1, 2])
def test_masked_profiles_are_those_of_dense_jacobians(sites):
    measured, expected = jacobian_of(Linear(), sites), jacobian_expected(Linear(), sites)
    assert {part: measured[part].value for part in expected} == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_dead_sites_that_a_score_listens_to_are_not_summed():
    """The listening teacher's rows differ from the deaf one's at dead sites alone."""
    leaks, deaf = (jacobian_of(Linear(leaks=flag)) for flag in (True, False))
    assert leaks["outside_share"].value == pytest.approx(deaf["outside_share"].value, rel=1e-12)
    assert leaks["far_error"].value == pytest.approx(deaf["far_error"].value, rel=1e-12)


# --- everything live ------------------------------------------------------------------------------------------------


class Masked(Teacher):
    """Another teacher's fields with a mask that calls every site live."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__(teacher.field)
        self.teacher = teacher.double()
        self.double()

    def sample(self, batch, size, *, generator):
        sample = self.teacher.sample(batch, size, generator=generator)
        live = torch.ones(batch, 1, *sample.x.shape[2:], dtype=torch.bool)
        return Sample(sample.x, Context(sample.context.domain, sample.context.condition, live))

    def score(self, sample):
        return self.teacher.score(sample)


@pytest.mark.parametrize("kind", ["clean-score", "response", "jacobian"])
def test_a_mask_without_dead_sites_changes_no_bit(kind):
    teacher = st.teacher("flow", preset="short-range-simple").double().frozen()
    student = st.student("cnn", teacher.field, blocks=1, width=4).double().eval()
    spec = st.measure(kind, fields=3)
    plain, masked = (
        [(m.part, repr(m.value), repr(m.standard_error), m.n) for m in spec.measure(t, student, 10, sigma=0.1, seed=2)]
        for t in (teacher, Masked(teacher))
    )
    assert plain == masked


PINNED = {
    ("clean-score", "relative_rmse"): 0.11853603250743025,
    ("response", "far_teacher"): 0.9061262030955815,
    ("response", "far_shift_error"): 0.2720734744771335,
    ("jacobian", "far_error"): 0.3772385827412307,
    ("jacobian", "tail_teacher"): 14.017896931730283,
}
"""Numbers that the measures gave before they knew masks, of these fields."""


def pinned() -> dict:
    teacher = Linear(live=1.0, periodic=True)
    found = {}
    for kind, part in PINNED:
        rows = st.measure(kind, fields=3).measure(teacher, Near(teacher, 3), 8, sigma=LEVEL, seed=2)
        found[kind, part] = next(m.value for m in rows if m.part == part)
    return found


def test_unmasked_numbers_are_what_they_were():
    assert pinned() == pytest.approx(PINNED, rel=1e-12)


# --- bulk and boundary ----------------------------------------------------------------------------------------------


def errors_of(teacher: Linear, size: int = 8, radius: int | None = 2, **fields) -> dict:
    spec = CleanScoreSpec(fields=12, batch=5, **fields)
    return table(spec.measure(teacher, Near(teacher, radius), size, sigma=LEVEL, seed=4))


@pytest.mark.parametrize("live", [0.5, 1.0])
@pytest.mark.parametrize("margin", [0, 1, 3])
def test_bulk_and_boundary_add_up_to_the_whole(live, margin):
    measured = {name: m.value for name, m in errors_of(Linear(live=live), margin=margin).items()}
    share = measured["bulk_share"]
    boundary = measured["boundary_relative_rmse"] if margin else 0.0
    whole = share * measured["bulk_relative_rmse"] ** 2 + (1 - share) * boundary**2
    assert whole == pytest.approx(measured["relative_rmse"] ** 2, rel=1e-12)
    assert share == pytest.approx(1.0, rel=1e-12) if margin == 0 else 0 < share < 1
    assert measured["margin"] == margin
    assert math.isnan(measured["boundary_relative_rmse"]) == (margin == 0)


def test_bulk_errors_are_those_of_their_definition():
    teacher = Linear(live=0.5)
    sample = draw_fields(teacher, 5, 8, generator=stream(4, "clean-score", 8))
    exact = teacher.score(sample)
    error = Near(teacher, 2)(sample.x, torch.full((5,), LEVEL), sample.context) - exact
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:-2, 2:-2] = True
    weights = 1 / sample.context.mask.flatten(1).sum(1)
    spec = CleanScoreSpec(fields=5, batch=5, margin=2)
    measured = table(spec.measure(teacher, Near(teacher, 2), 8, sigma=LEVEL, seed=4))
    for part, where in (("bulk", inside), ("boundary", ~inside)):
        squares = [((v.square() * where).flatten(1).sum(1) * weights).sum() for v in (error, exact)]
        expected = float((squares[0] / squares[1]).sqrt())
        assert measured[f"{part}_relative_rmse"].value == pytest.approx(expected, rel=1e-12)


def test_a_split_by_the_wrong_distance_is_caught(monkeypatch):
    by_wall = clean_score._by_wall
    monkeypatch.setattr(clean_score, "_by_wall", lambda *arguments: by_wall(*arguments).roll(1, 2))
    with pytest.raises(AssertionError):
        test_bulk_errors_are_those_of_their_definition()


@pytest.mark.parametrize(("radius", "margin"), [(1, 1), (2, 2), (7, 2), (None, 2)])
def test_the_margin_is_the_radius_and_at_most_a_quarter_of_the_box(radius, margin):
    assert errors_of(Linear(), radius=radius)["margin"].value == margin


def same(value: float):
    """The value to the rounding of a measure, which may add up the same numbers in another order."""
    return pytest.approx(value, rel=TOLERANCE["measure"][torch.float64], abs=0)


def test_a_box_without_bulk_has_no_bulk_error_and_a_torus_has_no_walls():
    measured = errors_of(Linear(), margin=4)
    assert math.isnan(measured["bulk_relative_rmse"].value)
    assert measured["bulk_relative_rmse"].n == 0
    # The same squares, added up by their distance from the walls first.
    assert measured["boundary_relative_rmse"].value == same(measured["relative_rmse"].value)
    assert "bulk_relative_rmse" not in errors_of(Linear(periodic=True), margin=1)


def test_errors_by_distance_to_the_wall():
    measured = errors_of(Linear(live=1.0), margin=3)
    walls = [measured["wall_relative_rmse", float(distance)].value for distance in (1, 2, 3, 4)]
    assert walls[3] == same(measured["bulk_relative_rmse"].value)
    assert min(walls[:3]) <= measured["boundary_relative_rmse"].value <= max(walls[:3])


def test_fields_without_live_sites_are_left_out():
    measured = errors_of(Linear(live=0.2), size=2, margin=0)
    assert measured["relative_rmse"].n < 12
    assert math.isfinite(measured["relative_rmse"].value)
