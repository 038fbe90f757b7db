"""Counted things in sentences."""

import pytest

from common.counting import counted


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 rounds"), (1, "1 round"), (2, "2 rounds"), (40, "40 rounds")]
)
def test_one_thing_alone_has_no_plural(number: int, told: str) -> None:
    assert counted(number, "round") == told
