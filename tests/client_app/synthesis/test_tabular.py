"""Items as columns of a table, against plain loops over users and items."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from client_app.synthesis.tabular import Table
from common.errors import SnowdropError
from tests.client_app.silos import blocks, silo_of

CPU = torch.device("cpu")
#                 two  three  liked  two  nobody  three
VALUES = np.array(
    [[1, -1, 1, 0, 0, 1], [0, 0, 1, -1, 0, 0], [1, 1, 1, -1, 0, -1], [0, 0, 1, 0, 0, 0]]
)


@pytest.fixture
def table() -> Table:
    return Table.of(silo_of(VALUES == 1, VALUES != 0), CPU)


def test_categories_are_the_values_that_an_item_has(table: Table) -> None:
    assert len(table) == 4
    assert list(zip(table.item.tolist(), table.value.tolist(), strict=True)) == [
        (0, 0), (0, 1), (3, -1), (3, 0), (1, -1), (1, 0), (1, 1), (5, -1), (5, 0), (5, 1),
    ]  # fmt: skip
    assert table.sizes == [2, 2, 3, 3]
    assert table.constant.tolist() == [0, 0, 1, 0, 0, 0]


def test_users_are_one_hot(table: Table) -> None:
    chosen = [2, 0, 3]
    encoded = table.encoded(torch.tensor(chosen))
    for row, user in enumerate(chosen):
        for place, (item, value) in enumerate(
            zip(table.item.tolist(), table.value.tolist(), strict=True)
        ):
            assert encoded[row, place] == float(VALUES[user, item] == value)


def test_decoding_undoes_encoding(table: Table) -> None:
    encoded = table.encoded(torch.arange(4))
    logits = encoded + torch.rand(encoded.shape) * 0.5
    assert table.decoded(logits).tolist() == VALUES.tolist()
    only_pairs = silo_of(VALUES[:, [0, 3]] == 1, VALUES[:, [0, 3]] == 1)
    pairs = Table.of(only_pairs, CPU)
    assert pairs.sizes == [2]
    assert pairs.decoded(pairs.encoded(torch.arange(4))).tolist() == [
        [1, 0],
        [0, 0],
        [1, 0],
        [0, 0],
    ]


def test_a_function_sees_each_items_categories_alone(table: Table) -> None:
    numbers = torch.randn(5, 10)
    found = table.by_item(lambda own: own.softmax(2), numbers)
    place = 0
    for size in table.sizes:
        part = slice(place, place + size)
        assert torch.allclose(found[:, part], numbers[:, part].softmax(1))
        place += size


def test_users_that_are_all_alike_are_refused() -> None:
    likes = np.zeros((3, 4), dtype=bool)
    likes[:, 1] = True
    with pytest.raises(SnowdropError, match="all users of the silo have the same interactions"):
        Table.of(silo_of(likes), CPU)


def test_a_rated_cell_is_a_like_or_a_dislike() -> None:
    silo = blocks()
    table = Table.of(silo, CPU)
    values = table.decoded(table.encoded(torch.arange(len(table))))
    assert np.array_equal(values.numpy() == 1, silo.likes.toarray())
    low = csr_array(silo.rated).toarray() & ~silo.likes.toarray()
    assert low.any()
    assert np.array_equal(values.numpy() == -1, low)
