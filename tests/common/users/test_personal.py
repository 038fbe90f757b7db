"""Users' own item tables, against whole tables."""

import numpy as np
import pytest
import torch
from torch import Tensor

from common.users import personal
from common.users.heads import State
from common.users.personal import (
    COUNTS,
    ITEMS,
    ROWS,
    FirstRows,
    OwnRows,
    nothing_kept,
    rearranged,
)
from common.users.randomness import mix, user_keys
from common.users.training import Samples

USERS, WARM, DIM, SCALE = 5, 12, 3, 0.5
KEYS = user_keys(b"secret", [f"u{k}" for k in range(USERS)])
ITEM_KEYS = mix(np.arange(100, 100 + WARM, dtype=np.uint64))
RNG = np.random.default_rng(1)


@pytest.fixture(autouse=True)
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal, "POOL_ROWS", 64)


def first_rows(
    keys: np.ndarray = KEYS,
    items: np.ndarray = ITEM_KEYS,
    same: bool = False,
    seed: int = 0,
    scale: float = SCALE,
) -> FirstRows:
    return FirstRows.drawn(keys, items, DIM, scale, seed, same)


def whole(own: OwnRows) -> Tensor:
    """Every row of every user, float32 (users, warm, d)."""
    users, warm = len(own.first.starts), len(own.first.item_keys)
    items = torch.arange(warm).expand(users, -1)
    ones = torch.ones(users, warm)
    samples = Samples(items, ones, ones, np.zeros(users, np.uint64))
    return own.rows(np.arange(users), samples)


def samples_of(users: np.ndarray, seed: int) -> Samples:
    """Four columns for each user; the first is an interaction, the last of some is padding."""
    rng = np.random.default_rng(seed)
    items = torch.from_numpy(np.stack([rng.permutation(WARM)[:4] for _ in users]))
    real = torch.ones(len(users), 4)
    real[::2, 3] = 0
    labels = torch.zeros(len(users), 4)
    labels[:, 0] = 1
    return Samples(torch.where(real > 0, items, 0), labels, real, np.zeros(len(users), np.uint64))


def after_rounds(only_history: bool = False, same: bool = False) -> tuple[State, Tensor]:
    """The state after three rounds of some users each, and whole tables that went along."""
    state = nothing_kept(USERS, DIM)
    tables = whole(OwnRows(state, first_rows(same=same)))
    first = tables.clone()
    for number, users in enumerate(([4, 0], [1, 0], [0, 2, 4])):
        own = OwnRows(state, first_rows(same=same), only_history)
        torch.testing.assert_close(whole(own), tables, rtol=0, atol=0)
        samples = samples_of(np.array(users), number)
        trained = own.rows(np.array(users), samples) + torch.randn(len(users), 4, DIM)
        own.keep(np.array(users), samples, trained)
        for k, user in enumerate(users):
            for column in range(4):
                if samples.real[k, column]:
                    wanted = samples.labels[k, column] or not only_history
                    item = int(samples.items[k, column])
                    tables[user, item] = trained[k, column] if wanted else tables[user, item]
        state = own.state()
    assert not torch.equal(tables, first)
    return state, tables


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("only_history", [False, True])
def test_rows_that_are_kept_and_redrawn_are_whole_tables(only_history: bool, same: bool) -> None:
    state, tables = after_rounds(only_history, same)
    own = OwnRows(state, first_rows(same=same))
    torch.testing.assert_close(whole(own), tables, rtol=0, atol=0)
    assert state[COUNTS][3] == 0
    most = 3 if only_history else 11
    assert 0 < int(state[COUNTS].max()) <= most
    assert len(state[ITEMS]) == len(state[ROWS]) == int(state[COUNTS].sum()) < USERS * WARM


@pytest.mark.parametrize("users", [[0, 1, 2, 3, 4], [3], [4, 0]])
def test_scores_are_those_of_whole_tables(users: list[int]) -> None:
    state, tables = after_rounds()
    weights = torch.randn(len(users), DIM)
    scores = OwnRows(state, first_rows()).scores(np.array(users), weights)
    expected = torch.einsum("uwd,ud->uw", tables[users], weights)
    torch.testing.assert_close(scores, expected)


def test_first_rows_depend_on_user_item_and_seed_alone() -> None:
    tables = first_rows().rows(np.arange(USERS), np.arange(WARM))
    some = np.array([2, 7, 3])
    part = first_rows(KEYS[[3, 1]], ITEM_KEYS[some]).rows(np.arange(2), np.arange(3))
    assert torch.equal(part, tables[[3, 1]][:, some])
    assert not torch.equal(first_rows(seed=1).pool, first_rows().pool)
    assert len(np.unique(first_rows().places(np.arange(USERS), np.arange(WARM)))) > 20


def test_first_rows_are_normal_numbers_of_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(personal, "POOL_ROWS", 4096)
    keys = user_keys(b"secret", [f"v{k}" for k in range(200)])
    rows = FirstRows.drawn(keys, ITEM_KEYS, 8, SCALE, 0, False).rows(
        np.arange(200), np.arange(WARM)
    )
    assert float(rows.mean()) == pytest.approx(0, abs=0.02)
    assert float(rows.std()) == pytest.approx(SCALE, rel=0.03)
    assert not first_rows(scale=0.0).rows(np.arange(USERS), np.arange(WARM)).any()


def test_all_users_start_from_one_table_where_they_are_to() -> None:
    tables = first_rows(same=True).rows(np.arange(USERS), np.arange(WARM))
    assert torch.equal(tables, tables[:1].expand_as(tables))
    assert not torch.equal(tables[0], first_rows().rows(np.array([0]), np.arange(WARM))[0])


def test_rows_follow_their_items_when_the_catalogue_changes() -> None:
    state, tables = after_rounds()
    today = np.concatenate([[np.uint64(5)], ITEM_KEYS[::-1][:-2]])  # one came, two are gone
    own = OwnRows(state, first_rows(items=today))
    now = whole(own)
    torch.testing.assert_close(now[:, 1:], tables.flip(1)[:, :-2], rtol=0, atol=0)
    assert torch.equal(now[:, 0], own.first.rows(np.arange(USERS), np.array([0]))[:, 0])


def test_a_state_of_other_users_takes_what_is_known() -> None:
    state, tables = after_rounds()
    state = {"weight": torch.arange(USERS).float()[:, None], **state}
    places = np.array([4, -1, 0, 3])
    fresh = {"weight": torch.full((4, 1), -1.0), **nothing_kept(4, DIM)}
    moved = rearranged(state, fresh, places)
    assert moved["weight"].flatten().tolist() == [4, -1, 0, 3]
    keys = np.concatenate([KEYS[[4]], user_keys(b"secret", ["new"]), KEYS[[0, 3]]])
    now = whole(OwnRows(moved, first_rows(keys)))
    torch.testing.assert_close(now[[0, 2, 3]], tables[[4, 0, 3]], rtol=0, atol=0)
    assert moved[COUNTS].tolist() == [int(state[COUNTS][4]), 0, int(state[COUNTS][0]), 0]


def test_users_that_are_not_known_may_have_rows_from_a_newer_state() -> None:
    older, _ = after_rounds()
    newer = nothing_kept(2, DIM)
    own = OwnRows(newer, first_rows(KEYS[:2]))
    samples = samples_of(np.arange(2), 5)
    own.keep(np.arange(2), samples, torch.full((2, 4, DIM), 7.0))
    newer = own.state()
    moved = rearranged(older, newer, np.array([-1, 4]))
    now = whole(OwnRows(moved, first_rows(KEYS[[0, 4]])))
    assert (now[0] == 7).all(1).sum() == newer[COUNTS][0] > 0
    expected = whole(OwnRows(older, first_rows()))[4]
    torch.testing.assert_close(now[1], expected, rtol=0, atol=0)
