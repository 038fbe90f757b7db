"""How long steps take."""

import pytest

from server_app import pace
from server_app.pace import Stopwatch


def test_each_step_begins_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.5, 14.0, 20.0])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(times))
    watch = Stopwatch()
    watch.lap("first")
    watch.lap("second")
    assert watch.laps == {"first": 1.5, "second": 2.5}
    assert watch.total() == 10.0
