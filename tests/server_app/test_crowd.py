"""Synthetic users on the server: what they add to a round, what is kept, how they move."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client_app.methods import half_of
from client_app.methods.base import Local
from common.catalogue import ItemIndex
from common.errors import OverflowedError
from common.messages import TrainRequest
from common.settings import RunSettings
from common.users.heads import HEADS
from common.users.ragged import Ragged
from common.users.synthetic import SyntheticUsers
from server_app.aggregation import Summed
from server_app.crowd import Crowd
from server_app.items import load_catalogue, world_of
from server_app.methods import ItemTable
from server_app.methods import make as make_method
from tests.server_app.runs import SHARED

USERS = 9
NAME, OTHER = "ab" * 8, "cd" * 8


def made_of(warm: int, users: int = USERS, name: str = NAME, seed: int = 0) -> SyntheticUsers:
    rng = np.random.default_rng(seed)
    lists = [np.sort(rng.choice(warm, rng.integers(1, 12), replace=False)) for _ in range(users)]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in lists])])
    return SyntheticUsers(name, Ragged(offsets, np.concatenate(lists)), 2.0)


def table_of(data: Path, folder: Path, **changed: Any) -> ItemTable:
    shared = {**SHARED, "data": str(data), "run_dir": str(folder), "condition_dim": 0}
    settings = RunSettings.parse({**shared, **changed})
    world = world_of(settings, load_catalogue(settings), torch.device("cpu"))
    method = make_method(settings.card.name, world)
    assert isinstance(method, ItemTable)
    return method


def node_answer(method: ItemTable, made: SyntheticUsers, keys: np.ndarray, rounds: int) -> Any:
    """What a node with these users answers in its last round, and its users' heads."""
    settings = method.settings.model_copy(update={"clip_norm": 0.0, "laplace_scale": 0.0})
    state = HEADS[settings.head].fresh(keys, settings)
    half = half_of(settings.card.name)
    for number in range(1, rounds + 1):
        local = Local(
            settings.training(), made.histories, keys, method.arrays(), len(method.table), 0,
            lambda state=state: state,
        )  # fmt: skip
        request = TrainRequest("v", "ab" * 8, number, settings.pack(), 0)
        state, answer = half.train(request, local)
    return state, answer


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "ridge"},
        {"method": "ridge", "average": "users", "batch_size": 3, "fraction": 0.5},
        {"method": "ridge", "head": "linear", "head_start": "random", "local_epochs": 2},
        {"method": "ridge", "average": "users", "clip_norm": 0.01, "laplace_scale": 5.0},
        {"method": "ipfedrec", "ipfedrec.pull": 3.0, "average": "users"},
        {"method": "mixture", "mixture.first": "ifedncf", "ifedncf.pull": 2.0, "head": "mlp"},
    ],
    ids=str,
)
def test_a_crowd_answers_what_a_node_with_the_same_users_would(
    data_folder: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    method = table_of(data_folder, tmp_path, **changed)
    made = made_of(len(method.table))
    crowd = Crowd(method.settings.seed)
    crowd.take(5, NAME, made)
    for number in (1, 2):
        summed = crowd.train(method, number)
    part = crowd._parts[NAME]
    state, answer = node_answer(method, made, part.keys, 2)
    assert (summed.users, summed.loss_sum) == (answer.users, answer.loss_sum)
    assert summed.sums.keys() == answer.sums.keys() == method.expected().keys()
    for name, array in answer.sums.items():
        assert array.any()
        np.testing.assert_array_equal(summed.sums[name], array.astype(summed.sums[name].dtype))
    assert part.state is not None
    for name, tensor in state.items():
        assert torch.equal(part.state[name], tensor)


def test_sums_depend_neither_on_who_sent_them_nor_on_the_order(
    data_folder: Path, tmp_path: Path
) -> None:
    method = table_of(data_folder, tmp_path, method="ridge")
    warm = len(method.table)
    sets = {NAME: made_of(warm), OTHER: made_of(warm, 4, OTHER, seed=1)}
    sums = []
    for nodes, names in (((2, 3), (NAME, OTHER)), ((91, 17), (OTHER, NAME))):
        crowd = Crowd(0)
        for node, name in zip(nodes, names, strict=True):
            crowd.take(node, name, sets[name])
        sums.append(crowd.train(method, 1))
    assert sums[0].users == USERS + 4
    np.testing.assert_array_equal(sums[0].sums["change"], sums[1].sums["change"])
    alone = []
    for name, made in sets.items():
        crowd = Crowd(0)
        crowd.take(2, name, made)
        alone.append(crowd.train(method, 1))
    both = alone[0] + alone[1]
    np.testing.assert_allclose(both.sums["change"], sums[0].sums["change"], atol=1e-12)
    np.testing.assert_array_equal(both.sums["touches"], sums[0].sums["touches"])


def test_another_seed_draws_other_negatives(data_folder: Path, tmp_path: Path) -> None:
    method = table_of(data_folder, tmp_path, method="ridge")
    made = made_of(len(method.table))
    touches = []
    for seed in (0, 1):
        crowd = Crowd(seed)
        crowd.take(2, NAME, made)
        touches.append(crowd.train(method, 1).sums["touches"])
    assert not np.array_equal(*touches)


def test_what_a_crowd_tells() -> None:
    crowd = Crowd(0)
    assert crowd.told() == {"users": 0, "silos": 0, "epsilon": None, "bytes_up": 0}
    made = made_of(20)
    crowd.take(2, NAME, made)
    items = made.histories.items.nbytes + made.histories.offsets.nbytes
    assert crowd.told() == {"users": USERS, "silos": 1, "epsilon": 2.0, "bytes_up": items}
    other = made_of(20, 4, OTHER)
    crowd.take(3, OTHER, SyntheticUsers(OTHER, other.histories, 7.0))
    assert (crowd.users, crowd.epsilon) == (USERS + 4, 7.0)
    crowd.take(3, OTHER, SyntheticUsers(OTHER, other.histories, None))
    assert crowd.epsilon is None  # one node states none, so none holds for all


def test_a_nodes_new_set_takes_the_place_of_its_former_one() -> None:
    crowd = Crowd(0)
    crowd.take(2, NAME, made_of(20))
    crowd.take(3, NAME, None)  # the same folder on two nodes
    crowd.take(2, OTHER, made_of(20, 4, OTHER))
    assert crowd.names == [NAME, OTHER]
    crowd.take(3, OTHER, None)
    assert (crowd.names, crowd.users) == ([OTHER], 4)


INDEX = ItemIndex(tuple("abcdef"), ("warm",) * 5 + ("test",))


def crowd_of(lists: list[list[int]]) -> Crowd:
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in lists])])
    crowd = Crowd(0)
    items = np.concatenate([np.array(each) for each in lists])
    crowd.take(2, NAME, SyntheticUsers(NAME, Ragged(offsets, items)))
    crowd._parts[NAME].state = {"bias": torch.arange(float(len(lists)))[:, None]}
    return crowd


def test_a_checkpoint_gives_the_same_crowd() -> None:
    crowd, again = crowd_of([[0, 2], [1], [2, 3, 4]]), Crowd(0)
    again.restore(crowd.state(), INDEX, INDEX)
    assert again.told() == crowd.told()
    for name in ("offsets", "items"):
        one, other = (getattr(c._parts[NAME].made.histories, name) for c in (crowd, again))
        assert one.dtype == other.dtype == np.int64
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(crowd._parts[NAME].keys, again._parts[NAME].keys)
    state = again._parts[NAME].state
    assert state is not None and state["bias"].flatten().tolist() == [0, 1, 2]
    again.take(2, OTHER, made_of(20, 4, OTHER))  # it knows who sent what
    assert again.names == [OTHER]


def test_a_checkpoint_of_before_there_were_crowds_has_none() -> None:
    crowd = crowd_of([[0]])
    crowd.restore({}, INDEX, INDEX)
    assert crowd.told()["users"] == 0


def test_a_crowd_moves_to_the_rows_of_another_catalogue() -> None:
    crowd, moved = crowd_of([[0, 2], [1], [2, 3, 4]]), Crowd(0)
    today = ItemIndex(tuple("edcaxf"), ("warm",) * 5 + ("test",))  # b is gone, x is new
    moved.restore(crowd.state(), INDEX, today)
    part = moved._parts[NAME]
    lists = [part.made.histories.of(user).tolist() for user in range(part.made.users)]
    assert lists == [[2, 3], [0, 1, 2]]
    assert part.keys.tolist() == crowd._parts[NAME].keys[[0, 2]].tolist()
    assert part.state is not None and part.state["bias"].flatten().tolist() == [0, 2]


def test_a_crowd_anew_has_the_same_users_who_never_trained() -> None:
    crowd = crowd_of([[0, 2], [1]])
    again = crowd.anew()
    assert again.told() == crowd.told()
    assert again._parts[NAME].state is None
    assert crowd._parts[NAME].state is not None


def test_an_overflow_is_one_sentence(data_folder: Path, tmp_path: Path) -> None:
    method = table_of(data_folder, tmp_path, method="ridge")
    crowd = Crowd(0)
    crowd.take(2, NAME, made_of(len(method.table)))
    method.table = method.table * np.float32(np.inf)
    with pytest.raises(OverflowedError, match="synthetic users overflowed in round 3; lower"):
        crowd.train(method, 3)


def test_sums_add_up() -> None:
    one = Summed(2, 1.5, {"a": np.array([1.0])}, 3.0)
    other = Summed(1, 0.5, {"a": np.array([4.0])}, 2.0)
    both = one + other
    assert (both.users, both.loss_sum, both.largest) == (3, 2.0, 3.0)
    assert both.sums["a"].tolist() == [5.0]
    assert one.sums["a"].tolist() == [1.0]
