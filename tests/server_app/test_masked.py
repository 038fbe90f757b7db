"""Runs with secure sums beside plain ones, and nodes that drop out, lie or refuse."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from flwr.app import Message

from cli.in_process import InProcessGrid
from common import messages
from common.errors import SnowdropError
from common.secure import groups, member
from common.settings import RunSettings
from deploy import folder as federation_folder
from deploy.federation import Federation
from server_app.items import load_catalogue
from server_app.measure import count_users
from server_app.nodes import Nodes
from server_app.run import SEEN
from tests.server_app.runs import (
    Spoil,
    SpoiltGrid,
    failing,
    rounds_of,
    run_here,
    run_values,
    silent,
    state_of,
    untouched,
)

NODES = 5


def values(data: Path, run_dir: Path, **changed: Any) -> dict[str, Any]:
    own = {"method": "own-features", "nodes": NODES, "rounds": 2, "baselines": False, **changed}
    return run_values(data, run_dir, **own)


def assert_same_results(one: dict[str, Any], other: dict[str, Any]) -> None:
    for split in ("validation", "test"):
        assert one[split].keys() == other[split].keys()
        for name, value in one[split].items():
            assert other[split][name] == pytest.approx(value, abs=1e-3), (split, name)


@pytest.mark.parametrize(
    "changed",
    [
        {"baselines": True},
        {"method": "fedncf", "average": "users", "head": "mlp"},
        {"method": "one-round", "rounds": 1},
        {"method": "group-fusion", "rounds": 1},
        {"task": "last-warm-item", "method": "fcf", "rounds": 1},
    ],
    ids=lambda changed: changed.get("method", "own-features"),
)
def test_a_run_with_secure_sums_is_the_plain_one(
    data_folder: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    plain = run_here(values(data_folder, tmp_path / "plain", **changed))
    secure = run_here(values(data_folder, tmp_path / "secure", secure_sums=True, **changed))
    assert_same_results(plain, secure)
    assert secure["dataset"] == plain["dataset"]
    assert secure["tested_users"] == plain["tested_users"] > 0
    assert secure["failed_answers"] == 0
    first, second = (rounds_of(tmp_path / name) for name in ("plain", "secure"))
    for one, other in zip(first, second, strict=True):
        assert one["users"] == other["users"]
        assert bool(one["loss"]) == bool(other["loss"])
        assert float(one["loss"] or 0) == pytest.approx(float(other["loss"] or 0), abs=1e-6)
    assert not list((tmp_path / "secure" / "nodes").glob("*/sums/*.json"))


def test_the_item_table_is_the_plain_one_within_the_error_of_its_steps(
    data_folder: Path, tmp_path: Path
) -> None:
    tables = []
    for name, secure in (("plain", False), ("secure", True)):
        run_here(values(data_folder, tmp_path / name, secure_sums=secure, rounds=1))
        tables.append(state_of(tmp_path / name, 1)["table"].numpy())
    assert np.abs(tables[0] - tables[1]).max() < 1e-6
    assert np.abs(tables[0]).max() > 0.1


@pytest.mark.parametrize(("secure", "told"), SEEN.items())
def test_a_run_tells_whether_sums_were_secure(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, secure: bool, told: str
) -> None:
    caplog.set_level("INFO", "snowdrop")
    summary = run_here(values(data_folder, tmp_path, secure_sums=secure, rounds=1))
    assert summary["secure_sums"] is secure
    assert [told in caplog.messages, SEEN[not secure] in caplog.messages] == [True, False]


class Recorder(SpoiltGrid):
    """Keeps every reply."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(NODES, given, untouched)
        self.replies: list[Message] = []

    def deliver(self, message: Message) -> Message | None:
        reply = super().deliver(message)
        if reply is not None:
            self.replies.append(reply)
        return reply


def test_all_that_leaves_a_node_is_masked_or_listed(data_folder: Path, tmp_path: Path) -> None:
    grid = Recorder(given := values(data_folder, tmp_path, secure_sums=True))
    run_here(given, grid)
    kinds: dict[str, set[str]] = {}
    for reply in grid.replies:
        content = reply.content
        names = {
            f"{record}.{name}"
            for group in (content.config_records, content.array_records)
            for record, held in group.items()
            for name in held
        }
        kinds.setdefault(reply.metadata.message_type, set()).update(names)
    keys = ("channel", "mask", "signer", "signature", "kinds")
    shares = ("commitment", "places", "shares")
    masked = {"single.long", "single.short"}
    with_keys = masked | {f"keys.{name}" for name in keys}
    assert kinds == {
        "query.catalogue": {"status.status"},
        "query.synthetic": {"values.answer", "status.status"},
        "query.keys": {f"values.{name}" for name in keys},
        "query.shares": {f"values.{name}" for name in shares},
        "query.unmask": {"values.places", "values.shares", *(f"shares.{name}" for name in shares)},
        "query.recommend": {"values.users"},
        "train": with_keys,
        "evaluate": with_keys,
        "query.describe": masked,
    }


def maskings(grid: SpoiltGrid) -> list[messages.Masking]:
    """What stood beside each message that asked for a masked vector."""
    found = (messages.Masking.found_beside(message.content) for message in grid.sent)
    return [one for one in found if one is not None]


def test_a_sum_that_follows_another_takes_two_messages_and_has_keys_of_its_own(
    data_folder: Path, tmp_path: Path
) -> None:
    grid = Recorder(given := values(data_folder, tmp_path, secure_sums=True))
    run_here(given, grid)
    assert len(grid.of(messages.QUERY_KEYS)) == len(grid.of(messages.QUERY_SHARES)) == NODES
    asked = maskings(grid)
    sums = len(asked) // NODES
    assert len({one.session for one in asked}) == sums == len(grid.of(messages.QUERY_UNMASK)) / 5
    assert not grid.of(messages.QUERY_CONFIRM)
    told = [
        messages.KeysAnswer.from_record(reply.content)
        if reply.metadata.message_type == messages.QUERY_KEYS
        else messages.KeysAnswer.found_beside(reply.content)
        for reply in grid.replies
        if reply.metadata.message_type in {messages.QUERY_KEYS, messages.TRAIN, messages.EVALUATE}
        and messages.status_of(reply.content) is None
    ]
    own = [key for answer in told if answer for key in (answer.channel, answer.mask)]
    assert len(set(own)) == len(own) == 2 * NODES * sums


def test_sums_over_nodes_that_are_drawn_anew_prepare_nothing(
    data_folder: Path, tmp_path: Path
) -> None:
    given = values(data_folder, tmp_path, secure_sums=True, nodes_per_round=3, rounds=1)
    grid = SpoiltGrid(NODES, given, untouched)
    run_here(given, grid)
    assert not any(one.following for one in maskings(grid))


def once(spoil: Callable[[Message, Message], Message | None]) -> Spoil:
    """The first answer alone is spoilt."""
    spoilt: list[Message] = []

    def first(message: Message, reply: Message) -> Message | None:
        if spoilt or messages.status_of(reply.content):
            return reply
        spoilt.append(reply)
        return spoil(message, reply)

    return first


def without_next_keys(message: Message, reply: Message) -> Message:
    del reply.content["keys"]
    return reply


def without_next_shares(message: Message, reply: Message) -> Message:
    del reply.content["shares"]
    return reply


def garbled_next_shares(message: Message, reply: Message) -> Message:
    reply.content.config_records["shares"]["places"] = [1, 2, 3, 5]
    return reply


def malformed_next_shares(message: Message, reply: Message) -> Message:
    reply.content.config_records["shares"]["places"] = "all"
    return reply


def unwilling_to_train(message: Message, reply: Message) -> Message:
    reply.content.config_records["keys"]["kinds"] = [messages.EVALUATE]
    return reply


@pytest.mark.parametrize(
    ("kind", "spoil", "refused"),
    [
        (messages.TRAIN, without_next_keys, False),
        (messages.TRAIN, unwilling_to_train, False),
        (messages.QUERY_UNMASK, failing, True),
        (messages.QUERY_UNMASK, without_next_shares, False),
        (messages.QUERY_UNMASK, garbled_next_shares, True),
        (messages.QUERY_UNMASK, malformed_next_shares, True),
    ],
)
def test_a_sum_begins_anew_where_not_every_node_is_prepared_for_it(
    data_folder: Path, tmp_path: Path, kind: str, spoil: Spoil, refused: bool
) -> None:
    given = values(data_folder, tmp_path / "secure", secure_sums=True)
    grid = SpoiltGrid(NODES, given, once(spoil), kind=kind)
    secure = run_here(given, grid)
    assert len(grid.of(messages.QUERY_KEYS)) == 2 * NODES
    assert secure["failed_answers"] == refused
    assert_same_results(run_here(values(data_folder, tmp_path / "plain")), secure)


class LosingGrid(SpoiltGrid):
    """One node loses what it has prepared for the sum of the test, the second evaluation."""

    folder: Path
    evaluations = lost = 0

    def deliver(self, message: Message) -> Message | None:
        self.evaluations += message.metadata.message_type == messages.EVALUATE
        if self.evaluations > 3 and not self.lost:
            next(self.folder.glob("nodes/*/sums/*.json")).unlink()
            self.lost += 1
        return super().deliver(message)


def test_a_sum_begins_anew_where_a_node_has_lost_what_it_prepared(
    data_folder: Path, tmp_path: Path
) -> None:
    given = values(data_folder, tmp_path / "secure", secure_sums=True, nodes=3)
    grid = LosingGrid(3, given, untouched)
    grid.folder = tmp_path / "secure"
    secure = run_here(given, grid)
    assert grid.lost == 1
    assert secure["failed_answers"] == 1
    plain = run_here(values(data_folder, tmp_path / "plain", nodes=3))
    assert_same_results(plain, secure)


class LeavingGrid(SpoiltGrid):
    """Some nodes are not there any more once the first sum is known."""

    def get_nodes(self) -> list[Any]:
        gone = self.bad if self.of(messages.QUERY_UNMASK) else set()
        return [node for node in super().get_nodes() if node.node_id not in gone]


@pytest.mark.parametrize(
    ("gone", "asked_for_keys"), [((3,), [NODES]), ((3, 4), [NODES, 3])], ids=["enough", "too few"]
)
def test_a_sum_goes_on_without_nodes_that_have_left_since_it_was_prepared(
    data_folder: Path, tmp_path: Path, gone: tuple[int, ...], asked_for_keys: list[int]
) -> None:
    given = values(data_folder, tmp_path, secure_sums=True, round_retries=0)
    grid = LeavingGrid(NODES, given, untouched, bad=gone)
    run_here(given, grid)
    assert len(grid.of(messages.QUERY_KEYS)) == sum(asked_for_keys)
    users = [int(row["users"]) for row in rounds_of(tmp_path)]
    assert users[0] > users[1] > 0


def only(kind: str, spoil: Callable[[Message, Message], Message | None]) -> dict[str, Any]:
    return {"kind": kind, "spoil": spoil, "bad": (3,)}


def lying(message: Message, reply: Message) -> Message:
    answer = messages.UnmaskAnswer.from_record(reply.content)
    shares = [share[:-1] + bytes([share[-1] ^ 1]) for share in answer.shares]
    return Message(dataclasses.replace(answer, shares=shares).to_record(), reply_to=message)


def misshapen(message: Message, reply: Message) -> Message:
    if "single" not in reply.content.array_records:
        return reply
    answer = messages.MaskedAnswer.from_record(reply.content)
    return Message(
        messages.MaskedAnswer(answer.long[:-1], answer.short).to_record(), reply_to=message
    )


@pytest.mark.parametrize(
    ("spoilt", "users_are_left_out", "told"),
    [
        (only(messages.QUERY_KEYS, failing), True, "left out of this query.keys"),
        (only(messages.QUERY_SHARES, failing), True, "left out of this query.shares"),
        (only(messages.TRAIN, failing), True, "left out of this train"),
        (only(messages.TRAIN, silent), True, "no answer within 2 s"),
        (only(messages.TRAIN, misshapen), True, "its masked vector has another shape"),
        (only(messages.QUERY_UNMASK, failing), False, "left out of this query.unmask"),
    ],
    ids=lambda it: it.get("kind") if isinstance(it, dict) else None,
)
def test_a_node_that_drops_out_at_any_stage_is_survived(
    data_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoilt: dict[str, Any],
    users_are_left_out: bool,
    told: str,
) -> None:
    """The same table as in a plain run without the node's answer, or with it where it came."""
    given = values(data_folder, tmp_path / "secure", secure_sums=True, rounds=1, round_retries=0)
    grid = SpoiltGrid(NODES, given, **spoilt)
    secure = run_here(given, grid)
    assert told in caplog.text
    joined_and_left = users_are_left_out and spoilt["kind"] != messages.QUERY_KEYS
    assert bool(grid.of(messages.QUERY_CONFIRM)) == joined_and_left
    assert secure["failed_answers"] > 0
    given = values(data_folder, tmp_path / "plain", rounds=1)
    spoil = failing if users_are_left_out else untouched
    run_here(given, SpoiltGrid(NODES, given, spoil))
    tables = [state_of(tmp_path / name, 1)["table"].numpy() for name in ("plain", "secure")]
    assert np.abs(tables[0] - tables[1]).max() < 1e-6
    users = [rounds_of(tmp_path / name)[0]["users"] for name in ("plain", "secure")]
    assert users[0] == users[1]


class DroppingGrid(SpoiltGrid):
    """Node 3 does not answer the training, and some nodes not what is asked of them after it."""

    gone: dict[str, set[int]]

    def deliver(self, message: Message) -> Message | None:
        reply, kind = super().deliver(message), message.metadata.message_type
        if reply is None or message.metadata.dst_node_id not in self.gone.get(kind, ()):
            return reply
        return failing(message, reply)


def dropping(folder: Path, data: Path, kind: str, *gone: int) -> Callable[[], dict[str, Any]]:
    """A round of seven nodes, of which five are needed, that will end in a model or in an error."""
    given = values(data, folder, secure_sums=True, rounds=1, round_retries=0, nodes=7)
    grid = DroppingGrid(7, given, failing)
    grid.gone = {kind: set(gone)}
    return lambda: run_here(given, grid)


@pytest.mark.parametrize("kind", [messages.QUERY_CONFIRM, messages.QUERY_UNMASK])
def test_nodes_that_drop_out_after_others_have_are_survived_down_to_the_threshold(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    dropping(tmp_path / "one", data_folder, kind, 4)()
    assert f"node 4 is left out of this {kind}" in caplog.text
    given = values(data_folder, tmp_path / "plain", rounds=1, nodes=7)
    run_here(given, SpoiltGrid(7, given, failing))
    tables = [state_of(tmp_path / name, 1)["table"].numpy() for name in ("plain", "one")]
    assert np.abs(tables[0] - tables[1]).max() < 1e-6
    with pytest.raises(SnowdropError, match="round 1 brought no usable answer"):
        dropping(tmp_path / "two", data_folder, kind, 4, 5)()
    if kind == messages.QUERY_CONFIRM:
        assert "4 of 7 nodes have confirmed who is in the sum, and more than two thirds" in (
            caplog.text
        )


def test_a_server_that_tells_nodes_different_lists_gets_no_sum(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class TwoLists(SpoiltGrid):
        def deliver(self, message: Message) -> Message | None:
            confirms = message.metadata.message_type == messages.QUERY_CONFIRM
            if confirms and message.metadata.dst_node_id > 4:
                values = message.content.config_records["values"]
                values["there"] = [place for place in values["there"] if place != 1]
            return super().deliver(message)

    given = values(data_folder, tmp_path, secure_sums=True, rounds=1, round_retries=0, nodes=7)
    with pytest.raises(SnowdropError, match="round 1 brought no usable answer"):
        run_here(given, TwoLists(7, given, failing))
    told = capsys.readouterr().err
    assert "this node has confirmed another list of the nodes in the sum" in told
    assert "too few nodes have confirmed who is in the sum" in told


def test_a_sum_of_nodes_that_share_with_their_neighbours_alone_is_confirmed(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "degree_of", lambda nodes: 4)
    monkeypatch.setattr(member, "SMALLEST_RING", 5)
    given = values(data_folder, tmp_path / "secure", secure_sums=True, rounds=1, nodes=7)
    grid = SpoiltGrid(7, given, untouched)
    secure = run_here(given, grid)
    assert secure["failed_answers"] == 0
    assert len(grid.of(messages.QUERY_CONFIRM)) == len(grid.of(messages.QUERY_UNMASK)) > 0
    plain = run_here(values(data_folder, tmp_path / "plain", rounds=1, nodes=7))
    assert_same_results(plain, secure)


def test_a_node_that_lies_about_shares_is_named_and_the_round_fails_only_if_all_are_needed(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = values(data_folder, tmp_path / "one", secure_sums=True, rounds=1)
    run_here(given, SpoiltGrid(NODES, given, lying, kind=messages.QUERY_UNMASK))
    assert "node 3 is left out of this query.unmask: its shares are false" in caplog.text
    given = values(data_folder, tmp_path / "two", secure_sums=True, rounds=1, round_retries=0)
    with pytest.raises(SnowdropError, match="round 1 brought no usable answer"):
        run_here(given, SpoiltGrid(NODES, given, lying, bad=(3, 4), kind=messages.QUERY_UNMASK))
    assert "the secure sum of this train came to nothing: its shares do not fit" in caplog.text


def test_too_few_nodes_end_a_round_in_one_sentence(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = values(data_folder, tmp_path, secure_sums=True, rounds=1, round_retries=0)
    with pytest.raises(SnowdropError, match="round 1 brought no usable answer"):
        run_here(given, SpoiltGrid(NODES, given, failing, bad=(3, 4)))
    assert (
        "the secure sum of this train came to nothing: 3 of 5 nodes have sent their part, and more "
        "than two thirds of a node's group must, at least 3" in caplog.text
    )


def test_nodes_whose_owners_want_secure_sums_answer_them_alone(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agreed = tmp_path / "policy.toml"
    agreed.write_text("secure_sums = true\nfewest_participants = 5\n")
    given = values(data_folder, tmp_path / "one", policy=str(agreed), rounds=1)
    with pytest.raises(SnowdropError, match="no node has agreed to round 1"):
        run_here(given)
    assert "secure_sums: it answers under secure sums alone: set secure_sums = true" in caplog.text
    given = values(data_folder, tmp_path / "two", policy=str(agreed), rounds=1, secure_sums=True)
    assert run_here(given)["tested_users"] > 0
    given = values(
        data_folder, tmp_path / "three", policy=str(agreed), rounds=1, secure_sums=True, nodes=4
    )
    with pytest.raises(SnowdropError, match="no node has agreed to round 1"):
        run_here(given)
    assert "fewest_participants: the sum would be over fewer nodes than it allows" in caplog.text


def test_numbers_that_do_not_fit_are_clipped_and_told(
    data_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server_app.masked.EXPONENT", 60)
    run_here(values(data_folder, tmp_path, secure_sums=True, rounds=1))
    assert "numbers of this train were too large for a masked sum and were clipped" in caplog.text


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"nodes": 2}, "secure_sums needs nodes = 3 or more"),
        ({"nodes_per_round": 2}, "secure_sums needs nodes_per_round = 0, or 3 or more"),
        ({"wire_dtype": "float16"}, "secure_sums needs wire_dtype = float32"),
        ({"max_node_users": 9}, "secure_sums needs max_node_users = 0"),
    ],
)
def test_settings_that_need_a_look_at_one_node_are_refused(
    data_folder: Path, tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    with pytest.raises(SnowdropError, match=told):
        run_here(values(data_folder, tmp_path, secure_sums=True, **changed))


def test_counts_of_cold_items_are_masked_too(data_folder: Path, tmp_path: Path) -> None:
    found = []
    for secure in (False, True):
        given = values(data_folder, tmp_path / str(secure), secure_sums=secure)
        settings = RunSettings.parse(given)
        index = load_catalogue(settings).index()
        nodes = Nodes(InProcessGrid(NODES, given), index, 5.0)
        found.append(count_users(nodes, index.version, index.rows("test"), settings))
    np.testing.assert_array_equal(*found)
    assert found[0].sum() > 0
    assert found[1].dtype == np.int64


def deployed(data: Path, folder: Path, given: dict[str, Any]) -> InProcessGrid:
    """Nodes as `snowdrop deploy init` makes them, with their keys and partners, in this process."""
    federation = Federation.new(folder, "fed", 3, ("localhost",))
    federation_folder.make(folder, federation, force=False, keep=False)
    every = pl.read_csv(data / "interactions.csv")
    configs = []
    for place, name in enumerate(federation.node_names()):
        own = folder / "nodes" / name
        rows = every.filter(pl.col("user_id").hash(seed=0) % 3 == place)
        rows.write_csv(own / "data" / "interactions.csv")
        configs.append(
            {
                "interactions": str(own / "data" / "interactions.csv"),
                "state-dir": str(own / "state"),
                "policy": str(own / "policy.toml"),
            }
        )
    return InProcessGrid(3, given, configs)


def test_deployed_nodes_sign_their_keys_and_take_those_of_partners_alone(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = values(
        data_folder, tmp_path / "run", nodes=3, secure_sums=True, rounds=1, round_retries=0
    )
    grid = deployed(data_folder, tmp_path / "fed", given)
    assert run_here(given, grid)["dataset"]["users"] == 60
    assert int(rounds_of(tmp_path / "run")[0]["users"]) > 0
    partners = tmp_path / "fed" / "nodes" / "node-1" / "partners.pub"
    partners.write_text("\n".join(partners.read_text().splitlines()[:2]))
    given = {**given, "run_dir": str(tmp_path / "again")}
    with pytest.raises(SnowdropError, match="no node has agreed to round 1"):
        run_here(given, grid)
    assert "query.shares: partners: the sum would hold a node that it does not know" in caplog.text
    assert "came to nothing: 2 of 3 nodes have shared their secrets" in caplog.text
