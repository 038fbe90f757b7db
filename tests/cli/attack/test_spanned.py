"""Histories that a few directions span."""

import numpy as np
import pytest

from cli.attack.histories import SPANNED, Known, Reading, read
from cli.attack.seen import Seen
from cli.attack.spanned import AXES, SIZES, people_in_span
from cli.attack.verdict import judge
from common.users.item_sums import packed
from tests.cli.attack.constructed import histories

WARM, USERS, KEPT = 600, 120, 100


def directions(own: list[np.ndarray], kept: int = KEPT) -> tuple[np.ndarray, np.ndarray]:
    """The largest of Σ x xᵀ / n, and how much each counts."""
    table = np.zeros((len(own), WARM))
    for row, history in zip(table, own, strict=True):
        row[history] = len(history) ** -0.5
    _, sizes, axes = np.linalg.svd(table, full_matrices=False)
    return axes[:kept].T, sizes[:kept] ** 2


def test_more_users_than_directions_are_read() -> None:
    own = histories(USERS, 8, warm=WARM)
    axes, sizes = directions(own)
    seen = Seen("all", 1, USERS, {"gram": packed((axes * sizes) @ axes.T)},
                {AXES: axes, SIZES: sizes})  # fmt: skip
    found = {one.attack: one for one in read([seen], Known(WARM, 5, 1.0, 0.0))}
    verdict = judge(found.pop(SPANNED), {"all": own})
    assert verdict.exact is not None and verdict.exact > USERS / 2
    assert verdict.precision > 0.8
    (pairs,) = found.values()
    alone = judge(pairs, {"all": own})
    assert alone.exact is not None and alone.exact < verdict.exact / 4


def test_each_user_is_claimed_once() -> None:
    own = histories(20, 8, warm=WARM)
    found = people_in_span(*directions(own, 20), 20)
    assert sorted(map(tuple, found)) == sorted(map(tuple, own))
    assert len(people_in_span(*directions(own, 20), 5)) == 5


@pytest.mark.parametrize("dimensions", [KEPT, 500])
def test_directions_of_noise_span_nobody(dimensions: int) -> None:
    drawn = np.random.default_rng(0).normal(size=(WARM, dimensions))
    axes = np.linalg.qr(drawn)[0]
    assert people_in_span(axes, np.ones(dimensions), USERS) == []
    assert judge(Reading(SPANNED, {"all": []}), {"all": histories(2, 3)}).claimed == 0
