"""Whole numbers of fixed steps: their error, their bound, and that sums never wrap around."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kstest, norm

from common.errors import OverflowedError, SnowdropError
from common.secure.fixed_point import CLIPPED, Field, Layout, Vector

FIELDS = (Field("users", 1), Field("table", 6, exponent=20), Field("counts", 3, bits=32))


def numbers(table: np.ndarray, users: int = 1) -> dict[str, np.ndarray]:
    return {"users": np.array([users]), "table": table, "counts": np.array([0, 1, 2])}


@given(arrays(np.float64, (4, 2, 3), elements=st.floats(-1e6, 1e6)))
def test_a_sum_is_the_exact_one_within_the_bound_of_its_error(tables: np.ndarray) -> None:
    layout = Layout(FIELDS, participants=4)
    total = Vector.zeros(*layout.sizes())
    for table in tables:
        total.add(layout.encode(numbers(table)))
    found = layout.decode(total)
    apart = np.abs(found["table"] - tables.sum(0).ravel())
    assert apart.max() <= layout.error(FIELDS[1]) + 1e-9  # of adding floats
    assert found["users"] == [4]
    assert found["counts"].tolist() == [0, 4, 8]
    assert found[CLIPPED] == [0]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("participants", [3, 7, 1000])
def test_the_largest_numbers_of_all_nodes_fit(bits: int, participants: int) -> None:
    one = Field("x", 2, exponent=3, bits=bits)
    layout = Layout((one,), participants)
    bound = layout.bound(one)
    vector = layout.encode({"x": np.array([bound, -bound])})
    total = Vector.zeros(*layout.sizes())
    for _ in range(participants):
        total.add(vector)
    np.testing.assert_allclose(
        layout.decode(total)["x"], [participants * bound, -participants * bound]
    )
    assert layout.decode(total)[CLIPPED] == [0]


def test_numbers_beyond_the_bound_are_clipped_and_counted() -> None:
    layout = Layout((Field("x", 3, exponent=8, bits=32),), 4)
    bound = layout.bound(layout.fields[0])
    assert bound == 2**28 / 2**8
    found = layout.decode(layout.encode({"x": np.array([bound * 3, -bound * 9, 1.0])}))
    assert found["x"].tolist() == [bound, -bound, 1.0]
    assert found[CLIPPED] == [2]


def test_zero_stays_zero_and_halves_go_to_the_nearest_step() -> None:
    layout = Layout((Field("x", 3, exponent=1),), 3)
    found = layout.decode(layout.encode({"x": np.array([0.0, 0.7, -0.2])}))
    assert found["x"].tolist() == [0.0, 0.5, 0.0]
    assert layout.error(layout.fields[0]) == 3 * 0.25


def test_what_is_not_asked_for_is_refused() -> None:
    layout = Layout(FIELDS, 3)
    for wrong in ({"users": np.ones(1)}, numbers(np.zeros(5)), {**numbers(np.zeros(6)), "x": 1}):
        with pytest.raises(SnowdropError, match="not of what this node answers"):
            layout.encode(wrong)  # type: ignore[arg-type]
    with pytest.raises(OverflowedError, match="its table holds NaN or Inf"):
        layout.encode(numbers(np.full(6, np.nan)))
    with pytest.raises(SnowdropError, match="another shape"):
        layout.decode(Vector.zeros(1, 1))


@pytest.mark.parametrize(
    ("fields", "participants"),
    [
        ((Field("x", 1), Field("x", 2)), 3),
        ((Field(CLIPPED, 1),), 3),
        ((Field("x", 1),), 0),
        ((Field("x", 1, bits=16),), 3),
        ((Field("x", 1, exponent=63),), 3),
        ((Field("x", -1),), 3),
    ],
)
def test_layouts_that_cannot_be_are_refused(fields: tuple[Field, ...], participants: int) -> None:
    with pytest.raises(SnowdropError, match="the layout of a masked sum"):
        Layout(fields, participants)


def test_whole_numbers_are_steps_already() -> None:
    """Beyond what floating-point numbers tell apart."""
    layout = Layout((Field("x", 2, exponent=30),), 3)
    vector = layout.encode({"x": np.array([2**60 + 1, -(2**60) - 1])})
    assert vector.long[1:].view(np.int64).tolist() == [2**60 + 1, -(2**60) - 1]
    assert vector.long[0] == 0
    assert layout.encode({"x": np.array([2**61, 0])}).long[0] == 1  # more than a third of 2^62


def test_noise_is_on_all_numbers_but_public_ones() -> None:
    size, deviation = 4000, 3.0
    layout = Layout((Field("users", 1), Field("x", size, exponent=30)), 3)
    numbers = {"users": np.array([7]), "x": np.full(size, 2.0**40)}  # more than fits: clipped
    vector = layout.encode(numbers)
    assert vector.long[0] == size
    layout.add_noise(vector, deviation, public=["users"])
    assert vector.long[:2].tolist() == [0, 7]  # how many were clipped is no longer told
    noise = layout.decode(vector)["x"] - layout.bound(layout.fields[1])
    assert kstest(noise, norm(scale=deviation).cdf).pvalue > 1e-9


@pytest.mark.parametrize("field", [Field("x", 2, exponent=20), Field("x", 2, 30, bits=32)])
def test_noise_is_for_steps_of_one_size_alone(field: Field) -> None:
    layout = Layout((field,), 3)
    with pytest.raises(SnowdropError, match=r"noise needs x in steps of 2\^-30"):
        layout.add_noise(layout.encode({"x": np.zeros(2)}), 1.0, public=[])
