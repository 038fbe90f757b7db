"""All recommenders learn; each trains on the rows that it should."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from cli.bench_synthetic.evaluation import evaluate, material
from cli.bench_synthetic.names import RECOMMENDERS
from cli.bench_synthetic.protocol import Material, Rows, World
from cli.bench_synthetic.recommenders import recommender
from client_app.synthesis.base import Sample
from common.errors import SnowdropError
from tests.cli.bench_synthetic.worlds import small_world

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.mktemp("larger"), users=240, items=45, seed=3)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_it_finds_what_a_community_likes(
    larger: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.bench_synthetic.recommenders.mlp.EPOCHS", 15)
    monkeypatch.setattr("cli.bench_synthetic.recommenders.neumf.FRESH_BATCH", 64)
    floor = evaluate(larger, recommender("popular")(False, CPU), "original", 0)["recall@10"]
    found = evaluate(larger, recommender(name)(False, CPU), "original", 0)["recall@10"]
    assert found > 1.5 * floor


@pytest.mark.parametrize("name", RECOMMENDERS)
@pytest.mark.parametrize("published", [True, False])
def test_the_same_seed_gives_the_same_scores_and_leaves_others_draws_alone(
    world: World, name: str, published: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.bench_synthetic.recommenders.mlp.EPOCHS", 2)
    monkeypatch.setattr("cli.bench_synthetic.recommenders.neumf.EPOCHS", 2)
    likes = np.random.default_rng(0).random((30, world.items)) < 0.3
    made = Sample(csr_array(likes), csr_array(~likes))

    def scores(seed: int) -> torch.Tensor:
        model = recommender(name)(published, CPU)
        model.fit(material(world, model, "replace", made), seed)
        return model.scores(slice(0, 4))

    state = torch.random.get_rng_state()
    first, again, other = scores(0), scores(0), scores(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.shape == (4, world.items)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    if name != "svd":
        assert not torch.equal(first, other)


def test_the_popular_items_are_those_that_most_like(world: World) -> None:
    model = recommender("popular")(False, CPU)
    model.fit(material(world, model, "original"), 0)
    folded = world.split("likes").fold_in.toarray()
    expected = world.train.likes.toarray().sum(0) + folded.sum(0)
    assert model.scores(slice(0, 2)).tolist() == [expected.tolist()] * 2


def test_svd_rebuilds_the_reported_rows_from_twenty_vectors(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.bench_synthetic.recommenders.svd.COMPONENTS", 5)
    model = recommender("svd")(False, CPU)
    likes = np.random.default_rng(0).random((9, world.items)) < 0.3
    made = Sample(csr_array(likes), csr_array(~likes))
    whole = {
        "augment": [world.train.likes.toarray(), likes],
        "replace": [likes],
    }
    folded = world.split("likes").fold_in.toarray()
    for mode, others in whole.items():
        model.fit(material(world, model, mode, made), 0)  # type: ignore[arg-type]
        rows = np.concatenate([folded, *others]).astype(float)
        left, values, right = np.linalg.svd(rows, full_matrices=False)
        rebuilt = (left[:, :5] * values[:5]) @ right[:5]
        assert model.scores(slice(2, 7)).numpy() == pytest.approx(rebuilt[2:7], abs=1e-5)


@pytest.mark.parametrize("name", ["mlp", "neumf"])
def test_too_few_users_are_refused(name: str) -> None:
    none = Rows.none(4)
    one = Rows(csr_array(np.eye(1, 4, dtype=bool)), csr_array((1, 4), dtype=bool))
    with pytest.raises(SnowdropError, match="too few"):
        recommender(name)(False, CPU).fit(Material(none, one, none), 0)


def test_an_unknown_recommender_is_refused() -> None:
    with pytest.raises(SnowdropError, match="'knn' is unknown; choose from svd, mlp, neumf"):
        recommender("knn")
