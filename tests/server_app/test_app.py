"""The ServerApp's log, in both forms."""

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from common.errors import SnowdropError
from server_app import app as serverapp
from server_app import run as running

log = logging.getLogger("snowdrop")


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    kept, level, propagate = list(log.handlers), log.level, log.propagate
    log.handlers.clear()
    yield
    log.handlers[:] = kept
    log.setLevel(level)
    log.propagate = propagate
    logging.getLogger("flwr").removeFilter(serverapp.without_traceback)


def test_flower_logs_no_traceback_of_what_one_sentence_explains(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    told = lines_of({"rounds": "many"}, capsys)
    assert told == ["snowdrop: setting 'rounds' is 'many': it must be a whole number"]
    for error in (SnowdropError("explained"), ValueError("a fault of the app")):
        logging.getLogger("flwr").error("ServerApp raised an exception", exc_info=error)
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]


def lines_of(config: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a run with this configuration prints, whose one line is followed by a failure."""
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    with pytest.raises(SnowdropError):
        serverapp.main(None, context)  # type: ignore[arg-type]
    return capsys.readouterr().out.splitlines()


def test_a_log_is_text_or_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> None:
        log.warning("round %d · é", 1)
        raise SnowdropError('no "node"')

    monkeypatch.setattr(running, "run", failing)
    assert lines_of({}, capsys) == ["round 1 · é", 'snowdrop: no "node"']
    told = [json.loads(line) for line in lines_of({"log_format": "json"}, capsys)]
    assert [(line["level"], line["message"]) for line in told] == [
        ("WARNING", "round 1 · é"),
        ("ERROR", 'snowdrop: no "node"'),
    ]
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in told)
