"""Groups that users find for themselves, and their teachers, against plain loops."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from common.users.groups import (
    MOST,
    Clustered,
    NearestCentroid,
    Teacher,
    aligned,
    nearest,
    spectral,
)
from common.users.heads import HEADS
from common.users.training import Samples

USERS, WIDTH, ITEMS, GROUPS = 5, 6, 9, 3
DRAW = torch.Generator().manual_seed(3)
WANTED = torch.rand(GROUPS, ITEMS, generator=DRAW) * 0.8 + 0.1
GROUP = torch.tensor([2, 0, -1, 1, 0])


def samples_of(real: Tensor | None = None) -> Samples:
    items = torch.randint(ITEMS, (USERS, WIDTH), generator=DRAW)
    labels = (torch.rand(USERS, WIDTH, generator=DRAW) < 0.4).float()
    present = torch.ones(USERS, WIDTH) if real is None else real
    return Samples(items, labels, present, np.zeros(USERS, np.uint64))


def kl(t: float, score: float) -> float:
    own = 1 / (1 + np.exp(-score))
    return float(t * np.log(t / own) + (1 - t) * np.log((1 - t) / (1 - own)))


@given(st.integers(1, 7), st.integers(1, 5), st.sampled_from(["cosine", "euclidean"]))
def test_the_nearest_centroid(points: int, groups: int, distance: str) -> None:
    draw = torch.Generator().manual_seed(points * 10 + groups)
    some = torch.randn(points, 4, generator=draw)
    centroids = torch.randn(groups, 4, generator=draw)
    for point, found in zip(some, nearest(some, centroids, distance), strict=True):
        gaps = [float((point - c).norm()) for c in centroids]
        if distance == "cosine":
            gaps = [-float(point @ c / c.norm() / point.norm()) for c in centroids]
        assert gaps.index(min(gaps)) == int(found)


def test_spectral_clusters_are_those_of_scikit_learn() -> None:
    from sklearn.cluster import SpectralClustering
    from sklearn.preprocessing import StandardScaler

    points = torch.cat([torch.randn(30, 3, generator=DRAW) + 6 * k for k in range(3)])
    found = spectral(points, 3)
    rows = StandardScaler().fit_transform(points.numpy().astype(float))
    gaps = [np.linalg.norm(x - y) for i, x in enumerate(rows) for y in rows[:i]]
    gamma = 1 / (2 * np.median(gaps) ** 2)
    other = SpectralClustering(3, gamma=gamma, random_state=0).fit_predict(rows)
    assert len(set(zip(found.tolist(), other.tolist(), strict=True))) == 3
    assert [len(set(found[k : k + 30])) for k in (0, 30, 60)] == [1, 1, 1]


def test_points_that_cannot_be_told_apart_are_one_cluster() -> None:
    assert not spectral(torch.ones(9, 3), 2).any()
    assert not spectral(torch.randn(3, 3, generator=DRAW), 3).any()
    assert not spectral(torch.randn(9, 3, generator=DRAW), 1).any()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20))
def test_labels_keep_as_many_points_as_any_other_names_do(pairs: list[tuple[int, int]]) -> None:
    labels, before = (np.array(part) for part in zip(*pairs, strict=True))
    kept = int((aligned(labels, before, 3) == before).sum())
    every = [np.array(names)[labels] for names in permutations(range(3))]
    assert kept == max(int((one == before).sum()) for one in every)
    assert any((aligned(labels, before, 3) == one).all() for one in every)


def test_clustered_users_take_the_labels_of_the_centroids() -> None:
    head = HEADS["linear"]
    points = torch.cat([torch.randn(20, 4, generator=DRAW) + 9 * k for k in (-1, 1)])
    state = {"weight": points[:, :3], "bias": points[:, 3:]}
    names = ["weight", "bias"]
    flat = NearestCentroid(torch.zeros(2, 4), head, names, "euclidean").points(state)
    for first in (0, 1):
        centroids = torch.stack([flat[:20].mean(0), flat[20:].mean(0)])
        if first:
            centroids = centroids.flip(0)
        groups = Clustered(centroids, head, names, "euclidean", state)
        found = groups.of(np.arange(40), state)
        assert found.tolist() == [first] * 20 + [1 - first] * 20
        some = np.array([39, 0])
        assert groups.of(some, {n: part[some] for n, part in state.items()}).tolist() == [
            1 - first,
            first,
        ]


def test_of_equal_centroids_it_is_the_first() -> None:
    points = torch.randn(20, 4, generator=DRAW)
    for distance in ("cosine", "euclidean"):
        assert not nearest(points, torch.zeros(3, 4), distance).any()
        assert not nearest(points, torch.ones(3, 4), distance).any()


def test_users_are_grouped_by_the_parts_that_are_named() -> None:
    state = {
        "weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "bias": torch.tensor([[9.0], [9.0]]),
    }
    centroids = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    groups = NearestCentroid(centroids, HEADS["linear"], ["weight"], "euclidean")
    assert groups.of(np.arange(2), state).tolist() == [1, 0]
    assert groups.count == 2
    both = NearestCentroid(torch.zeros(1, 3), HEADS["linear"], ["weight", "bias"], "euclidean")
    assert both.points(state).tolist() == [[1.0, 0.0, 9.0], [0.0, 1.0, 9.0]]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("batched", [False, True])
def test_the_distance_to_the_teacher(temperature: float, batched: bool) -> None:
    real = (torch.rand(USERS, WIDTH, generator=DRAW) < 0.7).float()
    samples = samples_of(real)
    batch = torch.randint(WIDTH, (USERS, 3), generator=DRAW) if batched else None
    logits = torch.randn(USERS, 3 if batched else WIDTH, generator=DRAW)
    teacher = Teacher(WANTED, GROUP, 0.7, temperature)
    users = np.array([4, 0, 2, 1, 3])
    losses = teacher.losses(users, samples, batch, logits)
    for row, user in enumerate(users):
        group, each = int(GROUP[user]), []
        for column in range(logits.shape[1]):
            place = column if batch is None else int(batch[row, column])
            if real[row, place]:
                wanted = float(WANTED[group, samples.items[row, place]])
                each.append(kl(wanted, float(logits[row, column]) / temperature))
        expected = 0.7 * temperature**2 * np.mean(each) if each and group >= 0 else 0.0
        assert float(losses[row]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_teacher_that_is_certain_gives_finite_losses() -> None:
    teacher = Teacher(torch.ones(GROUPS, ITEMS), GROUP, 1.0)
    logits = torch.full((USERS, WIDTH), -20.0, requires_grad=True)
    losses = teacher.losses(np.arange(USERS), samples_of(), None, logits)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()
    assert not logits.grad[2].any()  # it has no teacher


def test_a_balanced_weight_is_a_running_mean_of_each_user() -> None:
    samples, before = samples_of(), torch.zeros(USERS)
    teacher = Teacher(WANTED, GROUP, 0.5, ratio=before)
    plain = Teacher(WANTED, GROUP, 1.0)
    expected = np.zeros(USERS)
    for _ in range(3):
        logits = torch.randn(USERS, WIDTH, generator=DRAW)
        entropy = binary_cross_entropy_with_logits(logits, samples.labels, reduction="none").mean(1)
        distance = plain.losses(np.arange(USERS), samples, None, logits)
        losses = teacher.losses(np.arange(USERS), samples, None, logits)
        for user in range(USERS):
            if GROUP[user] >= 0:
                now = float(entropy[user] / distance[user])
                expected[user] = 0.9 * expected[user] + 0.1 * now if expected[user] else now
        np.testing.assert_allclose(losses, 0.5 * expected * distance.numpy(), rtol=1e-4, atol=1e-6)
    assert teacher.ratio is not None
    np.testing.assert_allclose(teacher.ratio, expected, rtol=1e-4)
    assert not before.any()


def test_agreement_does_not_make_the_weight_endless() -> None:
    logits = (WANTED / (1 - WANTED)).log()[GROUP.clamp(min=0)]
    samples = Samples(
        torch.arange(ITEMS).expand(USERS, -1), torch.ones(USERS, ITEMS),
        torch.ones(USERS, ITEMS), np.zeros(USERS, np.uint64),
    )  # fmt: skip
    teacher = Teacher(WANTED, GROUP, 1.0, ratio=torch.zeros(USERS))
    teacher.losses(np.arange(USERS), samples, None, logits + 1e-3)
    assert teacher.ratio is not None
    assert float(teacher.ratio.max()) == MOST
