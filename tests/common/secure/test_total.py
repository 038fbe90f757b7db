"""Masked sums against plain ones, whoever drops out, and what the server cannot put together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import SnowdropError
from common.secure import groups, member
from common.secure.fixed_point import CLIPPED, Field, Layout, Vector
from common.secure.groups import threshold
from tests.common.secure.sums import Sum

FIELDS = (Field("x", 5, exponent=24), Field("n", 3, bits=32))


def drawn(count: int, seed: int) -> Sum:
    rng = np.random.default_rng(seed)
    numbers = {
        place: {"x": rng.normal(0, 100, 5), "n": rng.integers(0, 9, 3)}
        for place in range(1, count + 1)
    }
    return Sum(Layout(FIELDS, count), numbers)


@settings(max_examples=25)
@given(st.integers(3, 8), st.integers(0, 99), st.data())
def test_the_total_is_the_plain_sum_of_who_is_there(
    count: int, seed: int, data: st.DataObject
) -> None:
    one = drawn(count, seed)
    lost = data.draw(
        st.lists(st.integers(1, count), max_size=count - threshold(count), unique=True)
    )
    stages = [data.draw(st.integers(0, 2)) for _ in lost]
    dropped = [{p for p, at in zip(lost, stages, strict=True) if at == k} for k in range(3)]
    one.join()
    one.share(without=dropped[0])
    one.mask(without=dropped[1])
    assert one.total.enough(one.total.there)
    assert one.unmask(without=dropped[2]) == set()
    there = set(range(1, count + 1)) - dropped[0] - dropped[1]
    assert one.total.there == there
    found = one.found()
    exact = sum(one.numbers[place]["x"] for place in there)
    assert np.abs(found["x"] - exact).max() <= one.layout.error(FIELDS[0]) + 1e-12
    assert found["n"].tolist() == sum(one.numbers[place]["n"] for place in there).tolist()  # type: ignore[union-attr]
    assert found[CLIPPED] == [0]


def test_below_the_threshold_nothing_comes_off() -> None:
    one = drawn(7, 1)
    one.join()
    one.share()
    one.mask()
    with pytest.raises(SnowdropError, match="4 of 5 shares came"):
        one.unmask(without={1, 2, 3})
    two = drawn(7, 1)
    two.join()
    two.share(without={1})
    two.mask(without={2, 3})
    assert not two.total.enough(two.total.there)


def test_without_all_masks_off_the_total_is_noise() -> None:
    one = drawn(4, 2)
    one.join()
    one.share()
    one.mask()
    exact = sum(own["x"] for own in one.numbers.values())
    assert np.abs(one.found()["x"] - exact).min() > 1e3  # type: ignore[operator]
    one.unmask()
    np.testing.assert_allclose(one.found()["x"], exact, atol=1e-6)


def test_a_node_that_lies_about_shares_is_found_and_does_no_harm() -> None:
    def lie(place: int, told: dict[int, bytes]) -> dict[int, bytes]:
        if place != 2:
            return told
        return {other: share[:-1] + bytes([share[-1] ^ 1]) for other, share in told.items()}

    one = drawn(6, 3)
    one.join()
    one.share()
    one.mask(without={6})
    with pytest.raises(SnowdropError, match="do not fit together"):
        one.unmask(change=lie)  # all five that are left are needed
    two = drawn(7, 3)
    two.join()
    two.share()
    two.mask(without={7})
    exact = sum(own["x"] for place, own in two.numbers.items() if place != 7)
    assert two.unmask(change=lie) == {2}
    np.testing.assert_allclose(two.found()["x"], exact, atol=1e-6)


def test_a_vector_of_another_shape_is_refused() -> None:
    one = drawn(3, 4)
    one.join()
    one.share()
    one.mask()
    with pytest.raises(SnowdropError, match="another shape"):
        one.total.add(9, Vector.zeros(2, 2))
    assert one.total.there == {1, 2, 3}


def test_a_sum_of_nodes_that_share_with_their_neighbours_alone_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(groups, "degree_of", lambda nodes: 6)
    monkeypatch.setattr(member, "SMALLEST_RING", 7)
    one = drawn(12, 5)
    one.join()
    one.share(without={3})
    one.mask(without={11})
    assert {len(group) for group in one.total.groups.values()} == {7}
    one.unmask()
    exact = sum(own["x"] for place, own in one.numbers.items() if place not in (3, 11))
    np.testing.assert_allclose(one.found()["x"], exact, atol=1e-6)
