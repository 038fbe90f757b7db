import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from common.users.randomness import draw, draw_at, permuted, stream, uniform, user_keys

SECRET = b"a fixed secret"


@settings(deadline=None)
@given(size=st.integers(1, 600), seed=st.integers(0, 2**64 - 1))
def test_permuted_is_a_permutation(size: int, seed: int) -> None:
    starts = np.full(size, seed, np.uint64)
    values = permuted(starts, np.arange(size), np.full(size, size))
    assert sorted(values.tolist()) == list(range(size))


def test_permuted_handles_large_sizes() -> None:
    for size in (2**20, 2**20 + 1, 10**7):
        places = np.arange(0, size, size // 5000)
        values = permuted(np.full(len(places), 7, np.uint64), places, np.full(len(places), size))
        assert len(set(values.tolist())) == len(places)
        assert values.min() >= 0
        assert values.max() < size


@pytest.mark.parametrize("size", [2, 3, 5, 8, 13, 64, 100])
@pytest.mark.parametrize("place", [0, 1])
def test_each_place_is_uniform(size: int, place: int) -> None:
    streams = 20_000
    starts = stream(user_keys(SECRET, [str(k) for k in range(streams)]), "negatives", 3)
    values = permuted(starts, np.full(streams, place), np.full(streams, size))
    assert chisquare(np.bincount(values, minlength=size)).pvalue > 1e-4


@pytest.mark.parametrize("size", [4, 5, 7])
def test_two_places_are_jointly_uniform(size: int) -> None:
    streams = 40_000
    starts = stream(user_keys(SECRET, [str(k) for k in range(streams)]), "negatives", 3)
    sizes = np.full(streams, size)
    first, second = (permuted(starts, np.full(streams, place), sizes) for place in (0, 1))
    pairs = np.bincount(first * size + second, minlength=size * size).reshape(size, size)
    assert np.diag(pairs).sum() == 0
    assert chisquare(pairs[~np.eye(size, dtype=bool)]).pvalue > 1e-4


def test_uniform_numbers_are_uniform() -> None:
    numbers = uniform(stream(user_keys(SECRET, [str(k) for k in range(500)]), "test"), 40)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert chisquare(np.histogram(numbers, bins=50, range=(0, 1))[0]).pvalue > 1e-4


def test_purposes_have_their_own_streams() -> None:
    keys = user_keys(SECRET, ["ann", "bob"])
    assert not np.any(stream(keys, "negatives", 1) == stream(keys, "shuffle", 1))


def test_keys_are_the_hmac_of_the_user_id() -> None:
    # HMAC-SHA-256 written out (RFC 2104).
    block = SECRET.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + "zoë".encode()).digest()
    digest = hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).digest()
    assert user_keys(SECRET, ["ann", "zoë"])[1] == int.from_bytes(digest[:8], "little")


def test_a_single_draw_is_that_of_the_stream() -> None:
    starts = stream(user_keys(b"s", ["a", "b", "c"]), "any")
    table = draw(starts, 5)
    users, places = np.array([2, 0, 2, 1]), np.array([4, 0, 1, 3])
    np.testing.assert_array_equal(draw_at(starts[users], places), table[users, places])
