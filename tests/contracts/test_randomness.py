"""Named streams: repeatable, independent of the order of use, and without traces in torch's global state."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sizetransfer.contracts.randomness import (
    Stream,
    _philox,
    batches,
    integers,
    mersenne_words,
    normal,
    seeded_initialisation,
    stream,
    stream_seed,
    uniform,
)

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
    draws = normal(list(shape), generator=torch.Generator().manual_seed(3), like=torch.zeros(1, dtype=dtype))
    assert draws.shape == normal(list(shape), generator=stream("a"), like=draws).shape == shape
    assert draws.dtype == normal(list(shape), generator=stream("a"), like=draws).dtype == dtype
    assert torch.equal(draws, torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=dtype))


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


# --- the function behind the streams ----------------------------------------------------------------------------------

# Known answers of Philox4x32-10: counter, key, result (Random123, kat_vectors).
KNOWN = [
    ((0x00000000,) * 4, (0x00000000,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
word = st.integers(0, 2**32 - 1)


def one_block(counter, key):
    block, draw, field, name = counter
    words = _philox(torch.tensor([block]), torch.tensor([draw]), torch.tensor([field]), name, key).flatten(2)
    return tuple(int(words[at]) for at in ((0, 0, 0), (1, 1, 0), (0, 1, 0), (1, 0, 0)))


def plain_philox(counter, key):
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_the_published_answers(counter, key, result):
    assert one_block(counter, key) == result == plain_philox(counter, key)


@given(st.tuples(word, word, word, word), st.tuples(word, word))
def test_tensors_compute_what_plain_integers_do(counter, key):
    assert one_block(counter, key) == plain_philox(counter, key)


def test_the_number_of_an_element_is_that_of_its_name():
    """The layout that the module promises: key and name from SHA-256, block, draw and field in the counter."""
    h = hashlib.sha256(repr(("a", 7)).encode()).digest()
    h0, h1, h2, h3 = (int.from_bytes(h[4 * i : 4 * i + 4], "big") for i in range(4))
    one, like = stream("a", 7), torch.zeros((), dtype=torch.float64)
    for draw in range(5):
        for width, block in ((60, 11), (8, 1)):
            word, finer = (plain_philox((block, 2 * draw + part, 3, h2 ^ width), (h0, h1))[0] for part in (0, 1))
            drawn = uniform((4, width), generator=one, like=like, dtype=(torch.float64, torch.float32)[draw % 2])
            expected = (word >> 8) / 2**24 if draw % 2 else (word * 2**21 + (finer >> 11)) / 2**53
            assert float(drawn[3, 4 * block]) == expected
        word, finer = (plain_philox((0, 2 * draw + part, 0, h3), (h0, h1))[0] for part in (0, 1))
        assert float(uniform((), generator=one, like=like)) == (word * 2**21 + (finer >> 11)) / 2**53


def test_draws_that_were_computed_ahead_are_those_of_their_numbers():
    like, one = torch.zeros(()), stream("ahead")
    drawn = [normal((3, 5), generator=one, like=like) for _ in range(12)]
    assert all(torch.equal(normal((3, 5), generator=stream("ahead").at(n), like=like), x) for n, x in enumerate(drawn))
    in_between = stream("ahead")
    for number, expected in enumerate(drawn):
        if number % 3 == 1:
            uniform((3, 5), generator=in_between, like=like)
        else:
            assert torch.equal(normal((3, 5), generator=in_between, like=like), expected)
        uniform((3, 4), generator=in_between, like=like)


def test_draws_that_were_computed_ahead_in_inference_mode_serve_outside_it():
    one, like = stream("ahead"), torch.zeros(())
    with torch.inference_mode():
        for _ in range(3):
            normal((2,), generator=one, like=like)
    assert not normal((2,), generator=one, like=like).is_inference()


SHAPES = [(5,), (5, 3), (5, 2, 6), (5, 1, 200, 200)]


def kinds():
    return {
        "normal": normal,
        "uniform": uniform,
        "integers": lambda shape, **keywords: integers(1000, shape, **keywords),
    }


@pytest.mark.parametrize("kind", list(kinds()))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_field_has_its_own_numbers_whatever_the_batch(kind, shape, dtype):
    draw, like = kinds()[kind], torch.zeros((), dtype=dtype)
    whole = draw(shape, generator=stream("rows"), like=like)
    for size in (1, 2, 5):
        parts = [draw((n, *shape[1:]), generator=g, like=like) for n, g in batches(5, size, "rows")]
        assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(draw((2, *shape[1:]), generator=stream("rows").fields(2, 2), like=like), whole[2:4])


def test_fields_draws_and_names_differ():
    like = torch.zeros((), dtype=torch.float64)
    one = stream("a")
    first, second = (uniform((8, 16), generator=one, like=like) for _ in range(2))
    names = [stream("b"), stream("a").branch(), stream("a").repeated(2), stream("a").fields(8, 8)]
    everything = torch.cat([first, second, *(uniform((8, 16), generator=g, like=like) for g in names)])
    assert len(everything.unique()) == everything.numel()


def test_what_all_fields_share_does_not_depend_on_them():
    like = torch.zeros(())
    shared = [integers(2**40, (), generator=g, like=like) for _, g in batches(5, 2, "rows")]
    assert len({int(number) for number in shared}) == 1


def test_a_stream_of_some_fields_refuses_rows_that_are_not_these():
    with pytest.raises(ValueError, match=r"stream of 3 fields .* shape \(2, 3\)"):
        normal((2, 3), generator=stream("a").fields(0, 3), like=torch.zeros(()))


def test_nothing_is_drawn_for_empty_shapes():
    assert normal((0, 4), generator=stream("a"), like=torch.zeros(())).shape == (0, 4)
    assert uniform((4, 0), generator=stream("a"), like=torch.zeros(())).shape == (4, 0)


def test_single_precision_is_double_precision_seen_less_sharply():
    like, n = torch.zeros((), dtype=torch.float64), 100_000
    sharp, blunt = (normal((n,), generator=stream("a"), like=like.to(kind)) for kind in (torch.float64, torch.float32))
    # Where the radius is r, u is near 1 - r^2/2, whose rounding of 2^-25 moves r by 2^-25/r.
    assert (sharp - blunt).abs().max() < 2e-4
    assert (sharp - blunt).abs().median() < 1e-7
    sharp, blunt = (uniform((n,), generator=stream("a"), like=like.to(k)) for k in (torch.float64, torch.float32))
    assert 0 <= (sharp - blunt).min() <= (sharp - blunt).max() < 2.0**-24


# Each bound is five standard errors: with some 40 numbers compared, a correct generator fails once in 40 000 suites.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_moments_of_normal_and_uniform_numbers(dtype):
    n, like = 400_000, torch.zeros((), dtype=dtype)
    x = normal((4, n // 4), generator=stream("moments"), like=like).double()
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((x**power).mean() - mean) < 5 * math.sqrt(variance / n)
    u = uniform((4, n // 4), generator=stream("moments"), like=like).double()
    for power in (1, 2, 3):
        mean = 1 / (power + 1)
        assert abs((u**power).mean() - mean) < 5 * math.sqrt((1 / (2 * power + 1) - mean**2) / n)


def test_elements_fields_and_draws_are_uncorrelated():
    like, n = torch.zeros((), dtype=torch.float64), 40_000
    one = stream("independence")
    first, second = (normal((4, n), generator=one, like=like) for _ in range(2))
    pairs = [(first[0], first[1]), (first[2], second[2]), (first[0, 1:], first[0, :-1]), (first[0, 2:], first[0, :-2])]
    pairs += [(first[0, 4:], first[0, :-4]), (first[1], second[0])]
    for a, b in pairs:
        for f in (lambda v: v, lambda v: v**2 - 1):
            product = f(a) * f(b)
            assert abs(product.mean()) < 5 * product.std() / math.sqrt(len(product))


def test_bits_are_fair():
    words = (uniform((1, 2**16), generator=stream("bits"), like=torch.zeros((), dtype=torch.float64)) * 2**53).long()
    shares = torch.stack([(words >> bit & 1).double().mean() for bit in range(53)])
    assert (shares - 0.5).abs().max() < 5 * 0.5 / 2**8


@pytest.mark.parametrize(("dtype", "reach"), [(torch.float32, 6.76), (torch.float64, 9.49)], ids=["float32", "float64"])
def test_tails_of_normal_numbers_reach_far(dtype, reach):
    """The largest number that there is, that of a radius whose bits are all zero."""
    from sizetransfer.contracts.randomness import _normals

    words = torch.zeros(2, 2, 1, 2, 1, 1, dtype=torch.int64)
    assert float(_normals(words, dtype).max()) == pytest.approx(reach, abs=0.01)


def test_integers_are_uniform():
    counts = torch.bincount(integers(7, (70_000,), generator=stream("dice"), like=torch.zeros(())), minlength=7)
    assert len(counts) == 7
    assert (counts - 10_000).abs().max() < 5 * math.sqrt(10_000 * 6 / 7)


# --- the generator that a stream is for others ------------------------------------------------------------------------


def test_a_stream_is_a_generator_with_the_whole_name_as_its_state():
    one = stream("a", 3)
    assert isinstance(one, torch.Generator)
    state = one.get_state()[24 : 24 + 8 * 624].view(torch.int64)
    assert tuple(state.tolist()) == mersenne_words("a", 3)
    assert torch.equal(torch.randn(5, generator=one), torch.randn(5, generator=stream("a", 3)))
    assert not torch.equal(torch.randn(5, generator=stream("a", 4)), torch.randn(5, generator=stream("a", 3)))


def test_torch_keeps_only_half_of_a_seed_and_streams_keep_all():
    def first(generator):
        return torch.rand(4, generator=generator)

    assert torch.equal(first(torch.Generator().manual_seed(5)), first(torch.Generator().manual_seed(5 + 2**32)))
    assert len({stream("a", n).initial_seed() for n in range(100)}) == 100


def test_generators_of_other_fields_differ():
    states = [Stream("a", first=first).get_state() for first in (0, 1)] + [stream("a", 1).get_state()]
    assert len({tuple(state.tolist()) for state in states}) == 3
