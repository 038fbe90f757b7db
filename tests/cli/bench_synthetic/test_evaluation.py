"""What recommenders are trained on, and what counts as found."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from cli.bench_synthetic.evaluation import evaluate, material
from cli.bench_synthetic.protocol import World
from cli.bench_synthetic.recommenders import recommender
from cli.bench_synthetic.recommenders.base import Recommender
from client_app.synthesis.base import Sample
from tests.cli.bench_synthetic.test_protocol import plain_metrics

CPU = torch.device("cpu")


def sample_of(world: World, users: int = 5) -> Sample:
    likes = np.random.default_rng(0).random((users, world.items)) < 0.3
    return Sample(csr_array(likes), csr_array(~likes))


def test_real_users_are_left_out_where_they_are_replaced(world: World) -> None:
    made = sample_of(world)
    svd = recommender("svd")(True, CPU)
    original = material(world, svd, "original")
    augment = material(world, svd, "augment", made, by_search=True)
    replace = material(world, svd, "replace", made)
    users = len(world.train.users)
    counts = [(m.real.users, m.synthetic.users) for m in (original, augment, replace)]
    assert counts == [(users, 0), (users, 5), (0, 5)]
    assert (augment.by_search, replace.by_search) == (True, False)
    folded = world.split("rated").fold_in
    for each in (original, augment, replace):
        assert (each.reported.likes != folded).nnz == 0
        assert each.held_out == world.reported.rated.nnz - folded.nnz
    likes = material(world, recommender("svd")(False, CPU), "original").reported
    assert (likes.likes != world.split("likes").fold_in).nnz == 0


class Fixed(Recommender):
    """Scores that were written down."""

    title = "fixed"
    written: torch.Tensor
    drops = False

    def fit(self, *_: object, **__: object) -> None:
        pass

    def scores(self, rows: slice) -> torch.Tensor:
        return self.written[rows].clone()

    @property
    def drops_unknown(self) -> bool:
        return self.drops


@pytest.mark.parametrize("drops", [False, True])
def test_metrics_are_means_over_users_without_what_was_folded_in(
    world: World, drops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.bench_synthetic.protocol._BLOCK", 3 * world.items)
    split = world.split("rated")
    fixed = Fixed(True, CPU)
    draws = np.random.default_rng(4)
    scores = draws.random(split.fold_in.shape).astype(np.float32)
    scores[:, :4] = -math.inf
    fixed.written, fixed.drops = torch.from_numpy(scores), drops
    found = evaluate(world, fixed, "original", 0)
    hidden = np.where(split.fold_in.toarray(), -math.inf, scores)
    truth = split.held_out.toarray()
    if drops:
        truth[:, :4] = False
    known = truth.any(1)
    recalls, gains = plain_metrics(hidden[known], truth[known], 5, False)
    assert found["recall@5"] == pytest.approx(np.mean(recalls))
    assert found["ndcg@5"] == pytest.approx(np.mean(gains))


def test_all_held_out_items_first_is_a_recall_of_one(world: World) -> None:
    split = world.split("likes")
    fixed = Fixed(False, CPU)
    fixed.written = torch.from_numpy(split.held_out.toarray().astype(np.float32))
    found = evaluate(world, fixed, "original", 0)
    assert set(found.values()) == {1.0}
