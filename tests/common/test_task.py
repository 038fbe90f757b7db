import pytest

from common.catalogue import ItemIndex
from common.task import candidates, measured_splits


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_ranked(split: str) -> None:
    assert candidates("cold-items", split) == split
    assert candidates("last-warm-item", split) == "warm"


@pytest.mark.parametrize(
    ("splits", "cold", "last"),
    [
        (("warm", "validation", "test"), ["validation", "test"], ["validation", "test"]),
        (("warm", "warm", "test"), ["test"], ["validation", "test"]),
        (("warm", "warm", "warm"), [], ["validation", "test"]),
        (("test", "test", "test"), ["test"], []),
    ],
)
def test_what_can_be_measured(splits: tuple[str, ...], cold: list[str], last: list[str]) -> None:
    index = ItemIndex(("a", "b", "c"), splits)
    assert measured_splits("cold-items", index) == cold
    assert measured_splits("last-warm-item", index) == last
