import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.users.negatives import draw_negatives
from common.users.ragged import Ragged
from common.users.randomness import stream, user_keys

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
