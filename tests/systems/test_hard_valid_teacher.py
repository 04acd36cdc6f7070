"""The hard-valid teacher as teachers go: samples, context, labels, probabilities of a draw, errors, students on it."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
import torch
from hard_valid_zoo import ZOO, build, sample, spec
from tolerances import assert_rounding

import sizetransfer as st
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import HasDensity, HasLatent, HasScore, Sample
from sizetransfer.contracts.randomness import stream
from sizetransfer.contracts.specs import TrainingSpec
from sizetransfer.scores.training import train
from sizetransfer.systems.hard_valid import DIRECTIONS, HardValidTeacherSpec, ValidPorts, ValidState

over_the_zoo = pytest.mark.parametrize("name", ZOO)


# --- samples ------------------------------------------------------------------------------------------------------


@over_the_zoo
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_sample_keeps_the_contract(name, dtype):
    teacher = build(name, dtype)
    fields = sample(teacher, 4, 3)
    channels, count = teacher.spec.channels, teacher.spec.types
    assert fields.x.shape == (3, channels, 4, 4, 4)
    assert fields.x.dtype == fields.context.condition.dtype == dtype
    assert fields.context.condition.shape == (3, 9 + count, 4, 4, 4)
    assert teacher.field.condition_channels == 9 + count
    assert fields.context.mask.shape == (3, 1, 4, 4, 4)
    assert fields.context.domain == teacher.domain(4)
    assert not fields.context.domain.periodic
    assert set(fields.labels) == {"ports", "types"}
    state = teacher.state(fields)
    assert torch.equal(state.occupied[:, None], fields.context.mask)
    assert isinstance(teacher, HasDensity)
    assert isinstance(teacher, HasScore)
    # Latent fields of a hard-valid teacher need ports and types beside them.
    assert not isinstance(teacher, HasLatent)


def test_a_draw_carries_the_logarithms_of_its_probabilities():
    teacher = build("before, correction")
    draw = teacher.draw(5, 4, generator=stream("tests", "draw"))
    torch.testing.assert_close(draw.ports, teacher.log_probability_ports(draw.sample))
    torch.testing.assert_close(draw.types, teacher.log_probability_types(draw.sample))
    torch.testing.assert_close(draw.field, teacher.log_density(draw.sample))
    assert draw.ports.dtype == draw.types.dtype == torch.float64
    assert torch.equal(draw.sample.x, teacher.sample(5, 4, generator=stream("tests", "draw")).x)


def test_ports_and_types_do_not_depend_on_the_precision_of_the_field():
    draws = [sample(build("medium", dtype), 4) for dtype in (torch.float64, torch.float32)]
    for name in ("ports", "types"):
        assert torch.equal(draws[0].labels[name], draws[1].labels[name])


def test_a_large_batch_is_drawn_in_parts_and_every_part_is_a_field_of_its_own(monkeypatch):
    teacher = build("medium")
    whole = sample(teacher, 4, 5)
    monkeypatch.setattr("sizetransfer.systems.hard_valid.teacher._SITES_AT_A_TIME", 100)
    assert_rounding(sample(teacher, 4, 5).x, whole.x)


def test_a_million_sites_with_all_probabilities_take_less_than_twenty_seconds_on_two_cores():
    """An eighth of them in an eighth of forty seconds of processor time; it takes about a sixth of that."""
    teacher = HardValidTeacherSpec.parse({"kind": "hard-valid", "preset": "wide"}).build()
    before = time.process_time()
    teacher.draw(9, 24, generator=stream("tests", "million"))
    assert time.process_time() - before < 40 / 8


def test_the_scale_is_that_of_the_field_on_occupied_sites():
    for name in ("local", "white"):
        fields = sample(build(name), 6, 40)
        live = fields.x[fields.context.mask]
        assert build(name).field.sigma_data == pytest.approx(live.square().mean().sqrt().item(), rel=0.1)


# --- what students see --------------------------------------------------------------------------------------------


def test_the_condition_says_ports_types_walls_and_sublattice():
    teacher = spec("local", wall_cap=2).build().double()
    fields = sample(teacher, 6, 2)
    condition, count = fields.context.condition, teacher.spec.types
    for row, site in itertools.product(range(2), itertools.product(range(6), repeat=3)):
        code, kind = int(fields.labels["ports"][row, *site]), int(fields.labels["types"][row, *site])
        wall = min(min(a + 1, 6 - a) for a in site)
        expected = [
            code != 0,
            *(code >> bit & 1 for bit in range(len(DIRECTIONS))),
            *(kind == value for value in range(1, count + 1)),
            min(wall, 2) / 2,
            1 if sum(site) % 2 else -1,
        ]
        assert condition[row, :, *site].tolist() == [float(value) for value in expected]


def test_a_larger_box_shows_no_wall_distance_that_the_training_box_has_not():
    teacher = build("local")
    small, large = (sample(teacher, size, 1).context.condition[0, -2].unique() for size in (8, 12))
    assert torch.equal(small, large)


STUDENTS = {
    "cnn": {"kind": "cnn", "blocks": 1, "width": 8},
    "cnn, blind": {"kind": "cnn", "blocks": 0, "width": 8, "condition": "none"},
    "sliding-attention": {"kind": "sliding-attention", "depth": 2, "window": 1, "width": 8, "heads": 2},
}


def student(name: str, teacher: torch.nn.Module) -> torch.nn.Module:
    settings = dict(STUDENTS[name])
    torch.manual_seed(0)
    return st.student(settings.pop("kind"), teacher.field, **settings).double()


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("objective", ["denoising", "mixed"])
def test_students_train_on_it_and_honour_the_mask(name, objective):
    teacher = build("local")
    with torch.random.fork_rng():
        model = student(name, teacher)
    before = [parameter.clone() for parameter in model.parameters()]
    result = train(teacher, model, TrainingSpec(size=4, steps=2, batch=2, objective=objective), seed=0)
    assert result.steps == 2
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    fields = sample(teacher, 6, 2)
    sigma, live = torch.full((2,), 0.3), fields.context.mask
    score = model(fields.x, sigma, fields.context)
    assert (score[~live] == 0).all()
    assert (score[live] != 0).all()
    noisy = fields.x + 5 * torch.randn(fields.x.shape, generator=stream(1)) * ~live
    assert torch.equal(model(noisy, sigma, fields.context), score)


# --- specification ------------------------------------------------------------------------------------------------


def test_the_families_are_presets_and_replay_from_json():
    cutoffs = []
    for preset in ("local", "medium", "wide"):
        written = HardValidTeacherSpec.parse({"kind": "hard-valid", "preset": preset, "width": 4})
        read = HardValidTeacherSpec.parse(written.to_json())
        assert read == written
        cutoffs.append(written.cutoff)
        draws = [s.build().double().sample(1, 4, generator=stream(0)) for s in (written, read)]
        assert torch.equal(draws[0].x, draws[1].x)
    assert cutoffs == [1, 3, 5]
    assert st.teacher("hard-valid", preset="local").spec.cutoff == 1


def test_seeds_decide_types_and_field_and_leave_the_ports_alone():
    first, second = (sample(build(name), 4) for name in ("medium", "another seed"))
    assert torch.equal(first.labels["ports"], second.labels["ports"])
    assert not torch.equal(first.labels["types"], second.labels["types"])
    assert not torch.equal(first.x, second.x)


def test_blocks_of_three_sites():
    teacher = spec("local", block=3).build().double()
    draw = teacher.draw(2, 6, generator=stream(4))
    torch.testing.assert_close(draw.ports, teacher.log_probability_ports(draw.sample))
    torch.testing.assert_close(draw.types, teacher.log_probability_types(draw.sample))
    torch.testing.assert_close(draw.field, teacher.log_density(draw.sample))


@pytest.mark.parametrize("wrong", [{"types": 7}, {"block": 1}, {"weights": {"edge": -1}}, {"cutof": 2}])
def test_wrong_fields_are_refused(wrong):
    with pytest.raises(SpecError):
        spec("local", **wrong)


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "fix"), [(3, "use 2 or 4"), (7, "use 6 or 8"), (1, "use 2"), (0, "use 2"), (-2, "use 2")]
)
def test_a_size_that_the_block_does_not_divide_is_refused(size, fix):
    with pytest.raises(OracleError, match="tile") as caught:
        build("local").sample(1, size, generator=stream(0))
    assert caught.value.fix == fix
    assert caught.value.got == str(size)


ORACLES = ["log_density", "score", "to_latent"]


@pytest.mark.parametrize("oracle", ORACLES)
def test_a_field_on_an_empty_site_is_named(oracle):
    teacher = build("two channels")
    fields = sample(teacher)
    site = tuple((~fields.context.mask[1, 0]).nonzero()[7].tolist())
    x = fields.x.clone()
    x[1, 1, *site] = 0.25
    with pytest.raises(OracleError, match="field on empty") as caught:
        getattr(teacher, oracle)(fields.with_x(x))
    assert str(site) in caught.value.where
    assert "row 1" in caught.value.where
    assert caught.value.got == "field 0, 0.25"
    state = teacher.state(fields)
    with pytest.raises(OracleError, match="field on empty"):
        teacher.from_latent(x, state)


@pytest.mark.parametrize("oracle", [*ORACLES, "log_probability_ports", "log_probability_types"])
def test_broken_labels_are_named(oracle):
    teacher = build("local")
    fields = sample(teacher)
    ask = getattr(teacher, oracle)
    ports, types = (fields.labels[name].clone() for name in ("ports", "types"))
    site = tuple(fields.context.mask[0, 0].nonzero()[0].tolist())
    ports[0, *site] = 0
    with pytest.raises(OracleError, match="unmatched at site"):
        ask(replace(fields, labels={"ports": ports, "types": types}))
    types[0, *site] = 0
    with pytest.raises(OracleError, match="no type at site") as caught:
        ask(replace(fields, labels={**fields.labels, "types": types}))
    assert str(site) in caught.value.where
    for labels, missing in (({}, "no 'ports' and no 'types'"), ({"ports": ports}, "no 'types'")):
        with pytest.raises(OracleError, match="discrete variables") as caught:
            ask(Sample(fields.x, fields.context, labels))
        assert caught.value.got == missing


def test_a_field_of_another_shape_is_refused():
    teacher = build("local")
    fields = sample(teacher)
    with pytest.raises(OracleError, match="does not fit its ports"):
        teacher.log_density(fields.with_x(fields.x[:1]))
    odd = ValidState(
        ValidPorts(fields.labels["ports"].new_zeros(1, 3, 4, 4)), fields.labels["types"].new_zeros(1, 3, 4, 4), 4
    )
    labels = {"ports": odd.ports.codes, "types": odd.types}
    with pytest.raises(OracleError, match="tile"):
        teacher.log_density(Sample(fields.x[:1, :, :3], teacher.context(odd), labels))
