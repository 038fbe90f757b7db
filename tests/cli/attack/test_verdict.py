"""Verdicts on claims whose truth is known."""

import numpy as np
import pytest

from cli.attack.histories import Reading
from cli.attack.verdict import judge


def items(*rows: int) -> np.ndarray:
    return np.array(rows, dtype=np.int64)


TRUTH = {
    "node 1": [items(0, 1, 2), items(2, 3, 4, 5), items(9)],
    "node 2": [items(0, 1)],
}


def test_people_are_matched_with_the_users_that_they_fit_best() -> None:
    claims = {"node 1": [items(2, 3, 4), items(0, 1, 8), items(9)]}
    verdict = judge(Reading("x", claims), TRUTH)
    assert (verdict.users, verdict.interactions) == (4, 10)
    assert (verdict.claimed, verdict.right) == (7, 6)
    assert verdict.linked == 2  # the second claim has a third of its items wrong
    assert verdict.exact == 1
    assert verdict.linkable == 3  # the last user of node 1 has one item
    assert verdict.linkable_linked == 1
    assert verdict.precision == pytest.approx(6 / 7)
    assert verdict.recall == pytest.approx(0.6)


def test_a_user_is_matched_once() -> None:
    verdict = judge(Reading("x", {"node 2": [items(0, 1), items(0, 1)]}), TRUTH)
    assert (verdict.claimed, verdict.right, verdict.linked) == (4, 2, 1)


def test_items_of_anybody_are_judged_node_by_node() -> None:
    verdict = judge(Reading("x", anybody={"node 1": items(0, 1, 7)}), TRUTH)
    assert (verdict.interactions, verdict.claimed, verdict.right) == (9, 3, 2)
    assert verdict.linked is None and verdict.exact is None


def test_nothing_claimed_is_no_precision() -> None:
    verdict = judge(Reading("x", told="refused"), TRUTH)
    assert (verdict.precision, verdict.recall, verdict.linked) == (0, 0, 0)
    assert verdict.as_json()["told"] == "refused"
