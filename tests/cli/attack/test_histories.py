"""Histories read from sums that were made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from cli.attack.histories import (
    DIRECTIONS,
    MEANS,
    PAIRS,
    TOUCHES,
    Crowd,
    Known,
    Reading,
    crowds_in,
    owners_likelihood,
    parts_of,
    people_in_gram,
    people_in_means,
    read,
)
from cli.attack.seen import Seen, added, seen_in
from cli.attack.verdict import judge
from common.messages import TrainAnswer
from common.settings import RunSettings
from common.users.item_sums import gram_sum, sketch_sum
from common.users.ragged import Ragged
from server_app.aggregation import Expected
from tests.cli.attack.constructed import KNOWN, D, histories, rounds_of


def reading_of(readings: list[Reading], attack: str) -> Reading:
    return next(one for one in readings if one.attack == attack)


@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("told", [True, False])
def test_one_user_is_read_exactly(rounds: int, told: bool) -> None:
    (own,) = histories(1, 8)
    readings = read(rounds_of([own], rounds, told=told), KNOWN)
    (history,) = reading_of(readings, DIRECTIONS).people["node 1"]
    assert history.tolist() == own.tolist()
    assert MEANS not in [one.attack for one in readings]  # which are of crowds


def test_an_item_that_is_scored_too_high_for_a_gradient_is_read_all_the_same() -> None:
    (own,) = histories(1, 8)
    seen = rounds_of([own], 6)
    for one in seen:
        one.sums["change"][own[0]] = 0
    (history,) = reading_of(read(seen, KNOWN), DIRECTIONS).people["node 1"]
    assert history.tolist() == own.tolist()


def test_a_crowd_whose_heads_all_show_is_read_exactly() -> None:
    own = histories(8, 5)
    verdict = judge(reading_of(read(rounds_of(own, 6), KNOWN), DIRECTIONS), {"node 1": own})
    assert verdict.exact == verdict.linked == 8
    assert verdict.precision == verdict.recall == 1


def test_more_heads_than_dimensions_are_taken_apart_row_by_row() -> None:
    """24 users in 16 dimensions: a row is explained by as many heads as it has touchers."""
    own = histories(24, 2)
    verdict = judge(reading_of(read(rounds_of(own, 4), KNOWN), DIRECTIONS), {"node 1": own})
    assert verdict.linked is not None and verdict.linked >= 20
    assert verdict.precision > 0.95


def test_a_row_that_fewer_heads_explain_than_touched_it_is_no_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """The second toucher's loss had no gradient left: nothing of the row is known for certain."""
    heads = np.random.default_rng(0).normal(size=(D, D))
    rows = np.concatenate([heads, 2 * heads, heads[:1]])
    items, touchers = np.arange(len(rows)), np.array([1] * 2 * D + [2])
    parts = parts_of(Crowd(items, rows, touchers, D, noise=0.0), np.zeros(len(rows)))
    assert sorted(part.items.tolist() for part in parts) == [[k, k + D] for k in range(D)]
    assert not recwarn.list


def test_a_crowd_without_a_row_of_one_user_is_read_from_means() -> None:
    own = histories(40, 10)
    seen = rounds_of(own, 40, dims=48)
    assert np.mean([np.count_nonzero(one.sums["touches"] == 1) for one in seen]) < 1
    readings = read(seen, KNOWN)
    alone = judge(reading_of(readings, DIRECTIONS), {"node 1": own})
    means = judge(reading_of(readings, MEANS), {"node 1": own})
    assert alone.linked is not None and alone.linked <= 2
    assert means.linked is not None and means.linked >= 34
    assert means.precision > 0.9


def test_means_are_read_where_touches_are_not_told() -> None:
    own = histories(10, 4)
    people = people_in_means(rounds_of(own, 30, told=False, dims=48), KNOWN)
    verdict = judge(Reading(MEANS, {"node 1": people}), {"node 1": own})
    assert verdict.linked is not None and verdict.linked >= 9


def test_noise_hides_histories() -> None:
    own = histories(1, 8)
    known = Known(KNOWN.warm, KNOWN.negatives, 1.0, 20.0)
    readings = read(rounds_of(own, 4, told=False, noise=20.0), known)
    verdict = judge(reading_of(readings, DIRECTIONS), {"node 1": own})
    assert verdict.exact == 0
    assert verdict.recall < 0.5


def test_owners_are_counted_from_touches() -> None:
    own = histories(10, 10)
    counts = np.bincount(np.concatenate(own), minlength=KNOWN.warm)
    found = owners_likelihood(rounds_of(own, 60), KNOWN).argmax(0)
    assert (found == counts).mean() > 0.97
    claimed = reading_of(read(rounds_of(own, 60), KNOWN), TOUCHES).anybody["node 1"]
    assert claimed.tolist() == np.flatnonzero(found).tolist()


def test_owners_are_counted_where_users_are_drawn() -> None:
    own = histories(6, 10)
    known = Known(KNOWN.warm, KNOWN.negatives, 0.4, 0.0)
    counts = np.bincount(np.concatenate(own), minlength=KNOWN.warm)
    found = owners_likelihood(rounds_of(own, 80, known=known), known).argmax(0)
    assert (found == counts).mean() > 0.95


def test_a_round_with_one_drawn_user_tells_that_users_history() -> None:
    own = histories(4, 8)
    known = Known(KNOWN.warm, KNOWN.negatives, 0.2, 0.0)
    seen = rounds_of(own, 60, known=known)
    assert any(one.users == 1 for one in seen)
    verdict = judge(reading_of(read(seen, known), DIRECTIONS), {"node 1": own})
    assert verdict.linked == 4


def test_groups_of_users_are_crowds_of_their_own() -> None:
    own = histories(2, 8)
    apart = [rounds_of([one], 3, seed) for seed, one in enumerate(own)]
    seen = [
        Seen("node 1", a.round, 2, {
            "change": np.concatenate([a.sums["change"], b.sums["change"]]),
            "touches": np.concatenate([a.sums["touches"], b.sums["touches"]]),
            "members": np.array([1, 1]),
        })
        for a, b in zip(*apart, strict=True)
    ]  # fmt: skip
    verdict = judge(reading_of(read(seen, KNOWN), DIRECTIONS), {"node 1": own})
    assert verdict.exact == 2


def ragged(lists: list[np.ndarray]) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])])
    return Ragged(offsets, np.concatenate(lists))


def test_every_group_carries_the_noise_of_all_users() -> None:
    """Where sizes of groups carry noise, any of the users may be in any of the groups."""
    known = replace(KNOWN, noise=2.0)
    change = np.full((2 * KNOWN.warm, 4), 1e3, np.float32)
    sums = {"change": change, "members": np.array([[-0.7], [3.1]], np.float32)}
    for crowd in crowds_in(Seen("node 1", 1, 9, sums), known):
        assert crowd.users == 9
        assert crowd.noise == pytest.approx(2.0 * 3)
        assert len(crowd.items) == KNOWN.warm


def test_a_sum_of_pairs_is_taken_apart_history_by_history() -> None:
    own = [np.array([0, 1, 2]), np.array([2, 3]), np.array([1, 2, 3, 4]), np.array([7])]
    own += [np.array([5, 6]), np.array([5, 6])]  # nobody of whom has an item alone
    numbers = gram_sum(ragged(own), 10).astype(np.float32)
    seen = Seen("node 1", 1, 6, {"gram": numbers})
    (people,) = [one.people["node 1"] for one in read([seen], Known(10, 5, 1.0, 0.0))]
    assert sorted(map(tuple, people)) == [(0, 1, 2), (1, 2, 3, 4), (2, 3), (7,)]
    assert people_in_gram(np.zeros((3, 3))) == []


@pytest.mark.parametrize("users", [1, 5])
def test_a_sketch_is_read_by_its_rows(users: int) -> None:
    own = [np.arange(4) + 4 * user for user in range(users)]
    basis = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    seen = Seen("node 1", 1, users, {"sketch": sketch_sum(ragged(own), basis).astype(np.float32)})
    (reading,) = read([seen], Known(40, 5, 1.0, 0.0))
    assert reading.attack == PAIRS
    assert judge(reading, {"node 1": own}).exact == users


def test_what_the_server_knows_of_noise() -> None:
    base = {"method": "mixture", "average": "users", "clip_norm": 1}
    laplace = RunSettings.parse({**base, "laplace_scale": 3})
    assert Known.of(laplace, 7) == Known(7, laplace.negatives, 1.0, 3 * np.sqrt(2))
    values = {**base, "gaussian_scale": 3}
    assert Known.of(RunSettings.parse(values), 7).noise == 3
    by_server = RunSettings.parse({**values, "noise_by": "server"})
    assert Known.of(by_server, 7).noise_in(9) == 0
    assert Known.of(RunSettings.parse(values), 7).noise_in(9) == 9
    together = {"method": "one-round", "noise_by": "sum", "secure_sums": True, "nodes": 3}
    assert Known.of(RunSettings.parse({**values, **together}), 7).noise_in(9) == 3


def test_a_sketch_under_noise_tells_only_what_stands_out_of_it() -> None:
    basis = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    sketch = sketch_sum(ragged([np.arange(4), np.arange(4, 8)]), basis)
    noise = np.random.default_rng(1).normal(size=sketch.shape)
    for deviation, read_at_all in ((4.0, False), (1e-3, True)):
        seen = Seen("all nodes", 1, 2, {"sketch": sketch + deviation * noise})
        (reading,) = read([seen], Known(40, 5, 1.0, 0.0, deviation))
        assert bool(reading.people["all nodes"]) == read_at_all


def test_an_answer_is_seen_at_its_own_scale() -> None:
    change, touches = np.ones((3, 2), np.float32), np.array([1, 2, 3])
    steps = np.array([[2**29, 0]])
    answer = TrainAnswer(5, 1.0, {"change": change, "touches": touches, "sketch": steps})
    expected = {
        "change": Expected((3, 2), bounded=True),
        "touches": Expected((3,), counts="change"),
        "sketch": Expected((1, 2), whole=True),
    }
    table = np.ones((3, 2))
    seen = seen_in("node 7", 4, 2.0, answer, expected, {"table": table})
    assert seen.sent["table"] is table
    assert seen.sums["sketch"].tolist() == [[0.5, 0.0]]
    assert (seen.source, seen.round, seen.users) == ("node 7", 4, 5)
    assert (seen.sums["change"] == 2).all()
    assert seen.sums["touches"].tolist() == [1, 2, 3]


def test_masked_answers_are_seen_as_their_sum() -> None:
    first = rounds_of(histories(2, 5, 0), 2, source="node 1")
    second = rounds_of(histories(3, 5, 1), 2, source="node 2")
    total = added([*first, *second], "all nodes")
    assert [(one.source, one.round, one.users) for one in total] == [
        ("all nodes", 1, 5), ("all nodes", 2, 5),
    ]  # fmt: skip
    for one, a, b in zip(total, first, second, strict=True):
        assert np.allclose(one.sums["change"], a.sums["change"] + b.sums["change"])
        assert (one.sums["touches"] == a.sums["touches"] + b.sums["touches"]).all()
