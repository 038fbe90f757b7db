"""The ClientApp behind its door: what it answers, what leaves it, and how it fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from flwr.app import Message, RecordDict
from safetensors.numpy import load as load_tensors

from cli.in_process import InProcessGrid
from client_app import node as node_module
from client_app.lists import FILE
from client_app.methods import base as method_module
from client_app.scorers import SCORERS
from common import demo, messages
from common.catalogue import ItemIndex, read_catalogue
from common.durable import read_checked
from common.metrics import metric_names
from common.settings import KS, RunSettings

DIM, ITEMS, USERS, NODES = 4, 40, 12, 2
TRAINING = "ab" * 8
TRAINED = {"method": "ridge", "dim": DIM}
USER_IDS = [f"private-person-{k:03d}" for k in range(USERS)]


class Federation:
    """Two nodes over a small data folder, asked by hand."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.data, self.run_dir = folder / "data", folder / "run"
        if not self.data.exists():
            write_data(self.data)
        config = {"data": str(self.data), "run_dir": str(self.run_dir), **TRAINED, **settings}
        self.settings = RunSettings.parse(config)
        self.grid = InProcessGrid(NODES, config)
        self.index: ItemIndex = read_catalogue(self.data, seed=0).index()
        self.packed = self.settings.pack()

    def send(self, kind: str, body: messages.Body | RecordDict, node: int = 0) -> Message:
        content = body.to_record() if isinstance(body, messages.Body) else body
        to = list(self.grid.get_node_ids())[node]
        reply = self.grid.deliver(Message(content, to, kind, ttl=60.0))
        assert reply is not None
        return reply

    def announce(self) -> "Federation":
        for node in range(NODES):
            reply = self.send(
                messages.QUERY_CATALOGUE, messages.CatalogueNotice.of(self.index), node
            )
            assert messages.status_of(reply.content) == "kept"
        return self

    def header(self, number: int) -> dict[str, Any]:
        return {
            "catalogue": self.index.version,
            "training": TRAINING,
            "round": number,
            "settings": self.packed,
        }

    def table(self, split: str, columns: int = DIM) -> np.ndarray:
        rows = len(self.index.rows(split))
        return np.random.default_rng(1).normal(size=(rows, columns)).astype(np.float32)

    def train(self, number: int, node: int = 0, best: int = 0) -> Message:
        request = messages.TrainRequest(
            **self.header(number), best_round=best, arrays={"table": self.table("warm")}
        )
        return self.send(messages.TRAIN, request, node)

    def evaluate(self, scorer: str, node: int = 0) -> Message:
        return self.ask(scorer, self.arrays(scorer), node)

    def arrays(self, scorer: str) -> dict[str, np.ndarray]:
        """What a scorer needs to rank the test items."""
        items, warm = self.table("test"), self.table("warm")
        weights = self.table("test", len(warm))
        units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (items, warm)]
        return {
            "head": {"items": items},
            "profile": {"items": items, "warm": warm},
            "kernel": {
                "items": units[0],
                "warm": units[1],
                "sharpness": np.array([[5.0]], np.float32),
            },
            "weights": {"weights": weights},
            "random": {},
        }[scorer]

    def ask(
        self, scorer: str, arrays: dict[str, np.ndarray], node: int = 0, **changes: Any
    ) -> Message:
        told = {"split": "test", "method": "ridge", **changes}
        header = {**self.header(1), "task": told.pop("task", "cold-items")}
        ranked = messages.Ranked(**told, scorer=scorer, arrays=arrays)
        request = messages.EvaluateRequest.of(header, [ranked])
        return self.send(messages.EVALUATE, request, node)

    def recommend(self, node: int = 0) -> Message:
        cold = np.concatenate([self.table("validation"), self.table("test")])
        request = messages.RecommendRequest(
            **self.header(1), top=3, scorer="head", method="ridge", arrays={"items": cold}
        )
        return self.send(messages.QUERY_RECOMMEND, request, node)

    def describe(self, node: int = 0) -> Message:
        request = messages.DescribeRequest(self.index.version)
        return self.send(messages.QUERY_DESCRIBE, request, node)

    def count(self, node: int = 0) -> Message:
        return self.send(messages.QUERY_COUNT, messages.CountRequest(self.index.version), node)

    def state_dir(self, node: int = 0) -> Path:
        return self.run_dir / "nodes" / f"{node:05d}"


def write_data(folder: Path) -> None:
    folder.mkdir(parents=True)
    ids = [f"item-{k:02d}" for k in range(ITEMS)]
    splits = [
        "test" if k % 4 == 0 else "validation" if k % 4 == 1 else "warm" for k in range(ITEMS)
    ]
    items = pl.DataFrame({"item_id": ids, "title": [f"title {k}" for k in ids], "split": splits})
    items.write_csv(folder / "items.csv")
    rng = np.random.default_rng(0)
    pairs = [(user, ids[k]) for user in USER_IDS for k in rng.choice(ITEMS, 12, replace=False)]
    frame = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    frame.write_csv(folder / "interactions.csv")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path).announce()


def fields_of(reply: Message) -> tuple[set[str], set[str]]:
    """Names of the values and of the arrays of an answer that has nothing else."""
    content = reply.content
    assert set(content) <= {"values", "single", "sums"}
    arrays = [set(record) for record in content.array_records.values()]
    return set(content.config_records["values"]), set().union(*arrays)


def everything_in(reply: Message) -> bytes:
    """All text and bytes that a reply carries."""
    if reply.has_error():
        return f"{reply.error.code} {reply.error.reason}".encode()
    parts = [repr(dict(record)).encode() for record in reply.content.config_records.values()]
    parts += [repr(dict(record)).encode() for record in reply.content.metric_records.values()]
    for record in reply.content.array_records.values():
        for name, array in record.items():
            parts += [name.encode(), array.data]
    return b"\n".join(parts)


ASK: dict[str, Callable[[Federation], Message]] = {
    "describe": lambda f: f.describe(),
    "train": lambda f: f.train(1),
    "head": lambda f: f.evaluate("head"),
    "profile": lambda f: f.evaluate("profile"),
    "kernel": lambda f: f.evaluate("kernel"),
    "weights": lambda f: f.evaluate("weights"),
    "random": lambda f: f.evaluate("random"),
    "count": lambda f: f.count(),
    "recommend": lambda f: f.recommend(),
}
KIND = {
    "describe": messages.QUERY_DESCRIBE,
    "train": messages.TRAIN,
    "head": messages.EVALUATE,
    "profile": messages.EVALUATE,
    "kernel": messages.EVALUATE,
    "weights": messages.EVALUATE,
    "random": messages.EVALUATE,
    "count": messages.QUERY_COUNT,
    "recommend": messages.QUERY_RECOMMEND,
}


@pytest.mark.parametrize("name", ASK)
def test_a_node_asks_for_the_catalogue_first(tmp_path: Path, name: str) -> None:
    federation = Federation(tmp_path)
    reply = ASK[name](federation)
    assert messages.status_of(reply.content) == messages.NEEDS_CATALOGUE
    assert set(reply.content) == {"status"}
    assert messages.status_of(ASK[name](federation.announce()).content) is None


def test_another_version_is_asked_for(federation: Federation) -> None:
    reply = federation.send(messages.QUERY_DESCRIBE, messages.DescribeRequest("0" * 16))
    assert messages.status_of(reply.content) == messages.NEEDS_CATALOGUE


@pytest.mark.parametrize(
    ("name", "values", "arrays"),
    [
        (
            "describe",
            {
                "users",
                "users_without_warm",
                "warm",
                "validation",
                "test",
                "unknown",
                "peak_rss_mb",
                "order",
            },
            set(),
        ),
        ("train", {"users", "loss_sum"}, {"change", "touches"}),
        ("head", {"users", "names", "sums"}, set()),
        ("profile", {"users", "names", "sums"}, set()),
        ("kernel", {"users", "names", "sums"}, set()),
        ("weights", {"users", "names", "sums"}, set()),
        ("random", {"users", "names", "sums"}, set()),
        ("count", set(), {"users"}),
        ("recommend", {"users"}, set()),
    ],
)
def test_only_what_is_documented_leaves_a_node(
    federation: Federation, name: str, values: set[str], arrays: set[str]
) -> None:
    reply = ASK[name](federation)
    assert not reply.has_error()
    assert fields_of(reply) == (values, arrays)
    assert not any(user.encode() in everything_in(reply) for user in USER_IDS)
    assert b"private-person" not in everything_in(reply)


def test_touches_leave_only_where_they_average(tmp_path: Path) -> None:
    federation = Federation(tmp_path, average="users").announce()
    assert fields_of(federation.train(1)) == ({"users", "loss_sum"}, {"change"})


def test_the_counts_are_those_of_the_file(federation: Federation) -> None:
    answers = [
        messages.DescribeAnswer.from_record(federation.describe(node).content)
        for node in range(NODES)
    ]
    assert all(0 < answer.users < USERS for answer in answers)
    pairs = pl.read_csv(federation.data / "interactions.csv").join(
        federation.index.frame(), on="item_id"
    )
    for split in ("warm", "validation", "test"):
        total = sum(getattr(answer, split) for answer in answers)
        assert total == pairs.filter(pl.col("split") == split).height
    assert sum(answer.users for answer in answers) == USERS
    assert [answer.unknown for answer in answers] == [0, 0]


def test_a_node_tells_which_column_orders_its_interactions(federation: Federation) -> None:
    def told() -> str:
        return messages.DescribeAnswer.from_record(federation.describe().content).order

    assert told() == "seeded"
    path = federation.data / "interactions.csv"
    pl.read_csv(path).with_columns(pl.lit("soon").alias("position")).write_csv(path)
    assert told() == "position"  # whether it can be read matters to who asks for the order


def test_training_counts_every_user_once(federation: Federation) -> None:
    answers = [
        messages.TrainAnswer.from_record(federation.train(1, node).content) for node in range(NODES)
    ]
    warm = len(federation.index.rows("warm"))
    assert sum(answer.users for answer in answers) == USERS
    for answer in answers:
        assert answer.sums["change"].shape == (warm, DIM)
        assert answer.sums["change"].dtype == np.float32
        assert answer.sums["change"].any()
        assert answer.sums["touches"].max() <= answer.users


def test_evaluation_and_lists(federation: Federation) -> None:
    federation.train(1)
    for scorer in SCORERS:
        answer = messages.EvaluateAnswer.from_record(federation.evaluate(scorer).content)
        assert answer.names == metric_names(KS)
        (users,) = answer.users
        assert all(0 <= value <= users for value in answer.sums)
        assert answer.sums[1] == users  # Recall@50 of ten items
    served = messages.RecommendAnswer.from_record(federation.recommend().content).users
    lists = pl.read_parquet(federation.state_dir() / FILE)
    assert lists["user_id"].n_unique() == served
    assert not set(lists["item_id"]) & set(federation.index.ids_of("warm"))


def test_many_rankings_in_a_message_are_measured_as_in_one_each(federation: Federation) -> None:
    federation.train(1)
    alone = [
        messages.EvaluateAnswer.from_record(federation.evaluate(scorer).content)
        for scorer in SCORERS
    ]
    rankings = [
        messages.Ranked("test", scorer, "ridge", federation.arrays(scorer)) for scorer in SCORERS
    ]
    header = {**federation.header(1), "task": "cold-items"}
    request = messages.EvaluateRequest.of(header, rankings)
    reply = federation.send(messages.EVALUATE, request)
    together = messages.EvaluateAnswer.from_record(reply.content)
    assert together.names == alone[0].names
    assert together.users == [users for answer in alone for users in answer.users]
    assert together.sums == [value for answer in alone for value in answer.sums]
    assert len({tuple(answer.sums) for answer in alone}) == len(SCORERS)


def test_evaluation_uses_the_round_it_names(federation: Federation) -> None:
    federation.train(1)
    before = everything_in(federation.evaluate("head"))
    federation.train(2)
    assert everything_in(federation.evaluate("head")) == before


def assert_fixed_sentence(
    reply: Message, kind: str, what: str, code: int = messages.REFUSED
) -> None:
    assert reply.has_error()
    assert reply.error.code == code
    assert reply.error.reason == f"{kind} ended in {what}; the node's log says why"


@pytest.mark.parametrize("name", ASK)
@pytest.mark.parametrize(
    "line",
    [b"private-person-001,item-00,private-person-002\n", b",item-00\n", b"private-person-\xff,x\n"],
)
def test_a_broken_file_tells_the_server_nothing(tmp_path: Path, name: str, line: bytes) -> None:
    federation = Federation(tmp_path).announce()
    with (federation.data / "interactions.csv").open("ab") as file:
        file.write(line)
    reply = ASK[name](federation)
    assert_fixed_sentence(reply, KIND[name], "a refusal")
    assert b"person" not in everything_in(reply)
    assert str(tmp_path).encode() not in everything_in(reply)


@pytest.mark.parametrize("name", ASK)
@pytest.mark.parametrize("kind", [ValueError, KeyError, MemoryError])
def test_an_exceptions_text_stays_on_the_node(
    federation: Federation, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise kind("private-person-001 did something")

    monkeypatch.setattr(node_module, "load_interactions", fail)
    assert_fixed_sentence(ASK[name](federation), KIND[name], "an error")


@pytest.mark.parametrize("shape", [(3, DIM), (20, DIM + 1), (20,), (20, DIM, 1)])
def test_a_table_of_the_wrong_shape_is_refused(
    federation: Federation, shape: tuple[int, ...]
) -> None:
    request = messages.TrainRequest(
        **federation.header(1), best_round=0, arrays={"table": np.zeros(shape, np.float32)}
    )
    assert_fixed_sentence(federation.send(messages.TRAIN, request), messages.TRAIN, "a refusal")
    assert not (federation.state_dir() / "trainings").exists()


@pytest.mark.parametrize("name", SCORERS)
def test_what_a_scorer_needs_must_come_in_its_shape(
    federation: Federation, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    right = federation.arrays(name)
    for array in right:
        for wrong in (None, right[array][:-1], right[array][..., None], right[array][0]):
            given = {k: v for k, v in right.items() if k != array}
            reply = federation.ask(name, given if wrong is None else {**given, array: wrong})
            assert_fixed_sentence(reply, messages.EVALUATE, "a refusal")
            said = "the message carries no" if wrong is None else f"'{array}' has shape"
            assert said in capsys.readouterr().err
    assert not federation.ask(name, right).has_error()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scorer": "astrology"}, "the scorer 'astrology' is unknown"),
        ({"method": "nobody"}, "method 'nobody' is unknown"),
        ({"split": "warm"}, "the split 'warm' cannot be measured"),
    ],
)
def test_what_a_node_does_not_know_is_refused(
    federation: Federation,
    changes: dict[str, str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told: dict[str, Any] = {"scorer": "random", **changes}
    reply = federation.ask(told.pop("scorer"), {}, **told)
    assert_fixed_sentence(reply, messages.EVALUATE, "a refusal")
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("kind", sorted(set(KIND.values()) | {messages.QUERY_CATALOGUE}))
def test_a_malformed_message_is_refused(federation: Federation, kind: str) -> None:
    reply = federation.send(kind, messages.status_record("nonsense"))
    assert_fixed_sentence(reply, kind, "a refusal")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("number", [1, 3])
def test_a_round_that_is_run_again_gives_the_same(federation: Federation, number: int) -> None:
    for earlier in range(1, number):
        federation.train(earlier)
    first = federation.train(number)
    path = next(federation.state_dir().rglob(f"round-{number:06d}.state"))
    kept = path.read_bytes()
    federation.train(number + 1)  # the crash came later still
    again = federation.train(number)
    assert everything_in(again) == everything_in(first)
    assert path.read_bytes() == kept
    assert not list(path.parent.glob(f"round-{number + 1:06d}.state"))


def test_a_round_needs_the_states_before_it(federation: Federation) -> None:
    """Round 3 of a node that has trained 1 and 2 differs from that of one that has not."""
    third = federation.train(3)
    federation.train(1)
    federation.train(2)
    assert everything_in(federation.train(3)) != everything_in(third)


def test_a_round_older_than_all_that_is_kept_is_refused(tmp_path: Path) -> None:
    federation = Federation(tmp_path, keep_rounds=2).announce()
    for number in range(1, 6):
        assert not federation.train(number).has_error()
    before = files(federation.state_dir())
    for number in (2, 3):
        assert_fixed_sentence(federation.train(number), messages.TRAIN, "a refusal")
    assert files(federation.state_dir()) == before
    assert not federation.train(5).has_error()


def test_the_best_round_is_kept(tmp_path: Path) -> None:
    federation = Federation(tmp_path, keep_rounds=2).announce()
    for number in range(1, 6):
        federation.train(number, best=min(2, number - 1))
    names = {path.name for path in federation.state_dir().rglob("*.state")}
    assert names == {f"round-{number:06d}.state" for number in (2, 4, 5)}


def test_the_last_round_can_be_repeated_whatever_is_kept(tmp_path: Path) -> None:
    federation = Federation(tmp_path, keep_rounds=2).announce()
    for number in (1, 2, 3):
        last = federation.train(number)
    assert everything_in(federation.train(3)) == everything_in(last)


def test_a_new_training_starts_fresh(tmp_path: Path) -> None:
    federation = Federation(tmp_path).announce()
    first = federation.train(1)
    federation.train(2)
    other = messages.TrainRequest(
        **{**federation.header(1), "training": "cd" * 8},
        best_round=0,
        arrays={"table": federation.table("warm")},
    )
    reply = federation.send(messages.TRAIN, other)
    assert everything_in(reply) == everything_in(first)
    assert (federation.state_dir() / "trainings" / ("cd" * 8)).is_dir()


def test_demo_data_needs_no_files(tmp_path: Path) -> None:
    grid = InProcessGrid(200, {"data": "demo", "run_dir": str(tmp_path), "dim": DIM})
    index = demo.demo_catalogue(demo.ITEMS, 0).index()
    node = next(iter(grid.get_node_ids()))
    notice = messages.CatalogueNotice.of(index).to_record()
    grid.deliver(Message(notice, node, messages.QUERY_CATALOGUE, ttl=60.0))
    question = messages.DescribeRequest(index.version).to_record()
    reply = grid.deliver(Message(question, node, messages.QUERY_DESCRIBE, ttl=60.0))
    assert reply is not None
    answer = messages.DescribeAnswer.from_record(reply.content)
    assert answer.users > 0
    assert answer.unknown == 0
    assert answer.warm > answer.validation > 0


class Deployed(Federation):
    """Nodes with an interactions file and a state folder of their own."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        lines = pl.read_csv(self.data / "interactions.csv")
        configs = []
        for node in range(NODES):
            own = folder / f"node-{node}"
            own.mkdir()
            users = USER_IDS[node::NODES]
            lines.filter(pl.col("user_id").is_in(users)).write_csv(own / "interactions.csv")
            files = {"interactions": own / "interactions.csv", "state-dir": own / "state"}
            configs.append({name: str(path) for name, path in files.items()})
        self.folder = folder
        config = {"data": "/nowhere", "run_dir": str(self.run_dir), **TRAINED, **settings}
        self.grid = InProcessGrid(NODES, config, configs)

    def state_dir(self, node: int = 0) -> Path:
        return self.folder / f"node-{node}" / "state"

    def append(self, *pairs: tuple[str, str], node: int = 0) -> None:
        with (self.folder / f"node-{node}" / "interactions.csv").open("a") as file:
            file.writelines(f"{user},{item}\n" for user, item in pairs)

    def heads(self, number: int, node: int = 0) -> dict[str, dict[str, np.ndarray]]:
        """Heads by user, as the node keeps them."""
        folder = self.state_dir(node) / "trainings" / TRAINING
        content = read_checked(folder / f"round-{number:06d}.state")
        users = json.loads(read_checked(folder / f"users-{content[:16].decode()}.json"))
        tensors = load_tensors(content[16:])
        return {u: {n: t[k] for n, t in tensors.items()} for k, u in enumerate(users)}


@pytest.fixture
def deployed(tmp_path: Path) -> Deployed:
    federation = Deployed(tmp_path, head_start="random")
    federation.announce()
    return federation


def answer(reply: Message) -> messages.TrainAnswer:
    return messages.TrainAnswer.from_record(reply.content)


def test_a_file_that_grows_is_used_in_the_next_round(deployed: Deployed) -> None:
    warm = deployed.index.ids_of("warm")
    first = answer(deployed.train(1))
    before = deployed.heads(1)
    known = pl.read_csv(deployed.folder / "node-0" / "interactions.csv")
    user = USER_IDS[0]
    mine = set(known.filter(pl.col("user_id") == user)["item_id"])
    fresh_items = [item for item in warm if item not in mine][:3]
    deployed.append(*((user, item) for item in fresh_items), (user, "no-item"))

    second = answer(deployed.train(2))
    assert second.users == first.users
    described = messages.DescribeAnswer.from_record(deployed.describe().content)
    assert described.warm == known["item_id"].is_in(warm).sum() + len(fresh_items)
    assert described.unknown == 1
    after = deployed.heads(2)
    assert set(after) == set(before)

    known.write_csv(deployed.folder / "node-0" / "interactions.csv")
    plain = answer(deployed.train(2))  # had the file not grown
    assert not np.array_equal(plain.sums["change"], second.sums["change"])
    assert not np.array_equal(deployed.heads(2)[user]["weight"], after[user]["weight"])
    for neighbour in set(after) - {user}:
        again = deployed.heads(2)[neighbour]["weight"]
        np.testing.assert_allclose(again, after[neighbour]["weight"], atol=1e-6)


def test_a_new_user_gets_a_fresh_head_and_the_others_keep_theirs(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.train(1)
    kept = deployed.heads(1)
    began: dict[str, Any] = {}
    train_round = method_module.train_round

    def watched(table: Any, state: Any, *rest: Any) -> Any:
        began.update({name: tensor.clone() for name, tensor in state.items()})
        return train_round(table, state, *rest)

    monkeypatch.setattr(method_module, "train_round", watched)
    warm = deployed.index.ids_of("warm")
    newcomer = "a-private-person"  # the first by name: every other row moves
    deployed.append(*((newcomer, item) for item in warm[:4]))
    assert answer(deployed.train(2)).users == len(kept) + 1
    users = sorted([*kept, newcomer])
    for row, user in enumerate(users):
        if user != newcomer:
            np.testing.assert_array_equal(began["weight"][row], kept[user]["weight"])
    fresh = began["weight"][users.index(newcomer)].numpy()
    assert fresh.any()
    assert np.abs(fresh).max() <= DIM**-0.5
    assert set(deployed.heads(2)) == {*kept, newcomer}
    assert np.abs(deployed.heads(2)[newcomer]["weight"] - fresh).max() > 0


def test_counts_of_users_add_up_to_those_of_the_files(deployed: Deployed) -> None:
    cold = deployed.index.ids_of("test")
    lines = pl.read_csv(deployed.data / "interactions.csv")
    expected = [lines.filter(pl.col("item_id") == i)["user_id"].n_unique() for i in cold]
    deployed.append((USER_IDS[0], cold[0]), (USER_IDS[0], cold[0]))  # again and again counts once
    had = lines.filter(pl.col("item_id") == cold[0])["user_id"].is_in([USER_IDS[0]]).any()
    expected[0] += not had
    counts = [
        messages.CountAnswer.from_record(deployed.count(node).content).users
        for node in range(NODES)
    ]
    assert (counts[0] + counts[1]).tolist() == expected


def test_a_deployed_node_recommends_nothing_that_a_user_knows(deployed: Deployed) -> None:
    deployed.train(1)
    deployed.recommend()
    lines = pl.read_csv(deployed.folder / "node-0" / "interactions.csv")
    known = set(lines.select("user_id", "item_id").iter_rows())
    listed = pl.read_parquet(deployed.state_dir() / FILE)
    assert set(listed["user_id"]) == set(USER_IDS[0::NODES])
    assert not known & set(listed.select("user_id", "item_id").iter_rows())


def test_each_deployed_node_has_a_secret_of_its_own(deployed: Deployed) -> None:
    for node in range(NODES):
        deployed.train(1, node)
    secrets = {read_checked(deployed.state_dir(node) / "secret") for node in range(NODES)}
    assert len(secrets) == NODES


def test_a_training_that_diverged_leaves_the_last_whole_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    federation = Federation(tmp_path).announce()
    federation.train(1)
    before = files(federation.state_dir())
    request = messages.TrainRequest(
        **federation.header(2),
        best_round=0,
        arrays={"table": federation.table("warm") * np.float32(1e30)},
    )
    reply = federation.send(messages.TRAIN, request)
    assert_fixed_sentence(reply, messages.TRAIN, "a refusal", messages.OVERFLOWED)
    said = "snowdrop node: 'table' holds NaN, Inf or numbers above 1.1259e+15\n"
    assert (capsys.readouterr().err, caplog.text) == (said, "")
    assert files(federation.state_dir()) == before
    assert not federation.train(2).has_error()


def test_a_held_out_item_is_ranked_and_not_trained_on(tmp_path: Path) -> None:
    federation = Federation(tmp_path, method="ridge").announce()
    plain = answer(federation.train(1)).sums["touches"]
    settings = federation.settings.model_copy(update={"task": "last-warm-item"})
    federation.packed = settings.pack()
    held = answer(federation.train(1)).sums["touches"]
    assert held.sum() < plain.sum()  # two interactions fewer for each user, and their negatives
    warm = federation.table("warm")
    reply = federation.ask("head", {"items": warm}, task="last-warm-item")
    sums = messages.EvaluateAnswer.from_record(reply.content)
    assert sums.users == [answer(federation.train(1)).users]
    recall, precision = (sums.sums[sums.names.index(f"{m}@20")] for m in ("recall", "precision"))
    assert precision == pytest.approx(recall / 20)  # one item to find for each user
    wrong = federation.ask("head", {"items": federation.table("test")}, task="last-warm-item")
    assert_fixed_sentence(wrong, messages.EVALUATE, "a refusal")


@pytest.mark.parametrize("average", ["touches", "users"])
@pytest.mark.parametrize("scale", [1.0, 8.0, 2.0**-4])
def test_changes_are_divided_by_the_rounds_scale(
    tmp_path: Path, average: str, scale: float
) -> None:
    answers = []
    for dtype in ("float32", "float16"):
        federation = Federation(tmp_path / dtype, wire_dtype=dtype, average=average).announce()
        arrays = {"table": federation.table("warm")}
        told = scale if dtype == "float16" else 1.0
        request = messages.TrainRequest(
            **federation.header(1), best_round=0, scale=told, arrays=arrays
        )
        answers.append(answer(federation.send(messages.TRAIN, request)))
    whole, half = (each.sums["change"] for each in answers)
    assert half.dtype == np.float16
    restored = half.astype(np.float64) * scale
    np.testing.assert_allclose(restored, whole, atol=1e-3 * np.abs(whole).max())
