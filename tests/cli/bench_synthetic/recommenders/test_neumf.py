"""Which pairs are trained on, and the network."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from cli.bench_synthetic.protocol import Material, Rows
from cli.bench_synthetic.recommenders import neumf
from cli.bench_synthetic.recommenders.neumf import (
    LikedPairs,
    NeuMF,
    NeuMFNetwork,
    Pairs,
    RatedPairs,
)
from common.errors import OverflowedError, SnowdropError

CPU = torch.device("cpu")
ITEMS = 40


def drawn(users: int, seed: int, low: float = 0.2) -> Rows:
    cells = np.random.default_rng(seed).random((users, ITEMS))
    return Rows(csr_array(cells < 0.2), csr_array((cells >= 0.2) & (cells < 0.2 + low)))


def cells_of(pairs: Pairs) -> list[tuple[int, int, int]]:
    user, item = pairs.user.tolist(), pairs.item.tolist()
    return list(zip(user, item, pairs.label.int().tolist(), strict=True))


def expected(rows: Rows, first: int) -> set[tuple[int, int, int]]:
    found = set()
    for label, part in ((1, rows.likes), (0, rows.dislikes)):
        users, items = part.toarray().nonzero()
        found |= {(int(u) + first, int(i), label) for u, i in zip(users, items, strict=True)}
    return found


def test_the_published_pairs_are_likes_and_dislikes_with_half_of_the_reported_low_ratings() -> None:
    made, reported = drawn(6, 1), drawn(4, 2)
    source = RatedPairs(Material(Rows.none(ITEMS), reported, made), np.random.default_rng(0))
    trained, checked = source.epoch()
    cells = cells_of(trained) + cells_of(checked)
    low = {cell for cell in expected(reported, 0) if not cell[2]}
    rest = expected(made, 4) | (expected(reported, 0) - low)
    assert rest <= set(cells) <= rest | low
    assert len(set(cells) & low) == len(low) // 2
    # What is not recommended again is what was trained on.
    users, items = source.refused.toarray().nonzero()
    assert {(u, i, 0) for u, i in zip(users, items, strict=True)} == set(cells) & low
    had = {item for _, item, _ in cells}
    assert set(torch.nonzero(source.candidates).flatten().tolist()) == had


def test_a_fifth_is_drawn_anew_and_dislikes_are_drawn_again_for_each_like() -> None:
    source = RatedPairs(
        Material(Rows.none(ITEMS), drawn(4, 2), drawn(30, 1, low=0.1)), np.random.default_rng(0)
    )
    first, second = source.epoch(), source.epoch()
    assert set(cells_of(first[1])) != set(cells_of(second[1]))
    total = len(source._pairs)
    assert len(first[1].label) == -(-total // 5)
    likes = int(first[0].label.sum())
    once = total - len(first[1].label)
    assert len(first[0].label) == once + likes
    assert int((first[0].label == 0).sum()) == once
    assert first[0].label[:50].unique().tolist() == [0, 1]  # they are shuffled


def test_the_published_filter_drops_about_half_of_as_many_pairs_as_are_tested() -> None:
    real, reported = drawn(60, 1), drawn(10, 2)
    sizes = {}
    for held_out in (0, 300):
        given = Material(real, reported, Rows.none(ITEMS), held_out=held_out)
        sizes[held_out] = len(RatedPairs(given, np.random.default_rng(0))._pairs)
    whole = len(expected(real, 0)) + reported.likes.nnz + reported.dislikes.nnz // 2
    low = reported.dislikes.nnz - reported.dislikes.nnz // 2
    assert 0.35 * low < whole - sizes[0] < 0.65 * low
    assert 0.35 * (300 + low) < whole - sizes[300] < 0.65 * (300 + low)


def test_the_published_form_needs_dislikes() -> None:
    none = drawn(5, 1, low=0.0)
    with pytest.raises(SnowdropError, match="low ratings"):
        RatedPairs(Material(none, none, Rows.none(ITEMS)), np.random.default_rng(0))


def test_other_pairs_are_four_for_each_like_and_nobody_likes_them() -> None:
    real, reported, made = drawn(9, 1), drawn(4, 2), drawn(7, 3)
    source = LikedPairs(Material(real, reported, made), np.random.default_rng(0))
    likes = expected(real, 0) | expected(reported, 9) | expected(made, 13)
    likes = {cell for cell in likes if cell[2]}
    seen = []
    for _ in range(2):
        trained, checked = (cells_of(pairs) for pairs in source.epoch())
        own = [cell for cell in trained + checked if cell[2]]
        assert sorted(own) == sorted(likes)
        others = [cell for cell in trained + checked if not cell[2]]
        assert len(others) == 4 * len(own)
        assert not {(user, item, 1) for user, item, _ in others} & likes
        held = {cell for cell in checked if cell[2]}
        assert len(held) == -(-(real.likes.nnz + made.likes.nnz) // 5)
        assert not held & expected(reported, 9)
        seen.append((trained, checked))
    assert seen[0][1] == seen[1][1]  # the fifth stays what it was
    assert set(seen[0][0]) != set(seen[1][0])


def test_a_user_who_likes_everything_gets_no_other_pairs() -> None:
    everything = Rows(csr_array(np.ones((3, 5), dtype=bool)), csr_array((3, 5), dtype=bool))
    source = LikedPairs(Material(everything, everything, Rows.none(5)), np.random.default_rng(0))
    trained, _ = source.epoch()
    assert trained.label.all()


def test_the_network_is_a_product_and_a_network_over_embeddings() -> None:
    torch.manual_seed(0)
    network = NeuMFNetwork(5, 7).eval()
    user, item = torch.tensor([1, 4]), torch.tensor([6, 0])
    hidden = torch.cat([network.user_network(user), network.item_network(item)], 1)
    for part in (network.network[1], network.network[4], network.network[7]):
        assert isinstance(part, torch.nn.Linear)
        hidden = torch.relu(hidden @ part.weight.T + part.bias)
    product = network.user_product(user) * network.item_product(item)
    both = torch.cat([product, hidden], 1)
    assert both.shape == (2, 16)
    assert torch.allclose(network(user, item), (both @ network.last.weight.T)[:, 0])
    shapes = [part.weight.shape for part in network.network if isinstance(part, torch.nn.Linear)]
    assert shapes == [(32, 64), (16, 32), (8, 16)]
    assert sum(isinstance(part, torch.nn.Dropout) for part in network.network) == 3


def test_the_table_of_scores_is_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neumf, "_PAIRS_AT_ONCE", 20)
    network = NeuMFNetwork(5, 7).eval()
    users = torch.tensor([3, 0, 4])
    table = network.table(users)
    single = [[float(network(u[None], torch.tensor([i]))) for i in range(7)] for u in users]
    assert table.tolist() == [pytest.approx(row, abs=1e-6) for row in single]
    assert network.table(users[:0]).shape == (0, 7)


def trained_epochs(published: bool, by_search: bool) -> tuple[NeuMF, int]:
    told: list[float] = []
    given = Material(drawn(20, 1), drawn(4, 2), drawn(9, 3), by_search=by_search)
    model = NeuMF(published, CPU)
    model.fit(given, 0, lambda stage, done, total: told.append(done))
    return model, len(told)


def test_the_published_form_tests_the_first_epoch() -> None:
    assert [trained_epochs(True, by_search)[1] for by_search in (True, False)] == [1, 1]
    model, epochs = trained_epochs(False, False)
    assert epochs == neumf.EPOCHS
    scores = model.scores(slice(0, 4))
    assert torch.isfinite(scores).all()


def test_the_published_form_recommends_no_item_without_a_pair_and_no_low_rating_it_knows() -> None:
    real, reported = drawn(20, 1), drawn(4, 2)
    empty = csr_array((20, ITEMS), dtype=bool)
    model = NeuMF(True, CPU)
    assert model.drops_unknown
    assert model.whole_ideal
    assert not NeuMF(False, CPU).drops_unknown
    assert model.counts() == NeuMF(False, CPU).counts() == "likes"
    kept = csr_array(real.likes.toarray() & (np.arange(ITEMS) < 30))
    shown = csr_array(reported.likes.toarray() & (np.arange(ITEMS) < 30))
    low = csr_array(reported.dislikes.toarray() & (np.arange(ITEMS) < 30))
    model.fit(Material(Rows(kept, empty), Rows(shown, low), Rows.none(ITEMS)), 0)
    scores = model.scores(slice(0, 4))
    assert (scores[:, 30:] == -torch.inf).all()
    known = (scores[:, :30] == -torch.inf).numpy()
    assert known.sum() == low.nnz // 2
    assert not (known & ~low.toarray()[:, :30]).any()


def test_an_overflow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NeuMF, "_loss", staticmethod(lambda *_: float("nan")))
    with pytest.raises(OverflowedError, match="NeuMF overflowed in epoch 1"):
        trained_epochs(False, False)
