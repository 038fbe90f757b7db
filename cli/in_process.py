"""A Flower grid without Flower's runtime: messages are handed to the ClientApp in this process.

The same strategy and the same ClientApp, for benchmarks and tests where gRPC and Ray add nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from client_app.app import app as client_app


class InProcessGrid(Grid):
    """``nodes`` simulated nodes, handled one after another.

    Parameters
    ----------
    nodes : int
    run_config : Mapping[str, Any]
        As `flwr run` would hand it to every app.
    """

    def __init__(self, nodes: int, run_config: Mapping[str, Any]) -> None:
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
        self._contexts = {
            node + 2: Context(
                run_id=1,
                node_id=node + 2,
                node_config={"partition-id": node, "num-partitions": nodes},
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for node in range(nodes)
        }

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return [self.deliver(message) for message in messages]

    def deliver(self, message: Message) -> Message:
        """One message to its node, and the node's answer."""
        message.metadata.__dict__["_message_id"] = f"in-process-{id(message)}"
        return client_app(message, self._contexts[message.metadata.dst_node_id])

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError
