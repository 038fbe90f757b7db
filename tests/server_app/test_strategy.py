"""Whole runs in this process: results, sharding, resume, and nodes that fail."""

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Error, Message

from cli.in_process import InProcessGrid
from common import messages
from common.errors import OverflowedError, SnowdropError
from common.messages import TrainAnswer, TrainRequest
from common.metrics import metric_names
from common.settings import KS
from server_app.checkpoint import Checkpoints
from server_app.strategy import ColdStart, timings, traffic
from tests.server_app.conftest import run_here, run_values

Spoil = Callable[[Message, Message], Message | None]


def state_of(run_dir: Path, number: int) -> dict[str, Any]:
    """The checkpoint of a round."""
    checkpoints = Checkpoints(run_dir / "checkpoint")
    try:
        return checkpoints.load(number)
    finally:
        checkpoints.close()


def rounds_of(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "rounds.csv").open() as file:
        return list(csv.DictReader(file))


class SpoiltGrid(InProcessGrid):
    """Some nodes' answers to one kind of message are replaced; None: no answer at all."""

    def __init__(
        self,
        nodes: int,
        values: dict[str, Any],
        spoil: Spoil,
        bad: Iterable[int] = (3,),
        kind: str = messages.TRAIN,
    ) -> None:
        super().__init__(nodes, values)
        self.spoil, self.bad, self.kind = spoil, set(bad), kind
        self.sent: list[Message] = []

    def deliver(self, message: Message) -> Message | None:
        self.sent.append(message)
        reply = super().deliver(message)
        spoilt = message.metadata.message_type == self.kind
        if reply is not None and spoilt and message.metadata.dst_node_id in self.bad:
            return self.spoil(message, reply)
        return reply


def with_change(make: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """The node's change is replaced."""

    def spoil(message: Message, reply: Message) -> Message:
        if "values" not in reply.content.config_records:
            return reply
        answer = TrainAnswer.from_record(reply.content)
        bad = TrainAnswer(answer.users, answer.loss_sum, make(answer.change), answer.touches)
        return Message(bad.to_record(), reply_to=message)

    return spoil


def silent(message: Message, reply: Message) -> None:
    return None


def failing(message: Message, reply: Message) -> Message:
    return Message(Error(code=messages.REFUSED, reason="train ended in an error"), reply_to=message)


def rubbish(message: Message, reply: Message) -> Message:
    return Message(messages.status_record("nonsense"), reply_to=message)


def untouched(message: Message, reply: Message) -> Message:
    return reply


@pytest.fixture(scope="module")
def plain(
    data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """An undisturbed run on two nodes, with its plots: its folder and summary."""
    folder = tmp_path_factory.mktemp("plain")
    yield folder, run_here(run_values(data_folder, folder))


def test_summary_holds_the_results(plain: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = plain
    assert json.loads((folder / "summary.json").read_text()) == summary
    names = metric_names(KS)
    assert names[0] == "recall@20"
    assert names[-1] == "ndcg@100"
    baselines = summary["baselines"]
    controls = {"ridge-map", "own-features", "similar-items"}
    assert set(baselines) == {"content-profile", "random"} | controls
    for results in (summary, *baselines.values()):
        for split in ("validation", "test"):
            assert list(results[split]) == names
            assert all(0 <= value <= 1 for value in results[split].values())
    assert summary["dataset"]["items"] == {"warm": 48, "validation": 8, "test": 24}
    assert summary["dataset"]["users"] + summary["dataset"]["users_without_warm"] == 60
    assert 0 < summary["tested_users"] <= summary["dataset"]["users"]
    assert summary["recommended_users"] == summary["dataset"]["users"]
    assert summary["best_round"] in (2, 4)
    assert summary["failed_answers"] == 0
    assert summary["generated_data"] is False


def test_summary_counts_the_interactions(
    plain: tuple[Path, dict[str, Any]], data_folder: Path
) -> None:
    lines = (data_folder / "interactions.csv").read_text().splitlines()
    dataset = plain[1]["dataset"]
    assert dataset["users_without_warm"] == 0
    assert sum(dataset["interactions"].values()) == len(lines) - 1


def test_summary_holds_times_and_memory(plain: tuple[Path, dict[str, Any]]) -> None:
    summary = plain[1]
    assert set(summary["timing"]) == {
        "encode_seconds",
        "round_seconds_median",
        "generator_seconds_median",
        "evaluate_seconds_median",
        "total_seconds",
    }
    assert all(seconds > 0 for seconds in summary["timing"].values())
    assert summary["memory"]["peak_rss_mb"] > 50
    assert summary["memory"]["device"] == "cpu"


def test_run_folder_holds_settings_rounds_and_plots(
    plain: tuple[Path, dict[str, Any]], data_folder: Path
) -> None:
    folder = plain[0]
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["data"] == str(data_folder)
    assert settings["rounds"] == 4
    rows = rounds_of(folder)
    assert [row["round"] for row in rows] == ["1", "2", "3", "4"]
    assert all(row["users"] == "60" and float(row["loss"]) > 0 for row in rows)
    assert [bool(row["validation_recall@20"]) for row in rows] == [False, True, False, True]
    for name in ("metrics.png", "embeddings.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_no_user_id_reaches_the_servers_files(plain: tuple[Path, dict[str, Any]]) -> None:
    folder = plain[0]
    files = [path for path in folder.iterdir() if path.is_file()]
    files += (folder / "checkpoint").iterdir()
    assert len(files) > 5
    for path in files:
        assert b"user-0" not in path.read_bytes()


def test_training_moves_the_item_table(plain: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = plain
    first, last = state_of(folder, 1)["table"], state_of(folder, 4)["table"]
    assert first.shape == (48, 8)
    assert float((last - first).abs().max()) > 1e-3


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("average", ["users", "touches"])
def test_the_model_does_not_depend_on_how_users_share_nodes(
    data_folder: Path, tmp_path: Path, average: str
) -> None:
    tables, results = [], []
    for nodes in (1, 2, 7):
        folder = tmp_path / str(nodes)
        values = run_values(data_folder, folder, nodes=nodes, average=average, baselines=False)
        results.append(run_here(values)["test"])
        tables.append(state_of(folder, 4)["table"])
    for table, result in zip(tables[1:], results[1:], strict=True):
        torch.testing.assert_close(table, tables[0], atol=1e-5, rtol=0)
        assert result == pytest.approx(results[0], abs=0.02)


@pytest.mark.usefixtures("no_plots")
def test_resuming_equals_an_undisturbed_run(
    plain: tuple[Path, dict[str, Any]], data_folder: Path, tmp_path: Path
) -> None:
    run_here(run_values(data_folder, tmp_path, rounds=2))
    summary = run_here(run_values(data_folder, tmp_path, rounds=4, resume=True))
    whole, resumed = state_of(plain[0], 4), state_of(tmp_path, 4)
    torch.testing.assert_close(resumed["table"], whole["table"], atol=1e-6, rtol=0)
    assert [row["round"] for row in rounds_of(tmp_path)] == ["1", "2", "3", "4"]
    assert summary["test"] == pytest.approx(plain[1]["test"])
    assert summary["training"] == resumed["id"] == state_of(tmp_path, 2)["id"]


@pytest.mark.usefixtures("no_plots")
def test_resume_goes_back_to_the_last_whole_checkpoint(
    plain: tuple[Path, dict[str, Any]], data_folder: Path, tmp_path: Path
) -> None:
    run_here(run_values(data_folder, tmp_path, rounds=3))
    (tmp_path / "checkpoint" / "round-000003.ckpt").write_bytes(b"half")
    run_here(run_values(data_folder, tmp_path, rounds=4, resume=True))
    whole, resumed = state_of(plain[0], 4), state_of(tmp_path, 4)
    torch.testing.assert_close(resumed["table"], whole["table"], atol=1e-6, rtol=0)


@pytest.mark.usefixtures("no_plots")
def test_a_run_without_resume_starts_anew(data_folder: Path, tmp_path: Path) -> None:
    first = run_here(run_values(data_folder, tmp_path, rounds=2))
    second = run_here(run_values(data_folder, tmp_path, rounds=1))
    assert first["training"] != second["training"]
    assert [row["round"] for row in rounds_of(tmp_path)] == ["1"]
    assert not (tmp_path / "checkpoint" / "round-000002.ckpt").exists()


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(with_change(lambda change: change * np.nan), id="nan"),
        pytest.param(with_change(lambda change: change[:-1]), id="shape"),
        pytest.param(with_change(lambda change: change.astype(np.int64)), id="integers"),
        pytest.param(failing, id="error"),
        pytest.param(silent, id="silent"),
        pytest.param(rubbish, id="rubbish"),
    ],
)
def test_a_bad_node_is_left_out_and_counted(
    data_folder: Path, tmp_path: Path, spoil: Spoil
) -> None:
    values = run_values(
        data_folder, tmp_path, rounds=2, nodes=3, baselines=False, round_timeout=1.0
    )
    summary = run_here(values, SpoiltGrid(3, values, spoil))
    rows = rounds_of(tmp_path)
    assert [row["failed_nodes"] for row in rows] == ["1", "1"]
    assert all(0 < int(row["users"]) < 60 for row in rows)
    assert summary["failed_answers"] == 2
    assert torch.isfinite(state_of(tmp_path, 2)["table"]).all()


def with_answer(**changed: Any) -> Spoil:
    """Parts of the node's training answer are replaced."""

    def spoil(message: Message, reply: Message) -> Message:
        if "values" not in reply.content.config_records:
            return reply
        answer = dataclasses.replace(TrainAnswer.from_record(reply.content), **changed)
        return Message(answer.to_record(), reply_to=message)

    return spoil


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    ("spoil", "bound", "sentence"),
    [
        pytest.param(
            with_change(lambda change: change * 1e6),
            {"max_update_norm": 50.0},
            r"above max_update_norm = 50 a user",
            id="norm",
        ),
        pytest.param(
            with_answer(scale=1e6), {"max_update_norm": 50.0}, "above max_update_norm", id="scale"
        ),
        pytest.param(
            with_answer(users=10**9), {"max_node_users": 40}, "above max_node_users = 40", id="cap"
        ),
        pytest.param(with_answer(scale=1e300), {}, "which no item table can hold", id="overflow"),
        pytest.param(with_answer(scale=float("nan")), {}, "scale is NaN", id="nan scale"),
        pytest.param(with_answer(scale=-1.0), {}, "not above 0", id="negative scale"),
    ],
)
def test_an_absurd_node_is_refused_and_the_others_round_stands(
    data_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Spoil,
    bound: dict[str, Any],
    sentence: str,
) -> None:
    values = run_values(data_folder, tmp_path, rounds=2, nodes=3, baselines=False, **bound)
    with caplog.at_level("WARNING", "snowdrop"):
        summary = run_here(values, SpoiltGrid(3, values, spoil))
    assert re.search(f"node 3 is left out of this train: .*{sentence}", caplog.text)
    assert [row["failed_nodes"] for row in rounds_of(tmp_path)] == ["1", "1"]
    assert summary["failed_answers"] == 2
    silent_run = run_values(
        data_folder, tmp_path / "silent", rounds=2, nodes=3, baselines=False, round_timeout=0.5
    )
    run_here(silent_run, SpoiltGrid(3, silent_run, failing))
    table, expected = (state_of(f, 2)["table"] for f in (tmp_path, tmp_path / "silent"))
    assert torch.equal(table, expected)


@pytest.mark.usefixtures("no_plots")
def test_an_honest_run_is_within_its_bounds(
    plain: tuple[Path, dict[str, Any]], data_folder: Path, tmp_path: Path
) -> None:
    bounds = {"max_update_norm": 50.0, "max_node_users": 60, "baselines": False}
    summary = run_here(run_values(data_folder, tmp_path, **bounds))
    assert summary["failed_answers"] == 0
    assert torch.equal(state_of(tmp_path, 4)["table"], state_of(plain[0], 4)["table"])


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("average", ["touches", "users"])
def test_float16_halves_the_bytes_and_keeps_the_table(
    data_folder: Path, tmp_path: Path, average: str
) -> None:
    tables, wires = [], []
    for dtype in ("float32", "float16"):
        values = run_values(
            data_folder, tmp_path / dtype, wire_dtype=dtype, average=average, dim=15, nodes=1
        )
        grid = SpoiltGrid(1, values, untouched)
        summary = run_here(values, grid)
        assert summary["failed_answers"] == 0
        assert set(summary["baselines"]) > {"content-profile"}
        assert summary["wire"]["dtype"] == dtype
        wires.append(summary["wire"])
        tables.append(state_of(tmp_path / dtype, 4)["table"])
        for message in grid.sent:
            if message.metadata.message_type in (messages.TRAIN, messages.EVALUATE):
                arrays = message.content.array_records["arrays"].values()
                assert {array.dtype for array in arrays} <= {dtype}
        written = [int(row["node_bytes_down"]) for row in rounds_of(tmp_path / dtype)]
        assert sorted(written)[1] <= wires[-1]["bytes_down_per_node_and_round"] <= written[0]
    table_bytes = tables[0].numel() * 4
    for way in ("down", "up"):
        whole, half = (wire[f"bytes_{way}_per_node_and_round"] for wire in wires)
        assert whole > table_bytes
        assert whole - half == pytest.approx(table_bytes / 2, abs=100)
    moved = (tables[0] - tables[1]).abs().max()
    assert 0 < float(moved) < 0.02
    cosine = torch.nn.functional.cosine_similarity(*tables)
    assert float(cosine.min()) > 0.999


@pytest.mark.usefixtures("no_plots")
def test_a_table_too_large_for_float16_ends_the_run_and_float32_goes_on(
    data_folder: Path, tmp_path: Path
) -> None:
    values = run_values(data_folder, tmp_path, wire_dtype="float16", baselines=False)
    far = {**values, "server_lr": 1e7}
    with pytest.raises(SnowdropError, match=r"too large for wire_dtype = float16; set wire_dtype"):
        run_here(far)
    kept = Checkpoints(tmp_path / "checkpoint", exclusive=False).rounds()
    assert kept
    assert kept[-1] < 4
    summary = run_here({**values, "wire_dtype": "float32", "resume": True})
    assert summary["training"]
    assert state_of(tmp_path, 4)["round"] == 4


def test_bytes_of_a_run_are_medians_of_what_was_counted() -> None:
    history = [{"node_bytes_down": n, "node_bytes_up": 2 * n} for n in (90, 10, 20)]
    expected = {"bytes_down_per_node_and_round": 20, "bytes_up_per_node_and_round": 40}
    assert traffic([{"round": 1}, *history]) == expected
    assert set(traffic([]).values()) == {0}


def with_metrics(**changed: Any) -> Spoil:
    """The node's evaluation is replaced in part."""

    def spoil(message: Message, reply: Message) -> Message:
        reply.content.config_records["values"].update(changed)
        return reply

    return spoil


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(failing, id="error"),
        pytest.param(with_metrics(names=["recall@1"]), id="names"),
        pytest.param(with_metrics(users=-4), id="users"),
        pytest.param(with_metrics(sums=[1.0]), id="short"),
        pytest.param(with_metrics(sums=[float("nan")] * 9), id="nan"),
        pytest.param(with_metrics(users="all"), id="type"),
    ],
)
def test_a_bad_evaluation_is_left_out(data_folder: Path, tmp_path: Path, spoil: Spoil) -> None:
    values = run_values(data_folder, tmp_path, rounds=1, nodes=3, baselines=False)
    summary = run_here(values, SpoiltGrid(3, values, spoil, kind=messages.EVALUATE))
    assert 0 < summary["tested_users"] < 60
    assert summary["failed_answers"] > 0
    assert all(0 <= value <= 1 for value in summary["test"].values())


@pytest.mark.usefixtures("no_plots")
def test_a_round_without_answers_is_tried_again_then_ends_the_run(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)

    def from_round_3(message: Message, reply: Message) -> Message | None:
        return None if TrainRequest.from_record(message.content).round >= 3 else reply

    values = run_values(data_folder, tmp_path, round_retries=2)
    grid = SpoiltGrid(2, values, from_round_3, bad=(2, 3))
    with pytest.raises(SnowdropError, match=r"round 3 brought no usable answer in 3 tries"):
        run_here(values, grid)
    asked = [m for m in grid.sent if m.metadata.message_type == messages.TRAIN]
    numbers = [TrainRequest.from_record(m.content).round for m in asked]
    assert numbers.count(3) == 3 * 2
    assert state_of(tmp_path, 2)["round"] == 2
    assert not (tmp_path / "checkpoint" / "round-000003.ckpt").exists()
    run_here({**values, "resume": True})
    assert state_of(tmp_path, 4)["round"] == 4


@pytest.mark.usefixtures("no_plots")
def test_a_round_for_which_nobody_is_drawn_changes_nothing(
    data_folder: Path, tmp_path: Path
) -> None:
    run_here(run_values(data_folder, tmp_path, fraction=1e-9))
    rows = state_of(tmp_path, 4)["history"]
    assert [row["users"] for row in rows] == [0, 0, 0, 0]
    assert torch.equal(state_of(tmp_path, 3)["table"], state_of(tmp_path, 4)["table"])


@pytest.mark.usefixtures("no_plots")
def test_a_round_is_tried_again_with_other_nodes(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)

    def silent(message: Message, reply: Message) -> Message | None:
        return None if message.metadata.message_type == messages.TRAIN else reply

    values = run_values(data_folder, tmp_path, nodes_per_round=1, round_retries=9)
    grid = SpoiltGrid(2, values, silent, bad=(2,))
    run_here(values, grid)
    asked = [m for m in grid.sent if m.metadata.message_type == messages.TRAIN]
    assert len(asked) > state_of(tmp_path, 4)["round"] == 4


@pytest.mark.usefixtures("no_plots")
def test_a_round_that_fails_once_is_repeated(
    plain: tuple[Path, dict[str, Any]],
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    failed: list[int] = []

    def once_each(message: Message, reply: Message) -> Message | None:
        request = TrainRequest.from_record(message.content)
        if request.round == 2 and failed.count(message.metadata.dst_node_id) == 0:
            failed.append(message.metadata.dst_node_id)
            return None
        return reply

    values = run_values(data_folder, tmp_path)
    run_here(values, SpoiltGrid(2, values, once_each, bad=(2, 3)))
    torch.testing.assert_close(state_of(tmp_path, 4)["table"], state_of(plain[0], 4)["table"])


def test_too_few_nodes_are_one_sentence(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, nodes=3, nodes_timeout=0.05)
    with pytest.raises(SnowdropError, match=r"2 of 3 nodes came within 0\.05 s"):
        run_here(values, InProcessGrid(2, values))


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(("every", "expected"), [(1, "1234"), (2, "24"), (3, "234")])
def test_the_generator_is_trained_every_so_many_rounds(
    data_folder: Path, tmp_path: Path, every: int, expected: str
) -> None:
    run_here(run_values(data_folder, tmp_path, generator_every=every, baselines=False))
    fitted = [row["round"] for row in rounds_of(tmp_path) if row["generator_loss"]]
    assert "".join(fitted) == expected  # 3: round 2 is validated first, and needs a generator


@pytest.mark.usefixtures("no_plots")
def test_the_best_validated_round_is_tested_and_recommended(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, finish = ColdStart.measure, ColdStart.finish
    tables: list[torch.Tensor] = []

    def falling(self: ColdStart, split: str, *rest: Any, **named: Any) -> Any:
        metrics, users = measure(self, split, *rest, **named)
        return {**metrics, "recall@20": 1 / self.training.round}, users

    def watched(self: ColdStart) -> dict[str, Any]:
        results = finish(self)
        tables.append(self.training.table)
        return results

    monkeypatch.setattr(ColdStart, "measure", falling)
    monkeypatch.setattr(ColdStart, "finish", watched)
    values = run_values(data_folder, tmp_path, keep_rounds=2, rounds=6)
    grid = SpoiltGrid(2, values, untouched)
    summary = run_here(values, grid)
    assert summary["best_round"] == 2
    kept = sorted(p.name for p in (tmp_path / "checkpoint").glob("*.ckpt"))
    assert kept == [f"round-{number:06d}.ckpt" for number in (2, 5, 6)]
    assert torch.equal(tables[0], state_of(tmp_path, 2)["table"])
    assert not torch.equal(tables[0], state_of(tmp_path, 6)["table"])
    requests = [
        messages.EvaluateRequest.from_record(m.content)
        for m in grid.sent
        if m.metadata.message_type == messages.EVALUATE
    ]
    assert {r.round for r in requests if r.split == "test"} == {2}
    recommended = [m for m in grid.sent if m.metadata.message_type == messages.QUERY_RECOMMEND]
    assert {messages.RecommendRequest.from_record(m.content).round for m in recommended} == {2}
    assert len(rounds_of(tmp_path)) == 6


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    "generator",
    [
        "ridge",
        "features",
    ],
)
def test_runs_with_the_simple_generators(data_folder: Path, tmp_path: Path, generator: str) -> None:
    summary = run_here(run_values(data_folder, tmp_path, generator=generator))
    assert summary["best_round"] in (2, 4)
    controls = {"similar-items", {"ridge": "own-features", "features": "ridge-map"}[generator]}
    assert set(summary["baselines"]) == {"content-profile", "random"} | controls


@pytest.mark.usefixtures("no_plots")
def test_a_blend_is_shown_beside_its_parts(data_folder: Path, tmp_path: Path) -> None:
    summary = run_here(run_values(data_folder, tmp_path, neighbour_share=0.5))
    assert summary["method"] == "MDiffFR + similar items"
    assert {"MDiffFR", "similar-items"} <= set(summary["baselines"])


@pytest.mark.usefixtures("no_plots")
def test_own_settings_that_overflow_are_one_sentence(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, server_lr=1e38, item_lr=1e6, baselines=False)
    with pytest.raises(OverflowedError, match="lower item_lr or head_lr"):
        run_here(values)


@pytest.mark.usefixtures("no_plots")
def test_an_overflow_on_every_node_ends_the_run_at_once(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, item_lr=1e37, round_retries=2)
    grid = SpoiltGrid(2, values, lambda message, reply: reply)
    with pytest.raises(OverflowedError, match=r"overflowed on every node in round \d"):
        run_here(values, grid)
    asked = [m for m in grid.sent if m.metadata.message_type == messages.TRAIN]
    numbers = [TrainRequest.from_record(m.content).round for m in asked]
    assert numbers.count(max(numbers)) == 2


@pytest.mark.usefixtures("no_plots")
def test_an_overflow_on_one_node_leaves_the_others(data_folder: Path, tmp_path: Path) -> None:
    def overflow(message: Message, reply: Message) -> Message | None:
        return Message(Error(messages.OVERFLOWED, "train ended in a refusal"), reply_to=message)

    values = run_values(data_folder, tmp_path)
    summary = run_here(values, SpoiltGrid(2, values, overflow, bad=(2,)))
    assert summary["failed_answers"] == values["rounds"]


def test_without_validation_items_the_last_round_is_tested(
    data_folder: Path, tmp_path: Path, no_plots: None
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    header, *rows = (data_folder / "items.csv").read_text().splitlines()
    splits = ["warm"] * 50 + ["test"] * 30
    lines = [f"{header},split", *(f"{r},{s}" for r, s in zip(rows, splits, strict=True))]
    (data / "items.csv").write_text("\n".join(lines) + "\n")
    (data / "interactions.csv").write_bytes((data_folder / "interactions.csv").read_bytes())
    summary = run_here(run_values(data, tmp_path / "run", rounds=2))
    assert summary["best_round"] is None
    assert "validation" not in summary
    assert summary["recommended_users"] > 0


def test_timings_are_medians_of_what_happened() -> None:
    history = [{"train_seconds": s} for s in (1.0, 5.0, 2.0)]
    assert timings(history) == {
        "round_seconds_median": 2.0,
        "generator_seconds_median": None,
        "evaluate_seconds_median": None,
    }


@pytest.mark.parametrize(
    ("data", "sentence"),
    [("relative/folder", "must be an absolute path"), ("/no/such/folder", "does not exist")],
)
def test_a_wrong_data_folder_is_one_sentence(tmp_path: Path, data: str, sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        run_here({"data": data, "run_dir": str(tmp_path)})
