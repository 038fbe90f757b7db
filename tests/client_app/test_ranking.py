import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from client_app import ranking
from client_app.ranking import evaluate, evaluate_forms
from client_app.tasks import Ranking
from common.errors import SnowdropError
from common.settings import KS
from common.users.ragged import Ragged

USERS, ITEMS = 23, 130


def random_lists(seed: int, items: int, least: int) -> Ragged:
    rng = np.random.default_rng(seed)
    counts = rng.integers(least, 6, USERS)
    lists = [np.sort(rng.choice(items, count, replace=False)) for count in counts]
    return Ragged(np.concatenate([[0], np.cumsum(counts)]), np.concatenate(lists))


TRUTH = random_lists(5, ITEMS, 0)
ORDER = np.random.default_rng(6).permutation(ITEMS)
SCORES = np.random.default_rng(7).integers(0, 9, (USERS, ITEMS)).astype(np.float32)  # with ties


def scores_of(users: np.ndarray) -> Tensor:
    return torch.from_numpy(SCORES[users])


def plain_evaluation(left_out: Ragged | None) -> tuple[int, dict[str, float]]:
    sums = {f"{metric}@{k}": 0.0 for metric in ("recall", "precision", "ndcg") for k in KS}
    users = 0
    for user in range(USERS):
        truth = set(TRUTH.of(user).tolist())
        if not truth:
            continue
        users += 1
        known = set() if left_out is None else set(left_out.of(user).tolist())
        ranked = [item for item in range(ITEMS) if item not in known]
        order = sorted(ranked, key=lambda i: (-SCORES[user, i], ORDER[i]))
        for k in KS:
            found = [place for place, item in enumerate(order[:k]) if item in truth]
            ideal = sum(1 / math.log2(p + 2) for p in range(min(k, len(truth))))
            sums[f"recall@{k}"] += len(found) / len(truth)
            sums[f"precision@{k}"] += len(found) / k
            sums[f"ndcg@{k}"] += sum(1 / math.log2(p + 2) for p in found) / ideal
    return users, sums


def known_items() -> Ragged:
    """Items that are not to be found, some for each user."""
    drawn = random_lists(8, ITEMS, 1)
    lists = [np.setdiff1d(drawn.of(user), TRUTH.of(user)) for user in range(USERS)]
    return Ragged(np.cumsum([0, *map(len, lists)]), np.concatenate(lists))


@pytest.mark.parametrize("numbers", [1, 3 * ITEMS, 2**22])
@pytest.mark.parametrize("left_out", [None, known_items()], ids=["all", "known-left-out"])
def test_metrics_against_plain_loops(
    numbers: int, left_out: Ragged | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "CHUNK_NUMBERS", numbers)
    users, sums = evaluate(Ranking(torch.from_numpy(ORDER), TRUTH, left_out), scores_of)
    expected_users, expected = plain_evaluation(left_out)
    assert 0 < expected_users < USERS
    assert users == expected_users
    assert sums == pytest.approx(expected)


def test_leaving_known_items_out_changes_the_metrics() -> None:
    order = torch.from_numpy(ORDER)
    with_known = evaluate(Ranking(order, TRUTH), scores_of)
    assert evaluate(Ranking(order, TRUTH, known_items()), scores_of) != with_known


def test_nobody_with_items_to_find_gives_zero_sums() -> None:
    empty = Ragged(np.zeros(USERS + 1, np.int64), np.array([], np.int64))
    users, sums = evaluate(Ranking(torch.arange(ITEMS), empty), scores_of)
    assert users == 0
    assert set(sums.values()) == {0.0}


def test_several_forms_of_a_scorer_are_measured_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "CHUNK_NUMBERS", 3 * ITEMS)
    task = Ranking(torch.from_numpy(ORDER), TRUTH, known_items())

    def forms_of(users: np.ndarray) -> Iterator[Tensor]:
        yield scores_of(users)
        yield -scores_of(users)

    users, tried = evaluate_forms(task, forms_of, 2)
    alone = [evaluate(task, scores_of), evaluate(task, lambda users: -scores_of(users))]
    assert [(users, sums) for sums in tried] == alone
    assert tried[0] != tried[1]
    for forms in (1, 3):
        with pytest.raises(SnowdropError, match=f"has 2 forms, where {forms} are asked for"):
            evaluate_forms(task, forms_of, forms)
