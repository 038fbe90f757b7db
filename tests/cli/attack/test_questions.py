"""Histories read by crafted questions, from known counts and from nodes in this process."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cli.attack import questions
from cli.attack.questions import Asked, Budget, Counts, people_by_counts
from cli.in_process import InProcessGrid
from common.catalogue import ItemIndex
from common.settings import RunSettings
from tests.cli.attack.conftest import IN_ROUNDS

IDS = [f"i{k:02d}" for k in range(30)]
CROWD = [{0, 1, 2}, {2, 3}, {3, 4, 5, 6}, {6, 7}, {7, 0}]


def counts_of(users: Sequence[set[int]]) -> Counts:
    place = {name: k for k, name in enumerate(IDS)}

    def counts(warm: Sequence[str], test: Sequence[str]) -> np.ndarray:
        there = [own for own in users if own & {place[name] for name in warm}]
        return np.array([sum(place[name] in own for own in there) for name in test])

    return counts


def owners_of(users: Sequence[set[int]]) -> np.ndarray:
    return np.array([sum(k in own for own in users) for k in range(len(IDS))])


def test_histories_are_peeled_off_one_after_the_other() -> None:
    """Of {7, 0} nobody owns an item alone, until the others are known."""
    found = people_by_counts(owners_of(CROWD), counts_of(CROWD), IDS)
    assert sorted(map(tuple, found)) == sorted(tuple(sorted(own)) for own in CROWD)


def test_users_of_whom_nobody_has_an_item_alone_stay_hidden() -> None:
    twins = [{0, 1}, {0, 1}]
    assert list(people_by_counts(owners_of(twins), counts_of(twins), IDS)) == []


def test_an_owner_who_was_not_counted_spoils_no_history() -> None:
    users = [{0, 1}, {0, 1, 2}]
    owners = owners_of(users) - (np.arange(len(IDS)) < 2)
    assert [list(own) for own in people_by_counts(owners, counts_of(users), IDS)] == [[0, 1, 2]]


Node = Callable[..., Asked]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with users as sets of items, with a policy."""

    def made(users: Sequence[set[int]], policy: str = "", left: int = 2000) -> Asked:
        rows = [(f"u{k}", IDS[item]) for k, own in enumerate(users) for item in sorted(own)]
        frame = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
        frame.write_csv(tmp_path / "interactions.csv")
        (tmp_path / "policy.toml").write_text(f"format = 1\n{policy}")
        config = {
            "interactions": str(tmp_path / "interactions.csv"),
            "state-dir": str(tmp_path),
            "policy": str(tmp_path / "policy.toml"),
        }
        grid = InProcessGrid(1, settings().flat(), [config])
        return Asked(grid, 2, "node 1", len(users), Budget(left))

    return made


def settings() -> RunSettings:
    return RunSettings.parse({**IN_ROUNDS, "run_dir": "/nowhere"})


INDEX = ItemIndex(tuple(IDS), ("warm",) * len(IDS))


@pytest.mark.parametrize("attack", [questions.counts, questions.descriptions])
def test_crafted_catalogues_read_a_crowd(node: Node, attack: Callable[..., object]) -> None:
    reading, reached = attack([node(CROWD)], INDEX, settings())  # type: ignore[misc]
    assert reached == ["node 1"]
    found = sorted(map(tuple, reading.people["node 1"]))
    assert found == sorted(tuple(sorted(own)) for own in CROWD)


def test_crafted_tables_read_a_user(node: Node) -> None:
    reading, _ = questions.losses([node([{3, 8, 21}])], INDEX, settings())
    assert [own.tolist() for own in reading.people["node 1"]] == [[3, 8, 21]]


def test_crafted_tables_read_who_is_there_of_a_crowd(node: Node) -> None:
    reading, _ = questions.losses([node(CROWD)], INDEX, settings())
    assert reading.anybody["node 1"].tolist() == sorted(set.union(*CROWD))


def test_a_policy_stops_questions(node: Node) -> None:
    asked = node(CROWD, 'answers = ["train"]\nepsilon_round = 1.0')
    for attack in (questions.counts, questions.descriptions, questions.losses):
        reading, reached = attack([asked], INDEX, settings())
        assert reached == ["node 1"]
        assert not any(map(len, reading.people.get("node 1", [])))
        assert not len(reading.anybody.get("node 1", []))
        assert "its owner has not agreed" in reading.told


def test_questions_are_used_up(node: Node) -> None:
    asked = node(CROWD, left=3)
    reading, reached = questions.descriptions([asked, asked], INDEX, settings())
    assert (reached, reading.people["node 1"]) == (["node 1"], [])
    assert reading.told.startswith("the attack has used up its --questions")
    assert asked.budget.left == 0
