from dataclasses import replace

import numpy as np
import pytest
import torch

from client_app.interactions import NodeInteractions
from client_app.tasks import held_out, histories, measurable, membership, ranking
from common.catalogue import ItemIndex
from common.errors import SnowdropError
from common.metrics import tie_order
from common.users.ragged import Ragged
from common.users.randomness import user_keys

WARM, COLD = 20, 7
IDS = [f"item {(k * 11) % 34:02d}" for k in range(WARM + 2 * COLD)]
SPLITS = ("warm",) * WARM + ("validation",) * COLD + ("test",) * COLD
INDEX = ItemIndex(tuple(IDS), SPLITS)
COUNTS = [1, 2, 3, 4, 8, 20, 5, 0, 3]
USERS = tuple(f"u{k}" for k in range(len(COUNTS)))
KEYS = user_keys(b"secret", USERS)


def lists_of(counts: list[int], items: int, seed: int) -> Ragged:
    rng = np.random.default_rng(seed)
    lists = [np.sort(rng.choice(items, count, replace=False)) for count in counts]
    return Ragged(np.cumsum([0, *counts]), np.concatenate(lists).astype(np.int64))


DATA = NodeInteractions(
    users=USERS,
    by_split={
        "warm": lists_of(COUNTS, WARM, 1),
        "validation": lists_of([1] * len(COUNTS), COLD, 2),
        "test": lists_of([2] * len(COUNTS), COLD, 3),
    },
    users_without_warm=0,
    unknown=0,
)
LAST = "last-warm-item"


def shard(users: np.ndarray) -> NodeInteractions:
    lists = {name: own.take(users) for name, own in DATA.by_split.items()}
    return NodeInteractions(tuple(USERS[u] for u in users), lists, 0, 0)


def test_cold_items_hold_nothing_back() -> None:
    assert histories("cold-items", DATA, KEYS) is DATA.warm
    for split in ("validation", "test"):
        asked = ranking("cold-items", split, INDEX, DATA, KEYS)
        assert asked.truth is DATA.by_split[split]
        assert asked.left_out is None
        assert asked.items == COLD
        assert torch.equal(asked.order, tie_order(INDEX.ids_of(split)))


def test_some_users_may_be_ranked_for_alone() -> None:
    whole = ranking("cold-items", "test", INDEX, DATA, KEYS)
    some = whole.among(np.array([4, 1]))
    assert some.truth.counts.tolist() == [2 * (user in (1, 4)) for user in range(len(USERS))]
    assert some.truth.of(4).tolist() == whole.truth.of(4).tolist()
    assert some.order is whole.order


def test_of_a_long_history_as_many_items_are_drawn_as_count() -> None:
    cut = histories("cold-items", DATA, KEYS, 4)
    assert cut.counts.tolist() == [min(count, 4) for count in COUNTS]
    for user in range(len(USERS)):
        own, drawn = DATA.warm.of(user), cut.of(user)
        assert np.isin(drawn, own).all()
        assert (np.diff(drawn) > 0).all()
    assert not np.array_equal(cut.of(5), DATA.warm.of(5)[:4])
    some = np.array([5, 1, 4])
    alone = histories("cold-items", shard(some), KEYS[some], 4)
    assert [alone.of(k).tolist() for k in range(3)] == [cut.of(u).tolist() for u in some]
    left = histories(LAST, DATA, KEYS, 4)
    assert left.counts.tolist() == [min(count - 2 * (count > 2), 4) for count in COUNTS]
    assert np.isin(left.of(5), histories(LAST, DATA, KEYS).of(5)).all()


def test_what_is_held_out_stays_so_from_release_to_release() -> None:
    """Nodes train on the rest: with another draw, users would be tested on what they learnt."""
    chosen = [np.flatnonzero(own).tolist() for own in held_out(DATA.warm, KEYS)]
    assert chosen == [[4, 8, 10, 32, 39, 45], [3, 7, 11, 18, 38, 43]]


def test_users_without_a_kept_item_are_still_counted() -> None:
    data = shard(np.array([5, 7]))  # the last user has no warm item
    assert histories(LAST, data, KEYS[[5, 7]]).counts.tolist() == [18, 0]


def test_one_item_each_is_held_out_to_validate_and_to_test() -> None:
    kept = histories(LAST, DATA, KEYS)
    validation = ranking(LAST, "validation", INDEX, DATA, KEYS)
    test = ranking(LAST, "test", INDEX, DATA, KEYS)
    assert test.items == validation.items == WARM
    assert torch.equal(test.order, tie_order(INDEX.ids_of("warm")))
    for user, count in enumerate(COUNTS):
        own = set(DATA.warm.of(user).tolist())
        parts = [set(lists.of(user).tolist()) for lists in (kept, validation.truth, test.truth)]
        assert [len(part) for part in parts[1:]] == ([1, 1] if count >= 3 else [0, 0])
        assert set.union(*parts) == own
        assert sum(map(len, parts)) == len(own)  # none is in two of them
        assert count < 3 or len(parts[0]) >= 1


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_a_user_knows_is_not_ranked(split: str) -> None:
    asked = ranking(LAST, split, INDEX, DATA, KEYS)
    assert asked.left_out is not None
    for user in range(len(USERS)):
        own = set(DATA.warm.of(user).tolist())
        assert set(asked.left_out.of(user)) == own - set(asked.truth.of(user))


def test_histories_stay_in_order() -> None:
    kept = histories(LAST, DATA, KEYS)
    for user in range(len(USERS)):
        own = kept.of(user)
        assert (np.diff(own) > 0).all()
    assert kept.offsets.dtype == DATA.warm.offsets.dtype


def test_the_same_is_held_out_on_any_sharding() -> None:
    kept = histories(LAST, DATA, KEYS)
    test = ranking(LAST, "test", INDEX, DATA, KEYS)
    for part in ([0, 5, 2], [8, 7, 6], [4]):
        users = np.array(part)
        own = shard(users)
        mine = histories(LAST, own, KEYS[users])
        found = ranking(LAST, "test", INDEX, own, KEYS[users])
        for place, user in enumerate(part):
            assert mine.of(place).tolist() == kept.of(user).tolist()
            assert found.truth.of(place).tolist() == test.truth.of(user).tolist()


def test_another_secret_holds_other_items_out() -> None:
    others = user_keys(b"another secret", USERS)
    assert not np.array_equal(held_out(DATA.warm, KEYS), held_out(DATA.warm, others))


def test_every_item_may_be_held_out() -> None:
    users = 6000
    warm = Ragged(np.arange(users + 1) * 3, np.tile(np.arange(3), users))
    chosen = held_out(warm, user_keys(b"s", [str(k) for k in range(users)]))
    shares = chosen.reshape(2, users, 3).mean(1)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.04)  # six standard deviations


def test_nobody_is_no_error() -> None:
    nobody = Ragged(np.array([0]), np.array([], np.int64))
    assert held_out(nobody, np.array([], np.uint64)).shape == (2, 0)


def test_membership_is_a_table_of_who_has_what() -> None:
    table = membership(DATA.warm, WARM)
    assert table.shape == (len(USERS), WARM)
    for user in range(len(USERS)):
        assert table[user].nonzero()[:, 0].tolist() == DATA.warm.of(user).tolist()


TIMES = np.random.default_rng(5).permutation(len(DATA.warm.items)).astype(float)


def test_the_last_items_by_time_are_held_out() -> None:
    data = replace(DATA, order="timestamp", times=TIMES)
    kept = histories(LAST, data, KEYS)
    validation, test = (ranking(LAST, split, INDEX, data, KEYS) for split in ("validation", "test"))
    for user, count in enumerate(COUNTS):
        own = DATA.warm.of(user)
        begin = DATA.warm.offsets[user]
        by_time = own[np.argsort(TIMES[begin : begin + count])].tolist()
        if count < 3:
            by_time += [None, None]
        assert validation.truth.of(user).tolist() == by_time[-2:-1] * (count >= 3)
        assert test.truth.of(user).tolist() == by_time[-1:] * (count >= 3)
        assert kept.of(user).tolist() == sorted(by_time[:-2])
    assert measurable(data) == sum(count >= 3 for count in COUNTS)


def test_items_of_one_time_are_drawn_by_the_users_key() -> None:
    users = 6000
    warm = Ragged(np.arange(users + 1) * 4, np.tile(np.arange(4), users))
    times = np.tile([7.0, 7.0, 3.0, 7.0], users)
    keys = user_keys(b"s", [str(k) for k in range(users)])
    chosen = held_out(warm, keys, times).reshape(2, users, 4)
    assert (chosen.sum(2) == 1).all()
    assert not (chosen[0] & chosen[1]).any()
    for shares in chosen.mean(1):
        np.testing.assert_allclose(shares, [1 / 3, 1 / 3, 0, 1 / 3], atol=0.04)
    assert not np.array_equal(chosen, held_out(warm, user_keys(b"t", [*map(str, range(users))]),
                                               times).reshape(2, users, 4))  # fmt: skip


def test_items_of_one_time_are_the_same_on_any_sharding() -> None:
    data = replace(DATA, order="position", times=np.zeros(len(DATA.warm.items)))
    whole = ranking(LAST, "test", INDEX, data, KEYS).truth
    part = np.array([8, 5, 2])
    own = replace(shard(part), order="position", times=np.zeros(int(DATA.warm.counts[part].sum())))
    mine = ranking(LAST, "test", INDEX, own, KEYS[part]).truth
    assert [mine.of(k).tolist() for k in range(3)] == [whole.of(u).tolist() for u in part]


def test_times_that_are_no_numbers_are_told_once_they_are_asked_for() -> None:
    times = TIMES.copy()
    times[[3, 9]] = np.nan, np.inf
    data = replace(DATA, order="position", times=times)
    assert histories("cold-items", data, KEYS) is DATA.warm
    with pytest.raises(SnowdropError, match="column 'position' holds no number in 2 of 46 inter"):
        histories(LAST, data, KEYS)
    with pytest.raises(SnowdropError, match="give each a number"):
        ranking(LAST, "test", INDEX, data, KEYS)


def test_nobody_with_times_is_no_error() -> None:
    nobody = Ragged(np.array([0]), np.array([], np.int64))
    assert held_out(nobody, np.array([], np.uint64), np.array([])).shape == (2, 0)
