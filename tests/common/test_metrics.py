import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from common.metrics import metric_names, metric_sums, rank, tie_order

LEVELS = st.sampled_from([-3.5, -1.0, -1e-30, -0.0, 0.0, 1e-30, 0.5, 2.0, math.inf, -math.inf])


def plain_order(scores: list[float], tie_order: list[int]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: (-scores[i], tie_order[i]))


@given(data=st.data(), items=st.integers(1, 9), k=st.integers(1, 12))
def test_rank_breaks_ties_by_tie_order(data: st.DataObject, items: int, k: int) -> None:
    rows = data.draw(st.lists(st.lists(LEVELS, min_size=items, max_size=items), min_size=1))
    ties = data.draw(st.permutations(range(items)))
    best = rank(torch.tensor(rows, dtype=torch.float32), torch.tensor(ties), k)
    assert best.tolist() == [plain_order(row, ties)[:k] for row in rows]


@given(st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])), unique=True))
def test_tie_order_is_the_place_among_sorted_ids(ids: list[str]) -> None:
    order = tie_order(ids)
    assert order.dtype == torch.int64
    assert order.tolist() == [sorted(ids).index(item) for item in ids]


def test_negative_zero_ties_with_zero() -> None:
    best = rank(torch.tensor([[0.0, -0.0, -1.0, -1.0]]), torch.tensor([1, 0, 3, 2]), 4)
    assert best.tolist() == [[1, 0, 3, 2]]


def test_rank_keeps_neighbouring_floats_apart() -> None:
    up = np.nextafter(np.float32(-1.0), np.float32(0.0))
    best = rank(torch.tensor([[-1.0, float(up)]]), torch.tensor([0, 1]), 2)
    assert best.tolist() == [[1, 0]]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    users=st.integers(1, 5),
    items=st.integers(2, 30),
    ks=st.lists(st.integers(1, 40), min_size=1, max_size=3, unique=True),
)
def test_metrics_match_plain_loops_and_sklearn(
    seed: int, users: int, items: int, ks: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((users, items)) < 0.3
    truth[np.arange(users), rng.integers(0, items, users)] = True
    scores = np.argsort(rng.random((users, items)), axis=1).astype(np.float32)
    best = rank(torch.from_numpy(scores), torch.arange(items), max(ks))
    hits = torch.from_numpy(truth).gather(1, best)
    sums = metric_sums(hits, torch.from_numpy(truth.sum(1)), ks)
    assert list(sums) == metric_names(ks)
    for k in ks:
        expected = dict.fromkeys(("recall", "precision", "ndcg"), 0.0)
        for user in range(users):
            top = plain_order(scores[user].tolist(), list(range(items)))[:k]
            found = [place for place, item in enumerate(top) if truth[user, item]]
            ideal = sum(1 / math.log2(p + 2) for p in range(min(k, int(truth[user].sum()))))
            expected["recall"] += len(found) / truth[user].sum()
            expected["precision"] += len(found) / k
            expected["ndcg"] += sum(1 / math.log2(p + 2) for p in found) / ideal
        for name, value in expected.items():
            assert sums[f"{name}@{k}"] == pytest.approx(value, abs=1e-9)
        sklearn = ndcg_score(truth.astype(float), scores, k=k) * users
        assert sums[f"ndcg@{k}"] == pytest.approx(sklearn, abs=1e-9)


def test_a_perfect_list_shorter_than_k() -> None:
    sums = metric_sums(torch.tensor([[True, True]]), torch.tensor([2]), (20, 50))
    assert sums["recall@20"] == sums["ndcg@20"] == sums["ndcg@50"] == 1
    assert sums["precision@20"] == pytest.approx(2 / 20)
    assert sums["precision@50"] == pytest.approx(2 / 50)
