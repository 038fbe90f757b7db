import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_tensors

from client_app.interactions import NodeInteractions
from client_app.store import FORMAT, StateStore
from common.catalogue import ItemIndex
from common.durable import read_checked, write_checked
from common.errors import FormatError, SnowdropError
from common.users.heads import State

TRAINING, OTHER = "ab" * 8, "cd" * 8
INDEX = ItemIndex(("a", "b"), ("warm", "test"))


def people(*users: str) -> NodeInteractions:
    return NodeInteractions(users=users, by_split={}, users_without_warm=0, unknown=0)


def heads(*values: float) -> State:
    column = torch.tensor(values, dtype=torch.float32)
    return {"weight": column[:, None].repeat(1, 3), "bias": column[:, None] * 10}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(tmp_path / "state")


PAIR = people("ann", "bob")
FRESH = heads(-1, -1)


def fill(store: StateStore, *rounds: int, training: str = TRAINING) -> None:
    for number in rounds:
        store.save(training, number, PAIR, heads(number, number + 0.5))


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def round_file(store: StateStore, number: int) -> Path:
    return store.folder / "trainings" / TRAINING / f"round-{number:06d}.state"


def test_load_gives_the_newest_state_up_to_a_round(store: StateStore) -> None:
    fill(store, 1, 2, 5)
    assert store.rounds(TRAINING) == [1, 2, 5]
    for asked, found in [(9, 5), (5, 5), (4, 2), (1, 1)]:
        number, state = store.load(TRAINING, asked, PAIR, FRESH)
        assert number == found
        assert same(state, heads(found, found + 0.5))
    assert store.load(TRAINING, 0, PAIR, FRESH) == (0, FRESH)


def test_rounds_beyond_six_digits_sort_by_number(store: StateStore) -> None:
    fill(store, 999_999, 1_000_000)
    assert store.rounds(TRAINING) == [999_999, 1_000_000]


def test_an_unknown_training_starts_fresh(store: StateStore) -> None:
    fill(store, 1)
    assert store.rounds(OTHER) == []
    assert store.load(OTHER, 7, PAIR, FRESH) == (0, FRESH)


def test_a_damaged_state_gives_the_one_before(store: StateStore) -> None:
    fill(store, 1, 2, 3)
    damage(round_file(store, 3))
    round_file(store, 2).write_bytes(round_file(store, 2).read_bytes()[:-20])
    number, state = store.load(TRAINING, 3, PAIR, FRESH)
    assert number == 1
    assert same(state, heads(1, 1.5))


def test_heads_of_another_shape_are_not_used(store: StateStore) -> None:
    fill(store, 1)
    wider = {"weight": torch.zeros(2, 4), "bias": torch.zeros(2, 1)}
    number, state = store.load(TRAINING, 1, PAIR, wider)
    assert number == 0
    assert same(state, wider)


def test_old_users_keep_their_heads_and_new_ones_start_fresh(store: StateStore) -> None:
    store.save(TRAINING, 1, people("bob", "cem", "eve"), heads(2, 3, 5))
    number, state = store.load(
        TRAINING, 1, people("ann", "bob", "dan", "eve"), heads(-1, -2, -3, -4)
    )
    assert number == 1
    assert same(state, heads(-1, 2, -3, 5))


def test_a_damaged_list_of_users_is_no_reason_to_mix_users_up(store: StateStore) -> None:
    fill(store, 1)
    damage(next((store.folder / "trainings" / TRAINING).glob("users-*.json")))
    later = people("bob", "cem")
    assert store.load(TRAINING, 1, later, FRESH) == (0, FRESH)
    assert store.load(TRAINING, 1, PAIR, FRESH)[0] == 1


def test_saving_mends_a_damaged_list_of_users(store: StateStore) -> None:
    fill(store, 1)
    damage(next((store.folder / "trainings" / TRAINING).glob("users-*.json")))
    fill(store, 2)
    number, state = store.load(TRAINING, 2, people("bob", "cem"), heads(-1, -2))
    assert number == 2
    assert same(state, heads(2.5, -2))


def test_drop_from_forgets_that_round_and_later(store: StateStore) -> None:
    fill(store, 1, 2, 3, 4)
    fill(store, 5, training=OTHER)
    store.drop_from(TRAINING, 3)
    assert store.rounds(TRAINING) == [1, 2]
    assert store.rounds(OTHER) == [5]


@pytest.mark.parametrize(
    ("keep", "best", "kept"),
    [(2, 0, [4, 5]), (2, 1, [1, 4, 5]), (2, 5, [4, 5]), (1, 3, [3, 5]), (9, 0, [1, 2, 3, 4, 5])],
)
def test_prune_keeps_the_last_rounds_and_the_best(
    store: StateStore, keep: int, best: int, kept: list[int]
) -> None:
    fill(store, 1, 2, 3, 4, 5)
    store.prune(TRAINING, keep, best)
    assert store.rounds(TRAINING) == kept


def test_prune_keeps_what_a_node_had_in_a_best_round_that_it_missed(store: StateStore) -> None:
    fill(store, 3, 7, 12, 15, 18)
    store.prune(TRAINING, keep=2, best=10)
    assert store.rounds(TRAINING) == [7, 15, 18]
    store.prune(TRAINING, keep=2, best=16)
    assert store.rounds(TRAINING) == [15, 18]


def test_prune_keeps_two_other_trainings(store: StateStore) -> None:
    others = [f"{number:016x}" for number in range(4)]
    for age, training in enumerate(reversed(others)):
        fill(store, 1, training=training)
        os.utime(store.folder / "trainings" / training, (1e9 + age, 1e9 + age))
    fill(store, 1)
    store.prune(TRAINING, 1, 0)
    names = {path.name for path in (store.folder / "trainings").iterdir()}
    assert names == {TRAINING, *others[:2]}


@pytest.mark.parametrize("training", ["../../etc", "", "AB" * 8, "ab", "ab" * 8 + "/x"])
def test_a_malformed_training_id_is_refused(store: StateStore, training: str) -> None:
    with pytest.raises(SnowdropError, match="training's id is malformed"):
        store.rounds(training)


def test_the_secret_is_made_once_and_for_the_owner_alone(store: StateStore) -> None:
    secret = store.secret(None)
    assert len(secret) == 32
    assert store.secret(None) == StateStore(store.folder).secret(None) == secret
    assert (store.folder / "secret").stat().st_mode & 0o777 == 0o600
    assert StateStore(store.folder / "other").secret(None) != secret


def test_a_damaged_secret_is_not_replaced(store: StateStore) -> None:
    store.secret(None)
    damage(store.folder / "secret")
    with pytest.raises(SnowdropError, match="is damaged"):
        store.secret(None)


def test_a_simulations_secret_comes_from_its_seed(store: StateStore) -> None:
    assert store.secret(1) == StateStore(store.folder / "other").secret(1)
    assert store.secret(1) != store.secret(2)
    assert not store.folder.exists()


def test_the_catalogue_comes_back(store: StateStore) -> None:
    store.save_index(INDEX)
    index = store.load_index(INDEX.version)
    assert index is not None
    assert (index.ids, index.splits) == (INDEX.ids, INDEX.splits)
    assert store.load_index("0" * 16) is None


def test_nodes_of_a_process_share_one_catalogue(tmp_path: Path) -> None:
    stores = [StateStore(tmp_path / name) for name in ("one", "other")]
    for store in stores:
        store.save_index(INDEX)
    one, other = (store.load_index(INDEX.version) for store in stores)
    assert one is not None
    assert one is other


def test_the_two_newest_catalogues_are_kept(store: StateStore) -> None:
    names = ("a", "b", "c", "d")
    indexes = [ItemIndex(names[:k], ("warm", "test", "test", "test")[:k]) for k in (2, 3, 4)]
    for number, index in enumerate(indexes):
        store.save_index(index)
        os.utime(store.folder / f"catalogue-{index.version}.json", (number, number))
    assert store.load_index(indexes[0].version) is None
    assert all(store.load_index(index.version) is not None for index in indexes[1:])


def test_users_that_came_after_a_round_have_their_newest_state_where_that_is_asked(
    store: StateStore,
) -> None:
    store.save(TRAINING, 2, people("ann"), heads(2))
    store.save(TRAINING, 5, people("ann", "bob"), heads(5, 5.5))
    three, fresh = people("ann", "bob", "cem"), heads(-1, -2, -3)
    assert same(store.load(TRAINING, 3, three, fresh)[1], heads(2, -2, -3))
    number, state = store.load(TRAINING, 3, three, fresh, or_newer=True)
    assert number == 2
    assert same(state, heads(2, 5.5, -3))


def test_a_node_that_came_after_a_round_has_its_newest_state_where_that_is_asked(
    store: StateStore,
) -> None:
    fill(store, 4, 5)
    assert store.load(TRAINING, 3, PAIR, FRESH) == (0, FRESH)
    number, state = store.load(TRAINING, 3, PAIR, FRESH, or_newer=True)
    assert number == 5
    assert same(state, heads(5, 5.5))


def test_a_damaged_or_mistaken_catalogue_is_none(store: StateStore) -> None:
    store.save_index(INDEX)
    path = store.folder / f"catalogue-{INDEX.version}.json"
    path.rename(store.folder / "catalogue-0000.json")
    assert store.load_index("0000") is None
    store.save_index(INDEX)
    damage(path)
    assert store.load_index(INDEX.version) is None


def test_states_do_not_depend_on_memory_layout(store: StateStore) -> None:
    turned = torch.from_numpy(np.arange(6, dtype=np.float32).reshape(3, 2)).T
    store.save(TRAINING, 1, PAIR, {"weight": turned})
    _, state = store.load(TRAINING, 1, PAIR, {"weight": torch.zeros(2, 3)})
    assert torch.equal(state["weight"], turned)


def test_lists_of_users_that_no_kept_round_needs_are_forgotten(store: StateStore) -> None:
    for number, users in enumerate([("ann",), ("ann", "bob"), ("ann", "bob", "cem")], start=1):
        store.save(TRAINING, number, people(*users), heads(*range(len(users))))
    store.prune(TRAINING, keep=1, best=2)
    assert store.rounds(TRAINING) == [2, 3]
    assert len(list((store.folder / "trainings" / TRAINING).glob("users-*.json"))) == 2
    assert store.load(TRAINING, 2, PAIR, FRESH)[0] == 2


def rewrite(store: StateStore, metadata: dict[str, str] | None) -> None:
    """Round 2 as another release would have written it."""
    content = save_tensors(heads(2, 2.5), metadata=metadata)
    write_checked(round_file(store, 2), PAIR.users_digest.encode() + content)


def test_a_state_tells_its_format(store: StateStore) -> None:
    fill(store, 2)
    content = read_checked(round_file(store, 2))[16:]
    length = int.from_bytes(content[:8], "little")
    assert json.loads(content[8 : 8 + length])["__metadata__"] == {"format": str(FORMAT)}
    assert FORMAT == 2


@pytest.mark.parametrize("metadata", [None, {"format": "1"}, {"format": "2"}])
def test_states_of_this_and_of_older_formats_are_read(
    store: StateStore, metadata: dict[str, str] | None
) -> None:
    """The first format is the same without a number."""
    fill(store, 1, 2)
    rewrite(store, metadata)
    number, state = store.load(TRAINING, 2, PAIR, FRESH)
    assert number == 2
    assert same(state, heads(2, 2.5))


@pytest.mark.parametrize("at_most", [1, 2])
def test_a_newer_format_is_refused_in_one_sentence(store: StateStore, at_most: int) -> None:
    """Going back to an older round in silence would throw the newer heads away."""
    fill(store, 1, 2)
    rewrite(store, {"format": str(FORMAT + 1)})
    sentence = r"round-000002\.state has format 3, this release reads up to 2; upgrade this node"
    with pytest.raises(FormatError, match=sentence) as caught:
        store.load(TRAINING, at_most, PAIR, FRESH, or_newer=True)
    assert "\n" not in str(caught.value)
    assert store.load(TRAINING, 1, PAIR, FRESH)[0] == 1
