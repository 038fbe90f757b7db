"""The Flower Strategy: its four methods do the work, its loop repeats and refuses."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord
from flwr.serverapp.strategy import Strategy

from common import messages
from common.errors import OverflowedError, SnowdropError
from common.messages import TrainAnswer, TrainRequest
from common.settings import RunSettings
from server_app.checkpoint import Checkpoints
from server_app.items import load_catalogue, world_of
from server_app.measure import Task
from server_app.methods import ItemTable
from server_app.nodes import Nodes
from server_app.run_folder import RunFolder
from server_app.strategy import ColdStart, _round_line
from server_app.training import Training
from tests.server_app.conftest import Ran
from tests.server_app.runs import (
    Spoil,
    SpoiltGrid,
    failing,
    rounds_of,
    rubbish,
    run_here,
    run_values,
    silent,
    state_of,
    untouched,
    with_answer,
    with_change,
)

NO_ARRAYS, NO_CONFIG = ArrayRecord(), ConfigRecord()


class Parts:
    """A strategy on its own, with a grid that tells what it was asked."""

    def __init__(self, data: Path, run_dir: Path, **changed: Any) -> None:
        values = run_values(data, run_dir, **{"method": "ridge", **changed})
        self.settings = RunSettings.parse(values)
        self.grid = SpoiltGrid(self.settings.nodes, values, untouched)
        world = world_of(self.settings, load_catalogue(self.settings), torch.device("cpu"))
        self.training = Training.begin(world)
        self.nodes = Nodes(self.grid, self.training.index, 2.0)
        self.task = Task(self.settings, self.nodes)
        self.checkpoints = Checkpoints(run_dir / "checkpoint")
        self.strategy = ColdStart(
            self.training, self.nodes, self.task, self.checkpoints, RunFolder(run_dir)
        )

    @property
    def table(self) -> torch.Tensor:
        assert isinstance(self.training.method, ItemTable)
        return self.training.method.table

    def asked(self, number: int, attempt: int = 0) -> list[Message]:
        config = ConfigRecord({"attempt": attempt})
        return list(self.strategy.configure_train(number, NO_ARRAYS, config, self.grid))


@pytest.fixture
def parts(data_folder: Path, tmp_path: Path) -> Iterator[Parts]:
    made = Parts(data_folder, tmp_path, nodes=3)
    yield made
    made.checkpoints.close()


# The four methods that Flower gives a Strategy.


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("mdifffr", "48 warm items, d = 8, head linear;"),
        ("softmax-table", "48 warm items, d = 8;"),
        ("one-round", "48 warm items;"),
    ],
)
def test_a_training_is_told_with_what_its_method_has(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str, told: str
) -> None:
    with caplog.at_level("INFO", "snowdrop"):
        Parts(data_folder, tmp_path, method=method).strategy.summary()
    assert told in caplog.text


def test_a_round_is_told_with_validation_in_per_cent() -> None:
    row = {"round": 2, "validation_recall@20": 0.12345, "failed_nodes": 0, "seconds": 1.0}
    assert _round_line(row, 9, None, "Recall@20") == (
        "round 2/9 · validation Recall@20 12.35 % · 1.00 s"
    )


def test_configure_train_makes_a_message_to_each_node(parts: Parts) -> None:
    assert isinstance(parts.strategy, Strategy)
    parts.training.best_round, parts.training.scale = 5, 0.25
    asked = parts.asked(7)
    assert [message.metadata.dst_node_id for message in asked] == [2, 3, 4]
    assert {message.metadata.message_type for message in asked} == {messages.TRAIN}
    assert {message.metadata.ttl for message in asked} == {2.0}
    for message in asked:
        request = TrainRequest.from_record(message.content)
        assert (request.round, request.best_round, request.scale) == (7, 5, 0.25)
        assert request.training == parts.training.id
        assert request.training_settings().method == "ridge"
        assert request.arrays.keys() == {"table"}
        np.testing.assert_array_equal(request.arrays["table"], parts.table.numpy())
    assert not parts.grid.sent  # the loop sends them


def test_configure_train_draws_nodes_anew_in_every_round_and_try(
    data_folder: Path, tmp_path: Path
) -> None:
    parts = Parts(data_folder, tmp_path, nodes=9, nodes_per_round=2)
    parts.checkpoints.close()

    def drawn(number: int, attempt: int) -> tuple[int, ...]:
        return tuple(m.metadata.dst_node_id for m in parts.asked(number, attempt))

    assert all(len(drawn(number, 0)) == 2 for number in range(1, 9))
    assert drawn(1, 0) == drawn(1, 0)
    assert len({drawn(number, 0) for number in range(1, 9)}) > 3
    assert len({drawn(1, attempt) for attempt in range(8)}) > 3


def test_aggregate_train_takes_the_servers_step(parts: Parts) -> None:
    before = parts.table.clone()
    replies = parts.nodes.exchange(parts.asked(1))
    arrays, metrics = parts.strategy.aggregate_train(1, replies)
    assert arrays is None
    assert isinstance(metrics, MetricRecord)
    answers = [TrainAnswer.from_record(reply.content) for reply in replies]
    assert metrics["users"] == sum(answer.users for answer in answers) == 60
    assert metrics["loss"] == pytest.approx(sum(answer.loss_sum for answer in answers) / 60)
    change = sum(answer.sums["change"].astype(np.float64) for answer in answers)
    touches = np.maximum(sum(answer.sums["touches"] for answer in answers), 1)
    expected = before.numpy() + change / touches[:, None]
    np.testing.assert_allclose(parts.table.numpy(), expected, atol=1e-6)
    assert not torch.equal(parts.table, before)


def test_aggregate_train_without_a_usable_answer_changes_nothing(parts: Parts) -> None:
    before = parts.table.clone()
    broken = [failing(message, message) for message in parts.asked(1)]
    for replies in ([], broken):
        assert parts.strategy.aggregate_train(1, replies) == (None, None)
    assert torch.equal(parts.table, before)
    assert parts.nodes.failed == 3


def test_configure_evaluate_asks_every_node_to_rank_validation_items(parts: Parts) -> None:
    parts.training.round = 2
    parts.strategy._method.prepare(2, validating=True)
    asked = list(parts.strategy.configure_evaluate(2, NO_ARRAYS, NO_CONFIG, parts.grid))
    assert [message.metadata.dst_node_id for message in asked] == [2, 3, 4]
    for message in asked:
        assert message.metadata.message_type == messages.EVALUATE
        request = messages.EvaluateRequest.from_record(message.content)
        assert (request.task, request.round) == ("cold-items", 2)
        (ranked,) = request.rankings()
        assert (ranked.split, ranked.scorer, ranked.method) == ("validation", "head", "ridge")
        assert ranked.arrays["items"].shape == (8, 8)


def test_aggregate_evaluate_is_the_mean_over_users(parts: Parts) -> None:
    parts.strategy.aggregate_train(1, parts.nodes.exchange(parts.asked(1)))
    parts.training.round = 1
    parts.strategy._method.prepare(1, validating=True)
    asked = list(parts.strategy.configure_evaluate(1, NO_ARRAYS, NO_CONFIG, parts.grid))
    replies = parts.nodes.exchange(asked)
    metrics = parts.strategy.aggregate_evaluate(1, replies)
    assert metrics is not None
    answers = [messages.EvaluateAnswer.from_record(reply.content) for reply in replies]
    users = sum(sum(answer.users) for answer in answers)
    assert metrics["users"] == users > 0
    for place, name in enumerate(answers[0].names):
        assert metrics[name] == pytest.approx(sum(a.sums[place] for a in answers) / users)
    assert parts.strategy.aggregate_evaluate(1, []) is None


def test_start_works_through_the_four_methods(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for name in ("configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate"):
        own = getattr(parts.strategy, name)

        def watched(number: int, *rest: Any, own: Any = own, name: str = name) -> Any:
            called.append(f"{name} {number}")
            return own(number, *rest)

        monkeypatch.setattr(parts.strategy, name, watched)
    result = parts.strategy.start(parts.grid, num_rounds=2)
    assert called == [
        "configure_train 1",
        "aggregate_train 1",
        "configure_train 2",
        "aggregate_train 2",
        "configure_evaluate 2",
        "aggregate_evaluate 2",
    ]
    np.testing.assert_array_equal(result.arrays["table"].numpy(), parts.table.numpy())
    assert parts.training.round == 2
    assert parts.checkpoints.rounds() == [1, 2]


def test_the_aggregator_can_be_another(parts: Parts) -> None:
    class Nobody:
        def combine(self, answers: Any, expected: Any, scale: float) -> Any:
            raise SnowdropError(f"asked with {len(answers)} answers, scale {scale}")

    strategy = ColdStart(
        parts.training, parts.nodes, parts.task, parts.checkpoints, parts.strategy.folder,
        Nobody(),  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(SnowdropError, match=r"asked with 3 answers, scale 1\.0"):
        strategy.aggregate_train(1, parts.nodes.exchange(parts.asked(1)))


# The loop of rounds, with nodes that fail.


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(with_change(lambda change: change * np.nan), id="nan"),
        pytest.param(with_change(lambda change: change[:-1]), id="shape"),
        pytest.param(with_change(lambda change: change.astype(np.int64)), id="integers"),
        pytest.param(with_answer(sums={}), id="no sums"),
        pytest.param(failing, id="error"),
        pytest.param(silent, id="silent"),
        pytest.param(rubbish, id="rubbish"),
    ],
)
def test_a_bad_node_is_left_out_and_counted(
    data_folder: Path, tmp_path: Path, spoil: Spoil
) -> None:
    values = run_values(
        data_folder, tmp_path, rounds=2, nodes=3, baselines=False, round_timeout=4.0,
        method="own-features",
    )  # fmt: skip
    summary = run_here(values, SpoiltGrid(3, values, spoil))
    rows = rounds_of(tmp_path)
    assert [row["failed_nodes"] for row in rows] == ["1", "1"]
    assert all(0 < int(row["users"]) < 60 for row in rows)
    assert summary["failed_answers"] == 2
    assert torch.isfinite(state_of(tmp_path, 2)["table"]).all()


@pytest.fixture(scope="module")
def without_node_3(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The item table after two rounds in which the second of three nodes fails."""
    folder = tmp_path_factory.mktemp("without")
    values = run_values(
        data_folder, folder, rounds=2, nodes=3, baselines=False, method="own-features"
    )
    run_here(values, SpoiltGrid(3, values, failing))
    return state_of(folder, 2)["table"]


@pytest.mark.parametrize(
    ("spoil", "bound", "sentence"),
    [
        pytest.param(
            with_change(lambda change: change * 1e6),
            {"max_update_norm": 50.0},
            r"above max_update_norm = 50 for each user",
            id="norm",
        ),
        pytest.param(
            with_answer(users=10**9), {"max_node_users": 40}, "above max_node_users = 40", id="cap"
        ),
        pytest.param(
            with_change(lambda change: change * 0 + np.float32(3e38)),
            {},
            "which no item table can hold",
            id="overflow",
        ),
    ],
)
def test_an_absurd_node_is_refused_and_the_others_round_stands(
    data_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    without_node_3: torch.Tensor,
    spoil: Spoil,
    bound: dict[str, Any],
    sentence: str,
) -> None:
    values = run_values(
        data_folder, tmp_path, rounds=2, nodes=3, baselines=False, method="own-features", **bound
    )
    with caplog.at_level("WARNING", "snowdrop"):
        summary = run_here(values, SpoiltGrid(3, values, spoil))
    assert re.search(f"node 3 is left out of this train: .*{sentence}", caplog.text)
    assert [row["failed_nodes"] for row in rounds_of(tmp_path)] == ["1", "1"]
    assert summary["failed_answers"] == 2
    assert torch.equal(state_of(tmp_path, 2)["table"], without_node_3)


def test_an_honest_run_is_within_its_bounds(plain: Ran, data_folder: Path, tmp_path: Path) -> None:
    bounds = {"max_update_norm": 50.0, "max_node_users": 60, "baselines": False}
    summary = run_here(run_values(data_folder, tmp_path, **bounds))
    assert summary["failed_answers"] == 0
    assert torch.equal(state_of(tmp_path, 4)["table"], state_of(plain[0], 4)["table"])


def test_a_round_without_answers_is_tried_again_then_ends_the_run(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)

    def from_round_3(message: Message, reply: Message) -> Message | None:
        if TrainRequest.from_record(message.content).round >= 3:
            return failing(message, reply)
        return reply

    values = run_values(data_folder, tmp_path, round_retries=2, baselines=False)
    grid = SpoiltGrid(2, values, from_round_3, bad=(2, 3))
    with pytest.raises(SnowdropError, match=r"round 3 brought no usable answer in 3 tries"):
        run_here(values, grid)
    numbers = [TrainRequest.from_record(m.content).round for m in grid.of(messages.TRAIN)]
    assert numbers.count(3) == 3 * 2
    assert state_of(tmp_path, 2)["round"] == 2
    assert not (tmp_path / "checkpoint" / "round-000003.ckpt").exists()
    run_here({**values, "resume": True})
    assert state_of(tmp_path, 4)["round"] == 4


def test_a_round_for_which_nobody_is_drawn_changes_nothing(
    data_folder: Path, tmp_path: Path
) -> None:
    run_here(run_values(data_folder, tmp_path, fraction=1e-9, baselines=False))
    rows = state_of(tmp_path, 4)["history"]
    assert [row["users"] for row in rows] == [0, 0, 0, 0]
    assert all(math.isnan(row["loss"]) for row in rows)
    assert torch.equal(state_of(tmp_path, 3)["table"], state_of(tmp_path, 4)["table"])


def test_a_round_is_tried_again_with_other_nodes(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    values = run_values(data_folder, tmp_path, nodes_per_round=1, round_retries=9, baselines=False)
    grid = SpoiltGrid(2, values, failing, bad=(2,))
    run_here(values, grid)
    assert len(grid.of(messages.TRAIN)) > state_of(tmp_path, 4)["round"] == 4


def test_a_round_that_fails_once_is_repeated(
    plain: Ran, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    failed: list[int] = []

    def once_each(message: Message, reply: Message) -> Message | None:
        request = TrainRequest.from_record(message.content)
        if request.round == 2 and failed.count(message.metadata.dst_node_id) == 0:
            failed.append(message.metadata.dst_node_id)
            return failing(message, reply)
        return reply

    values = run_values(data_folder, tmp_path, baselines=False)
    run_here(values, SpoiltGrid(2, values, once_each, bad=(2, 3)))
    torch.testing.assert_close(state_of(tmp_path, 4)["table"], state_of(plain[0], 4)["table"])


@pytest.mark.parametrize(("every", "expected"), [(1, "1234"), (2, "24"), (3, "234")])
def test_the_generator_is_trained_every_so_many_rounds(
    data_folder: Path, tmp_path: Path, every: int, expected: str
) -> None:
    run_here(run_values(data_folder, tmp_path, mdifffr__fit_every=every, baselines=False))
    fitted = [row["round"] for row in rounds_of(tmp_path) if row["generator_loss"]]
    assert "".join(fitted) == expected  # 3: round 2 is validated first, and needs a generator


def test_own_settings_that_overflow_are_one_sentence(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, server_lr=1e38, item_lr=1e6, baselines=False)
    with pytest.raises(OverflowedError, match="lower item_lr or head_lr"):
        run_here(values)


def test_an_overflow_on_every_node_ends_the_run_at_once(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, item_lr=1e37, round_retries=2, baselines=False)
    grid = SpoiltGrid(2, values, untouched)
    with pytest.raises(OverflowedError, match=r"overflowed on every node in round \d"):
        run_here(values, grid)
    numbers = [TrainRequest.from_record(m.content).round for m in grid.of(messages.TRAIN)]
    assert numbers.count(max(numbers)) == 2


def test_an_overflow_on_one_node_leaves_the_others(data_folder: Path, tmp_path: Path) -> None:
    def overflow(message: Message, reply: Message) -> Message | None:
        return Message(Error(messages.OVERFLOWED, "train ended in a refusal"), reply_to=message)

    values = run_values(data_folder, tmp_path, baselines=False)
    summary = run_here(values, SpoiltGrid(2, values, overflow, bad=(2,)))
    assert summary["failed_answers"] == values["rounds"]


# Tables that travel as float16, with one scale per round.


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
        for message in (*grid.of(messages.TRAIN), *grid.of(messages.EVALUATE)):
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


def test_the_scale_of_a_round_follows_the_round_before(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(
        data_folder, tmp_path, wire_dtype="float16", method="own-features", baselines=False
    )
    largest: dict[int, float] = {}

    def watch(message: Message, reply: Message) -> Message:
        if "values" not in reply.content.config_records:
            return reply
        request = TrainRequest.from_record(message.content)
        change = TrainAnswer.from_record(reply.content).sums["change"]
        found = request.scale * float(np.abs(change).max())
        largest[request.round] = max(largest.get(request.round, 0.0), found)
        return reply

    grid = SpoiltGrid(2, values, watch, bad=(2, 3))
    run_here(values, grid)
    scales: dict[int, set[float]] = {}
    for message in grid.of(messages.TRAIN):
        request = TrainRequest.from_record(message.content)
        scales.setdefault(request.round, set()).add(request.scale)
    assert scales[1] == {1.0}
    for number in (1, 2, 3):
        expected = 2.0 ** math.ceil(math.log2(largest[number]))
        assert scales[number + 1] == {expected}  # one for all nodes
        assert state_of(tmp_path, number)["scale"] == expected
    assert len({*scales[2], *scales[1]}) == 2
    whole = state_of(tmp_path, 4)["table"]
    resumed = {**values, "run_dir": str(tmp_path / "resumed")}
    run_here({**resumed, "rounds": 2})
    run_here({**resumed, "resume": True})
    assert torch.equal(state_of(tmp_path / "resumed", 4)["table"], whole)


def test_float32_has_no_scale(plain: Ran) -> None:
    assert state_of(plain[0], 4)["scale"] == 1.0


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


def test_the_time_left_is_told_once_there_is_something_to_tell_it_from(
    data_folder: Path, tmp_path: Path
) -> None:
    parts = Parts(data_folder, tmp_path / "run", rounds=10, evaluate_every=4)
    training, left = parts.training, parts.strategy._seconds_left

    def after(number: int, seconds: float, generator: float | None = None) -> float | None:
        fitted = {} if generator is None else {"generator_seconds": generator}
        training.history.append({"round": number, "seconds": seconds, **fitted})
        training.round = number
        return left(number, 10)

    assert after(1, 12.0) is None  # the first round starts processes
    assert after(2, 1.0) is None  # rounds 4, 8 and 10 fit a generator: nobody knows how long
    assert after(3, 1.0) is None
    assert after(4, 81.0, generator=80.0) == pytest.approx(6 * 1.0 + 2 * 80.0)
    assert after(5, 2.0) == pytest.approx(5 * 1.25 + 2 * 80.0)
    # After a resumption its own first round counts for nothing, but fits of before do.
    assert left(1, 10) is None
    assert after(6, 4.0) is not None
    assert left(2, 10) == pytest.approx(4 * 4.0 + 2 * 80.0)
    after(10, 1.0)
    assert left(5, 10) == 0
