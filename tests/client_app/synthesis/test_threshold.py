"""The one threshold over all scores of synthetic users."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from client_app.synthesis.base import Sample
from client_app.synthesis.threshold import gathered, sparsity, thresholded
from common.errors import OverflowedError, SnowdropError


def cut(scores: torch.Tensor, empty: float, memory: int, chunk: int = 64) -> Sample:
    users, items = scores.shape
    return thresholded(users, items, lambda part: scores[part], empty, memory=memory, chunk=chunk)


@pytest.mark.parametrize("memory", [2**20, 0], ids=["held", "made anew"])
def test_a_known_matrix(memory: int) -> None:
    scores = torch.tensor([[3.0, -1.0, 0.5], [-2.0, 4.0, -0.5]])
    made = cut(scores, 4 / 6, memory, chunk=3)
    assert made.likes.toarray().tolist() == [[True, False, False], [False, True, False]]
    assert made.dislikes.toarray().tolist() == [[False, True, False], [True, False, False]]
    assert made.likes.dtype == bool


@pytest.mark.parametrize("memory", [2**20, 0], ids=["held", "made anew"])
@pytest.mark.parametrize("empty", [0.0, 0.3, 0.5, 0.8993, 0.97, 1.0])
@pytest.mark.parametrize("decimals", [1, 7], ids=["ties", "no ties"])
def test_as_the_quantile_of_all_scores(memory: int, empty: float, decimals: int) -> None:
    scores = torch.randn(57, 23, generator=torch.Generator().manual_seed(1)).round(
        decimals=decimals
    )
    scores[0, :3] = torch.tensor([0.0, -0.0, 1e30])
    made = cut(scores, empty, memory)
    exact = scores.double().numpy()
    likes = exact >= np.quantile(exact, empty)
    dislikes = (exact < np.quantile(exact, 1 - empty)) & ~likes
    assert np.array_equal(made.likes.toarray(), likes)
    assert np.array_equal(made.dislikes.toarray(), dislikes)


def test_matrices_grow_as_parts_come() -> None:
    """As one matrix made at once, over more rows and cells than a buffer has places at first."""
    draw = torch.Generator().manual_seed(2)
    likes = torch.rand(70_001, 9, generator=draw) < 0.3
    dislikes = ~likes & (torch.rand(70_001, 9, generator=draw) < 0.1)
    made = gathered(zip(likes.split(500), dislikes.split(500), strict=True), 9)
    for found, whole in ((made.likes, likes), (made.dislikes, dislikes)):
        expected = csr_array(whole.numpy())
        assert found.dtype == bool
        assert found.shape == (70_001, 9)
        assert np.array_equal(found.indptr, expected.indptr)
        assert np.array_equal(found.indices, expected.indices)
        assert found.data.all()


def test_progress_counts_users_over_all_passes() -> None:
    told: list[tuple[str, float, float]] = []
    scores = torch.randn(10, 4)
    thresholded(
        10,
        4,
        lambda part: scores[part],
        0.5,
        lambda *at: told.append(at),
        memory=0,
        chunk=20,
    )
    assert [done for _, done, _ in told] == [0, 5, 10, 10, 15, 20, 20, 25, 30]
    assert {(stage, total) for stage, _, total in told} == {("scores", 30)}


def test_one_user_and_one_item() -> None:
    made = cut(torch.tensor([[2.0]]), 0.9, 2**20)
    assert made.likes.toarray().tolist() == [[True]]
    assert made.dislikes.nnz == 0


def test_no_users_is_told() -> None:
    with pytest.raises(SnowdropError, match=r"^0 synthetic users cannot be made; ask for 1 or"):
        cut(torch.zeros(0, 3), 0.5, 0)


@pytest.mark.parametrize("number", [torch.inf, torch.nan])
def test_scores_that_overflow_are_told(number: float) -> None:
    with pytest.raises(OverflowedError, match="the scores of synthetic users overflow"):
        cut(torch.tensor([[1.0, number]]), 0.5, 0)


def test_sparsity_is_the_share_of_empty_cells() -> None:
    assert sparsity(csr_array(np.array([[1, 0, 0, 1], [0, 0, 0, 1]], dtype=bool))) == 5 / 8
