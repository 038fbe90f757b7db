"""Each scorer against a plain loop over one user and one item at a time."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from client_app.methods.base import Local
from client_app.scorers import SCORERS, Scorer
from common.errors import SnowdropError
from common.settings import TrainingSettings
from common.users.heads import HEADS
from common.users.ragged import Ragged
from common.users.randomness import user_keys

USERS, WARM, ITEMS, DIM = 9, 15, 12, 6
RNG = np.random.default_rng(8)
COUNTS = RNG.integers(1, 6, USERS)
HISTORIES = Ragged(
    np.concatenate([[0], np.cumsum(COUNTS)]),
    np.concatenate([np.sort(RNG.choice(WARM, count, replace=False)) for count in COUNTS]),
)
KEYS = user_keys(b"s", [f"u{k}" for k in range(USERS)])
EVERYBODY = np.arange(USERS)


def numbers(rows: int, columns: int) -> np.ndarray:
    return RNG.normal(0.5, 1, (rows, columns)).astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def local(arrays: dict[str, np.ndarray], head: str = "linear", **changes: Any) -> Local:
    settings = TrainingSettings(dim=DIM, head=head, head_start="random")
    values: dict[str, Any] = {
        "settings": settings,
        "histories": HISTORIES,
        "keys": KEYS,
        "arrays": arrays,
        "warm": WARM,
        "items": ITEMS,
        "state_of": lambda: HEADS[head].fresh(KEYS, settings),
    }
    return Local(**{**values, **changes})


def assert_scores(scorer: Scorer, expected: np.ndarray) -> None:
    np.testing.assert_allclose(scorer(EVERYBODY).numpy(), expected, atol=1e-5)
    some = np.array([7, 2])
    np.testing.assert_allclose(scorer(some).numpy(), expected[some], atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_heads(head: str) -> None:
    items = numbers(ITEMS, DIM)
    own = local({"items": items}, head)
    state, scorer = own.state_of(), SCORERS["head"](own)
    expected = [
        [
            float(HEADS[head].logits({k: v[u : u + 1] for k, v in state.items()}, row)[0, 0])
            for row in torch.from_numpy(items)[:, None, None]
        ]
        for u in range(USERS)
    ]
    assert_scores(scorer, np.array(expected))
    assert scorer.logits


def test_the_profile() -> None:
    warm, items = numbers(WARM, 5), numbers(ITEMS, 5)
    mean = warm.mean(0)
    scores = np.zeros((USERS, ITEMS))
    for user in range(USERS):
        own = [(warm[i] - mean) / np.linalg.norm(warm[i] - mean) for i in HISTORIES.of(user)]
        profile = np.mean(own, axis=0)
        for item in range(ITEMS):
            centred = items[item] - mean
            cosine = profile @ centred / np.linalg.norm(profile) / np.linalg.norm(centred)
            scores[user, item] = cosine
    scorer = SCORERS["profile"](local({"warm": warm, "items": items}))
    assert_scores(scorer, scores)
    assert not scorer.logits


def test_the_kernel() -> None:
    warm, items, beta = unit(numbers(WARM, 5)), unit(numbers(ITEMS, 5)), 7.0
    scores = [
        [
            math.log(np.mean([math.exp(beta * (warm[i] @ item)) for i in HISTORIES.of(user)]))
            for item in items
        ]
        for user in range(USERS)
    ]
    arrays = {"warm": warm, "items": items, "sharpness": np.array([[beta]], np.float32)}
    assert_scores(SCORERS["kernel"](local(arrays)), np.array(scores))


def test_weights() -> None:
    weights = numbers(ITEMS, WARM)
    scores = [
        [sum(weights[item, i] for i in HISTORIES.of(user)) for item in range(ITEMS)]
        for user in range(USERS)
    ]
    assert_scores(SCORERS["weights"](local({"weights": weights})), np.array(scores))


def test_random_ranking_does_not_depend_on_the_sharding() -> None:
    together = SCORERS["random"](local({}))(EVERYBODY)
    mine = np.array([7, 3, 8])
    shard = SCORERS["random"](local({}, keys=KEYS[mine]))
    assert torch.equal(shard(np.arange(3)), together[mine])
    assert torch.equal(SCORERS["random"](local({}))(mine), together[mine])


def test_random_ranking_is_random() -> None:
    keys = user_keys(b"s", [str(k) for k in range(4000)])
    scores = SCORERS["random"](local({}, keys=keys, items=10))(np.arange(4000))
    counts = torch.bincount(scores.argmax(1), minlength=10)
    assert ((counts - 400).abs() < 5 * 20).all()  # five standard deviations


WIDE = {"warm": np.zeros((WARM, 5), np.float32), "items": np.zeros((ITEMS, 5), np.float32)}
BETA = np.ones((1, 1), np.float32)


@pytest.mark.parametrize(
    ("name", "arrays", "sentence"),
    [
        ("head", {}, "the message carries no 'items'"),
        ("head", {"items": np.zeros((ITEMS, DIM + 1))}, r"'items' has shape \(12, 7\), expected"),
        ("head", {"items": np.zeros((ITEMS - 1, DIM))}, r"expected \(12, 6\)"),
        ("profile", {"items": WIDE["items"]}, "the message carries no 'warm'"),
        ("profile", {**WIDE, "warm": WIDE["warm"][1:]}, r"'warm' has shape \(14, 5\)"),
        ("profile", {**WIDE, "items": WIDE["items"][:, 1:]}, r"'items' .* expected \(12, 5\)"),
        ("kernel", WIDE, "the message carries no 'sharpness'"),
        ("kernel", {**WIDE, "sharpness": np.ones((1, 2))}, r"'sharpness' .* expected \(1, 1\)"),
        ("kernel", {**WIDE, "sharpness": BETA, "warm": WIDE["warm"][:3]}, "'warm' has shape"),
        ("weights", {"weights": np.zeros((WARM, ITEMS))}, r"expected \(12, 15\)"),
        ("weights", {"weights": np.zeros(ITEMS)}, r"'weights' has shape \(12,\)"),
    ],
)
def test_what_is_missing_or_of_another_shape_is_refused(
    name: str, arrays: dict[str, np.ndarray], sentence: str
) -> None:
    with pytest.raises(SnowdropError, match=sentence) as caught:
        SCORERS[name](local(arrays))
    assert "\n" not in str(caught.value)


def test_an_array_of_no_dimensions_is_refused() -> None:
    with pytest.raises(SnowdropError, match=r"'items' has shape \(\)"):
        SCORERS["head"](local({"items": np.array(3, np.float32)}))
    with pytest.raises(SnowdropError, match=r"'warm' has shape \(\)"):
        SCORERS["profile"](local({**WIDE, "warm": np.array(1, np.float32)}))
