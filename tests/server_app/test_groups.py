"""What the server makes of sums over groups: merging, and federated k-means."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from common.users.groups import nearest
from server_app.groups import SPLIT, merge, next_centroids


def blobs(users: int = 60, size: int = 5, centres: int = 4) -> torch.Tensor:
    draw = torch.Generator().manual_seed(2)
    middle = 2 * torch.randn(centres, size, generator=draw)
    which = torch.randint(centres, (users,), generator=draw)
    return middle[which] + torch.randn(users, size, generator=draw)


@pytest.mark.parametrize("nodes", [1, 2, 7])
@pytest.mark.parametrize("steps", [1, 2, 5, 30])
def test_federated_k_means_is_that_of_pooled_points(nodes: int, steps: int) -> None:
    points, start = blobs(), blobs()[:4]
    centroids = start
    for step in range(steps):
        sums, members = torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64)
        for node in range(nodes):
            own = points[node::nodes]
            group = nearest(own, centroids, "euclidean")
            sums.index_add_(0, group, own)
            members += torch.bincount(group, minlength=4)
        merged = merge(sums, members, 1)
        assert merged is not None
        counts = merged.summed(members)
        means = merged.summed(sums) / counts[:, None]
        centroids = next_centroids(means, counts, merged, seed=step)
    pooled = KMeans(
        4, init=start.double().numpy(), n_init=1, max_iter=steps, tol=0, algorithm="lloyd"
    ).fit(points.double().numpy())
    # Once it has settled, scikit-learn ends without a last step that would change nothing.
    np.testing.assert_allclose(centroids, pooled.cluster_centers_, atol=1e-4)
    if steps == 30:
        found = nearest(points, centroids, "euclidean")
        np.testing.assert_array_equal(found, pooled.labels_)


def test_a_small_group_goes_with_the_nearest_one() -> None:
    means = torch.tensor([[0.0, 0.0], [10.0, 0.0], [9.0, 1.0], [0.0, 8.0]])
    members = torch.tensor([20, 30, 3, 12])
    merged = merge(means * members[:, None], members, 10)
    assert merged is not None
    assert merged.into.tolist() == [0, 1, 1, 3]
    assert merged.kept.tolist() == [0, 1, 3]
    assert merged.places.tolist() == [0, 1, 1, 2]
    assert merged.summed(members).tolist() == [20, 33, 12]


def test_an_empty_group_goes_with_the_largest_one() -> None:
    sums = torch.tensor([[5.0], [0.0], [-9.0]])
    merged = merge(sums, torch.tensor([5, 0, 9]), 2)
    assert merged is not None
    assert merged.into.tolist() == [0, 2, 2]


def test_nobody_is_used_where_all_are_too_few() -> None:
    assert merge(torch.ones(3, 2), torch.tensor([2, 3, 4]), 10) is None
    assert merge(torch.zeros(3, 2), torch.tensor([0, 0, 0]), 0) is None


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 25))
def test_what_is_left_is_large_enough_and_lacks_nobody(members: list[int], least: int) -> None:
    counts = torch.tensor(members)
    sums = torch.randn(len(members), 3, generator=torch.Generator().manual_seed(sum(members)))
    merged = merge(sums * counts[:, None], counts, least)
    if merged is None:
        assert sum(members) < max(1, least)
        return
    left = merged.summed(counts)
    assert int(left.sum()) == sum(members)
    assert int(left.min()) >= max(1, least)
    assert set(merged.into.tolist()) == set(merged.kept.tolist())
    assert merged.into[merged.kept].tolist() == merged.kept.tolist()
    centroids = next_centroids(sums[merged.kept], left, merged, 1)
    assert torch.equal(centroids[merged.kept], sums[merged.kept])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_an_emptied_group_begins_again_in_the_midst_of_the_largest(distance: str) -> None:
    points = blobs(400, centres=1) + 3
    counts = torch.tensor([len(points), 0, 0, 0])
    merged = merge(torch.stack([points.sum(0), *[torch.zeros(5)] * 3]), counts, 1)
    assert merged is not None
    mean = points.mean(0, keepdim=True)
    centroids = next_centroids(mean, torch.tensor([400]), merged, 1)
    assert torch.equal(centroids[:1], mean)
    far = (centroids[1:] - mean).norm(dim=1)
    torch.testing.assert_close(far, torch.full((3,), SPLIT * float(mean.norm())))
    shares = torch.bincount(nearest(points, centroids, distance), minlength=4) / 400
    assert float(shares.min()) > 0.02
    again = next_centroids(mean, torch.tensor([400]), merged, 1)
    assert torch.equal(again, centroids)
    assert not torch.equal(next_centroids(mean, torch.tensor([400]), merged, 2), centroids)
