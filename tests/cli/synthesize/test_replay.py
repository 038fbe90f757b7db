"""A user that is planted is found again where the generator copies."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from cli.synthesize.replay import COPIES, look_for, planted_users, with_copies
from client_app.synthesis.silo import Silo
from common.errors import SnowdropError
from tests.cli.synthesize.conftest import Synthesize


def matrix(rows: list[list[int]]) -> csr_array:
    return csr_array(np.array(rows, dtype=bool))


HELD_OUT = matrix([[1, 1, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 1, 0, 1]])


def test_planted_users_are_of_those_with_more_items() -> None:
    assert {row for seed in range(20) for row in planted_users(HELD_OUT, 1, seed)} <= {0, 2}
    assert sorted(planted_users(HELD_OUT, 2, 0)) == [0, 2]
    with pytest.raises(SnowdropError, match="--replay 3 needs 6 held-out users and there are 4"):
        planted_users(HELD_OUT, 3, 0)


def test_copies_are_added_below_the_silo() -> None:
    silo = Silo(matrix([[1, 0]]), matrix([[1, 1]]))
    planted = with_copies(silo, matrix([[0, 1]]), 2)
    assert planted.likes.toarray().tolist() == [[1, 0], [0, 1], [0, 1]]
    assert planted.rated.toarray().tolist() == [[1, 1], [0, 1], [0, 1]]


def test_a_planted_user_is_compared_with_the_others() -> None:
    made = matrix([[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]])
    told = look_for(1, 10, 0, HELD_OUT, made)
    assert (told.user, told.copies, told.nearest, told.repeats) == (1, 10, 1.0, 2)
    assert told.control == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert told.as_near == pytest.approx(1 / 3)


def test_the_test_goes_on_and_finds_what_was_planted(
    synthesize: Synthesize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 users, all synthetic ones copies: a user with 100 copies makes most of them."""
    rows = "".join(f"u{u},own{u}\nu{u},also{u}\nu{u},all\n" for u in range(20))
    (tmp_path / "data.csv").write_text("user_id,item_id\n" + rows)
    out, options = tmp_path / "out", ("--hold-out", 0.2, "--replay", 2, "--set", "drawn.copies=1")
    looked: list[tuple[int, int]] = []

    def stopping(user: int, copies: int, *rest: object) -> object:
        looked.append((user, copies))
        if len(looked) == 6:
            raise KeyboardInterrupt
        return look_for(user, copies, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("cli.synthesize.replay.look_for", stopping)
    with pytest.raises(SnowdropError, match="stopped"):
        synthesize(tmp_path / "data.csv", out, *options)
    synthesize(tmp_path / "data.csv", out, *options)
    everyone = [(user, copies) for user in (1, 2) for copies in (0, *COPIES)]
    assert looked == [*everyone[:6], *everyone[5:]]
    told = json.loads((out / "summary.json").read_text())["replay"]
    assert [(one["user"], one["copies"]) for one in told] == everyone
    for one in told:
        if one["copies"] == 0:
            assert (one["nearest"], one["repeats"]) == (pytest.approx(1 / 5), 0)
        if one["copies"] == 100:
            assert one["nearest"] == 1
            assert one["repeats"] > 10
            assert one["as_near"] == 0
    assert one["control"] == pytest.approx(1 / 5)
