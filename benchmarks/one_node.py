"""What a round of `one-round` costs with all users of a data folder on one node, as a table.

    snowdrop prepare demo --out DATA --users 1000000 --items 2000 --interactions-per-user 7
    python benchmarks/one_node.py DATA

The node is a process of its own: its parts are timed in it, and its memory is that of reading,
summing and ranking alone. The round is the server's: it has the time of messages in it too, and of
what the server computes until validation items have chosen. CPU seconds tell what a busy machine
does not change much.
"""

import argparse
import resource
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as Sent

from cli.in_process import InProcessGrid
from common import messages
from common.settings import RunSettings

READING, KEYS, SUM = "reading and sorting its file", "keys of its users", "the sum over them"
TRAINING = "its answer with the sum"
CHOOSING, VALIDATING = "ranking for the choice of weights", "ranking validation items for all users"
ANSWERS = TRAINING, CHOOSING, VALIDATING
SHORT = {"method": "one-round", "nodes": 1, "rounds": 1, "evaluate_every": 1, "baselines": False}

Spent = dict[str, tuple[float, float, float]]
"""Seconds, CPU seconds, and peak memory in MB afterwards, by what was done."""


class Parts:
    """What the parts of this process have spent, one time after the other."""

    def __init__(self) -> None:
        self.spent: Spent = {}

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, whose time is added to what ``name`` has spent."""

        def measured(*args: Any) -> Any:
            began = np.array([time.perf_counter(), time.process_time()])
            made = work(*args)
            took = np.array([time.perf_counter(), time.process_time()]) - began
            seconds, cpu = took + self.spent.get(name, (0.0, 0.0, 0.0))[:2]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            self.spent[name] = float(seconds), float(cpu), peak
            return made

        return measured

    def watch(self, module: ModuleType, function: str, name: str) -> None:
        """Time every call of a function of a module."""
        setattr(module, function, self.timed(name, getattr(module, function)))


parts = Parts()
grids: list[InProcessGrid] = []


def begin(values: Mapping[str, Any]) -> None:
    """Make this process the node."""
    import client_app.methods.one_round
    import client_app.node

    parts.watch(client_app.node, "load_interactions", READING)
    parts.watch(client_app.node, "user_keys", KEYS)
    parts.watch(client_app.methods.one_round, "item_sums", SUM)
    grids.append(InProcessGrid(1, values))


def answer(content: bytes) -> tuple[bytes, Spent]:
    """The node's answer to a message, and what it has spent so far."""
    message = message_from_proto(Sent.FromString(content))
    reply = parts.timed(_asked_for(message), grids[0].deliver)(message)
    return message_to_proto(reply).SerializeToString(), parts.spent


def _asked_for(message: Message) -> str:
    kind = message.metadata.message_type
    if kind == messages.EVALUATE:
        return VALIDATING if CHOOSING in parts.spent else CHOOSING
    return TRAINING if kind == messages.TRAIN else kind


class NodeProcess(InProcessGrid):
    """One node, which is another process."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(1, values)
        self.pool = ProcessPoolExecutor(1, get_context("spawn"), begin, (values,))
        self.spent: Spent = {}

    def deliver(self, message: Message) -> Message:
        """One message to the node, and its answer."""
        content = message_to_proto(message).SerializeToString()
        reply, self.spent = self.pool.submit(answer, content).result()
        return message_from_proto(Sent.FromString(reply))


def lines(data: Path, run_dir: Path) -> list[str]:
    """Lines of the table."""
    from common.device import pick_device
    from server_app.checkpoint import Checkpoints
    from server_app.items import load_catalogue, world_of
    from server_app.measure import Task, describe
    from server_app.nodes import Nodes
    from server_app.run_folder import RunFolder
    from server_app.strategy import ColdStart
    from server_app.training import Training

    values = {**SHORT, "data": str(data.absolute()), "run_dir": str(run_dir)}
    settings = RunSettings.parse(values)
    device = pick_device(settings.server_device)
    training = Training.begin(world_of(settings, load_catalogue(settings), device))
    folder, checkpoints = RunFolder(run_dir), Checkpoints(run_dir / "checkpoint")
    grid = NodeProcess(values)
    with grid.pool:
        nodes = Nodes(grid, training.index, settings.round_timeout)
        nodes.wait(1, settings.nodes_timeout)
        (described,) = describe(nodes, training.index.version, settings)
        began, before = time.process_time(), dict(grid.spent)
        strategy = ColdStart(training, nodes, Task(settings, nodes), checkpoints, folder)
        strategy.start(grid)
        server = time.process_time() - began
    checkpoints.close()
    (row,) = training.history
    of_round = [told for name, told in grid.spent.items() if name in ANSWERS]
    assert not before.keys() & set(ANSWERS)  # all of it belongs to the round
    shown: dict[str, tuple[float, float, float | None]] = {
        READING: before[READING],  # later it only looks whether the file is still the same
        **{name: grid.spent[name] for name in (KEYS, SUM, *ANSWERS)},
    }
    shown["the server's part"] = row["seconds"] - sum(one[0] for one in of_round), server, None
    seconds, cpu = row["seconds"], server + sum(one[1] for one in of_round)
    apart = grid.spent[VALIDATING]
    shown["the round, validation for all users apart"] = seconds - apart[0], cpu - apart[1], None
    shown["the round"] = seconds, cpu, None
    return [
        f"{described.users:,} users, {described.warm:,} interactions with warm items",
        "",
        "| part | seconds | CPU seconds | peak MB of the node |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {seconds:.1f} | {cpu:.1f} | {'–' if peak is None else f'{peak:,.0f}'} |"
            for name, (seconds, cpu, peak) in shown.items()
        ),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="data folder")
    with TemporaryDirectory(prefix="one-node-") as folder:
        print("\n".join(lines(parser.parse_args().data, Path(folder))))


if __name__ == "__main__":
    main()
