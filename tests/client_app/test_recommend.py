from pathlib import Path
from traceback import format_exception

import numpy as np
import pytest
import torch

from client_app import ranking
from client_app.interactions import NodeInteractions
from client_app.lists import FILE, read_recommendations
from client_app.methods.base import Local
from client_app.recommend import recommend
from client_app.scorers import SCORERS, Scorer
from common.errors import SnowdropError
from common.settings import TrainingSettings
from common.users.heads import HEADS, State
from common.users.ragged import Ragged
from common.users.randomness import user_keys

USERS = tuple(f"u{k}" for k in range(7))
DATA = NodeInteractions(users=USERS, by_split={}, users_without_warm=0, unknown=0)
IDS = [f"item {(k * 7) % 11:02d}" for k in range(11)]  # not in the order of their ids
SETTINGS = TrainingSettings(dim=4, head_start="random")
COLD = torch.randn(11, 4, generator=torch.Generator().manual_seed(1))


def heads(settings: TrainingSettings = SETTINGS) -> State:
    return HEADS["linear"].fresh(user_keys(b"s", USERS), settings)


def scorer(state: State, cold: torch.Tensor, settings: TrainingSettings = SETTINGS) -> Scorer:
    nobody = Ragged(np.array([0]), np.array([], np.int64))
    keys = np.array([], np.uint64)
    local = Local(settings, nobody, keys, {"items": cold.numpy()}, 0, len(cold), lambda: state)
    return SCORERS["head"](local)


@pytest.mark.parametrize("numbers", [1, 2**22])
@pytest.mark.parametrize("top", [1, 4, 50])
def test_lists_equal_a_plain_argsort(
    tmp_path: Path, top: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "CHUNK_NUMBERS", numbers)
    state = heads()
    assert recommend(DATA, scorer(state, COLD), IDS, top, tmp_path) == len(USERS)
    for number, user in enumerate(USERS):
        logits = (COLD @ state["weight"][number] + state["bias"][number]).numpy()
        best = np.argsort(-logits)[:top]
        frame = read_recommendations(tmp_path, user)
        assert frame is not None
        assert frame["item_id"].to_list() == [IDS[k] for k in best]
        assert frame["rank"].to_list() == list(range(1, len(best) + 1))
        np.testing.assert_allclose(frame["score"], 1 / (1 + np.exp(-logits[best])), rtol=1e-5)


def test_ties_go_by_item_id(tmp_path: Path) -> None:
    zeros = SETTINGS.model_copy(update={"head_start": "zero"})
    recommend(DATA, scorer(heads(zeros), COLD, zeros), IDS, 5, tmp_path)
    frame = read_recommendations(tmp_path, "u3")
    assert frame is not None
    assert frame["item_id"].to_list() == sorted(IDS)[:5]


def test_scores_that_saturate_keep_their_order(tmp_path: Path) -> None:
    state = {"weight": torch.ones(7, 4) * 1000, "bias": torch.zeros(7, 1)}
    cold = (torch.arange(11) + 1.0)[:, None].expand(-1, 4)
    recommend(DATA, scorer(state, cold), IDS, 3, tmp_path)
    frame = read_recommendations(tmp_path, "u0")
    assert frame is not None
    assert frame["item_id"].to_list() == [IDS[10], IDS[9], IDS[8]]


def test_an_unknown_user_has_no_list(tmp_path: Path) -> None:
    recommend(DATA, scorer(heads(), COLD), IDS, 3, tmp_path)
    assert read_recommendations(tmp_path, "nobody") is None


def test_before_any_recommendation_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match="no recommendations were made here yet"):
        read_recommendations(tmp_path, "u0")


def test_a_damaged_file_is_told_without_the_users_id(tmp_path: Path) -> None:
    recommend(DATA, scorer(heads(), COLD), IDS, 3, tmp_path)
    whole, user = (tmp_path / FILE).read_bytes(), "zo" + "e"  # not whole in a line of a traceback
    for content in (b"", b"no table", whole[: len(whole) // 2]):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(SnowdropError, match=r"recommendations\.parquet is damaged") as caught:
            read_recommendations(tmp_path, user)
        assert user not in "".join(format_exception(caught.value))


def test_users_that_left_have_no_list_any_more(tmp_path: Path) -> None:
    recommend(DATA, scorer(heads(), COLD), IDS, 3, tmp_path)
    nobody = NodeInteractions(users=(), by_split={}, users_without_warm=0, unknown=0)
    fresh = HEADS["linear"].fresh(np.array([], np.uint64), SETTINGS)
    assert recommend(nobody, scorer(fresh, COLD), IDS, 3, tmp_path) == 0
    assert not (tmp_path / FILE).exists() or read_recommendations(tmp_path, "u0") is None


def test_what_a_user_knows_is_left_out(tmp_path: Path) -> None:
    known: list[list[int]] = [[], [3], [0, 10], list(range(11)), list(range(10)), [5], []]
    offsets = np.cumsum([0, *map(len, known)])
    seen = Ragged(offsets, np.array([k for own in known for k in own], np.int64))
    assert recommend(DATA, scorer(heads(), COLD), IDS, 50, tmp_path, seen) == len(USERS) - 1
    plain = tmp_path / "plain"
    plain.mkdir()
    recommend(DATA, scorer(heads(), COLD), IDS, 50, plain)
    for user, own in zip(USERS, known, strict=True):
        everything = read_recommendations(plain, user)
        assert everything is not None
        expected = [i for i in everything["item_id"] if i not in {IDS[k] for k in own}]
        frame = read_recommendations(tmp_path, user)
        assert (frame["item_id"].to_list() if frame is not None else []) == expected
        if frame is not None:
            assert frame["rank"].to_list() == list(range(1, len(expected) + 1))


def test_a_user_whose_head_is_no_number_is_not_served(tmp_path: Path) -> None:
    state = heads()
    state["weight"][2] = float("nan")
    assert recommend(DATA, scorer(state, COLD), IDS, 3, tmp_path) == len(USERS) - 1
    assert read_recommendations(tmp_path, USERS[2]) is None


def test_scores_that_are_no_logits_are_shown_as_they_are(tmp_path: Path) -> None:
    class Plain(Scorer):
        def __init__(self) -> None: ...

        def __call__(self, users: np.ndarray) -> torch.Tensor:
            return torch.arange(11.0).expand(len(users), -1) * 2

    assert recommend(DATA, Plain(), IDS, 2, tmp_path) == len(USERS)
    frame = read_recommendations(tmp_path, "u0")
    assert frame is not None
    assert frame["score"].to_list() == [20.0, 18.0]
