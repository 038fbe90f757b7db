"""Withdrawing: what is deleted, what is refused, and what stays."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from cli.commands import app
from client_app import app as app_module
from client_app import node as node_module
from client_app.ledger import Ledger
from client_app.lists import FILE
from client_app.methods.base import NodeMethod
from client_app.policy import FILE as POLICY
from client_app.policy import template
from client_app.store import StateStore
from client_app.withdrawal import Withdrawn, withdraw_all, withdraw_user
from common import messages
from common.durable import read_checked
from common.errors import SnowdropError
from tests.client_app.test_app import ASK, KIND, Federation
from tests.client_app.test_policy import NOISE, agreeing, assert_refused


def users_of(federation: Federation) -> list[str]:
    """Users of the first node, as its newest state names them."""
    (path,) = (federation.state_dir() / "trainings").glob("*/users-*.json")
    return list(json.loads(read_checked(path)))


@pytest.fixture
def trained(tmp_path: Path) -> Federation:
    federation = agreeing(tmp_path, {}, **NOISE)
    for number in (1, 2):
        assert not federation.train(number).has_error()
    assert not federation.recommend().has_error()
    return federation


@pytest.mark.parametrize("name", ASK)
def test_a_node_that_has_withdrawn_answers_nothing(trained: Federation, name: str) -> None:
    withdraw_all(trained.state_dir())
    assert_refused(ASK[name](trained), KIND[name], "withdrawn")


def test_nothing_of_any_user_is_left(trained: Federation) -> None:
    folder = trained.state_dir()
    spent = Ledger(folder).read()
    assert spent.rounds == 2
    withdraw_all(folder)
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert left == {"withdrawn.json", "ledger.json", "ledger.lock"}
    assert Ledger(folder).read() == spent
    notice = messages.CatalogueNotice.of(trained.index)
    assert trained.send(messages.QUERY_CATALOGUE, notice).has_error()


def test_one_user_is_deleted_and_the_others_are_as_before(trained: Federation) -> None:
    folder, before = trained.state_dir(), users_of(trained)
    gone, training = before[1], "ab" * 8
    store = StateStore(folder)
    lists = pl.read_parquet(folder / FILE)
    states = {number: read_state(store, training, number) for number in (1, 2)}
    assert withdraw_user(folder, gone)
    assert users_of(trained) == [user for user in before if user != gone]
    for number, state in states.items():
        after = read_state(store, training, number)
        for name, tensor in state.items():
            assert after[name].equal(tensor[[k for k in range(len(before)) if k != 1]])
    assert pl.read_parquet(folder / FILE).equals(lists.filter(pl.col("user_id") != gone))
    for path in folder.rglob("*"):
        if path.is_file():
            assert gone.encode() not in path.read_bytes(), path
    answer = messages.TrainAnswer.from_record(trained.train(3).content)
    assert answer.users == len(before) - 1
    assert gone not in users_of(trained)
    assert messages.DescribeAnswer.from_record(trained.describe().content).users == answer.users
    assert not withdraw_user(folder, gone)
    noted = Withdrawn.read(folder)
    assert not withdraw_user(folder, "nobody", listed=False)
    assert Withdrawn.read(folder) == noted


def read_state(store: StateStore, training: str, number: int) -> dict:
    from safetensors.torch import load

    return load(read_checked(store._path(training, number))[16:])


def test_own_rows_of_others_stay(tmp_path: Path) -> None:
    """A method whose users keep item tables of their own: rows of all users in one tensor."""
    federation = Federation(tmp_path, method="fedrap", task="last-warm-item").announce()
    request = messages.TrainRequest(
        **federation.header(1), best_round=0, arrays={"table": federation.table("warm")}
    )
    assert not federation.send(messages.TRAIN, request).has_error()
    store, before = StateStore(federation.state_dir()), users_of(federation)
    state = read_state(store, "ab" * 8, 1)
    (counts,) = (name for name in state if state[name].dtype.is_floating_point is False
                 and len(state[name]) == len(before))  # fmt: skip
    withdraw_user(federation.state_dir(), before[0])
    after = read_state(store, "ab" * 8, 1)
    assert after[counts].equal(state[counts][1:])
    first = int(state[counts][0])
    for name, tensor in state.items():
        skipped = 1 if len(tensor) == len(before) else first
        assert after[name].equal(tensor[skipped:])


def test_a_damaged_state_goes_as_a_whole(trained: Federation) -> None:
    (path,) = (trained.state_dir() / "trainings").glob("*/round-000002.state")
    path.write_bytes(path.read_bytes()[:-3])
    withdraw_user(trained.state_dir(), users_of(trained)[0])
    assert not path.exists()


def test_a_round_under_way_is_not_sent(
    trained: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = node_module.half_of("ridge")

    class Slow(type(half)):  # type: ignore[misc]
        def train(self, request, local):  # type: ignore[no-untyped-def]
            answered = NodeMethod.train(self, request, local)
            withdraw_all(trained.state_dir())
            return answered

    Slow.noised = True
    monkeypatch.setattr(node_module, "half_of", lambda name: Slow(name))
    assert_refused(trained.train(3), messages.TRAIN, "withdrawn")
    assert not list(trained.state_dir().rglob("*.state"))


def test_lists_that_are_under_way_are_not_kept(
    trained: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, make = users_of(trained)[0], app_module.recommend

    def slow(*given: Any) -> int:
        served = make(*given)
        withdraw_user(trained.state_dir(), gone)
        make(*given)
        return served

    monkeypatch.setattr(app_module, "recommend", slow)
    assert_refused(trained.recommend(), messages.QUERY_RECOMMEND, "withdrawn")
    assert not (trained.state_dir() / FILE).exists()


def test_a_damaged_list_stops_the_node(trained: Federation) -> None:
    withdraw_user(trained.state_dir(), users_of(trained)[0])
    path = trained.state_dir() / "withdrawn.json"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(SnowdropError, match="is damaged"):
        Withdrawn.read(trained.state_dir())
    assert trained.train(3).has_error()


def node_folder(trained: Federation, folder: Path) -> Path:
    """The same node as a deployment lays it out."""
    folder.mkdir()
    (folder / "state").symlink_to(trained.state_dir())
    (folder / "data").mkdir()
    (folder / "data" / "interactions.csv").symlink_to(trained.data / "interactions.csv")
    (folder / POLICY).write_text("")
    return folder


def test_an_owner_withdraws_by_one_command(trained: Federation, tmp_path: Path) -> None:
    folder = node_folder(trained, tmp_path / "node-0")
    gone, run = users_of(trained)[0], CliRunner().invoke
    (folder / POLICY).unlink()
    assert "policy.toml cannot be read" in str(
        run(app, ["deploy", "policy", str(folder)]).exception
    )
    assert run(app, ["deploy", "policy", str(folder), "--write"]).exit_code == 0
    assert (folder / POLICY).read_text() == template(1)
    (folder / POLICY).write_text("epsilon_total = 4.0\n")
    shown = run(app, ["deploy", "policy", str(folder)])
    assert shown.exit_code == 0
    assert "epsilon_total = 4.0" in shown.output
    assert "spent: ε = 1 at δ = 1e-06, in 2 rounds and 0 sets" in shown.output
    done = run(app, ["deploy", "withdraw", str(folder), "--user", gone])
    assert done.exit_code == 0
    assert "this user takes part no more" in done.output
    assert gone not in users_of(trained)
    assert "withdrawn users: 1" in run(app, ["deploy", "policy", str(folder)]).output
    unknown = run(app, ["deploy", "withdraw", str(folder), "--user", "nobody"])
    assert "neither state nor interactions of a user 'nobody'" in str(unknown.exception)
    wrong = run(app, ["deploy", "withdraw", str(tmp_path)])
    assert "is no node's folder" in str(wrong.exception)
    assert run(app, ["deploy", "withdraw", str(folder)]).exit_code == 0
    assert "it answers nothing" in run(app, ["deploy", "policy", str(folder)]).output
    assert_refused(trained.train(3), messages.TRAIN, "withdrawn")
