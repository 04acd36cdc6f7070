"""Generated fields by class of sites: closed forms of white fields given ports and types, statistics by hand, errors.

Given ports and types the field of the teacher ``white`` is standard normal, so the score that pulls sites of type k to
a mean of their own is linear, and the moments of what it generates follow from the recursion of its steps. Numbers must
agree within ``SIGNIFICANCE`` standard errors: with about 200 comparisons a chance failure has a probability below 2e-4.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hard_valid_zoo import build, sample, spec

from sizetransfer.contracts.noise import expand
from sizetransfer.contracts.oracle import HasConditionalSamples, HasSiteClasses
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import NoiseSchedule
from sizetransfer.contracts.student import Student
from sizetransfer.measures import conditional_generation as measure
from sizetransfer.measures.conditional_generation import ConditionalGenerationSpec
from sizetransfer.measures.exact_law import ControlScore, ExactLaw
from sizetransfer.registry import default_registry
from sizetransfer.scores.sampling import STEPS, SamplerSpec
from sizetransfer.students.cnn import CNNStudentSpec
from sizetransfer.systems.flow.teacher import FlowTeacherSpec
from sizetransfer.systems.hard_valid import DIRECTIONS, ValidPorts
from sizetransfer.systems.hard_valid.motifs import MOTIFS, motifs, neighbours

SIGNIFICANCE = 5.0
SIZE = 6
NOISE = NoiseSchedule(sigma_min=0.1, sigma_max=2.0)
SAMPLER = SamplerSpec(method="heun", steps=6, noise=NOISE)
TYPES = slice(7, 11)  # the condition's channels of the types 1 to 4


class White(Student):
    """Score of independent standard normal sites with a mean for each type, times a gain; dead sites are not spared."""

    def __init__(self, teacher, means=(0.0, 0.0, 0.0, 0.0), gain: float = 1.0) -> None:
        super().__init__(teacher.field, radius=0)
        self.means = torch.tensor(means)
        self.gain = gain

    def forward(self, x, sigma, context):
        mean = torch.einsum("k,bk...->b...", self.means.to(x), context.condition[:, TYPES])[:, None]
        return -self.gain * (x - mean) / (1 + expand(sigma, x) ** 2)


def table(measurements) -> dict:
    rows = list(measurements)
    assert len({row.part for row in rows}) == len(rows)
    return {row.part: row for row in rows}


def measured(teacher, student, *, size: int = SIZE, seed: int = 1, **settings) -> dict:
    settings = {"fields": 64, "batch": 24, "sampler": SAMPLER} | settings
    return table(ConditionalGenerationSpec(**settings).measure(teacher, student, size, sigma=0.05, seed=seed))


def generated_moments(mean: float, gain: float, start_mean: float, start_variance: float) -> tuple[float, float]:
    """Mean and variance of a generated site, by the recursion of the linear steps."""
    levels = (SAMPLER.sigmas() ** 2).tolist()
    own, variance = torch.tensor(start_mean), start_variance
    one, zero = torch.ones(()), torch.zeros(())
    for v, v_next in itertools.pairwise(levels):
        step = STEPS[SAMPLER.method]
        kept, added = (
            step(lambda x, u: -gain * x / (1 + u), x, v, v_next, 1.0, xi) for x, xi in ((one, zero), (zero, one))
        )
        own = step(lambda x, u: -gain * (x - mean) / (1 + u), own, v, v_next, 1.0, zero)
        variance = (kept**2 * variance + added**2).item()
    return own.item(), variance


def agrees(one, value: float) -> bool:
    return abs(one.value - value) <= SIGNIFICANCE * one.standard_error + 1e-9


# --- against closed forms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["matched", "noise", "exact"])
def test_moments_by_type_of_a_score_that_tells_types_apart(start):
    teacher, means, gain = build("white"), (0.6, -0.4, 0.0, 0.2), 0.9
    parts = measured(teacher, White(teacher, means, gain), start=start)
    data = {"matched": teacher.field.sigma_data**2, "noise": 0.0, "exact": 1.0}[start]
    exact = 1 + NOISE.sigma_min**2
    for index, mean in enumerate(means):
        centre, variance = generated_moments(mean, gain, 0.0, NOISE.sigma_max**2 + data)
        name = f"type/{index + 1}"
        expected = {"mean": (centre, 0.0), "variance": (variance, exact)}
        expected["fourth_moment"] = (3 * variance**2, 3 * exact**2)
        for observable, (there, here) in expected.items():
            assert agrees(parts[f"{name}/{observable}/generated"], there), (name, observable)
            assert agrees(parts[f"{name}/{observable}/exact"], here), (name, observable)
            unit = {"mean": exact**0.5, "variance": exact}.get(observable, 3 * exact**2)
            assert agrees(parts[f"{name}/{observable}/deviation"], (there - here) / unit), (name, observable)
        assert parts[f"{name}/mean/generated"].coordinate == index
    for pairs in ("bonded", "nonbonded"):
        assert agrees(parts[f"pairs/{pairs}/covariance/exact"], 0.0)


def test_the_ratios_of_second_moments_are_those_of_the_closed_form():
    teacher, gain = build("white"), 0.9
    parts = measured(teacher, White(teacher, gain=gain), start="exact")
    _, variance = generated_moments(0.0, gain, 0.0, NOISE.sigma_max**2 + 1.0)
    assert agrees(parts["site_variance_ratio"], variance - NOISE.sigma_min**2)
    assert "zero_mode_ratio" not in parts  # there are no waves in an open box


def test_the_control_is_generated_from_the_same_noise_by_the_best_known_score(monkeypatch):
    teacher = build("white")
    student = White(teacher, gain=0.8)
    monkeypatch.setattr(ExactLaw, "control", ControlScore(student, exact=True))
    parts = measured(teacher, student)
    assert parts["control_exact"].value == 1
    for name in ("site_variance_ratio", "nearest_covariance_ratio"):
        assert parts[f"control_{name}"].value == parts[name].value


def test_only_the_division_that_the_score_is_wrong_in_shows_it():
    """Types of opposite means leave motifs alone, and the exact score stays within the control."""
    fine = SAMPLER.model_copy(update={"steps": 16})  # six steps leave an error of their own above the control
    teacher, means = build("white"), ((1, -1, 1, -1), (0, 0, 0, 0))
    mixed_up, exact = (measured(teacher, White(teacher, own), fields=128, sampler=fine) for own in means)
    for name in ("type", "motif", "pairs", "observable"):
        control = exact[f"{name}_mae_control"]
        assert exact[f"{name}_mae"].value < control.value + SIGNIFICANCE * control.standard_error, name
    wrong, control = mixed_up["type_mae"], mixed_up["type_mae_control"]
    assert wrong.value > control.value + SIGNIFICANCE * math.hypot(wrong.standard_error, control.standard_error)
    deviation = mixed_up["motif/path-end/mean/deviation"]
    assert abs(deviation.value) < 0.3


def test_missing_bonds_show_along_bonds():
    """A score without couplings generates independent sites, whatever the exact correlation is."""
    teacher = build("medium")
    parts = measured(teacher, White(teacher), fields=48)
    for pairs in ("bonded", "nonbonded"):
        exact = parts[f"pairs/{pairs}/covariance/exact"]
        assert exact.value > SIGNIFICANCE * exact.standard_error
        assert agrees(parts[f"pairs/{pairs}/covariance/generated"], 0.0)
    assert parts["pairs_mae"].value > 3 * parts["pairs_mae_control"].value


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_sums_by_hand():
    teacher = build("two channels")
    drawn = sample(teacher, 4, 2)
    sums = measure._sums(teacher, (drawn, drawn.with_x(2 * drawn.x)))
    codes, types = drawn.labels["ports"], drawn.labels["types"]
    for row, channel in itertools.product(range(2), range(2)):
        x = drawn.x[row, channel]
        for kind in range(1, 5):
            values = x[types[row] == kind]
            expected = torch.tensor([(values**power).sum().item() for power in range(5)])
            found = sums[measure._Class("type", str(kind), kind - 1)][row, :, channel]
            torch.testing.assert_close(found[0], expected)
            torch.testing.assert_close(found[1], expected * 2.0 ** torch.arange(5))
        for index, name in enumerate(("bonded", "nonbonded")):
            ends = [(x[here].item(), x[there].item()) for here, there in pairs_by_hand(codes[row], name == "bonded")]
            expected = torch.tensor([(1, (a + b) / 2, (a * a + b * b) / 2, a * b) for a, b in ends]).sum(0)
            torch.testing.assert_close(sums[measure._Class("pairs", name, index)][row, 0, channel], expected)


def pairs_by_hand(codes, bonded):
    for site in itertools.product(*map(range, codes.shape)):
        for axis in range(3):
            there = tuple(place + (axis == other) for other, place in enumerate(site))
            touching = there[axis] < codes.shape[axis] and codes[site] and codes[there]
            if touching and bool(codes[site] >> (2 * axis) & 1) == bonded:
                yield site, there


def test_mean_absolute_errors_are_the_means_of_the_absolute_deviations():
    teacher = build("medium")
    parts = measured(teacher, White(teacher), fields=6, size=4)
    averages = []
    for division in ("motif", "type", "pairs"):
        for name, suffix in (("deviation", "_mae"), ("control", "_mae_control")):
            values = [abs(one.value) for part, one in parts.items() if part.startswith(division) and name in part]
            assert parts[division + suffix].value == pytest.approx(sum(values) / len(values), rel=1e-12)
        averages.append(parts[f"{division}_mae"].value)
    assert parts["observable_mae"].value == pytest.approx(sum(averages) / 3, rel=1e-12)
    one = parts["type/2/variance/deviation"]
    ratio = parts["type/2/variance/generated"].value / parts["type/2/variance/exact"].value
    assert one.value == pytest.approx(ratio - 1, rel=1e-9)


def test_channels_do_not_cancel():
    """Opposite errors of two channels average out of the profiles, not out of the mean absolute error."""
    teacher = build("two channels")
    drawn = sample(teacher, 4, 8)
    other = drawn.with_x(torch.where(drawn.context.mask, drawn.x + torch.tensor([1.0, -1.0])[:, None, None, None], 0.0))
    parts = table(measure._compare(measure._sums(teacher, (other, drawn, drawn))))
    assert abs(parts["type/1/mean/deviation"].value) < 0.3
    assert parts["type_mae"].value > 0.2
    assert parts["type_mae_control"].value == 0


def test_standard_errors_are_those_of_repetitions():
    """Over 60 seeds the mean square of (value - expectation) / error is one, up to three of its standard errors.

    These are taken from the squares, whose tails are longer than those of normal numbers' squares.
    """
    teacher = build("white")
    sampler = SAMPLER.model_copy(update={"steps": 1})
    runs = [
        measured(teacher, White(teacher), seed=seed, size=4, fields=96, batch=96, sampler=sampler) for seed in range(60)
    ]
    for part in ("motif/path-end/mean/control", "type/1/variance/exact", "pairs/bonded/covariance/control"):
        expected = 1 + NOISE.sigma_min**2 if part.startswith("type") else 0.0
        scores = [(parts[part].value - expected) / parts[part].standard_error for parts in runs]
        squares = torch.tensor(scores).square()
        assert abs(squares.mean() - 1) < 3 * squares.std() / math.sqrt(len(squares)), part


# --- contexts, tiles, types of numbers --------------------------------------------------------------------------------


def test_generated_exact_and_control_fields_share_their_labels_and_empty_sites_are_zero():
    teacher, settings = build("medium"), ConditionalGenerationSpec(sampler=SAMPLER)
    begin = settings.beginning(needed=4.0, sigma_data=1.0)
    student, control = White(teacher, gain=0.5), ControlScore(White(teacher, gain=0.7), exact=False)
    sets = settings._sets(teacher, student, control, begin, 4, SIZE, stream("a").fields(0, 4))
    for one in sets:
        assert all(torch.equal(one.labels[name], sets[1].labels[name]) for name in ("ports", "types"))
        assert (one.x[~one.context.mask] == 0).all()
        assert (one.x[one.context.mask] != 0).all()
    assert len({one.x.sum().item() for one in sets}) == 4


def test_generated_fields_do_not_change_with_the_batch_and_tiles_give_the_same_numbers():
    teacher = build("medium")
    student = CNNStudentSpec(blocks=0, width=4).build(teacher.field).double()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=stream("weights", *parameter.shape)))
    common = {"fields": 4, "sampler": SamplerSpec(steps=2)}
    whole, tiles = (measured(teacher, student, **common, tile=tile) for tile in (None, 4))
    for part, one in whole.items():
        assert tiles[part].value == pytest.approx(one.value, rel=1e-9, abs=1e-12), part
    assert whole["pairs/bonded/covariance/generated"].value != 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_types_of_numbers(dtype):
    teacher = build("white", dtype)
    parts = measured(teacher, White(teacher), fields=4)
    reference = measured(build("white"), White(build("white")), fields=4)
    for part in ("type/1/variance/generated", "pairs/bonded/covariance/exact"):
        assert type(parts[part].value) is float
        assert agrees(parts[part], reference[part].value)


def test_a_class_that_hardly_any_field_shows_is_counted_only():
    """Blocks of two sites a side have no straight path; a box without paths has no site of any class."""
    teacher = build("white")
    parts = measured(teacher, White(teacher), fields=4)
    assert parts["motif/straight/count"].value == 0
    assert not [part for part in parts if part.startswith("motif/straight/") and not part.endswith("/count")]
    empty = spec("white", weights={"empty": 1, "edge": 0, "path": 0}).build().double()
    counts = measured(empty, White(empty), fields=4)
    where = {"sigma_start", "sigma_needed", "start_exact"}
    assert where <= counts.keys()
    assert all(part.endswith("/count") and one.value == 0 for part, one in counts.items() if part not in where)


def test_needs_a_teacher_that_knows_classes_and_conditional_samples():
    assert default_registry().lookup("measure", "conditional-generation") is ConditionalGenerationSpec
    assert ConditionalGenerationSpec.requires == (HasConditionalSamples, HasSiteClasses)
    flow = FlowTeacherSpec(width=4).build()
    assert not any(isinstance(flow, capability) for capability in ConditionalGenerationSpec.requires)
    assert all(isinstance(build("white"), capability) for capability in ConditionalGenerationSpec.requires)


# --- the classes of the hard-valid teacher ----------------------------------------------------------------------------


def configuration(*paths):
    """Ports of paths given as sites, in a box of 4 x 4 x 4."""
    codes = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    for path in paths:
        for here, there in itertools.pairwise(path):
            axis = next(a for a in range(3) if here[a] != there[a])
            forward = there[axis] > here[axis]
            codes[(0, *here)] += 1 << DIRECTIONS.index(("+" if forward else "-") + "xyz"[axis])
            codes[(0, *there)] += 1 << DIRECTIONS.index(("-" if forward else "+") + "xyz"[axis])
    return ValidPorts(codes).codes


def test_motifs_and_neighbours_of_a_configuration():
    codes = configuration(
        [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 2)],  # straight, then bent
        [(3, 3, 3), (3, 3, 2)],  # a single bond
        [(1, 0, 0), (1, 0, 1), (1, 1, 1)],  # a bent path beside the first
    )
    expected = {(0, 0, 0): "path-end", (0, 0, 1): "straight", (0, 0, 2): "bent", (0, 1, 2): "path-end"}
    expected |= {(3, 3, 3): "single-bond", (3, 3, 2): "single-bond"}
    expected |= {(1, 0, 0): "path-end", (1, 0, 1): "bent", (1, 1, 1): "path-end"}
    found = motifs(codes)[0]
    for site in itertools.product(range(4), repeat=3):
        assert found[site] == (MOTIFS.index(expected[site]) if site in expected else -1), site
    pairs = {
        name: {frozenset((int(a), int(b))) for _, a, b in zip(*own.tolist(), strict=True)}
        for name, own in neighbours(codes).items()
    }
    flat = {site: 16 * site[0] + 4 * site[1] + site[2] for site in expected}
    for name, bonded in (("bonded", True), ("nonbonded", False)):
        by_hand = {frozenset((flat[a], flat[b])) for a, b in pairs_by_hand(codes[0], bonded)}
        assert pairs[name] == by_hand
    assert len(pairs["bonded"]) == 6
    assert pairs["nonbonded"] == {frozenset((flat[0, 0, 0], flat[1, 0, 0])), frozenset((flat[0, 0, 1], flat[1, 0, 1]))}


def test_every_occupied_site_has_a_motif_and_a_type_and_every_path_has_its_sites():
    for drawn in (sample(build("medium"), 8, 4), sample(spec("medium", block=3).build(), 6, 4)):
        codes = drawn.labels["ports"]
        counts = [(motifs(codes) == index).sum().item() for index in range(4)]
        assert sum(counts) == (codes != 0).sum().item()
        assert counts[1] == 2 * (counts[2] + counts[3])  # in a library of paths of one and of two bonds
    assert counts[2] > 0


def test_other_fields_of_the_same_labels():
    teacher = build("medium")
    drawn = sample(teacher, 4, 3)
    other, again = (teacher.resample(drawn, generator=stream("b")) for _ in range(2))
    assert torch.equal(other.x, again.x)
    assert (other.x != drawn.x)[drawn.context.mask].all()
    assert torch.equal(other.context.condition, drawn.context.condition)
    assert torch.equal(other.context.mask, drawn.context.mask)
