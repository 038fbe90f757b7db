"""New items of a federation whose nodes have files of their own: published, and trained on."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from flwr.app import Message
from safetensors.torch import load as load_tensors

from cli.in_process import InProcessGrid
from client_app.lists import FILE
from client_app.methods import base as node_half
from client_app.node import Node
from common import messages
from common.durable import read_checked
from common.errors import SnowdropError
from common.users.heads import State
from server_app import publish as publishing
from server_app import run as running
from server_app.checkpoint import Checkpoints
from server_app.measure import Task
from server_app.methods.network import NetworkGenerator
from server_app.run_folder import RunFolder
from server_app.training import former_index
from tests.server_app.encoders import HASHED, encoded, hashed_features
from tests.server_app.runs import run_here, run_values

SPLITS = {"warm": 30, "validation": 6, "test": 8}
COUNT = {"validation": 6, "test": 8}
NODES, USERS = 2, 8  # users of each node

Heads = dict[str, State]


class Recorder(InProcessGrid):
    """Keeps every message and every answer."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sent: list[Message] = []
        self.answers: list[Message] = []

    def deliver(self, message: Message) -> Message | None:
        self.sent.append(message)
        reply = super().deliver(message)
        if reply is not None:
            self.answers.append(reply)
        return reply

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.sent if message.metadata.message_type == kind]


class World:
    """A server with ``items.csv``, and nodes with an ``interactions.csv`` each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.run_dir = folder, folder / "server", folder / "run"
        self.data.mkdir()
        self.items = [
            (f"{split[0]}{k:02d}", f"title of {split} {k}", split)
            for split, count in SPLITS.items()
            for k in range(count)
        ]
        self.pairs: list[list[tuple[str, str]]] = []
        rng = np.random.default_rng(3)
        ids = [item for item, _, _ in self.items]
        for node in range(NODES):
            chosen = {f"private-{node}-{k}": rng.choice(ids, 14, False) for k in range(USERS)}
            self.pairs.append([(user, i) for user, items in chosen.items() for i in items])
        self.with_split = True
        self.heads: Heads = {}

    def write(self) -> None:
        frame = pl.DataFrame(self.items, schema=["item_id", "title", "split"], orient="row")
        frame = frame.sample(fraction=1, shuffle=True, seed=len(self.items))  # any order will do
        kept = frame if self.with_split else frame.drop("split")
        kept.write_csv(self.data / "items.csv")
        for node, pairs in enumerate(self.pairs):
            (self.folder / f"node-{node}").mkdir(exist_ok=True)
            file = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
            file.write_csv(self.folder / f"node-{node}" / "interactions.csv")

    def run(self, **changed: Any) -> tuple[dict[str, Any], Recorder]:
        self.write()
        changed = {"baselines": False, "encoder": HASHED} | changed
        values = run_values(self.data, self.run_dir, **changed)
        values["encode_cache"] = str(self.folder / "cache")
        configs = [
            {
                "interactions": str(self.folder / f"node-{node}" / "interactions.csv"),
                "state-dir": str(self.state_dir(node)),
            }
            for node in range(NODES)
        ]
        encoded.clear()
        grid = Recorder(NODES, values, configs)
        return run_here(values, grid), grid

    def add(self, *ids: str, split: str = "test") -> None:
        self.items += [(item, f"the title of {item}", split) for item in ids]

    def state_dir(self, node: int) -> Path:
        return self.folder / f"node-{node}" / "state"

    def recommended(self, node: int) -> dict[str, set[str]]:
        frame = pl.read_parquet(self.state_dir(node) / FILE)
        return {str(user): set(part["item_id"]) for (user,), part in frame.group_by("user_id")}

    def known(self, node: int) -> dict[str, set[str]]:
        users: dict[str, set[str]] = {}
        for user, item in self.pairs[node]:
            users.setdefault(user, set()).add(item)
        return users

    def cold(self) -> set[str]:
        return {item for item, _, split in self.items if split != "warm"}

    def state(self, number: int) -> dict[str, Any]:
        return Checkpoints(self.run_dir / "checkpoint", exclusive=False).load(number)

    def rows(self, number: int) -> dict[str, torch.Tensor]:
        """The item table of a checkpoint by item."""
        state = self.state(number)
        ids = former_index(state).ids_of("warm")
        return dict(zip(ids, state["table"], strict=True))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path)
    train_round, interactions = node_half.train_round, Node.interactions

    def watched(table: Any, state: State, *rest: Any) -> Any:
        data = watched.data  # type: ignore[attr-defined]
        for k, user in enumerate(data.users):
            world.heads[user] = {name: tensor[k].clone() for name, tensor in state.items()}
        return train_round(table, state, *rest)

    def remembered(self: Node, version: str) -> Any:
        found = interactions(self, version)
        watched.data = found[1]  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(node_half, "train_round", watched)
    monkeypatch.setattr(Node, "interactions", remembered)
    yield world


def first_tables(grid: Recorder) -> tuple[int, np.ndarray]:
    """Round and item table of the first training message of a run."""
    request = messages.TrainRequest.from_record(grid.of(messages.TRAIN)[0].content)
    return request.round, request.arrays["table"]


def kept_heads(world: World, number: int) -> Heads:
    """Heads after a round as the nodes keep them, by user."""
    found: Heads = {}
    for node in range(NODES):
        folder = world.state_dir(node) / "trainings" / world.state(number)["id"]
        content = read_checked(folder / f"round-{number:06d}.state")
        users = json.loads(read_checked(folder / f"users-{content[:16].decode()}.json"))
        state = load_tensors(content[16:])
        for k, user in enumerate(users):
            found[user] = {name: tensor[k] for name, tensor in state.items()}
    return found


def assert_same(one: State, other: State) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name])


@pytest.mark.parametrize(
    "method", ["mdifffr", "mixture", "ridge", "ipfedrec", "cs-fcf", "own-features"]
)
def test_new_items_reach_every_user_without_training(world: World, method: str) -> None:
    trained, _ = world.run(method=method, top=50, condition_dim=0)
    assert len(encoded) == len(world.items)
    checkpoints = {p: p.read_bytes() for p in (world.run_dir / "checkpoint").iterdir()}
    states = {p: p.read_bytes() for p in world.folder.glob("node-*/state/trainings/*/*")}
    assert len(states) >= 2 * NODES
    world.add("new-1", "new-2", "a-new-3")
    (world.run_dir / "nodes.json").unlink()
    published, grid = world.run(mode="publish", top=50)  # the training's settings, not these
    assert encoded == [f"the title of {i}" for i in ("a-new-3", "new-1", "new-2")]
    assert published == {
        "items": COUNT["validation"] + COUNT["test"] + 3,
        "users": NODES * USERS,
        "nodes": NODES,
        "round": trained["best_round"],
    }
    assert json.loads((world.run_dir / "published.json").read_text()) == {"format": 2} | published
    assert RunFolder(world.run_dir).read_answered().keys() == {
        str(message.metadata.src_node_id) for message in grid.answers
    }
    for node in range(NODES):
        known = world.known(node)
        lists = world.recommended(node)
        assert set(lists) == set(known)
        for user, items in lists.items():
            assert items == world.cold() - known[user]
            assert {"new-1", "new-2", "a-new-3"} <= items
    assert not grid.of(messages.TRAIN)
    assert {p: p.read_bytes() for p in checkpoints} == checkpoints
    assert {p: p.read_bytes() for p in states} == states


def test_the_published_embedding_is_what_the_generator_makes(world: World) -> None:
    world.run(method="ridge")
    world.add("new-1", "a-new-2")
    published, grid = world.run(mode="publish")
    request = messages.RecommendRequest.from_record(grid.of(messages.QUERY_RECOMMEND)[0].content)
    state = world.state(published["round"])
    assert request.training == state["id"]
    titles = {item: title for item, title, _ in world.items}
    parts = [sorted(i for i, _, s in world.items if s == split) for split in COUNT]
    texts = [titles[item] for part in parts for item in part]
    centred = (torch.from_numpy(hashed_features(texts)) - state["transform"]["mean"]) / state[
        "transform"
    ]["scale"]
    expected = centred @ state["generator"]["weight"] + state["generator"]["bias"]
    np.testing.assert_allclose(request.arrays["items"], expected.numpy(), atol=1e-5)


def test_without_a_split_column_new_items_are_cold_and_the_others_stay(world: World) -> None:
    world.with_split = False
    world.run()
    former = dict(zip(*(world.state(4)[name] for name in ("ids", "splits")), strict=True))
    world.add("new-1", "a-new-2")
    published, _ = world.run(mode="publish", top=50)
    cold = {item for item, split in former.items() if split != "warm"}
    assert published["items"] == len(cold) + 2
    shown = set().union(*world.recommended(0).values(), *world.recommended(1).values())
    assert shown == cold | {"new-1", "a-new-2"}


def test_an_item_that_is_to_be_warm_is_published_until_it_is_trained(world: World) -> None:
    world.run()
    world.add("new-1", split="warm")
    published, _ = world.run(mode="publish", top=50)
    assert published["items"] == COUNT["validation"] + COUNT["test"] + 1
    assert all("new-1" in items for items in world.recommended(0).values())


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each evaluation of a run is worse than the one before it, so that the first is the best."""
    means, asked = Task.means, []

    def worse(self: Task, replies: Any, rankings: int) -> Any:
        found = means(self, replies, rankings)
        asked.append(found)
        return [({**metrics, "recall@20": 1 / len(asked)}, users) for metrics, users in found]

    monkeypatch.setattr(Task, "means", worse)


@pytest.mark.usefixtures("falling")
def test_the_best_validated_round_is_published(world: World) -> None:
    world.run(keep_rounds=2, rounds=6)
    world.add("new-1")
    published, grid = world.run(mode="publish")
    assert published["round"] == 2
    asked = grid.of(messages.QUERY_RECOMMEND)
    assert {messages.RecommendRequest.from_record(m.content).round for m in asked} == {2}


@pytest.mark.usefixtures("falling")
def test_a_damaged_best_checkpoint_is_passed_over(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.run(keep_rounds=2, rounds=6)
    (world.run_dir / "checkpoint" / "round-000002.ckpt").write_bytes(b"half")
    monkeypatch.setattr(logging.getLogger("snowdrop"), "propagate", True)
    with caplog.at_level(logging.WARNING, "snowdrop"):
        published, _ = world.run(mode="publish")
        summary, _ = world.run(rounds=6, resume=True)
    assert published["round"] == 6
    assert summary["best_round"] is None
    assert 0 <= summary["test"]["recall@20"] <= 1
    told = [record.getMessage() for record in caplog.records]
    assert sum("taking the newest checkpoint in place of the best" in line for line in told) == 2
    assert sum("set rounds above 6" in line for line in told) == 1


def test_without_validation_items_the_newest_round_is_published(world: World) -> None:
    world.items = [
        (i, text, "test" if split == "validation" else split) for i, text, split in world.items
    ]
    trained, _ = world.run()
    assert trained["best_round"] is None
    assert world.run(mode="publish")[0]["round"] == 4


def test_a_training_that_goes_on_can_be_published_from(world: World) -> None:
    world.run()
    held = Checkpoints(world.run_dir / "checkpoint")
    try:
        assert world.run(mode="publish")[0]["users"] == NODES * USERS
    finally:
        held.close()


def during_the_test(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen while a training measures its last round."""
    tested = running._tested

    def watched(*given: Any) -> dict[str, Any]:
        happens()
        return tested(*given)

    monkeypatch.setattr(running, "_tested", watched)


def test_a_training_ends_with_the_items_of_its_last_day(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    during_the_test(monkeypatch, lambda: (world.add("new-1"), world.write()))
    summary, grid = world.run(top=50)
    assert summary["recommended_users"] == NODES * USERS
    assert summary["dataset"]["items"] == SPLITS
    assert len(grid.of(messages.QUERY_RECOMMEND)) >= NODES
    for node in range(NODES):
        assert all("new-1" in items for items in world.recommended(node).values())


def test_a_catalogue_that_broke_meanwhile_costs_no_training(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    during_the_test(monkeypatch, (world.data / "items.csv").unlink)
    summary, _ = world.run(top=50)
    assert summary["recommended_users"] == NODES * USERS
    assert set().union(*world.recommended(0).values()) <= world.cold()


def test_a_user_that_knows_every_new_item_is_not_served(world: World) -> None:
    world.run()
    world.pairs[0] += [("private-0-3", item) for item in world.cold()]
    assert world.run(mode="publish")[0]["users"] == NODES * USERS - 1
    assert "private-0-3" not in world.recommended(0)


def test_what_cannot_be_published_is_one_sentence(world: World) -> None:
    with pytest.raises(SnowdropError, match="has no whole checkpoint: train there first"):
        world.run(mode="publish")
    world.run()
    (world.data / "items.csv").unlink()
    former = world.items
    world.items = [item for item in world.items if item[2] == "warm"]
    with pytest.raises(SnowdropError, match="every item is warm"):
        world.run(mode="publish")
    world.items = former
    for node in range(NODES):
        world.pairs[node] = [("", "w01")]
    with pytest.raises(SnowdropError, match="no node took the new items"):
        world.run(mode="publish")


@pytest.mark.parametrize("by", ["split", "count"])
@pytest.mark.parametrize("average", ["touches", "users"])
def test_training_goes_on_with_new_rows(world: World, by: str, average: str) -> None:
    settings = {"method": "ridge", "average": average}
    world.run(**settings)
    before = world.rows(4)
    former = world.state(4)
    world.add("a-new", "x-new", split="warm" if by == "split" else "test")
    world.add("few-new")
    for node, user in ((0, 1), (0, 2), (1, 5)):
        world.pairs[node] += [(f"private-{node}-{user}", item) for item in ("a-new", "x-new")]
    world.pairs[1] += [("private-1-4", "few-new"), ("private-1-5", "few-new")]
    again = {"rounds": 6, "resume": True} | ({"warm_after": 3} if by == "count" else {})
    summary, grid = world.run(**settings, **again)
    assert encoded == [f"the title of {i}" for i in ("a-new", "few-new", "x-new")]

    new = {"a-new", "x-new"}
    if by == "count":
        users = pl.Series(i for pairs in world.pairs for _, i in pairs).value_counts(name="users")
        often = set(users.filter(pl.col("users") >= 3)[""])
        new |= {item for item, _, split in world.items if split == "test" and item in often}
        assert "few-new" not in new
    after = world.rows(5)
    assert set(after) == set(before) | new
    number, table = first_tables(grid)
    assert number == 5
    texts = [f"the title of {item}" for item in ("a-new", "x-new")]
    transform = former["transform"]
    centred = (torch.from_numpy(hashed_features(texts)) - transform["mean"]) / transform["scale"]
    made = centred @ former["generator"]["weight"] + former["generator"]["bias"]
    start = dict(zip(sorted(after), torch.from_numpy(table), strict=True))
    for item, row in before.items():
        assert torch.equal(start[item], row)
    torch.testing.assert_close(torch.stack([start["a-new"], start["x-new"]]), made)
    assert not torch.equal(after["a-new"], start["a-new"])  # and it is trained
    assert summary["training"] == former["id"]
    assert world.state(6)["best_round"] in (0, 5, 6)
    assert [row["round"] for row in world.state(6)["history"]] == [1, 2, 3, 4, 5, 6]
    asked = grid.of(messages.QUERY_COUNT)
    assert len(asked) >= NODES if by == "count" else not asked


def test_nobodys_head_is_reset_when_the_catalogue_grows(world: World) -> None:
    world.run()
    heads = kept_heads(world, 4)
    assert any(head["weight"].any() for head in heads.values())
    world.add("a-new", split="warm")
    world.pairs[0] += [("private-0-1", "a-new"), ("private-0-newcomer", "w03")]
    world.heads.clear()
    world.run(rounds=5, resume=True)
    assert set(world.heads) == set(heads) | {"private-0-newcomer"}
    for user, head in heads.items():
        assert_same(world.heads[user], head)
    assert not world.heads["private-0-newcomer"]["weight"].any()


def test_rows_follow_their_items_when_some_are_removed(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.run()
    monkeypatch.setattr(logging.getLogger("snowdrop"), "propagate", True)
    before = world.rows(4)
    gone = {"w00", "w07", "t03", "v02"}
    world.items = [item for item in world.items if item[0] not in gone]
    world.add("a-new", split="warm")
    _, grid = world.run(rounds=5, resume=True)
    assert "has lost 4 of the training's 44 items, the first is 't03'; 2 of them" in caplog.text
    ids = former_index(world.state(5)).ids_of("warm")
    assert set(ids) == set(before) - gone | {"a-new"}
    _, table = first_tables(grid)
    for item, row in zip(ids, table, strict=True):
        if item != "a-new":
            np.testing.assert_array_equal(row, before[item].numpy())


def test_items_in_another_order_are_the_same_catalogue(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.run()
    monkeypatch.setattr(logging.getLogger("snowdrop"), "propagate", True)
    world.items.reverse()
    world.run(rounds=5, resume=True)
    assert "has lost" not in caplog.text
    assert former_index(world.state(5)).version == former_index(world.state(4)).version


def test_another_catalogue_is_refused(world: World) -> None:
    world.run()
    world.items = [(f"other-{item}", title, split) for item, title, split in world.items]
    with pytest.raises(SnowdropError, match="it is another one; give the same data"):
        world.run(rounds=5, resume=True)


def test_a_pull_towards_the_generator_knows_the_new_rows(world: World) -> None:
    settings = {
        "method": "ipfedrec",
        "ipfedrec__pull": 0.5,
        "average": "users",
        "condition_dim": 0,
        "head_lr": 0.1,
        "item_lr_per_item": False,
    }
    world.run(**settings)
    world.add("a-new", split="warm")
    _, grid = world.run(**settings, rounds=5, resume=True)
    request = messages.TrainRequest.from_record(grid.of(messages.TRAIN)[0].content)
    table, mapped = request.arrays["table"], request.arrays["mapped"]
    assert mapped.shape == table.shape == (SPLITS["warm"] + 1, 8)
    first = former_index(world.state(5)).ids_of("warm").index("a-new")
    np.testing.assert_allclose(table[first], mapped[first], atol=1e-6)


def test_an_unchanged_catalogue_keeps_the_best_round(world: World) -> None:
    trained, _ = world.run()
    again, grid = world.run(resume=True)  # every round is trained
    assert again["best_round"] == trained["best_round"]
    assert again["test"] == pytest.approx(trained["test"])
    assert not grid.of(messages.TRAIN)


def test_when_no_checkpoint_is_whole_nothing_is_thrown_away(world: World) -> None:
    world.run()
    for path in (world.run_dir / "checkpoint").glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-5])
    kept = sorted((world.run_dir / "checkpoint").iterdir())
    with pytest.raises(SnowdropError, match=r"restore one from a backup, or begin anew"):
        world.run(resume=True)
    assert sorted((world.run_dir / "checkpoint").iterdir()) == kept


def test_no_user_is_told_of_in_any_answer_of_a_federations_life(world: World) -> None:
    _, first = world.run()
    world.add("a-new", "b-new")
    world.pairs[0].append(("private-0-1", "a-new"))
    _, second = world.run(mode="publish")
    _, third = world.run(rounds=5, resume=True, warm_after=1)
    answers = first.answers + second.answers + third.answers
    allowed = {
        messages.QUERY_CATALOGUE: ({"status"},),
        messages.QUERY_DESCRIBE: ({"users", "users_without_warm", "warm", "validation", "test",
                                   "unknown", "order", "peak_rss_mb"},),
        messages.QUERY_COUNT: ({"users"},),
        messages.QUERY_SYNTHETIC: ({"answer"},),
        messages.QUERY_RECOMMEND: ({"users"},),
        messages.TRAIN: ({"users", "loss_sum", "change", "touches"},),
        messages.EVALUATE: ({"users", "names", "sums"},),
    }  # fmt: skip
    assert {reply.metadata.message_type for reply in answers} == set(allowed)
    for reply in answers:
        assert not reply.has_error()
        carried: set[str] = set()
        for record in reply.content.values():
            carried |= set(record)
            raw = repr(dict(record)).encode()
            if record in reply.content.array_records.values():
                raw += b"".join(array.data for array in record.values())
            assert b"private" not in raw
        assert carried in (*allowed[reply.metadata.message_type], {"status"})


def test_a_training_remembers_its_settings_when_it_publishes(world: World) -> None:
    world.run(head="dot", head_lr=1.0)
    world.add("new-1")
    _, grid = world.run(mode="publish", head="linear", dim=4)
    request = messages.RecommendRequest.from_record(grid.of(messages.QUERY_RECOMMEND)[0].content)
    settings = request.training_settings()
    assert (settings.head, settings.dim) == ("dot", 8)


def test_publishing_inside_a_run_encodes_only_new_texts_and_fits_nothing_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    def note(owner: type, name: str) -> None:
        own = getattr(owner, name)

        def noted(self: Any, *given: Any, **named: Any) -> Any:
            happened.append(f"{owner.__name__}.{name}")
            return own(self, *given, **named)

        monkeypatch.setattr(owner, name, noted)

    note(NetworkGenerator, "fit")
    for name in ("load", "newest", "best"):
        note(Checkpoints, name)
    send_out = publishing.send_out

    def watched(*given: Any) -> Any:
        happened.append("publish")
        return send_out(*given)

    def a_new_item() -> None:
        world.add("new-1")
        world.write()

    during_the_test(monkeypatch, a_new_item)
    monkeypatch.setattr(publishing, "send_out", watched)
    summary, grid = world.run(rounds=2, **{"mdifffr.fit_every": 2})
    assert len(encoded) == sum(SPLITS.values()) + 1
    assert encoded[-1] == "the title of new-1"
    assert happened == ["NetworkGenerator.fit", "publish"]
    asked = grid.of(messages.QUERY_RECOMMEND)
    request = messages.RecommendRequest.from_record(asked[0].content)
    assert len(request.arrays["items"]) == len(world.cold())
    assert request.training == summary["training"]


def test_publishing_a_training_that_stands_fits_no_network_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run(method="mixture")
    world.add("new-1")

    def refused(*_: object) -> float:
        raise AssertionError("a network was fitted")

    monkeypatch.setattr(NetworkGenerator, "fit", refused)
    assert world.run(mode="publish")[0]["users"] == NODES * USERS


def test_a_rule_is_published_without_any_training(world: World) -> None:
    published, grid = world.run(mode="publish", method="content-profile", top=50)
    assert published["items"] == COUNT["validation"] + COUNT["test"]
    assert published["users"] == NODES * USERS
    assert published["round"] == 0
    assert not grid.of(messages.TRAIN)
    assert set(world.recommended(0)) == set(world.known(0))


def test_a_method_that_must_be_trained_first_is_not_published(world: World) -> None:
    with pytest.raises(SnowdropError, match="has no whole checkpoint: train there first"):
        world.run(mode="publish")


def test_generated_users_of_another_seed_are_not_served(tmp_path: Path) -> None:
    values = run_values(Path("demo"), tmp_path, method="ridge", rounds=1, encoder=HASHED)
    values |= {"seed": 5, "baselines": False}
    trained = run_here(values)
    told = "has seed=5, and with seed=0 nodes generate other users; give seed=5"
    with pytest.raises(SnowdropError, match=told):
        run_here({**values, "seed": 0, "mode": "publish"})
    published = run_here({**values, "mode": "publish"})
    assert published["users"] == trained["recommended_users"]
