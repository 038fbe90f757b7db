"""A Flower grid without Flower's runtime: messages are handed to the ClientApp in this process.

The same strategy and the same ClientApp, for benchmarks and tests where gRPC and Ray add nothing.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from client_app.app import app as client_app
from common.settings import RunSettings


class InProcessGrid(Grid):
    """``nodes`` simulated nodes, handled one after another.

    Parameters
    ----------
    nodes : int
    run_config : Mapping[str, Any]
        As `flwr run` would hand it to every app.
    node_configs : Sequence[Mapping[str, Any]], optional
        Of each node; by default a share of a simulation.
    """

    def __init__(
        self,
        nodes: int,
        run_config: Mapping[str, Any],
        node_configs: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._waiting: dict[str, Message] = {}
        self._names = itertools.count()
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
        self._contexts = {
            node + 2: Context(
                run_id=1,
                node_id=node + 2,
                node_config=dict(config),
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for node, config in enumerate(
                node_configs or [{"partition-id": k, "num-partitions": nodes} for k in range(nodes)]
            )
        }

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node) for node in self._contexts]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = []
        for message in messages:
            self._name(message)
            self._waiting[message.metadata.message_id] = message
            sent.append(message.metadata.message_id)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = [self._waiting.pop(name) for name in message_ids if name in self._waiting]
        return [reply for message in asked if (reply := self.deliver(message)) is not None]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))

    def deliver(self, message: Message) -> Message | None:
        """One message to its node, and the node's answer."""
        if not message.metadata.message_id:
            self._name(message)
        return client_app(message, self._contexts[message.metadata.dst_node_id])

    def _name(self, message: Message) -> None:
        message.metadata.__dict__["_message_id"] = f"in-process-{next(self._names)}"

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def context(self, node: int = 0) -> Context:
        """What Flower would hand the ClientApp of a node, by its number from 0."""
        return self._contexts[node + 2]


def run_in_process(settings: RunSettings, plots: bool = True) -> dict[str, Any]:
    """A run without Flower's runtime; what its ``summary.json`` holds.

    Raises
    ------
    SnowdropError
        If it fails.
    """
    from server_app.run import run

    return run(InProcessGrid(settings.nodes, settings.flat()), settings, plots)
