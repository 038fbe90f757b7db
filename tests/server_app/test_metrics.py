"""What Prometheus is shown of a run, and the dashboard over it."""

import json
import logging
import re
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from prometheus_client.parser import text_string_to_metric_families

from common import messages
from server_app.metrics import _TOLD
from server_app.run_folder import RunFolder
from tests.server_app.runs import SpoiltGrid, failing, run_here, run_values

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana.json"

Samples = dict[tuple[str, tuple[str, ...]], float]


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


def scraped(address: str) -> Samples:
    """Values by name and values of labels, as Prometheus reads them."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        told = answer.read().decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(told)
        for sample in family.samples
    }


class WatchedGrid(SpoiltGrid):
    """Asks for the metrics whenever nodes are asked to recommend."""

    def deliver(self, message: Message) -> Message | None:
        if message.metadata.message_type == messages.QUERY_RECOMMEND:
            self.seen = scraped(self.address)
        return super().deliver(message)

    address = ""
    seen: Samples


def test_prometheus_is_shown_the_rounds_messages_and_metrics_of_a_run(
    data_folder: Path, tmp_path: Path
) -> None:
    address = free_address()
    values = run_values(
        data_folder, tmp_path, metrics_address=address, nodes=3, baselines=False,
        clip_norm=1.0, gaussian_scale=0.5, release_metrics=True, average="users",
    )  # fmt: skip
    grid = WatchedGrid(3, values, failing)
    grid.address = address
    run_here(values, grid)
    rounds, seen = RunFolder(tmp_path).read_rounds(), grid.seen
    assert seen["snowdrop_round", ()] == seen["snowdrop_rounds_planned", ()] == 4
    assert seen["snowdrop_nodes_online", ()] == 3
    assert seen["snowdrop_answers_total", ("train",)] == 2 * 4
    assert seen["snowdrop_failures_total", ("train",)] == 4
    for direction in ("down", "up"):
        of_rounds = sum(row[f"bytes_{direction}"] for row in rounds)
        assert seen["snowdrop_bytes_total", (direction,)] > of_rounds > 0
    assert seen["snowdrop_round_seconds", ()] == pytest.approx(rounds[-1]["seconds"])
    assert seen["snowdrop_epsilon", ()] == pytest.approx(rounds[-1]["epsilon_total"])
    recall = seen["snowdrop_validation", ("recall@20",)]
    assert recall == pytest.approx(rounds[-1]["validation_recall@20"])
    labels = [label for _, of_one in seen for label in of_one]
    assert not any(label.isdigit() for label in labels)  # no id of a node
    with pytest.raises(OSError):  # it ends with the run
        scraped(address)
    assert set(RunFolder(tmp_path).read_answered()) == {
        str(node.node_id) for node in grid.get_nodes()
    }


@pytest.mark.parametrize("address", ["127.0.0.1:no-port", "192.0.2.1:9", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_used_costs_no_run(
    address: str,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logging.getLogger("snowdrop"), "propagate", True)
    values = run_values(
        data_folder, tmp_path, metrics_address=address, method="content-profile", baselines=False
    )
    assert run_here(values)
    assert f"metrics_address = '{address}' cannot be used" in caplog.text


def dashboard_metrics() -> set[str]:
    told = json.loads(DASHBOARD.read_text())
    exprs = [target["expr"] for panel in told["panels"] for target in panel["targets"]]
    return {name for expr in exprs for name in re.findall(r"snowdrop_\w+", expr)}


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    counters = {"snowdrop_answers", "snowdrop_failures", "snowdrop_bytes"}
    named = {f"{name}_total" if name in counters else name for name in _TOLD}
    assert dashboard_metrics() == named


def test_the_dashboard_has_what_grafana_loads() -> None:
    told: dict[str, Any] = json.loads(DASHBOARD.read_text())
    assert told["schemaVersion"] >= 39
    assert told["title"] and told["uid"] and "id" not in told
    ids = [panel["id"] for panel in told["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in told["panels"]:
        assert panel["type"] in ("stat", "timeseries")
        place = panel["gridPos"]
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    variables = {variable["name"] for variable in told["templating"]["list"]}
    assert variables == {"datasource", "job"}
