"""Metrics of a run for Prometheus, shown by the server's process while the run goes on.

They are of rounds, messages and nodes together: nothing tells users apart, or nodes.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from server_app.nodes import Nodes
from server_app.training import Training

if TYPE_CHECKING:
    from prometheus_client import Metric

log = logging.getLogger("snowdrop")

_VALIDATION = "validation_"
_OF_ROUND = {
    "seconds": "snowdrop_round_seconds",
    "train_seconds": "snowdrop_round_train_seconds",
    "loss": "snowdrop_loss",
    "epsilon_total": "snowdrop_epsilon",
}
_TOLD = {
    "snowdrop_round": "Last round that was finished.",
    "snowdrop_rounds_planned": "Round at which this run ends.",
    "snowdrop_nodes_online": "Nodes that were there when the run last looked.",
    "snowdrop_answers": "Answers of nodes that could be read, by kind of message.",
    "snowdrop_failures": "Answers that were not used or did not come, by kind of message.",
    "snowdrop_bytes": "Bytes of messages to nodes (down) and of their answers (up).",
    "snowdrop_round_seconds": "Seconds of the last round.",
    "snowdrop_round_train_seconds": "Seconds of the last round that went into training on nodes.",
    "snowdrop_loss": "Mean loss of the last round, where nodes tell theirs.",
    "snowdrop_epsilon": "What the training has spent of epsilon so far, where there is noise.",
    "snowdrop_validation": "Metrics on validation items in the last round that measured them.",
}


class Collector:
    """What Prometheus is shown, read anew each time it asks.

    Parameters
    ----------
    training : Training
    nodes : Nodes
    """

    def __init__(self, training: Training, nodes: Nodes) -> None:
        self._training, self._nodes = training, nodes

    def collect(self) -> Iterator["Metric"]:
        """Every metric that is known by now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        def gauge(name: str, value: float) -> "Metric":
            return GaugeMetricFamily(name, _TOLD[name], value=value)

        def counter(name: str, label: str, values: dict[str, int]) -> "Metric":
            family = CounterMetricFamily(name, _TOLD[name], labels=[label])
            for key, value in values.items():
                family.add_metric([key], value)
            return family

        monitored, history = self._nodes.monitored, list(self._training.history)
        last = history[-1] if history else {}
        yield gauge("snowdrop_round", last.get("round", 0))
        yield gauge("snowdrop_rounds_planned", self._training.settings.rounds)
        yield gauge("snowdrop_nodes_online", monitored.online)
        yield counter("snowdrop_answers", "kind", dict(monitored.answers))
        yield counter("snowdrop_failures", "kind", dict(monitored.failures))
        yield counter("snowdrop_bytes", "direction", {"down": monitored.down, "up": monitored.up})
        for column, name in _OF_ROUND.items():
            if last.get(column) is not None:
                yield gauge(name, last[column])
        measured = [row for row in history if any(name.startswith(_VALIDATION) for name in row)]
        if measured:
            family = GaugeMetricFamily(
                "snowdrop_validation", _TOLD["snowdrop_validation"], labels=["metric"]
            )
            for name, value in measured[-1].items():
                if name.startswith(_VALIDATION):
                    family.add_metric([name.removeprefix(_VALIDATION)], value)
            yield family


@contextmanager
def serving(address: str, training: Training, nodes: Nodes) -> Iterator[None]:
    """Show the metrics at ``HOST:PORT`` until the end; nowhere where the address is empty.

    A run goes on without them where the address cannot be used.
    """
    if not address:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(Collector(training, nodes))
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, ValueError, OverflowError) as error:
        log.warning(
            "metrics are not shown: metrics_address = %r cannot be used (%s); give HOST:PORT of "
            "this machine, with a port that is free",
            address, error,
        )  # fmt: skip
        yield
        return
    log.info("metrics for Prometheus are at http://%s/metrics", address)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
