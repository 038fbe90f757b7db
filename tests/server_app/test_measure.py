"""Measuring: what nodes are asked to rank, and which answers count."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from common import messages
from common.errors import OverflowedError
from common.settings import RunSettings
from server_app import measure
from server_app.measure import order_of, packed
from tests.server_app.runs import Spoil, SpoiltGrid, failing, run_here, run_values, untouched


def with_metrics(**changed: Any) -> Spoil:
    """The node's evaluation is replaced in part."""

    def spoil(message: Message, reply: Message) -> Message:
        reply.content.config_records["values"].update(changed)
        return reply

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(failing, id="error"),
        pytest.param(with_metrics(names=["recall@1"]), id="names"),
        pytest.param(with_metrics(users=[-4, -4]), id="users"),
        pytest.param(with_metrics(sums=[1.0]), id="short"),
        pytest.param(with_metrics(sums=[float("nan")] * 18), id="nan"),
        pytest.param(with_metrics(sums=[1e6] * 18), id="more than one per user"),
        pytest.param(with_metrics(users="all"), id="type"),
        pytest.param(with_metrics(users=[1]), id="too few"),
    ],
)
def test_a_bad_evaluation_is_left_out(data_folder: Path, tmp_path: Path, spoil: Spoil) -> None:
    values = run_values(
        data_folder, tmp_path, rounds=1, nodes=3, baselines=False, method="own-features"
    )
    summary = run_here(values, SpoiltGrid(3, values, spoil, kind=messages.EVALUATE))
    assert 0 < summary["tested_users"] < 60
    assert summary["failed_answers"] > 0
    assert all(0 <= value <= 1 for value in summary["test"].values())


def test_a_test_is_a_message_for_the_method_and_one_for_what_it_is_compared_with(
    data_folder: Path, tmp_path: Path
) -> None:
    values = run_values(data_folder, tmp_path, rounds=1, method="own-features")
    grid = SpoiltGrid(2, values, untouched)
    summary = run_here(values, grid)
    asked = [messages.EvaluateRequest.from_record(m.content) for m in grid.of(messages.EVALUATE)]
    rankings = [len(request.rankings()) for request in asked]
    others = len(summary["baselines"].keys() - {"frozen"})
    assert others > 4
    assert rankings == [1, 1, 2, 2, 2 * others, 2 * others]  # to two nodes each


def test_large_arrays_go_in_several_messages_with_the_same_results(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, sizes = [], []
    for most in (measure.MESSAGE_BYTES, 2_000, 0):
        monkeypatch.setattr(measure, "MESSAGE_BYTES", most)
        values = run_values(data_folder, tmp_path / str(most), rounds=1, method="own-features")
        grid = SpoiltGrid(2, values, untouched)
        found.append(run_here(values, grid))
        asked = [messages.EvaluateRequest.from_record(m.content).rankings()
                 for m in grid.of(messages.EVALUATE)]  # fmt: skip
        sizes.append(len(asked))
        carried = [[sum(a.nbytes for a in own.arrays.values()) for own in one] for one in asked]
        assert all(sum(one) <= most or sum(size > 0 for size in one) == 1 for one in carried)
    assert sizes[0] < sizes[1] < sizes[2]
    for summary in found[1:]:
        assert summary["test"] == found[0]["test"]
        for name, rows in summary["baselines"].items():
            if name != "random":  # whose draws are those of the training
                assert rows == found[0]["baselines"][name]


def test_nodes_have_as_long_for_each_ranking(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, rounds=1, method="own-features", round_timeout=50)
    grid = SpoiltGrid(2, values, untouched)
    run_here(values, grid)
    for message in grid.of(messages.EVALUATE):
        rankings = messages.EvaluateRequest.from_record(message.content).rankings()
        assert message.metadata.ttl == 50 * len(rankings)


def test_tables_travel_in_the_dtype_of_the_wire_and_counts_as_they_are() -> None:
    arrays = {"table": np.ones((2, 3), np.float32), "rows": np.arange(2)}
    half = packed(arrays, RunSettings(wire_dtype="float16"))
    assert (half["table"].dtype, half["rows"].dtype) == (np.float16, np.int64)
    assert packed(arrays, RunSettings())["table"].dtype == np.float32
    with pytest.raises(OverflowedError, match="set wire_dtype = float32"):
        packed({"table": np.full((1, 1), 1e6, np.float32)}, RunSettings(wire_dtype="float16"))


def described(order: str, users: int = 1) -> messages.DescribeAnswer:
    counts = dict.fromkeys(("users_without_warm", "warm", "validation", "test", "unknown"), 0)
    return messages.DescribeAnswer(users=users, **counts, peak_rss_mb=1.0, order=order)


def test_the_order_is_that_of_the_nodes_with_users() -> None:
    time, place, drawn = described("timestamp"), described("position"), described("seeded", 0)
    assert order_of([time, drawn, time]) == "timestamp"
    assert order_of([place]) == "position"
    assert order_of([time, place]) == "mixed"
    assert order_of([drawn]) == order_of([]) == "seeded"
    with pytest.raises(ValueError, match="order"):
        described("by hand")
