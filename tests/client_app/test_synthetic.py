"""What a node with synthetic users sends, what it keeps to itself, and what it refuses."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from flwr.app import Message
from scipy.sparse import csr_array

from cli.in_process import InProcessGrid
from client_app.interactions import arrange
from client_app.synthesis.folder import INTERACTIONS, SUMMARY, read_synthetic, write_synthetic
from client_app.synthetic import FOLDER
from common import messages
from tests.client_app.test_app import (
    DIM,
    NODES,
    USER_IDS,
    Federation,
    assert_fixed_sentence,
    everything_in,
)
from tests.privacy_page import documented
from tests.synthesizers import drawn

__all__ = ["drawn"]

pytestmark = pytest.mark.usefixtures("drawn")


class Silos(Federation):
    """Simulated nodes that answer with synthetic users, the first of them or all."""

    def __init__(self, folder: Path, answer: str = "synthetic", **settings: Any) -> None:
        told = {"method": "ridge", "answer": answer, "synthesizer": "drawn", **settings}
        super().__init__(folder, **told)

    def synthetic(self, node: int = 0, known: tuple[str, ...] = ()) -> Message:
        request = messages.SyntheticRequest(self.index.version, list(known))
        return self.send(messages.QUERY_SYNTHETIC, request, node)

    def heads(self, number: int, node: int = 0, best: int = 0, table: Any = None) -> Message:
        arrays = {"table": self.table("warm") if table is None else table}
        request = messages.HeadsRequest(**self.header(number), best_round=best, arrays=arrays)
        return self.send(messages.TRAIN_HEADS, request, node)

    def states(self, node: int = 0) -> dict[str, bytes]:
        paths = self.state_dir(node).rglob("round-*.state")
        return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def silos(tmp_path: Path) -> Silos:
    made = Silos(tmp_path)
    made.announce()
    return made


def answer_of(reply: Message) -> messages.SyntheticAnswer:
    return messages.SyntheticAnswer.from_record(reply.content)


# What leaves the node.


def sent(reply: Message) -> set[str]:
    """Every field that an answer carries, arrays of a record by ``record.name``."""
    content = reply.content
    assert set(content) <= {"values", "single", "synthetic_users"}
    assert "single" not in content
    names = set(content.config_records["values"])
    arrays = content.array_records.get("synthetic_users", {})
    return names | {f"synthetic_users.{name}" for name in arrays}


def test_what_a_synthetic_node_sends_is_what_the_page_on_privacy_lists(silos: Silos) -> None:
    write_synthetic_with_epsilon(silos)
    reply = silos.synthetic()
    assert sent(reply) == documented(messages.QUERY_SYNTHETIC)
    assert len(sent(reply)) == 5
    assert not sent(silos.heads(1)) | documented(messages.TRAIN_HEADS)


def write_synthetic_with_epsilon(silos: Silos) -> None:
    """The folder that the node makes, as if its synthesizer stated an ε."""
    silos.synthetic()
    path = silos.state_dir() / FOLDER / SUMMARY
    path.write_text(json.dumps({**json.loads(path.read_text()), "epsilon": 2.0}))


def test_no_real_interaction_and_no_id_leaves_the_node(silos: Silos) -> None:
    reply = silos.synthetic()
    assert not any(user.encode() in everything_in(reply) for user in USER_IDS)
    assert not any(item.encode() in everything_in(reply) for item in silos.index.ids)
    answer = answer_of(reply)
    offsets, items = (answer.synthetic_users[name] for name in ("offsets", "items"))
    assert offsets.dtype == items.dtype == np.int64
    made = read_synthetic(silos.state_dir() / FOLDER)
    warm = arrange(made.rows, silos.index).warm
    np.testing.assert_array_equal(offsets, warm.offsets)
    np.testing.assert_array_equal(items, warm.items)
    assert answer.name == made.name
    own = pl.read_csv(silos.data / "interactions.csv").join(silos.index.frame(), on="item_id")
    rows_of = dict(own.filter(split="warm").group_by("user_id").agg("row").iter_rows())
    real = {tuple(sorted(rows)) for rows in rows_of.values()}
    shown = {tuple(items[a:b].tolist()) for a, b in itertools.pairwise(offsets)}
    assert not real & shown  # users drawn cell by cell are nobody's copy


@pytest.mark.parametrize("name", ["train", "describe", "head", "recommend"])
def test_what_a_synthetic_node_answers_beside_that(silos: Silos, name: str) -> None:
    replies = {
        "train": lambda: silos.train(1),
        "describe": silos.describe,
        "head": lambda: silos.evaluate("head"),
        "recommend": silos.recommend,
    }
    reply = replies[name]()
    if name == "train":
        assert_fixed_sentence(reply, messages.TRAIN, "a refusal")
        assert not silos.states()
    else:
        assert not reply.has_error()


def test_the_node_says_why_it_does_not_train(
    silos: Silos, capsys: pytest.CaptureFixture[str]
) -> None:
    silos.train(1)
    assert "owner chose answer = synthetic: it sends synthetic users" in capsys.readouterr().err


def test_a_node_that_answers_with_both_trains_too(tmp_path: Path) -> None:
    silos = Silos(tmp_path, "both")
    silos.announce()
    assert answer_of(silos.synthetic()).answer == "both"
    assert messages.TrainAnswer.from_record(silos.train(1).content).users > 0


def test_a_node_that_answers_with_updates_makes_no_users(tmp_path: Path) -> None:
    silos = Silos(tmp_path, synthetic_nodes=1)
    silos.announce()
    reply = silos.synthetic(1)
    assert sent(reply) == {"answer"}
    assert answer_of(reply) == messages.SyntheticAnswer("updates")
    assert not (silos.state_dir(1) / FOLDER).exists()


# The same users whenever it is asked.


def test_what_the_server_knows_is_not_sent_again(silos: Silos) -> None:
    first = answer_of(silos.synthetic())
    again = silos.synthetic(known=("ef" * 8, first.name))
    assert sent(again) == {"answer", "name"}
    assert answer_of(again).name == first.name
    assert everything_in(silos.synthetic()) == everything_in(silos.synthetic())


def test_each_node_makes_as_many_users_as_it_has_or_is_told(tmp_path: Path) -> None:
    silos = Silos(tmp_path)
    silos.announce()
    for node in range(NODES):
        users = messages.DescribeAnswer.from_record(silos.describe(node).content).users
        offsets = answer_of(silos.synthetic(node)).synthetic_users["offsets"]
        assert 0 < len(offsets) - 1 <= users  # nobody without an item is sent
    other = Silos(tmp_path / "more", synthetic_users=400)
    other.announce()
    lists = answer_of(other.synthetic()).synthetic_users
    assert 390 < len(lists["offsets"]) - 1 <= 400
    assert np.diff(lists["offsets"]).min() >= 1


def test_nodes_and_seeds_make_different_users(tmp_path: Path) -> None:
    names = set()
    for seed in (0, 1):
        silos = Silos(tmp_path / str(seed), seed=seed)
        silos.announce()
        names |= {answer_of(silos.synthetic(node)).name for node in range(NODES)}
    assert len(names) == 2 * NODES


def test_other_settings_make_other_users_in_the_same_place(tmp_path: Path) -> None:
    names = []
    for share in (0.0, 1.0, 1.0):
        silos = Silos(tmp_path, **{"drawn.copies": share})
        silos.announce()
        names.append(answer_of(silos.synthetic()).name)
    assert names[0] != names[1] == names[2]


def test_held_out_items_are_not_learnt_from(tmp_path: Path) -> None:
    """Copies of real users show what their maker was given."""
    counts = []
    for task in ("cold-items", "last-warm-item"):
        silos = Silos(tmp_path / task, task=task, **{"drawn.copies": 1.0, "synthetic_users": 200})
        silos.announce()
        counts.append(len(answer_of(silos.synthetic()).synthetic_users["items"]))
    assert counts[1] < counts[0]


# The folder of a deployed node.


class Owned(Silos):
    """Deployed nodes, the first of which has a folder of synthetic users."""

    def __init__(self, folder: Path, likes: Any = None, answer: str = "synthetic") -> None:
        super().__init__(folder, answer="updates")
        self.folder = folder / "made"
        ids = ("no-item", *self.index.ids)
        rows = np.zeros((3, len(ids)), dtype=bool)
        rows[0, [0, *(1 + self.index.rows("warm")[[4, 1]])]] = True
        rows[1, 1 + self.index.rows("test")[0]] = True
        rows[2, 1 + self.index.rows("warm")[0]] = True
        chosen = csr_array(rows if likes is None else rows & likes)
        write_synthetic(self.folder, chosen, ids, {"epsilon": 0.5})
        config = {"data": "/nowhere", "run_dir": str(self.run_dir), "dim": DIM, "method": "ridge"}
        places = [
            {"interactions": str(self.data / INTERACTIONS), "state-dir": str(folder / f"state-{k}")}
            for k in range(NODES)
        ]
        places[0] |= {"answer": answer, "synthetic": str(self.folder)}
        self.places = places
        self.grid = InProcessGrid(NODES, config, places)
        self.announce()


def test_an_owners_folder_is_sent_and_only_its_warm_items(tmp_path: Path) -> None:
    owned = Owned(tmp_path, answer="both")
    answer = answer_of(owned.synthetic())
    assert (answer.answer, answer.epsilon) == ("both", 0.5)
    lists = answer.synthetic_users
    assert lists["offsets"].tolist() == [0, 2, 3]  # nobody who has cold items alone
    assert lists["items"].tolist() == [1, 4, 0]
    assert answer_of(owned.synthetic(1)).answer == "updates"
    assert not (tmp_path / "state-0" / FOLDER).exists()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / SUMMARY).unlink(), "is no folder of synthetic users"),
        (lambda folder: (folder / SUMMARY).write_text("{}"), "does not say that its users are syn"),
        (lambda folder: (folder / INTERACTIONS).unlink(), "interactions.csv"),
    ],
)
def test_a_folder_that_is_not_marked_is_not_sent(
    tmp_path: Path, spoil: Any, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    owned = Owned(tmp_path)
    spoil(owned.folder)
    reply = owned.synthetic()
    assert_fixed_sentence(reply, messages.QUERY_SYNTHETIC, "a refusal")
    assert sentence in capsys.readouterr().err


def test_real_data_in_its_place_are_not_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An owner who points at the wrong folder does not send it."""
    owned = Owned(tmp_path)
    owned.places[0]["synthetic"] = str(owned.data)
    owned.grid = InProcessGrid(NODES, {"run_dir": str(owned.run_dir)}, owned.places)
    reply = owned.synthetic()
    assert_fixed_sentence(reply, messages.QUERY_SYNTHETIC, "a refusal")
    assert "is no folder of synthetic users" in capsys.readouterr().err


def test_users_without_a_warm_item_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    likes = np.zeros((3, 1), dtype=bool)
    likes[1] = True
    reply = Owned(tmp_path, likes).synthetic()
    assert_fixed_sentence(reply, messages.QUERY_SYNTHETIC, "a refusal")
    assert "no synthetic user of" in capsys.readouterr().err


# Heads of users that train in no round.


def test_heads_are_fitted_as_in_rounds_on_a_table_that_does_not_move(tmp_path: Path) -> None:
    """One message of three rounds leaves the heads of three rounds with the same table."""
    silos = Silos(tmp_path / "synthetic", head_start="random")
    rounds = Silos(tmp_path / "updates", "both", head_start="random")
    for each in (silos, rounds):
        each.announce()
    assert not silos.heads(3).has_error()
    for number in (1, 2, 3):
        rounds.train(number)
    name = "round-000003.state"
    assert silos.states()[name] == rounds.states()[name]
    assert set(silos.states()) == {name}


def test_heads_go_on_from_the_newest_state(tmp_path: Path) -> None:
    silos, other = Silos(tmp_path / "a"), Silos(tmp_path / "b")
    for each in (silos, other):
        each.announce()
    for number in (2, 5):
        silos.heads(number)
    other.heads(5)
    assert silos.states()["round-000005.state"] == other.states()["round-000005.state"]
    again = silos.states()
    silos.heads(2)  # a run that went back
    assert silos.states() == {"round-000002.state": again["round-000002.state"]}
    silos.heads(5)
    assert silos.states() == again


def test_the_best_rounds_heads_are_kept(tmp_path: Path) -> None:
    silos = Silos(tmp_path, keep_rounds=2)
    silos.announce()
    for number, best in ((10, 0), (20, 10), (30, 10), (40, 10)):
        silos.heads(number, best=best)
    assert set(silos.states()) == {f"round-0000{k}.state" for k in (10, 30, 40)}


def test_privacy_settings_do_not_change_heads(tmp_path: Path) -> None:
    plain = Silos(tmp_path / "plain", average="users")
    noisy = Silos(tmp_path / "noisy", average="users", clip_norm=0.1, laplace_scale=9.0)
    for each in (plain, noisy):
        each.announce()
        each.heads(2)
    assert plain.states() == noisy.states()


@pytest.mark.parametrize(
    ("table", "kind"),
    [(np.zeros((3, DIM), np.float32), messages.REFUSED), (np.full((20, DIM), np.inf, np.float32),
                                                         messages.OVERFLOWED)],
)  # fmt: skip
def test_a_table_that_fits_no_heads_is_refused(silos: Silos, table: Any, kind: int) -> None:
    reply = silos.heads(2, table=table)
    assert_fixed_sentence(reply, messages.TRAIN_HEADS, "a refusal", kind)
    assert not silos.states()
