"""Whole trainings in which some nodes, or all, send synthetic users in place of updates."""

import csv
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message

from common import messages
from common.errors import OverflowedError, SnowdropError
from common.messages import SyntheticAnswer
from server_app.methods import ItemTable
from tests.server_app.runs import (
    Spoil,
    SpoiltGrid,
    failing,
    rounds_of,
    run_here,
    run_values,
    state_of,
    untouched,
)
from tests.synthesizers import drawn

__all__ = ["drawn"]

pytestmark = pytest.mark.usefixtures("drawn")

NODES = 3


def values_of(data: Path, run_dir: Path, **changed: Any) -> dict[str, Any]:
    told = {
        "method": "ridge", "nodes": NODES, "baselines": False, "synthesizer": "drawn",
        "answer": "synthetic", "head_start": "random",
    }  # fmt: skip
    return run_values(data, run_dir, **{**told, **changed})


def run_watched(
    values: dict[str, Any], spoil: Spoil = untouched, bad: tuple[int, ...] = (),
    kind: str = messages.QUERY_SYNTHETIC,
) -> tuple[dict[str, Any], SpoiltGrid]:  # fmt: skip
    grid = SpoiltGrid(values["nodes"], values, spoil, bad, kind)
    return run_here(values, grid), grid


def asked(grid: SpoiltGrid, kind: str) -> dict[int, int]:
    """How often each node was asked; without the times when it needed the catalogue first."""
    return dict(Counter(message.metadata.dst_node_id for message in grid.of(kind)))


def test_one_shot_rounds_run_on_the_server_alone(data_folder: Path, tmp_path: Path) -> None:
    summary, grid = run_watched(values_of(data_folder, tmp_path))
    assert not grid.of(messages.TRAIN)
    assert asked(grid, messages.TRAIN_HEADS) == {2: 2, 3: 2, 4: 2}  # before each validation
    told = summary["synthetic"]
    assert told["silos"] == NODES
    assert 0 < told["users"] <= 60
    assert told["bytes_up"] > 0
    assert summary["failed_answers"] == 0
    rows = rounds_of(tmp_path)
    assert [row["users"] for row in rows] == ["0"] * 4
    assert [row["synthetic_users"] for row in rows] == [str(told["users"])] * 4
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert not torch.equal(state_of(tmp_path, 1)["table"], state_of(tmp_path, 4)["table"])
    assert summary["tested_users"] > 0
    wire = summary["wire"]
    assert wire["bytes_up_per_node_and_round"] == 0
    # What nodes sent in all: their users, and a few words.
    assert told["bytes_up"] <= wire["bytes_up"] < told["bytes_up"] + 12_000


def test_owners_choose_node_by_node(data_folder: Path, tmp_path: Path) -> None:
    summary, grid = run_watched(values_of(data_folder, tmp_path, synthetic_nodes=1))
    assert asked(grid, messages.TRAIN) == {3: 4, 4: 4}
    assert asked(grid, messages.TRAIN_HEADS) == {2: 2}
    assert summary["synthetic"]["silos"] == 1
    rows = rounds_of(tmp_path)
    alone = int(rows[0]["users"])
    assert 0 < alone < 60
    assert {row["users"] for row in rows} == {str(alone)}
    assert summary["dataset"]["users"] == 60


def test_both_adds_synthetic_users_to_every_round(data_folder: Path, tmp_path: Path) -> None:
    summary, grid = run_watched(values_of(data_folder, tmp_path / "both", answer="both"))
    assert asked(grid, messages.TRAIN) == {2: 4, 3: 4, 4: 4}
    assert not grid.of(messages.TRAIN_HEADS)
    run_here(values_of(data_folder, tmp_path / "updates", answer="updates"))
    rows = rounds_of(tmp_path / "both")
    assert {row["users"] for row in rows} == {"60"}
    tables = [state_of(tmp_path / name, 1)["table"] for name in ("both", "updates")]
    assert not torch.allclose(*tables)
    assert summary["synthetic"]["users"] == int(rows[0]["synthetic_users"])
    assert "synthetic_users" not in rounds_of(tmp_path / "updates")[0]


def test_one_round_is_the_mean_over_real_and_synthetic_users(
    data_folder: Path, tmp_path: Path
) -> None:
    values = values_of(data_folder, tmp_path, answer="both", average="users", rounds=1)
    sums: list[np.ndarray] = []

    def watched(message: Message, reply: Message) -> Message:
        if reply.has_content() and "sums" in reply.content.array_records:
            sums.append(messages.TrainAnswer.from_record(reply.content).sums["change"])
        return reply

    grid = SpoiltGrid(NODES, values, watched, (2, 3, 4), messages.TRAIN)
    run_here(values, grid)
    answer = grid.of(messages.TRAIN)[-1]
    start = messages.TrainRequest.from_record(answer.content).arrays["table"]
    state = state_of(tmp_path, 1)
    from common.settings import RunSettings
    from server_app.crowd import Crowd
    from server_app.items import load_catalogue, world_of
    from server_app.methods import make

    settings = RunSettings.parse(values)
    world = world_of(settings, load_catalogue(settings), torch.device("cpu"))
    crowd, method = Crowd(settings.seed), make("ridge", world)
    assert isinstance(method, ItemTable)
    crowd.restore(state["crowd"], world.catalogue, world.catalogue)
    here = crowd.anew().train(method, 1)
    whole = sum(each.astype(np.float64) for each in sums) + here.sums["change"]
    expected = start + whole / (60 + here.users)
    np.testing.assert_allclose(state["table"].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"synthetic_nodes": 2}, {"answer": "both"}], ids=str)
def test_a_resumed_training_is_the_undisturbed_one(
    data_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = run_here(values_of(data_folder, tmp_path / "whole", **settings))
    cut = values_of(data_folder, tmp_path / "cut", **settings)
    run_here({**cut, "rounds": 2})
    again: list[Message] = []

    def watched(message: Message, reply: Message) -> Message:
        again.append(reply)
        return reply

    summary, grid = run_watched({**cut, "resume": True}, watched, (2, 3, 4))
    one, other = (state_of(tmp_path / name, 4) for name in ("whole", "cut"))
    assert torch.equal(one["table"], other["table"])
    for name, part in one["crowd"]["parts"].items():
        kept = other["crowd"]["parts"][name]["state"]
        assert part["state"].keys() == kept.keys()
        assert all(torch.equal(part["state"][key], kept[key]) for key in kept)
    assert summary["test"] == whole["test"]
    assert summary["synthetic"] == whole["synthetic"]
    for message in grid.of(messages.QUERY_SYNTHETIC):  # nothing of it was sent again
        known = messages.SyntheticRequest.from_record(message.content).known
        assert known == sorted(one["crowd"]["parts"])
    assert again and not any(reply.content.array_records.get("synthetic_users") for reply in again)


def test_a_training_cut_off_before_a_checkpoint_goes_on(data_folder: Path, tmp_path: Path) -> None:
    """Heads were fitted in the round that is done again."""
    whole = run_here(values_of(data_folder, tmp_path / "whole"))
    cut = values_of(data_folder, tmp_path / "cut", rounds=4)
    run_here(cut)
    for number in (2, 3, 4):
        (tmp_path / "cut" / "checkpoint" / f"round-{number:06d}.ckpt").unlink()
    summary = run_here({**cut, "resume": True})
    assert summary["test"] == whole["test"]
    assert summary["failed_answers"] == 0


def test_another_answer_on_resume_is_refused(data_folder: Path, tmp_path: Path) -> None:
    values = values_of(data_folder, tmp_path, rounds=2)
    run_here(values)
    with pytest.raises(SnowdropError, match="made with answer = 'synthetic', these settings say"):
        run_here({**values, "answer": "both", "resume": True})


def test_heads_on_the_frozen_table_are_those_of_the_frozen_twin(
    data_folder: Path, tmp_path: Path
) -> None:
    """Where the table does not move, users that train in no round lose nothing."""
    found = [
        run_here(values_of(data_folder, tmp_path / answer, answer=answer, method="ridge:frozen"))
        for answer in ("updates", "synthetic")
    ]
    assert found[0]["test"] == found[1]["test"]
    assert found[0]["validation"] == found[1]["validation"]


def test_the_frozen_twin_of_a_run_asks_for_no_users_again(
    data_folder: Path, tmp_path: Path
) -> None:
    values = values_of(data_folder, tmp_path, baselines=True, twin=True)
    summary, grid = run_watched(values)
    requests = grid.of(messages.QUERY_SYNTHETIC)
    known = [messages.SyntheticRequest.from_record(each.content).known for each in requests]
    assert [len(names) for names in known].count(NODES) == NODES
    assert "frozen" in summary["baselines"]
    frozen = run_here(
        values_of(data_folder, tmp_path / "x", answer="updates", method="ridge:frozen")
    )
    assert summary["baselines"]["frozen"]["test"] == pytest.approx(frozen["test"])


@pytest.mark.parametrize("method", ["mixture", "ifedncf", "own-features", "cs-fcf"])
def test_every_method_with_an_item_table_trains_on_synthetic_users(
    data_folder: Path, tmp_path: Path, method: str
) -> None:
    own: dict[str, Any] = {"condition_dim": 0}
    if method == "ifedncf":
        own["ifedncf__pull"] = 1.0
    summary = run_here(values_of(data_folder, tmp_path, method=method, synthetic_nodes=2, **own))
    assert summary["failed_answers"] == 0
    assert summary["synthetic"]["silos"] == 2


def test_a_rule_needs_no_users_of_any_kind(data_folder: Path, tmp_path: Path) -> None:
    _, grid = run_watched(values_of(data_folder, tmp_path, method="content-profile"))
    assert not grid.of(messages.QUERY_SYNTHETIC)


def test_a_training_of_its_own_is_refused_in_a_sentence(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ItemTable, "trains_synthetic", False)
    with pytest.raises(SnowdropError, match="ridge map has a training of its own and cannot be"):
        run_here(values_of(data_folder, tmp_path))
    assert not (tmp_path / "nodes").exists() or not list((tmp_path / "nodes").glob("*/synthetic"))


def crafted(**lists: Any) -> Spoil:
    def spoil(message: Message, reply: Message) -> Message:
        if "synthetic_users" not in reply.content.array_records:
            return reply
        answer = SyntheticAnswer.from_record(reply.content)
        wrong = SyntheticAnswer(
            answer.answer, answer.name, None, {**answer.synthetic_users, **lists}
        )
        return Message(wrong.to_record(), reply_to=message)

    return spoil


def test_a_crafted_answer_leaves_its_node_out(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = values_of(data_folder, tmp_path)
    bad = crafted(items=np.full(5, 10**12))
    with caplog.at_level("WARNING", "snowdrop"):
        summary, grid = run_watched(values, bad, (3,))
    assert "node 3 is left out of this query.synthetic: the offsets of its synth" in caplog.text
    assert summary["synthetic"]["silos"] == NODES - 1
    assert summary["failed_answers"] == 1
    assert not grid.of(messages.TRAIN)
    assert asked(grid, messages.TRAIN_HEADS) == {2: 2, 4: 2}


def test_nodes_that_cannot_answer_stay_out_until_they_can(
    data_folder: Path, tmp_path: Path
) -> None:
    """One that fails at first is asked again in the next round, and its users join."""
    failed: list[int] = []

    def once(message: Message, reply: Message) -> Message:
        if not failed and reply.has_content() and "status" not in reply.content:
            failed.append(1)
            return failing(message, reply)
        return reply

    summary, _ = run_watched(values_of(data_folder, tmp_path, synthetic_nodes=2), once, (3,))
    rows = rounds_of(tmp_path)
    counts = [int(row["synthetic_users"]) for row in rows]
    assert 0 < counts[0] < counts[1] == counts[3] == summary["synthetic"]["users"]


def test_no_usable_answer_is_no_reason_to_train_on_synthetic_users_alone(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    values = values_of(data_folder, tmp_path, answer="both", round_retries=1)
    with pytest.raises(SnowdropError, match="round 1 brought no usable answer in 2 tries"):
        run_watched(values, failing, (2, 3, 4), messages.TRAIN)


def test_an_overflow_on_the_server_ends_the_run(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OverflowedError, match="overflow"):
        run_here(values_of(data_folder, tmp_path, item_lr=1e37, rounds=6))


def test_a_run_tells_how_many_there_are(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "snowdrop"):
        summary, _ = run_watched(values_of(data_folder, tmp_path, synthetic_nodes=2))
    users = summary["synthetic"]["users"]
    assert f"{users} synthetic users have come from 2 nodes" in caplog.text
    assert f"trained on {users} synthetic users of 2 nodes too" in caplog.text
    with (tmp_path / "rounds.csv").open() as file:
        first = next(csv.DictReader(file))
    assert int(first["bytes_up"]) >= summary["synthetic"]["bytes_up"]
