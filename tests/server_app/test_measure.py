"""Measuring: what nodes are asked to rank, and which answers count."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from common import messages
from common.errors import OverflowedError
from common.settings import RunSettings
from server_app.measure import order_of, packed
from tests.server_app.runs import Spoil, SpoiltGrid, failing, run_here, run_values


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
        pytest.param(with_metrics(users=-4), id="users"),
        pytest.param(with_metrics(sums=[1.0]), id="short"),
        pytest.param(with_metrics(sums=[float("nan")] * 9), id="nan"),
        pytest.param(with_metrics(sums=[1e6] * 9), id="more than one per user"),
        pytest.param(with_metrics(users="all"), id="type"),
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
