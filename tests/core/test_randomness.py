"""Named streams: repeatable, independent of the order of use, and without traces in torch's global state."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sizetransfer.randomness import normal, seeded_initialisation, stream, stream_seed

labels = st.lists(st.one_of(st.integers(-(2**40), 2**40), st.text(max_size=6)), max_size=4).map(tuple)


@given(labels)
def test_seed_is_the_upper_63_bits_of_the_hash_of_the_labels(names):
    digest = hashlib.sha256(repr(names).encode()).hexdigest()
    assert stream_seed(*names) == int(digest[:16], 16) // 2


@given(labels, labels)
def test_different_labels_name_different_streams(first, second):
    assert (stream_seed(*first) == stream_seed(*second)) == (repr(first) == repr(second))


def test_labels_are_not_run_together():
    assert len({stream_seed(*names) for names in [(1, 2), (12,), ("1", 2), ("1", "2"), ("12",), (2, 1)]}) == 6


def test_a_stream_does_not_depend_on_what_was_drawn_before():
    def draw(step):
        return torch.rand(3, generator=stream(0, "training", step))

    forwards = [draw(step) for step in range(5)]
    backwards = [draw(step) for step in reversed(range(5))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert torch.equal(draw(3), forwards[3])
    assert not torch.equal(forwards[2], forwards[3])


def test_neighbouring_streams_are_uncorrelated():
    n = 100_000
    first, second = (normal((n,), generator=stream(0, "noise", step), like=torch.zeros(())) for step in (0, 1))
    assert abs((first * second).mean().item()) < 4 / math.sqrt(n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_follows_its_model_and_not_the_default(dtype):
    shape = (4, 8)  # from sixteen numbers on, torch draws single and double precision differently
    draws = normal(list(shape), generator=stream("a"), like=torch.zeros(1, dtype=dtype))
    assert draws.shape == shape
    assert draws.dtype == dtype
    assert torch.equal(draws, torch.randn(shape, generator=stream("a"), dtype=dtype))


def test_streams_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    normal((4,), generator=stream(1), like=torch.zeros(()))
    assert torch.equal(torch.get_rng_state(), before)


def test_initialisation_draws_from_the_named_stream():
    def weights(*names):
        with seeded_initialisation(*names):
            return torch.nn.Linear(4, 4).weight.detach()

    first = weights(0, "student")
    torch.rand(7)
    assert torch.equal(weights(0, "student"), first)
    assert not torch.equal(weights(1, "student"), first)


def test_initialisation_puts_the_global_state_back():
    before = torch.get_rng_state()
    with seeded_initialisation(0):
        torch.nn.Linear(4, 4)
        assert not torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.get_rng_state(), before)


def test_initialisation_puts_the_global_state_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), seeded_initialisation(0):
        torch.rand(1 // 0)
    assert torch.equal(torch.get_rng_state(), before)
