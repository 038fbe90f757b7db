"""Who sees what, what is held out, and the metrics."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.metrics import ndcg_score

from cli.bench_synthetic.evaluation import evaluate
from cli.bench_synthetic.names import KS, METRICS
from cli.bench_synthetic.protocol import (
    World,
    blocks,
    split_items,
    user_metrics,
    without,
)
from cli.bench_synthetic.recommenders import recommender
from common.errors import SnowdropError
from tests.cli.bench_synthetic.worlds import small_world, write_users

CPU = torch.device("cpu")


def published_split(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The published code's loop, user by user."""
    np.random.seed(123)
    shown, hidden = [], []
    for row in matrix:
        items = np.flatnonzero(row)
        if len(items) < 2:
            continue
        held = np.zeros(len(items), dtype=bool)
        size = math.ceil(0.2 * len(items))
        held[np.random.choice(len(items), size=size, replace=False)] = True
        parts = np.zeros((2, len(row)), dtype=bool)
        parts[0, items[~held]] = parts[1, items[held]] = True
        shown.append(parts[0])
        hidden.append(parts[1])
    return np.array(shown), np.array(hidden)


def test_items_are_held_out_as_the_published_code_draws_them() -> None:
    matrix = np.random.default_rng(1).random((40, 25)) < 0.15
    matrix[3] = matrix[5] = False
    matrix[5, 7] = True  # one item alone cannot be cut
    split = split_items(csr_array(matrix))
    shown, hidden = published_split(matrix)
    assert (split.fold_in.toarray() == shown).all()
    assert (split.held_out.toarray() == hidden).all()
    assert list(split.users) == list(np.flatnonzero(matrix.sum(1) >= 2))
    assert {3, 5} & set(split.users.tolist()) == set()


def test_unsorted_items_change_nothing() -> None:
    sorted_ = csr_array(np.ones((2, 6), dtype=bool))
    turned = csr_array(
        (sorted_.data, sorted_.indices.reshape(2, 6)[:, ::-1].ravel(), sorted_.indptr), shape=(2, 6)
    )
    assert (split_items(turned).held_out != split_items(sorted_).held_out).nnz == 0


def plain_metrics(
    scores: np.ndarray, truth: np.ndarray, k: int, whole: bool
) -> tuple[list[float], list[float]]:
    """Recall and NDCG, user by user."""
    recalls, gains = [], []
    for own, wanted in zip(scores, truth, strict=True):
        best = sorted(range(len(own)), key=lambda item: (-own[item], item))[:k]
        hits = [bool(wanted[item]) for item in best]
        recalls.append(sum(hits) / min(k, wanted.sum()))
        most = k if whole else min(k, wanted.sum())
        found = sum(hit / math.log2(place + 2) for place, hit in enumerate(hits))
        gains.append(found / sum(1 / math.log2(place + 2) for place in range(most)))
    return recalls, gains


@pytest.mark.parametrize("whole", [False, True])
def test_metrics_are_those_of_a_plain_loop(whole: bool) -> None:
    draws = np.random.default_rng(2)
    scores = draws.integers(0, 6, (30, 70)).astype(np.float32)  # many ties
    truth = draws.random((30, 70)) < 0.1
    truth[:, 0] |= ~truth.any(1)
    values = user_metrics(torch.from_numpy(scores), torch.from_numpy(truth), whole)
    assert tuple(values) == METRICS
    for k in KS:
        recalls, gains = plain_metrics(scores, truth, k, whole)
        assert values[f"recall@{k}"].numpy() == pytest.approx(recalls)
        assert values[f"ndcg@{k}"].numpy() == pytest.approx(gains)


def test_ndcg_is_that_of_scikit_learn() -> None:
    draws = np.random.default_rng(3)
    scores = draws.permutation(40 * 60).reshape(40, 60).astype(np.float32)
    truth = draws.random((40, 60)) < 0.2
    truth[:, 0] |= ~truth.any(1)
    values = user_metrics(torch.from_numpy(scores), torch.from_numpy(truth))
    for k in KS:
        assert float(values[f"ndcg@{k}"].mean()) == pytest.approx(ndcg_score(truth, scores, k=k))


def test_lists_longer_than_the_items_and_users_without_items() -> None:
    truth = torch.tensor([[True, False, True], [False, False, False]])
    values = user_metrics(torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0]]), truth)
    assert values["recall@50"].tolist()[0] == 1.0
    assert values["recall@1"].tolist()[0] == 1.0
    assert values["ndcg@1"].tolist()[0] == 1.0
    assert values["recall@10"].isnan().tolist() == values["ndcg@10"].isnan().tolist()
    assert values["recall@10"].isnan().tolist() == [False, True]


def test_a_published_form_sees_what_is_folded_in_and_other_forms_do_not(world: World) -> None:
    clean = world.silo("published", published=False)
    assert clean.watched is None
    assert (clean.likes != world.train.likes).nnz == 0
    assert (clean.rated != world.train.rated).nnz == 0
    assert clean.rated.nnz > clean.likes.nnz
    users = len(world.train.users)
    for protocol, reported in (
        ("published", world.reported.rated),
        ("likes", world.reported.likes),
    ):
        silo = world.silo(protocol, published=True)  # type: ignore[arg-type]
        assert silo.watched is reported
        assert silo.rated.shape[0] == users
        assert (silo.likes[:users] != world.train.likes).nnz == 0
        folded = silo.likes[users:].toarray()
        assert (folded == split_items(reported).fold_in.toarray()).all()
        assert 0.7 < folded.sum() / reported.nnz < 0.8


def test_train_and_test_users_are_trained_on(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    assert (len(world.train.users), len(world.reported.users)) == (48, 12)
    dislikes = world.real().dislikes.toarray()
    assert (dislikes == (world.train.rated.toarray() & ~world.train.likes.toarray())).all()
    assert (without(world.train.likes, world.train.rated)).nnz == 0


def test_users_are_held_out_of_those_to_train_on_alone(world: World) -> None:
    part = world.held_out_part(0.25, seed=4)
    assert len(part.reported.users) == 12
    assert set(part.reported.users) | set(part.train.users) == set(world.train.users)
    assert not set(part.reported.users) & set(part.train.users)
    assert not set(part.reported.users) & set(world.reported.users)
    number = world.train.users.index(part.reported.users[3])
    assert (part.reported.likes[[3]] != world.train.likes[[number]]).nnz == 0
    assert part.reported.users == world.held_out_part(0.25, seed=4).reported.users
    assert part.reported.users != world.held_out_part(0.25, seed=5).reported.users


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match=r"train\.csv is missing"):
        World.read(tmp_path)
    folder = write_users(tmp_path / "few", users=60)
    (folder / "validation.csv").write_text("user_id,item_id,liked\n90,1,1\n91,2,1\n")
    with pytest.raises(SnowdropError, match="nothing to hold out"):
        World.read(folder)
    folder = write_users(tmp_path / "one", users=60)
    (folder / "train.csv").write_text("user_id,item_id,liked\n1,1,1\n")
    (folder / "test.csv").write_text("user_id,item_id,liked\n1,2,1\n")
    with pytest.raises(SnowdropError, match="two of train, test and validation"):
        World.read(folder)
    one = "user_id,item_id,liked\n%d,1,1\n"
    for number, name in enumerate(("train", "test")):
        (folder / f"{name}.csv").write_text(one % number)
    (folder / "validation.csv").write_text("user_id,item_id,liked\n7,1,1\n7,2,1\n")
    with pytest.raises(SnowdropError, match="too few"):
        World.read(folder).held_out_part(0.2, 0)


def test_blocks_cover_all_users() -> None:
    found = [list(range(1000))[rows] for rows in blocks(1000, 1 << 18)]
    assert [user for block in found for user in block] == list(range(1000))
    assert max(len(block) for block in found) == 64


PUBLISHED = {
    "ml-100k": ((0.3716, 0.3973), (0.3513, 0.3361)),
    "alb": ((0.3113, 0.2870), (0.3291, 0.3067)),
    "adm": ((0.0624, 0.0427), (0.0562, 0.0380)),
}
"""Recall@10 and NDCG@10 of the paper's rows "Original" with SVD, and the same of likes alone."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_users_give_the_papers_numbers_to_four_places(name: str) -> None:
    folder = Path(os.environ.get("SDRM_DATA", "")) / name
    if "SDRM_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("SDRM_DATA names no folder with the published splits ml-100k, alb and adm")
    world = World.read(folder)
    for published, expected in zip((True, False), PUBLISHED[name], strict=True):
        found = evaluate(world, recommender("svd")(published, CPU), "original", seed=0)
        assert (round(found["recall@10"], 4), round(found["ndcg@10"], 4)) == expected
