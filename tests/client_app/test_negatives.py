import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from client_app.interactions import Ragged
from client_app.negatives import draw_negatives, permuted, stream, uniform, user_keys

SECRET = b"a fixed secret"


def ragged(lists: list[list[int]]) -> Ragged:
    counts = [len(items) for items in lists]
    flat = [item for items in lists for item in sorted(items)]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Ragged(offsets, np.array(flat, dtype=np.int64))


def negatives_of(
    users: list[str],
    lists: list[list[int]],
    per_item: int,
    item_count: int,
    round_number: int = 1,
    secret: bytes = SECRET,
) -> list[list[int]]:
    own = ragged(lists)
    starts = stream(user_keys(secret, users), "negatives", round_number)
    counts, drawn = draw_negatives(starts, own.offsets, own.items, per_item, item_count)
    assert counts.sum() == len(drawn)
    return [part.tolist() for part in np.split(drawn, np.cumsum(counts)[:-1])]


@st.composite
def interactions(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    item_count = draw(st.integers(1, 40))
    one = st.lists(st.integers(0, item_count - 1), unique=True)
    return item_count, draw(st.lists(one, min_size=1, max_size=6))


@settings(deadline=None)
@given(case=interactions(), per_item=st.integers(1, 7), round_number=st.integers(0, 2**20))
def test_negatives_are_distinct_free_and_as_many_as_asked(
    case: tuple[int, list[list[int]]], per_item: int, round_number: int
) -> None:
    item_count, lists = case
    users = [f"u{k}" for k in range(len(lists))]
    drawn = negatives_of(users, lists, per_item, item_count, round_number)
    for own, negatives in zip(lists, drawn, strict=True):
        assert len(negatives) == min(len(own) * per_item, item_count - len(own))
        assert len(set(negatives)) == len(negatives)
        assert set(negatives) <= set(range(item_count)) - set(own)


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


def test_a_users_negatives_do_not_depend_on_who_else_is_there() -> None:
    users = ["ann", "bob", "cem", "dan"]
    lists = [[3, 1], [5], [0, 2, 4, 9, 30], [7, 8]]
    together = negatives_of(users, lists, 5, 50)
    backwards = negatives_of(users[::-1], lists[::-1], 5, 50)[::-1]
    alone = [negatives_of([u], [own], 5, 50)[0] for u, own in zip(users, lists, strict=True)]
    assert together == backwards == alone


def test_rounds_secrets_and_users_differ() -> None:
    lists = [[1, 2, 3], [1, 2, 3]]
    drawn = negatives_of(["ann", "bob"], lists, 5, 1000)
    assert drawn[0] != drawn[1]
    assert drawn == negatives_of(["ann", "bob"], lists, 5, 1000)
    assert drawn != negatives_of(["ann", "bob"], lists, 5, 1000, round_number=2)
    assert drawn != negatives_of(["ann", "bob"], lists, 5, 1000, secret=b"another secret")


def test_purposes_have_their_own_streams() -> None:
    keys = user_keys(SECRET, ["ann", "bob"])
    assert not np.any(stream(keys, "negatives", 1) == stream(keys, "shuffle", 1))


def test_keys_are_the_hmac_of_the_user_id() -> None:
    # HMAC-SHA-256 written out (RFC 2104).
    block = SECRET.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in block) + "zoë".encode()).digest()
    digest = hashlib.sha256(bytes(b ^ 0x5C for b in block) + inner).digest()
    assert user_keys(SECRET, ["ann", "zoë"])[1] == int.from_bytes(digest[:8], "little")
