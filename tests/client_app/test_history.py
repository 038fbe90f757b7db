import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from client_app import history
from client_app.history import kernel_scores, weight_scores
from common.users.ragged import Ragged


def ragged(lists: list[list[int]]) -> Ragged:
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return Ragged(offsets, np.array([item for own in lists for item in own], np.int64))


def random_units(seed: int, rows: int, columns: int) -> Tensor:
    return normalize(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)))


histories_of_8 = st.lists(
    st.sets(st.integers(0, 7), min_size=1, max_size=8).map(sorted), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=40)
@given(
    lists=histories_of_8,
    items=st.integers(1, 7),
    columns=st.integers(1, 5),
    beta=st.floats(0.1, 40),
    chunk=st.sampled_from([1, 20, 2**22]),
)
def test_kernel_scores_in_plain_loops(
    lists: list[list[int]], items: int, columns: int, beta: float, chunk: int
) -> None:
    warm, cold = random_units(1, 8, columns), random_units(2, items, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "CHUNK_NUMBERS", chunk)
        made = kernel_scores(ragged(lists), warm, cold, beta)
    assert made.dtype == torch.float32
    assert made.shape == (len(lists), items)
    for user, own in enumerate(lists):
        for item in range(items):
            cosines = [float(warm[k].double() @ cold[item].double()) for k in own]
            expected = math.log(sum(math.exp(beta * c) for c in cosines) / len(own))
            assert float(made[user, item]) == pytest.approx(expected, abs=2e-5 * beta + 1e-5)


@settings(deadline=None, max_examples=40)
@given(lists=histories_of_8, items=st.integers(1, 7), chunk=st.sampled_from([1, 20, 2**22]))
def test_weight_scores_in_plain_loops(lists: list[list[int]], items: int, chunk: int) -> None:
    weights = torch.randn(items, 8, generator=torch.Generator().manual_seed(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "CHUNK_NUMBERS", chunk)
        made = weight_scores(ragged(lists), weights)
    assert made.dtype == torch.float32
    assert made.shape == (len(lists), items)
    for user, own in enumerate(lists):
        for item in range(items):
            expected = sum(float(weights[item, k]) for k in own)
            assert float(made[user, item]) == pytest.approx(expected, abs=1e-5)


def test_a_single_warm_item_scores_by_its_cosine() -> None:
    warm, cold = random_units(1, 1, 3), random_units(2, 5, 3)
    made = kernel_scores(ragged([[0]]), warm, cold, 5.0)
    torch.testing.assert_close(made, 5 * warm @ cold.T, atol=1e-5, rtol=0)


def test_a_large_beta_takes_the_nearest_item_and_a_small_one_the_mean() -> None:
    warm, cold = torch.eye(3), random_units(2, 6, 3)
    cosines = cold  # to the rows of `warm`
    nearest = kernel_scores(ragged([[0, 1, 2]]), warm, cold, 40.0)[0] / 40
    torch.testing.assert_close(nearest, cosines.max(1).values, atol=0.03, rtol=0)
    mean = kernel_scores(ragged([[0, 1, 2]]), warm, cold, 0.01)[0] / 0.01
    torch.testing.assert_close(mean, cosines.mean(1), atol=0.01, rtol=0)


def test_opposite_items_keep_their_scores_and_no_beta_overflows() -> None:
    warm, cold = torch.tensor([[1.0]]), torch.tensor([[-1.0], [1.0]])
    made = kernel_scores(ragged([[0]]), warm, cold, 43.0)
    torch.testing.assert_close(made, torch.tensor([[-43.0, 43.0]]))
    assert kernel_scores(ragged([[0]]), warm, cold, 1000.0).isfinite().all()


def test_a_user_without_history_ties_all_items() -> None:
    warm, cold = random_units(1, 4, 3), random_units(2, 5, 3)
    histories = ragged([[1, 2], [], [3]])
    scores = kernel_scores(histories, warm, cold, 5.0)
    assert scores.isfinite().all()
    assert len(scores[1].unique()) == 1
    assert len(scores[2].unique()) == 5
    weighed = weight_scores(histories, torch.ones(5, 4))
    assert weighed[:, 0].tolist() == [2, 0, 1]
    nobody = kernel_scores(ragged([[], []]), warm, cold, 5.0)
    assert nobody.shape == (2, 5)
    assert len(nobody.unique()) == 1


def test_no_user_and_no_item() -> None:
    warm, cold = random_units(1, 4, 3), random_units(2, 5, 3)
    assert kernel_scores(ragged([]), warm, cold, 5.0).shape == (0, 5)
    assert weight_scores(ragged([]), torch.ones(5, 4)).shape == (0, 5)
    assert kernel_scores(ragged([[1]]), warm, cold[:0], 5.0).shape == (1, 0)
    assert weight_scores(ragged([[1]]), torch.ones(0, 4)).shape == (1, 0)


def test_no_more_numbers_are_held_at_once_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def watched(places: Tensor, values: Tensor, offsets: Tensor, mode: str) -> Tensor:
        held.append(values.numel())
        return embedding_bag(places, values, offsets, mode=mode)

    monkeypatch.setattr(history, "CHUNK_NUMBERS", 12)
    monkeypatch.setattr(history, "embedding_bag", watched)
    histories = ragged([[0, 3, 5], [3, 7, 9]])  # five warm items: two cold ones at a time
    kernel_scores(histories, random_units(1, 10, 3), random_units(2, 7, 3), 5.0)
    assert held == [10, 10, 10, 5]
    held.clear()
    weight_scores(histories, torch.ones(7, 10))
    assert held == [10, 10, 10, 5]


def test_scores_are_the_same_whoever_else_lives_on_the_node() -> None:
    rng = np.random.default_rng(0)
    lists = [np.sort(rng.choice(50, size, replace=False)).tolist() for size in (1, 7, 30, 3)]
    warm, cold = random_units(1, 50, 8), random_units(2, 20, 8)
    weights = torch.randn(20, 50, generator=torch.Generator().manual_seed(3))
    together = kernel_scores(ragged(lists), warm, cold, 5.0)
    weighed = weight_scores(ragged(lists), weights)
    for user, own in enumerate(lists):
        alone = kernel_scores(ragged([own]), warm, cold, 5.0)[0]
        torch.testing.assert_close(together[user], alone, atol=1e-5, rtol=0)
        assert torch.equal(weighed[user], weight_scores(ragged([own]), weights)[0])
