"""Generated against exact fields: closed forms of Gaussian fields, statistics by hand, and errors that are errors.

The student's score is the exact one of a Gaussian teacher times a gain; every step is linear, so the variances of the
generated modes, and from them all observables, are known whatever the number of steps. Numbers must agree within
``SIGNIFICANCE`` standard errors: with about 150 comparisons a chance failure has a probability below 1e-4.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from sizetransfer.contracts.domain import Graph, Lattice
from sizetransfer.contracts.errors import NonFiniteError, SpecError
from sizetransfer.contracts.oracle import Context, Sample, Teacher
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.records import Measurement
from sizetransfer.contracts.specs import FieldInfo, NoiseSchedule
from sizetransfer.contracts.student import Student
from sizetransfer.measures import generation
from sizetransfer.measures.exact_law import ExactLaw
from sizetransfer.measures.generation import GenerationSpec
from sizetransfer.registry import default_registry
from sizetransfer.scores.sampling import STEPS, SamplerSpec
from sizetransfer.students.cnn import CNNStudentSpec
from sizetransfer.systems.flow.teacher import FlowTeacherSpec
from sizetransfer.systems.gaussian.teacher import GaussianTeacher, GaussianTeacherSpec

SIGNIFICANCE = 5.0
SIZE = 8
NOISE = NoiseSchedule(sigma_min=0.1, sigma_max=2.0)
SAMPLER = SamplerSpec(method="heun", steps=6, noise=NOISE)


class Louder(Student):
    """The exact smoothed score times a gain."""

    def __init__(self, teacher: GaussianTeacher, gain: float = 1.0) -> None:
        super().__init__(teacher.field, radius=None)
        self.teacher = teacher
        self.gain = gain

    def forward(self, x, sigma, context):
        return self.gain * self.teacher.smoothed_score(x, sigma, context)


def make_teacher(dim: int = 2) -> GaussianTeacher:
    return GaussianTeacherSpec(dim=dim, mass=0.7).build().double()


def table(measurements) -> dict[str, Measurement]:
    rows = list(measurements)
    assert len({row.part for row in rows}) == len(rows)
    return {row.part: row for row in rows}


def measured(spec: GenerationSpec, teacher: Teacher, student: Student, *, seed: int = 1, size: int = SIZE) -> dict:
    return table(spec.measure(teacher, student, size, sigma=0.05, seed=seed))


def generated_variances(spec: GenerationSpec, prior: Tensor, gain: float, sigma_data: float) -> Tensor:
    """Variance of every generated mode, by the recursion of linear steps."""
    levels = (spec.sampler.sigmas() ** 2).tolist()
    start = {"matched": sigma_data**2, "noise": 0.0, "exact": prior}[spec.start]
    variance, one, zero = levels[0] + start + 0 * prior, torch.ones_like(prior), torch.zeros_like(prior)
    step, churn = STEPS[spec.sampler.method], spec.sampler.churn
    for v, v_next in itertools.pairwise(levels):
        kept, added = (
            step(lambda x, u: -gain * x / (prior + u), x, v, v_next, churn, xi) for x, xi in ((one, zero), (zero, one))
        )
        variance = kept**2 * variance + added**2
    return variance


def observables(spectrum: Tensor) -> dict[str, float]:
    """Of a Gaussian field with this spectrum: covariances at no, one axis' and one diagonal's distance."""
    covariance = torch.fft.ifftn(spectrum).real
    second = (2,) if spectrum.ndim == 1 else (1, 1, *(0,) * (spectrum.ndim - 2))
    variance, nearest = covariance.flatten()[0].item(), covariance[(1, *(0,) * (spectrum.ndim - 1))].item()
    values = (0.0, variance, 3 * variance**2, nearest, covariance[second].item())
    return dict(zip(generation.OBSERVABLES, values, strict=True))


def mean_absolute_error(generated: dict[str, float], exact: dict[str, float]) -> float:
    variance = exact["variance"]
    units = (math.sqrt(variance), variance, exact["fourth_moment"], variance, variance)
    differences = [abs(generated[name] - exact[name]) for name in generation.OBSERVABLES]
    return sum(difference / unit for difference, unit in zip(differences, units, strict=True)) / 5


def gaussian_distance(first: float, second: float) -> float:
    """Wasserstein distance of two centred normal laws, by their variances."""
    return math.sqrt(2 / math.pi) * abs(math.sqrt(first) - math.sqrt(second))


def patch_variance(spectrum: Tensor) -> float:
    gain = [(1 + torch.cos(2 * math.pi * torch.arange(n) / n)) / 2 for n in spectrum.shape]
    return (spectrum * math.prod(torch.meshgrid(*gain, indexing="ij"))).mean().item()


def agrees(one: Measurement, value: float) -> bool:
    return abs(one.value - value) <= SIGNIFICANCE * one.standard_error + 1e-9


@pytest.mark.parametrize("start", ["matched", "noise", "exact"])
@pytest.mark.parametrize("gain", [1.0, 0.8])
@pytest.mark.parametrize("dim", [1, 2])
def test_observables_of_gaussian_fields(dim, gain, start):
    teacher, spec = make_teacher(dim), GenerationSpec(fields=128, batch=48, sampler=SAMPLER, start=start)
    parts = measured(spec, teacher, Louder(teacher, gain))
    prior = teacher.covariance_spectrum(SIZE)
    exact = prior + NOISE.sigma_min**2
    generated = generated_variances(spec, prior, gain, teacher.field.sigma_data)
    for name, value in observables(exact).items():
        assert agrees(parts[f"{name}_exact"], value), name
        there = observables(generated)[name]
        assert agrees(parts[f"{name}_generated"], there), name
        assert agrees(parts[f"{name}_difference"], there - value), name


def test_loud_student_shows_and_the_exact_one_does_not():
    """Only a wrong score exceeds the control, and its numbers are the closed forms'."""
    fine = SAMPLER.model_copy(update={"steps": 12})  # six steps leave an error of their own above the control
    teacher, spec = make_teacher(), GenerationSpec(fields=512, batch=128, sampler=fine, start="exact")
    prior = teacher.covariance_spectrum(SIZE)
    exact, wrong = prior + NOISE.sigma_min**2, generated_variances(spec, prior, 0.7, 1.0)
    expected = {
        "observable_mae": mean_absolute_error(observables(wrong), observables(exact)),
        "site_distance": gaussian_distance(wrong.mean().item(), exact.mean().item()),
        "patch_distance": gaussian_distance(patch_variance(wrong), patch_variance(exact)),
    }
    loud, sound = (measured(spec, teacher, Louder(teacher, gain)) for gain in (0.7, 1.0))
    for part, value in expected.items():
        control = loud[f"{part}_control"]
        # An absolute difference of estimates is biased upwards, by at most what exact fields differ by.
        assert abs(loud[part].value - value) <= SIGNIFICANCE * loud[part].standard_error + control.value, part
        assert loud[part].value > control.value + SIGNIFICANCE * control.standard_error, part
        assert sound[part].value < sound[f"{part}_control"].value + SIGNIFICANCE * control.standard_error, part


def test_mean_absolute_error_is_the_mean_of_the_absolute_differences():
    teacher, spec = make_teacher(), GenerationSpec(fields=8, sampler=SamplerSpec(steps=2))
    parts = measured(spec, teacher, Louder(teacher))
    generated, exact = (
        {name: parts[f"{name}_{which}"].value for name in generation.OBSERVABLES} for which in ("generated", "exact")
    )
    assert parts["observable_mae"].value == pytest.approx(mean_absolute_error(generated, exact), rel=1e-12)
    for name in generation.OBSERVABLES:
        one, other = parts[f"{name}_generated"].value, parts[f"{name}_exact"].value
        assert parts[f"{name}_difference"].value == pytest.approx(one - other, abs=1e-12)
    assert all(part.n == 8 for part in parts.values())


def test_standard_errors_are_those_of_repetitions():
    """Over 60 seeds the mean square of (value - expectation) / error is one, up to 0.6: three of its deviations."""
    teacher = make_teacher()
    spec = GenerationSpec(fields=24, batch=24, sampler=SamplerSpec(steps=2, noise=NOISE), start="noise")
    prior = teacher.covariance_spectrum(4)
    expected = observables(generated_variances(spec, prior, 1.0, 1.0))
    exact = observables(prior + NOISE.sigma_min**2)
    runs = [measured(spec, teacher, Louder(teacher), seed=seed, size=4) for seed in range(60)]
    for name in ("mean", "variance", "nearest"):
        parts = [parts[f"{name}_difference"] for parts in runs]
        scores = [(one.value - expected[name] + exact[name]) / one.standard_error for one in parts]
        assert abs(torch.tensor(scores).square().mean().item() - 1) < 0.6, name


# --- statistics by hand --------------------------------------------------------------------------------------------


def around(site: tuple[int, ...], size: tuple[int, ...], closed: tuple[bool, ...]) -> tuple[int, ...]:
    """The site with its coordinates along closed axes back on the lattice."""
    return tuple(a % n if c else a for a, n, c in zip(site, size, closed, strict=True))


def by_hand(x: Tensor, live: Tensor, size: tuple[int, ...], closed: tuple[bool, ...]) -> list[float]:
    """The six averages of one field of one channel, by loops over sites."""
    sites = [site for site in itertools.product(*map(range, size)) if live[site]]
    dim = len(size)
    nearest = [tuple(int(a == b) for b in range(dim)) for a in range(dim)]
    diagonals = [s for s in itertools.product((-1, 0, 1), repeat=dim) if sum(map(abs, s)) == 2 and s > (0,) * dim]
    averages = [sum(x[site].item() ** p for site in sites) / len(sites) for p in (1, 2, 3, 4)]
    for steps in (nearest, [(2,)] if dim == 1 else diagonals):
        products = []
        for site, step in itertools.product(sites, steps):
            there = around(tuple(a + b for a, b in zip(site, step, strict=True)), size, closed)
            if all(0 <= a < n for a, n in zip(there, size, strict=True)) and live[there]:
                products.append(x[site].item() * x[there].item())
        averages.append(sum(products) / len(products))
    return averages


def make_fields(size: tuple[int, ...], closed: tuple[bool, ...], *, masked: bool, channels: int = 1) -> Sample:
    random = stream("fields by hand", *size)
    x = torch.randn((2, channels, *size), generator=random) ** 2
    mask = torch.rand((2, 1, *size), generator=random) < 0.9 if masked else None
    some = closed if len(set(closed)) > 1 else None
    return Sample(x, Context(Lattice(size, all(closed), some), mask=mask))


over_lattices = pytest.mark.parametrize(
    ("size", "closed"),
    [
        *[(size, (periodic,) * len(size)) for size in ((7,), (4, 5), (3, 4, 3)) for periodic in (True, False)],
        ((4, 5), (False, True)),
        ((3, 4, 3), (True, False, True)),
    ],
    ids=str,
)
over_masks = pytest.mark.parametrize("masked", [False, True])


@over_lattices
@over_masks
def test_moments_by_hand(size, closed, masked):
    fields = make_fields(size, closed, masked=masked)
    live = fields.context.mask if masked else torch.ones(2, 1, *size, dtype=torch.bool)
    expected = [by_hand(x[0], own[0], size, closed) for x, own in zip(fields.x, live, strict=True)]
    torch.testing.assert_close(generation.averages(fields)[:, 0, :6], torch.tensor(expected), rtol=1e-12, atol=1e-12)


@over_lattices
@over_masks
def test_distributions_by_hand(size, closed, masked):
    fields, points = make_fields(size, closed, masked=masked), torch.linspace(-1, 4, 50)
    live = fields.context.mask if masked else torch.ones(2, 1, *size, dtype=torch.bool)
    functions = generation._distributions(fields, points)[:, 0]
    for x, own, (of_site, of_patch) in zip(fields.x[:, 0], live[:, 0], functions, strict=True):
        patches = []
        for site in itertools.product(*map(range, size)):
            corners = [
                tuple(a + b for a, b in zip(site, c, strict=True)) for c in itertools.product((0, 1), repeat=len(size))
            ]
            corners = [around(corner, size, closed) for corner in corners]
            if all(a < n for c in corners for a, n in zip(c, size, strict=True)) and all(own[c] for c in corners):
                patches.append(sum(x[c].item() for c in corners) / len(corners))
        for function, values in ((of_site, x[own]), (of_patch, torch.tensor(patches))):
            expected = (values[:, None] <= points + 1e-12).double().mean(0)
            torch.testing.assert_close(function, expected, rtol=0, atol=1e-12)


def test_wasserstein_distance_is_that_of_sorted_values():
    teacher = make_teacher(1)
    spec = GenerationSpec(fields=6, batch=6, sampler=SamplerSpec(steps=2, noise=NOISE), start="matched")
    random = stream(3, "generation", SIZE).fields(0, 6)
    begin = spec.beginning(ExactLaw(teacher, SIZE, seed=3, batch=6).needed, teacher.field.sigma_data)
    generated, exact, _ = spec._sets(teacher, Louder(teacher), None, begin, 6, SIZE, random)
    sorted_values = [fields.x.flatten().sort().values for fields in (generated, exact)]
    expected = (sorted_values[0] - sorted_values[1]).abs().mean().item()
    one = measured(spec, teacher, Louder(teacher), seed=3)["site_distance"]
    spacing = 2 * generation.REACH * max(exact.x.std().item(), teacher.field.sigma_data) / generation.POINTS
    assert one.value == pytest.approx(expected, abs=spacing)


def test_field_without_a_live_patch_does_not_count():
    values = torch.tensor([[1.0, 2.0], [3.0, math.nan], [8.0, 6.0]])
    means = generation._leaving_out(values)
    torch.testing.assert_close(means, torch.tensor([[4.0, 4.0], [5.5, 6.0], [4.5, 4.0], [2.0, 2.0]]))
    assert math.isnan(generation._leaving_out(torch.full((3, 1), math.nan))[0].item())


def test_channels_do_not_cancel():
    fields = make_fields((6, 6), (True, True), masked=False, channels=2)
    other = fields.with_x(fields.x + torch.tensor([1.0, -1.0])[:, None, None])
    moments = torch.stack([generation.averages(one) for one in (other, fields, fields)], 1)
    parts = table(generation._compare(moments))
    assert parts["mean_difference"].value == pytest.approx(0, abs=1e-12)
    deviations = fields.x.transpose(0, 1).flatten(1).std(1, unbiased=False)
    assert parts["observable_mae"].value == pytest.approx((1 / deviations).mean().item() / 5, rel=1e-9)


# --- the sampler's settings, tiles, contexts --------------------------------------------------------------------------


def test_generated_fields_do_not_change_with_the_batch():
    teacher = make_teacher()
    runs = [
        measured(GenerationSpec(fields=10, batch=batch, sampler=SamplerSpec(steps=3)), teacher, Louder(teacher))
        for batch in (3, 10)
    ]
    assert runs[0].keys() == runs[1].keys()
    for part, one in runs[0].items():
        assert one.value == pytest.approx(runs[1][part].value, rel=1e-10, abs=1e-12)


def test_tiles_give_the_same_numbers_and_the_sublattice_is_given():
    """A student that sees the sublattice generates other fields than one that does not."""
    teacher = FlowTeacherSpec(width=4).build().double()
    student = CNNStudentSpec(blocks=0, width=4).build(teacher.field).double()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=stream("weights", *parameter.shape)))
    spec = GenerationSpec(fields=3, sampler=SamplerSpec(steps=2), tile=None)
    whole = measured(spec, teacher, student)
    tiles = measured(spec.model_copy(update={"tile": 3}), teacher, student)
    for part, one in whole.items():
        assert tiles[part].value == pytest.approx(one.value, abs=1e-10), part
    with torch.no_grad():
        student.input.linear.weight[:, 1] = 0
    blind = measured(spec, teacher, student)
    assert abs(blind["variance_generated"].value - whole["variance_generated"].value) > 1e-6


@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_sampler_settings_are_used(churn):
    """From exact fields one long step leaves a discretisation error of the size that the recursion says."""
    teacher = make_teacher()
    sampler = SamplerSpec(method="euler", steps=2, churn=churn, noise=NOISE)
    spec = GenerationSpec(fields=64, batch=64, sampler=sampler, start="exact")
    one = measured(spec, teacher, Louder(teacher))["variance_generated"]
    prior = teacher.covariance_spectrum(SIZE)
    value = generated_variances(spec, prior, 1.0, 1.0).mean().item()
    assert agrees(one, value)
    assert not agrees(one, (prior + NOISE.sigma_min**2).mean().item())


def test_single_precision_runs():
    teacher = GaussianTeacherSpec(dim=2, mass=0.7).build().float()
    parts = measured(GenerationSpec(fields=4, sampler=SamplerSpec(steps=2)), teacher, Louder(teacher))
    assert all(math.isfinite(part.value) and math.isfinite(part.standard_error) for part in parts.values())


def test_dead_sites_take_no_part():
    """Dead sites keep what the teacher puts there, and no statistic sees it."""

    class Masked(Teacher):
        def __init__(self, filler: float) -> None:
            super().__init__(FieldInfo(dim=1))
            self.filler = filler

        def sample(self, batch, size, *, generator):
            mask = torch.arange(size).expand(batch, 1, size) % 4 != 0
            x = torch.randn((batch, 1, size), generator=generator, dtype=torch.float64)
            return Sample(torch.where(mask, x, self.filler), Context(Lattice((size,)), mask=mask))

    class White(Student):
        def forward(self, x, sigma, context):
            return -x / (1 + sigma[:, None, None] ** 2)

    spec = GenerationSpec(fields=4, sampler=SamplerSpec(steps=2))
    student = White(FieldInfo(dim=1), radius=0)
    runs = [measured(spec, Masked(filler).double(), student) for filler in (0.0, 0.5)]
    for part in ("observable_mae", "variance_generated", "nearest_exact", "next_nearest_generated"):
        assert runs[0][part].value == pytest.approx(runs[1][part].value, rel=1e-12), part


def test_registered_by_its_kind():
    assert default_registry().lookup("measure", "generation") is GenerationSpec


# --- errors -----------------------------------------------------------------------------------------------------------


def test_reverse_process_that_explodes_names_the_step():
    teacher = make_teacher()
    spec = GenerationSpec(fields=2, sampler=SamplerSpec(steps=4, method="euler"))
    with pytest.raises(NonFiniteError, match="step 1 of 4"):
        measured(spec, teacher, Louder(teacher, math.inf))


def test_global_student_cannot_be_tiled():
    teacher = make_teacher()
    with pytest.raises(SpecError, match="global student"):
        measured(GenerationSpec(fields=2, tile=4), teacher, Louder(teacher))


@pytest.mark.parametrize("dim", [1, 2])
def test_lattice_without_room_for_second_neighbours_is_refused(dim):
    teacher, spec = make_teacher(dim), GenerationSpec(fields=2, sampler=SamplerSpec(steps=1))
    assert measured(spec, teacher, Louder(teacher), size=4)
    with pytest.raises(SpecError, match="at least 4 sites"):
        measured(spec, teacher, Louder(teacher), size=3)


def test_graph_is_refused():
    class OnGraph(Teacher):
        def sample(self, batch, size, *, generator):
            path = Graph(3, torch.tensor([[0, 1], [1, 2]]))
            return Sample(torch.zeros(batch, 1, 3), Context(path))

    teacher = make_teacher(1)
    with pytest.raises(SpecError, match="on lattices only"):
        measured(GenerationSpec(fields=2), OnGraph(FieldInfo(dim=1)), Louder(teacher))
