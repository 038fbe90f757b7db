"""Groups of a masked sum, and how many of their members are certain to be in it."""

import numpy as np
import pytest

from common.secure.groups import SMALLEST_RING, certain, degree_of, neighbourhoods, threshold


@pytest.mark.parametrize("count", [3, 32, 33, 50, 200, 10_000])
def test_groups_are_the_same_from_both_ends(count: int) -> None:
    groups = neighbourhoods(range(count), np.random.default_rng(0))
    sizes = {len(group) for group in groups.values()}
    assert sizes == {degree_of(count) + 1}
    for place in list(groups)[:50]:
        assert place in groups[place]
        assert all(place in groups[other] for other in groups[place])


def test_groups_grow_with_the_logarithm() -> None:
    assert [degree_of(n) for n in (3, 32, 33, 200, 10_000)] == [2, 31, 32, 62, 108]


def test_groups_are_whole_up_to_the_size_of_the_smallest_one_on_a_ring() -> None:
    sizes = {nodes: degree_of(nodes) + 1 for nodes in range(3, 10_000)}
    on_rings = [size for nodes, size in sizes.items() if size < nodes]
    assert SMALLEST_RING == min(on_rings) == 47
    assert all(sizes[nodes] == nodes for nodes in range(3, SMALLEST_RING + 1))


@pytest.mark.parametrize(("members", "enough"), [(3, 3), (4, 3), (6, 5), (9, 7), (10, 7), (50, 34)])
def test_the_threshold_is_above_two_thirds(members: int, enough: int) -> None:
    assert threshold(members) == enough
    assert 3 * enough > 2 * members >= 3 * (enough - 1)


@pytest.mark.parametrize(("members", "sure"), [(3, 3), (10, 7), (46, 31), (47, 17), (63, 23)])
def test_fewer_members_are_certain_where_each_node_has_a_group_of_its_own(
    members: int, sure: int
) -> None:
    assert certain(members) == sure
