"""Training and held-out fields: never one on both sides, never one twice, never neighbours across the split."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import dataset, drawn, gaussian_fields, write
from hypothesis import given
from hypothesis import strategies as some

import sizetransfer as st
from sizetransfer.contracts.errors import OracleError, SpecError
from sizetransfer.contracts.oracle import Teacher, draw_fields
from sizetransfer.contracts.randomness import batches, stream
from sizetransfer.measures.generation import GenerationSpec
from sizetransfer.systems.dataset.contents import Fields, Numbers
from sizetransfer.systems.dataset.layouts import Layout
from sizetransfer.systems.dataset.readers import StoredArray
from sizetransfer.systems.dataset.spec import SplitSpec
from sizetransfer.systems.dataset.splitting import Region, divided

PARTS = ("training", "held out")


def numbered(tmp_path, count=20, size=4, name="a", first=0):
    """Fields that tell their number at every site."""
    numbers = np.arange(first, first + count, dtype=float)[:, None, None] * np.ones((size, size))
    return write(tmp_path, "npy", numbers, name)


def numbers_of(x):
    return x[:, 0, 0, 0].long().tolist()


def file_of(count, shape, held_out=False):
    stored = StoredArray(Path("made.npy"), "", (count, *shape), "float64", np.zeros)
    return Fields(Numbers(stored, Layout("BL" if len(shape) == 1 else "BHW")), None, None, held_out)


def gap_between(a: Region, b: Region) -> int:
    """Sites between two regions of one sample along the axis where they are farthest apart; -1 if they overlap."""
    apart = [
        max(low - other_high, other_low - high)
        for low, high, other_low, other_high in zip(a.low, a.high, b.low, b.high, strict=True)
    ]
    return max(apart)


@given(
    counts=some.lists(some.integers(2, 30), min_size=1, max_size=3),
    share=some.floats(0.05, 0.9),
    seed=some.integers(0, 5),
    by=some.sampled_from(["samples", "sequence"]),
    gap=some.integers(0, 3),
)
def test_every_sample_is_on_one_side_at_most(counts, share, seed, by, gap):
    files = [file_of(count, (6, 6)) for count in counts]
    try:
        parts = divided(files, SplitSpec(by=by, held_out=share, gap=gap), seed)
    except SpecError:
        assert by == "sequence" or sum(counts) < 3
        return
    training, held_out = ({(one.file, one.row) for one in parts[name]} for name in PARTS)
    assert not training & held_out
    assert min(len(training), len(held_out)) > 0
    for number, count in enumerate(counts if by == "sequence" else ()):
        last = max([row for file, row in training if file == number], default=-1)
        first = min([row for file, row in held_out if file == number], default=count)
        assert first - last > gap or last == -1
    if by == "samples":
        assert len(training) + len(held_out) == sum(counts)


@given(
    side=some.integers(20, 60),
    other=some.integers(20, 60),
    block=some.integers(2, 16),
    gap=some.integers(0, 9),
    seed=some.integers(0, 5),
)
def test_blocks_of_both_sides_are_apart(side, other, block, gap, seed):
    try:
        parts = divided([file_of(2, (side, other))], SplitSpec(by="blocks", block=block, gap=gap), seed)
    except SpecError:
        assert 2 * ((side + gap) // (block + gap)) * ((other + gap) // (block + gap)) < 3
        return
    for a, b in itertools.product(parts["training"], parts["held out"]):
        assert a.row != b.row or gap_between(a, b) >= gap
    assert all(one.size == (block, block) and max(one.high) <= max(side, other) for one in parts["training"])


def test_without_a_gap_neighbours_would_be_found():
    """The property above catches a split that forgets the gap."""
    parts = divided([file_of(1, (40, 40))], SplitSpec(by="blocks", block=8, gap=0), 0)
    pairs = itertools.product(parts["training"], parts["held out"])
    assert min(gap_between(a, b) for a, b in pairs) == 0


def test_the_seed_decides_the_split_and_the_share_is_kept(tmp_path):
    path = numbered(tmp_path, 40)
    sides = []
    for seed in (0, 0, 1):
        teacher = dataset(path, seed=seed, split={"held_out": 0.3}).split("held out")
        sides.append(sorted(numbers_of(drawn(teacher, 12, 4, "x").x)))
        assert teacher.independent_fields(4) == 12
    assert sides[0] == sides[1] != sides[2]


def test_no_training_field_is_held_out(tmp_path):
    teacher = dataset(numbered(tmp_path))
    seen = {
        name: set(
            itertools.chain.from_iterable(numbers_of(drawn(teacher.split(name), 4, 4, step).x) for step in range(99))
        )
        for name in PARTS
    }
    assert seen["training"] | seen["held out"] == set(range(20))
    assert not seen["training"] & seen["held out"]
    assert len(seen["held out"]) == 5


def test_a_side_of_a_side_is_the_other_side(tmp_path):
    teacher = dataset(numbered(tmp_path)).split("held out")
    assert teacher.split("held out") is teacher
    assert teacher.split("training").part == "training"
    assert teacher.split("training").anchor.dtype == torch.float64


def test_a_stream_gives_no_field_twice_and_refuses_more_than_there_are(tmp_path):
    teacher = dataset(numbered(tmp_path)).split("held out")
    found = [numbers_of(draw_fields(teacher, n, 4, generator=own).x) for n, own in batches(5, 2, "measure")]
    assert len(set(itertools.chain.from_iterable(found))) == 5
    with pytest.raises(OracleError, match=r"at most 5 held out fields"):
        [draw_fields(teacher, n, 4, generator=own) for n, own in batches(6, 2, "measure")]
    with pytest.raises(OracleError, match="too few independent fields"):
        teacher.sample(6, 4, generator=torch.Generator().manual_seed(0))


def test_fields_do_not_depend_on_the_batch(tmp_path):
    teacher = dataset(numbered(tmp_path, 64)).split("held out")

    def sets(batch):
        found = [[], []]
        for n, own in batches(8, batch, "measure"):
            for one in found:
                one.extend(numbers_of(draw_fields(teacher, n, 4, generator=own).x))
        return found

    whole = sets(8)
    assert sets(3) == whole
    assert sets(1) == whole
    assert not set(whole[0]) & set(whole[1])


def test_other_exact_fields_of_a_measure_are_others(tmp_path):
    """The control of generation compares two sets of exact fields; with a common field it would be too small."""
    teacher = dataset(write(tmp_path, "npy", gaussian_fields(300, 8)), split={"held_out": 0.5})
    student = st.student("best-linear", teacher.field, radius=1, fields=64).double()
    student.fit(teacher.split("training"), 8, seed=0)
    seen = []

    class Watched(type(teacher)):
        def sample(self, batch, size, *, generator):
            found = super().sample(batch, size, generator=generator)
            seen.append((generator.root, {tuple(one.flatten().tolist()) for one in found.x}))
            return found

    watched = Watched(teacher.spec, teacher.contents).double()
    spec = GenerationSpec(fields=40, batch=16, sampler={"steps": 4})
    list(spec.measure(watched, student, 8, sigma=0.1, seed=0))
    root = next(root for root, _ in seen if root[1] == "generation")
    drawn_sets = [found for own, found in seen if own == root]
    assert sum(map(len, drawn_sets)) == len(set().union(*drawn_sets)) == 80
    with pytest.raises(OracleError, match="at most 150"):
        list(spec.model_copy(update={"fields": 76}).measure(watched, student, 8, sigma=0.1, seed=0))


def test_measures_see_held_out_fields_and_students_training_ones(tmp_path):
    teacher = dataset(numbered(tmp_path, 40))
    held_out = set(numbers_of(drawn(teacher.split("held out"), 10, 4, 0).x))
    seen = set()

    class Watched(type(teacher)):
        def sample(self, batch, size, *, generator):
            found = super().sample(batch, size, generator=generator)
            seen.update(numbers_of(found.x))
            return found

    watched = Watched(teacher.spec, teacher.contents).double()
    student = st.student("cnn", teacher.field, blocks=0, width=2).double()
    st.train(watched, student, st.TrainingSpec(size=4, steps=30, batch=4), seed=0)
    assert seen
    assert not seen & held_out
    seen.clear()
    list(st.measure("denoising-loss", fields=10, reference_fields=0).measure(watched, student, 4, sigma=0.1, seed=0))
    assert seen == held_out


def test_a_teacher_that_forgets_its_sides_is_found(tmp_path):
    """The test above catches a teacher whose sides are all of its fields."""
    teacher = dataset(numbered(tmp_path, 40))

    class Forgetful(type(teacher)):
        def split(self, part):
            return self

    forgetful = Forgetful(teacher.spec, teacher.contents).double()
    held_out = set(numbers_of(drawn(teacher.split("held out"), 10, 4, 0).x))
    seen = numbers_of(drawn(forgetful.split("training"), 40, 4, 0).x)
    assert set(seen) & held_out


def test_several_files_are_several_sizes_or_more_of_one(tmp_path):
    paths = [numbered(tmp_path, 8, 4, "a"), numbered(tmp_path, 8, 4, "b", 100), numbered(tmp_path, 6, 9, "c")]
    teacher = dataset(*paths, layout="BHW")
    assert (teacher.independent_fields(4), teacher.independent_fields(9)) == (16, 6)
    with pytest.raises(OracleError, match=r"one of \[4, 9\]"):
        teacher.check_size(5)
    assert {number // 100 for number in numbers_of(drawn(teacher, 16, 4, 0).x)} == {0, 1}


def test_files_may_be_held_out_as_a_whole(tmp_path):
    train, test, large = (
        numbered(tmp_path, 8, 4, "a"),
        numbered(tmp_path, 5, 4, "b", 100),
        numbered(tmp_path, 6, 9, "c"),
    )
    teacher = dataset(train, held_out_files=[str(test), str(large)], layout="BHW")
    counts = {(name, size): teacher.split(name).independent_fields(size) for name in PARTS for size in (4, 9)}
    assert counts == {("training", 4): 8, ("held out", 4): 5, ("training", 9): 0, ("held out", 9): 6}
    with pytest.raises(OracleError, match="no training fields of this size"):
        drawn(teacher.split("training"), 1, 9, 0)


def test_teachers_without_end_are_their_own_sides():
    teacher = st.teacher("gaussian")
    assert isinstance(teacher, Teacher)
    assert teacher.split("training") is teacher.split("held out") is teacher
    assert teacher.independent_fields(8) is None


def test_branches_of_a_stream_know_its_root():
    own = stream("a", 1)
    assert own.branch("b").branch("c").fields(0, 2).root == ("a", 1)
    assert [(part.root, part.total) for _, part in batches(5, 2, "x")] == [(("x",), 5)] * 3


def test_of_many_fields_none_is_given_twice_either(tmp_path):
    teacher = dataset(numbered(tmp_path, 9000, 2), layout="BHW", split={"held_out": 0.5}).split("held out")
    count = teacher.independent_fields(2)
    assert count == 4500  # more than are put in order as a whole
    parts = [numbers_of(draw_fields(teacher, n, 2, generator=own).x) for n, own in batches(count, 1000, "all")]
    found = list(itertools.chain.from_iterable(parts))
    assert len(set(found)) == count
    single = numbers_of(draw_fields(teacher, 10, 2, generator=stream("all")).x)
    assert found[:10] == single


def test_the_next_call_of_a_stream_gives_other_fields(tmp_path):
    teacher, own = dataset(numbered(tmp_path), layout="BHW").split("training"), stream("twice")
    calls = [numbers_of(teacher.sample(5, 4, generator=own).x) for _ in range(3)]
    assert len(set(itertools.chain.from_iterable(calls))) == 15
    assert numbers_of(teacher.sample(5, 4, generator=stream("twice")).x) == calls[0]
