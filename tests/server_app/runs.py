"""Runs on small data in this process, and nodes whose answers a test replaces."""

import csv
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Error, Message

from cli.in_process import InProcessGrid
from common import messages
from common.messages import TrainAnswer
from common.settings import RunSettings
from server_app.checkpoint import Checkpoints
from server_app.run import run
from tests.server_app.encoders import THEMES

SHARED = {
    "dim": 8,
    "rounds": 4,
    "evaluate_every": 2,
    "head_lr": 2.0,
    "item_lr": 0.5,
    "server_device": "cpu",
    "nodes_timeout": 5.0,
    "round_timeout": 2.0,
    "keep_rounds": 4,
    "method": "mdifffr",
    "encoder": THEMES,
    "twin": False,
}
SMALL_DIFFUSION = {
    "mdifffr.fit_every": 2,
    "mdifffr.fit_steps": 0,
    "mdifffr.fit_epochs": 2,
    "mdifffr.width": 16,
    "mdifffr.steps": 4,
}
SMALL_NETWORK = {"fit_every": 2, "fit_steps": 0, "fit_epochs": 2, "width": 16}


def run_values(data: Path, run_dir: Path, **changed: Any) -> dict[str, Any]:
    """A small run's configuration; settings of groups are given as ``group__name``."""
    changed = {name.replace("__", "."): value for name, value in changed.items()}
    method = changed.get("method", "mdifffr")
    own: dict[str, Any] = {}
    if method.startswith(("mdifffr", "mixture")):
        own = dict(SMALL_DIFFUSION)
    elif method in ("ipfedrec", "ifedncf"):
        own = {f"{method}.{name}": value for name, value in SMALL_NETWORK.items()}
    return {"data": str(data), "run_dir": str(run_dir), **SHARED, **own, **changed}


def run_here(
    values: dict[str, Any], grid: InProcessGrid | None = None, plots: bool = False
) -> dict[str, Any]:
    """A run in this process, with as many nodes as it waits for."""
    settings = RunSettings.parse(values)
    return run(grid or InProcessGrid(settings.nodes, values), settings, plots)


def state_of(run_dir: Path, number: int) -> dict[str, Any]:
    """The checkpoint of a round."""
    return Checkpoints(run_dir / "checkpoint", exclusive=False).load(number)


def rounds_of(run_dir: Path) -> list[dict[str, str]]:
    """The rows of ``rounds.csv``."""
    with (run_dir / "rounds.csv").open() as file:
        return list(csv.DictReader(file))


Spoil = Callable[[Message, Message], Message | None]


class SpoiltGrid(InProcessGrid):
    """Some nodes' answers to one kind of message are replaced; None: no answer at all."""

    def __init__(
        self,
        nodes: int,
        values: dict[str, Any],
        spoil: Spoil,
        bad: Iterable[int] = (3,),
        kind: str = messages.TRAIN,
    ) -> None:
        super().__init__(nodes, values)
        self.spoil, self.bad, self.kind = spoil, set(bad), kind
        self.sent: list[Message] = []

    def deliver(self, message: Message) -> Message | None:
        self.sent.append(message)
        reply = super().deliver(message)
        spoilt = message.metadata.message_type == self.kind
        if reply is not None and spoilt and message.metadata.dst_node_id in self.bad:
            return self.spoil(message, reply)
        return reply

    def of(self, kind: str) -> list[Message]:
        """Messages of a kind, as they were sent."""
        return [message for message in self.sent if message.metadata.message_type == kind]


def untouched(message: Message, reply: Message) -> Message:
    return reply


def silent(message: Message, reply: Message) -> None:
    return None


def failing(message: Message, reply: Message) -> Message:
    return Message(Error(code=messages.REFUSED, reason="train ended in an error"), reply_to=message)


def rubbish(message: Message, reply: Message) -> Message:
    return Message(messages.status_record("nonsense"), reply_to=message)


def with_answer(**changed: Any) -> Spoil:
    """Parts of the node's training answer are replaced."""

    def spoil(message: Message, reply: Message) -> Message:
        if "values" not in reply.content.config_records:
            return reply
        answer = dataclasses.replace(TrainAnswer.from_record(reply.content), **changed)
        return Message(answer.to_record(), reply_to=message)

    return spoil


def with_change(make: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    """The node's change is replaced."""

    def spoil(message: Message, reply: Message) -> Message:
        if "values" not in reply.content.config_records:
            return reply
        answer = TrainAnswer.from_record(reply.content)
        sums = {**answer.sums, "change": make(answer.sums["change"])}
        return with_answer(sums=sums)(message, reply)

    return spoil
