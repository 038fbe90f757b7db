"""What leaves the nodes of a run in this process, and what must not pass for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as Sent

from cli.in_process import InProcessGrid
from common import messages
from common.methods.one_round import ITEM_RIDGES
from common.metrics import metric_names
from common.settings import KS, RunSettings
from server_app.items import load_catalogue
from tests.e2e.left_node import Run, check, check_listed
from tests.server_app.runs import run_here, run_values

DIM = 8


class KeepingGrid(InProcessGrid):
    """Keeps every answer, and of how many forms of each ranking every `evaluate` asks."""

    def __init__(self, nodes: int, values: dict[str, Any]) -> None:
        super().__init__(nodes, values)
        self.left: list[bytes] = []
        self.forms: list[list[int]] = []

    def deliver(self, message: Message) -> Message | None:
        if message.metadata.message_type == messages.EVALUATE:
            self.forms.append(messages.EvaluateRequest.from_record(message.content).forms)
        reply = super().deliver(message)
        assert reply is not None
        self.left.append(message_to_proto(reply).SerializeToString())
        return reply


def keeping(
    data: Path, run_dir: Path, method: str, secure_sums: bool = True
) -> tuple[KeepingGrid, int]:
    """A run whose answers were kept, and its number of warm items."""
    values = run_values(data, run_dir, method=method, nodes=3, rounds=1, baselines=False, dim=DIM,
                        secure_sums=secure_sums, evaluate_every=1)  # fmt: skip
    grid = KeepingGrid(3, values)
    run_here(values, grid)
    return grid, load_catalogue(RunSettings.parse(values)).index().splits.count("warm")


@pytest.fixture(scope="module")
def recorded(
    data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[bytes], Run]:
    """All answers of a run that trains in rounds, and what it is to be."""
    grid, warm = keeping(data_folder, tmp_path_factory.mktemp("run"), "own-features")
    return grid.left, Run(nodes=3, long=warm * DIM + 3, short=warm, signed=False)


def test_all_that_leaves_is_masked_or_listed(recorded: tuple[list[bytes], Run]) -> None:
    left, run = recorded
    check({messages.NOBODY: left}, run)


def test_so_it_is_with_the_one_sum_of_the_default_method(data_folder: Path, tmp_path: Path) -> None:
    grid, warm = keeping(data_folder, tmp_path, "one-round")
    pairs = warm * (warm + 1) // 2
    check({messages.NOBODY: grid.left}, Run(3, long=pairs + 3, short=0, signed=False))
    assert max(map(sum, grid.forms)) > len(ITEM_RIDGES)  # validation items chose among many
    answers = [message_from_proto(Sent.FromString(content)) for content in grid.left]
    told = [one.content.array_records["single"]["long"].shape for one in answers
            if one.metadata.message_type == messages.EVALUATE]  # fmt: skip
    metrics = len(metric_names(KS))
    assert told == [(1 + len(forms) + metrics * sum(forms),) for forms in grid.forms]


def test_all_that_leaves_without_masks_is_listed(data_folder: Path, tmp_path: Path) -> None:
    grid, _ = keeping(data_folder, tmp_path, "one-round", secure_sums=False)
    assert {"sums.gram", "loss_sum", "names", "sums", "order"} <= check_listed(grid.left)


def field(record: RecordDict) -> None:
    record.config_records["values"]["age"] = 30


def metric(record: RecordDict) -> None:
    record["metrics"] = MetricRecord({"loss": 0.5})


def array(record: RecordDict) -> None:
    record["sums"] = ArrayRecord({"change": Array(np.zeros(3, np.float32))})


def longer(record: RecordDict) -> None:
    one = record.array_records["single"]["long"].numpy()
    record.array_records["single"]["long"] = Array(np.append(one, one[:1] + np.uint64(1)))


def other_type(record: RecordDict) -> None:
    one = record.array_records["single"]["long"].numpy()
    record.array_records["single"]["long"] = Array(one.view(np.int64))


def bytes_behind(record: RecordDict) -> None:
    one = record.array_records["single"]["long"]
    one.data = one.data + b"more"


def unmasked(record: RecordDict) -> None:
    size = record.array_records["single"]["long"].shape[0]
    numbers = np.random.default_rng(0).integers(0, 2**40, size, dtype=np.uint64)
    record.array_records["single"]["long"] = Array(numbers)


@pytest.mark.parametrize(
    "spoil", [field, metric, array, longer, other_type, bytes_behind, unmasked]
)
def test_what_is_not_listed_is_found(
    recorded: tuple[list[bytes], Run], spoil: Callable[[RecordDict], None]
) -> None:
    left, run = recorded
    messages_left = [message_from_proto(Sent.FromString(content)) for content in left]
    place = next(k for k, one in enumerate(messages_left)
                 if one.metadata.message_type == messages.TRAIN)  # fmt: skip
    spoil(messages_left[place].content)
    spoilt = message_to_proto(messages_left[place]).SerializeToString()
    with pytest.raises(AssertionError):
        check({messages.NOBODY: [*left[:place], spoilt, *left[place + 1 :]]}, run)


def test_an_error_does_not_pass(recorded: tuple[list[bytes], Run]) -> None:
    left, run = recorded
    message = message_from_proto(Sent.FromString(left[0]))
    told = Message(Error(messages.REFUSED, "user-7 has no items"), reply_to=message)
    with pytest.raises(AssertionError):
        check({messages.NOBODY: [*left, message_to_proto(told).SerializeToString()]}, run)


def test_a_status_of_another_word_does_not_pass(recorded: tuple[list[bytes], Run]) -> None:
    left, run = recorded
    message = message_from_proto(Sent.FromString(left[-1]))
    message.content = RecordDict({"status": ConfigRecord({"status": "user-7"})})
    with pytest.raises(AssertionError):
        check({messages.NOBODY: [*left, message_to_proto(message).SerializeToString()]}, run)
