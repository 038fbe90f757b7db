"""Who stops a training, and how well it does for them."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor

from client_app.synthesis import stopping
from client_app.synthesis.rows import Rows
from client_app.synthesis.stopping import parted, watched_recall


def rows_of(dense: np.ndarray) -> Rows:
    return Rows.of(csr_array(dense.astype(bool)))


def as_sets(rows: Rows) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for row in rows.dense().tolist())


def test_some_of_its_own_users_stop_it_and_are_not_trained_on() -> None:
    dense = np.random.default_rng(0).random((40, 12)) < 0.4
    dense[:5] = False
    dense[2, 3] = True  # one item: nothing of it can be held out
    torch.manual_seed(0)
    trained, watched = parted(rows_of(dense), None, 0.2)
    assert watched is not None
    able = int((dense.sum(1) >= 2).sum())
    assert len(watched) == round(0.2 * able)
    assert (watched.counts >= 2).all()
    assert as_sets(trained) + as_sets(watched) != as_sets(rows_of(dense))  # in another order
    both = sorted(as_sets(trained) + as_sets(watched))
    assert both == as_sets(rows_of(dense))


def test_users_that_are_handed_over_stop_it() -> None:
    dense = np.eye(6, 4) + np.eye(6, 4, 1)
    others = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    trained, watched = parted(rows_of(dense), rows_of(others), 0.5)
    assert watched is not None
    assert as_sets(trained) == as_sets(rows_of(dense))
    assert as_sets(watched) == [(1, 1, 0, 0)]
    assert parted(rows_of(dense), rows_of(others[[0, 2]]), 0.5)[1] is None


@pytest.mark.parametrize("share", [0.0, 0.999])
def test_nobody_stops_it_where_nobody_would_be_left(share: float) -> None:
    dense = np.ones((3, 4))
    trained, watched = parted(rows_of(dense), None, share)
    assert watched is None
    assert len(trained) == 3


def test_recall_of_a_fifth_from_the_other_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SCORED", 2)
    users = rows_of(np.ones((5, 40)))
    seen: list[int] = []

    def scores(kept: Rows) -> Tensor:
        seen.extend(kept.counts.tolist())
        return 1 - kept.dense()

    # 8 of 40 are held out, and nothing else is left to be ranked.
    assert watched_recall(scores, users) == 1.0
    assert seen == [32] * 5
    few = rows_of(np.concatenate([np.ones((5, 5)), np.zeros((5, 95))], axis=1))
    assert watched_recall(lambda kept: torch.arange(100.0).repeat(len(kept), 1), few) == 0.0
