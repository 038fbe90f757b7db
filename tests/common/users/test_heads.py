from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.settings import TrainingSettings
from common.users.heads import HEADS, State
from common.users.randomness import user_keys

ITEMS, DIM, USERS = 30, 4, 14
BASE: dict[str, Any] = {"dim": DIM, "head_start": "random"}
TABLE = torch.randn(ITEMS, DIM, generator=torch.Generator().manual_seed(1))
KEYS = user_keys(b"secret", [f"user {k}" for k in range(USERS)])


def plain_scores(head: str, state: State, rows: Tensor) -> Tensor:
    """Scores of one user's rows, float32 (items,), as the papers write them."""
    if head == "linear":
        return rows @ state["weight"] + state["bias"]
    if head == "dot":
        return rows @ state["user"]
    both = torch.cat([state["user"].expand(len(rows), -1), rows], dim=1)
    matrix = torch.cat([state["user_weight"], state["item_weight"]])
    return torch.relu(both @ matrix + state["hidden_bias"]) @ state["weight"] + state["bias"]


@pytest.mark.parametrize("head", HEADS)
def test_batched_logits_equal_plain_scores(head: str) -> None:
    settings = TrainingSettings(**{**BASE, "head": head})
    state = HEADS[head].fresh(KEYS, settings)
    logits = HEADS[head].logits(state, TABLE.expand(USERS, -1, -1))
    for user in range(USERS):
        own = {name: tensor[user] for name, tensor in state.items()}
        torch.testing.assert_close(logits[user], plain_scores(head, own, TABLE))


@pytest.mark.parametrize("head", HEADS)
def test_a_random_start_depends_on_the_user_alone(head: str) -> None:
    settings = TrainingSettings(**{**BASE, "head": head})
    together = HEADS[head].fresh(KEYS, settings)
    alone = HEADS[head].fresh(KEYS[5:6], settings)
    for name, (shape, bound) in HEADS[head].shapes(DIM).items():
        assert together[name].shape == (USERS, *shape)
        assert torch.equal(together[name][5], alone[name][0])
        assert 0 < together[name].abs().max() <= bound
        assert not torch.equal(together[name][5], together[name][6])


def test_linear_heads_start_at_zero_where_that_is_asked() -> None:
    zero = HEADS["linear"].fresh(KEYS, TrainingSettings(dim=DIM, head_start="zero"))
    assert not any(tensor.any() for tensor in zero.values())
    for head in ("dot", "mlp"):
        other = HEADS[head].fresh(KEYS, TrainingSettings(dim=DIM, head=head, head_start="zero"))
        assert all(tensor.any() for tensor in other.values())


@pytest.mark.parametrize(("head", "size"), [("linear", 5), ("dot", 4), ("mlp", 45)])
def test_a_state_has_this_many_numbers(head: str, size: int) -> None:
    assert HEADS[head].state_size(DIM) == size
    state = HEADS[head].fresh(KEYS, TrainingSettings(dim=DIM, head=head))
    assert sum(tensor[0].numel() for tensor in state.values()) == size


@pytest.mark.parametrize("users", [(), (4,), (2, 3)])
def test_parts_of_heads_travel_as_one_vector_each(users: tuple[int, ...]) -> None:
    head, dim = HEADS["mlp"], 3
    whole = {name: torch.randn(*users, *shape) for name, (shape, _) in head.shapes(dim).items()}
    names = list(whole)[::-1]
    vector = head.flat(whole, names)
    assert vector.shape == (*users, head.size(names, dim))
    plain = [np.asarray(whole[name]).reshape(*users, -1) for name in names]
    torch.testing.assert_close(vector, torch.from_numpy(np.concatenate(plain, axis=-1)))
    back = head.parts(vector, names, dim)
    assert list(back) == names
    for name in names:
        torch.testing.assert_close(back[name], whole[name])
