import math

import numpy as np
import pytest
import torch

from client_app import evaluation
from client_app.evaluation import ContentProfileScorer, HeadScorer, RandomScorer, Scorer, evaluate
from client_app.interactions import NodeInteractions, Ragged
from client_app.negatives import user_keys
from client_app.scoring import HEADS
from common.settings import KS, TrainingSettings

USERS, WARM, COLD, DIM = 23, 15, 60, 6


def random_lists(rng: np.random.Generator, items: int, least: int) -> Ragged:
    counts = rng.integers(least, 6, USERS)
    lists = [np.sort(rng.choice(items, count, replace=False)) for count in counts]
    return Ragged(np.concatenate([[0], np.cumsum(counts)]), np.concatenate(lists))


@pytest.fixture
def data() -> NodeInteractions:
    rng = np.random.default_rng(5)
    return NodeInteractions(
        users=tuple(f"u{k:02d}" for k in range(USERS)),
        by_split={"warm": random_lists(rng, WARM, 1), "test": random_lists(rng, COLD, 0)},
        users_without_warm=0,
        unknown=0,
    )


def plain_evaluation(
    data: NodeInteractions, scores: np.ndarray, tie_order: np.ndarray
) -> tuple[int, dict[str, float]]:
    sums = {f"{metric}@{k}": 0.0 for metric in ("recall", "precision", "ndcg") for k in KS}
    users = 0
    for user in range(len(data.users)):
        truth = set(data.by_split["test"].of(user).tolist())
        if not truth:
            continue
        users += 1
        order = sorted(range(COLD), key=lambda i: (-scores[user, i], tie_order[i]))
        for k in KS:
            found = [place for place, item in enumerate(order[:k]) if item in truth]
            ideal = sum(1 / math.log2(p + 2) for p in range(min(k, len(truth))))
            sums[f"recall@{k}"] += len(found) / len(truth)
            sums[f"precision@{k}"] += len(found) / k
            sums[f"ndcg@{k}"] += sum(1 / math.log2(p + 2) for p in found) / ideal
    return users, sums


def assert_evaluates_to(data: NodeInteractions, scorer: Scorer, scores: np.ndarray) -> None:
    tie_order = np.random.default_rng(6).permutation(COLD)
    users, sums = evaluate(data, "test", torch.from_numpy(tie_order), scorer)
    expected_users, expected = plain_evaluation(data, scores, tie_order)
    assert 0 < expected_users < USERS
    assert users == expected_users
    assert sums == pytest.approx(expected)


@pytest.mark.parametrize("numbers", [1, 3 * COLD, 2**22])
@pytest.mark.parametrize("head", HEADS)
def test_heads_against_plain_loops(
    data: NodeInteractions, head: str, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "CHUNK_NUMBERS", numbers)
    settings = TrainingSettings(dim=DIM, head=head, head_start="random")
    state = HEADS[head].fresh(user_keys(b"s", data.users), settings)
    cold = torch.randn(COLD, DIM, generator=torch.Generator().manual_seed(7))
    one_by_one = [
        HEADS[head].logits({k: v[u : u + 1] for k, v in state.items()}, cold[None])[0].numpy()
        for u in range(USERS)
    ]
    assert_evaluates_to(data, HeadScorer(state, cold, settings), np.stack(one_by_one))


def test_untrained_linear_heads_rank_by_tie_order(data: NodeInteractions) -> None:
    settings = TrainingSettings(dim=DIM)
    state = HEADS["linear"].fresh(user_keys(b"s", data.users), settings)
    scorer = HeadScorer(state, torch.randn(COLD, DIM), settings)
    assert_evaluates_to(data, scorer, np.zeros((USERS, COLD)))


def test_the_content_profile_against_plain_loops(data: NodeInteractions) -> None:
    rng = np.random.default_rng(8)
    warm, cold = rng.normal(1, 1, (WARM, DIM)), rng.normal(1, 1, (COLD, DIM))
    mean = warm.mean(0)
    scores = np.zeros((USERS, COLD))
    for user in range(USERS):
        own = [(warm[i] - mean) / np.linalg.norm(warm[i] - mean) for i in data.warm.of(user)]
        profile = np.mean(own, axis=0)
        for item in range(COLD):
            centred = cold[item] - mean
            scores[user, item] = (
                profile @ centred / np.linalg.norm(profile) / np.linalg.norm(centred)
            )
    scorer = ContentProfileScorer(
        data.warm, torch.from_numpy(warm).float(), torch.from_numpy(cold).float()
    )
    np.testing.assert_allclose(scorer(np.arange(USERS)).numpy(), scores, atol=1e-5)
    assert_evaluates_to(data, scorer, scores)


def test_random_ranking_does_not_depend_on_the_sharding(data: NodeInteractions) -> None:
    keys = user_keys(b"s", data.users)
    together = RandomScorer(keys, COLD)(np.arange(USERS))
    mine = np.array([17, 3, 8])
    assert torch.equal(RandomScorer(keys[mine], COLD)(np.arange(3)), together[mine])
    assert torch.equal(RandomScorer(keys, COLD)(mine), together[mine])


def test_random_ranking_is_random() -> None:
    keys = user_keys(b"s", [str(k) for k in range(4000)])
    first = RandomScorer(keys, 10)(np.arange(4000)).argmax(1)
    counts = torch.bincount(first, minlength=10)
    assert ((counts - 400).abs() < 5 * 20).all()  # five standard deviations


def test_nobody_with_cold_items_gives_zero_sums(data: NodeInteractions) -> None:
    empty = Ragged(np.zeros(USERS + 1, np.int64), np.array([], np.int64))
    nobody = NodeInteractions(data.users, {**data.by_split, "test": empty}, 0, 0)
    scorer = RandomScorer(user_keys(b"s", data.users), COLD)
    users, sums = evaluate(nobody, "test", torch.arange(COLD), scorer)
    assert users == 0
    assert set(sums.values()) == {0.0}
