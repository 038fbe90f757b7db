"""Sparse rows, their random cut, and Recall on held-out items."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from client_app.synthesis.rows import Rows, recall

DENSE = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]], dtype=bool)


@pytest.fixture
def rows() -> Rows:
    return Rows.of(csr_array(DENSE))


def test_rows_are_those_of_the_matrix(rows: Rows) -> None:
    assert len(rows) == 4
    assert rows.dense().numpy().tolist() == DENSE.astype(float).tolist()
    assert rows.counts.tolist() == [3, 0, 5, 1]
    assert rows.row_of.tolist() == [0, 0, 0, 2, 2, 2, 2, 2, 3]


def test_some_rows_in_another_order(rows: Rows) -> None:
    some = rows.take(torch.tensor([2, 1, 0, 2]))
    assert np.array_equal(some.dense().numpy(), DENSE[[2, 1, 0, 2]])


def test_a_cut_holds_out_a_fifth_of_each_row_rounded_up(rows: Rows) -> None:
    torch.manual_seed(3)
    kept, held = rows.cut()
    assert held.counts.tolist() == [1, 0, 1, 1]
    assert np.array_equal((kept.dense() + held.dense()).numpy(), DENSE)
    more = [rows.cut()[1].dense().numpy() for _ in range(400)]
    assert np.allclose(np.mean(more, axis=0)[2], 0.2, atol=0.07)


def test_recall_as_a_loop_over_users(rows: Rows) -> None:
    torch.manual_seed(1)
    whole = Rows.of(csr_array(np.ones((6, 30), dtype=bool)))
    kept, held = whole.cut(0.5)
    scores = torch.randn(6, 30)
    expected = []
    for user in range(6):
        own, wanted = kept.take(torch.tensor([user])), held.take(torch.tensor([user]))
        order = [i for i in scores[user].argsort(descending=True) if i not in own.columns]
        hits = sum(int(i in wanted.columns) for i in order[:4])
        expected.append(hits / min(4, len(wanted.columns)))
    assert recall(scores.clone(), kept, held, k=4).tolist() == pytest.approx(expected)
    few = Rows.of(csr_array(np.eye(2, 3, dtype=bool)))
    none = Rows.of(csr_array(np.zeros((2, 3), dtype=bool)))
    assert recall(torch.eye(2, 3), none, few).tolist() == [1.0, 1.0]
