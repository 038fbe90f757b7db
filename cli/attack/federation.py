"""A small federation on somebody's data, in this process, whose answers are kept."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from flwr.app import Message

from cli.attack.seen import Seen, seen_in
from cli.in_process import InProcessGrid
from client_app import tasks
from client_app.demo import demo_interactions
from client_app.interactions import arrange, interaction_files, read_interactions
from client_app.node import Node
from common import demo, messages
from common.durable import write_checked
from common.errors import SnowdropError
from common.settings import DEMO, RunSettings
from server_app.checkpoint import Checkpoints
from server_app.measure import Task
from server_app.methods.base import World
from server_app.nodes import Nodes
from server_app.run_folder import RunFolder
from server_app.strategy import ColdStart
from server_app.training import Training


def users_of(settings: RunSettings, world: World, count: int) -> tuple[pl.DataFrame, list[str]]:
    """All interactions, and some users who take part, drawn with the seed.

    Raises
    ------
    SnowdropError
        If fewer take part.
    """
    if settings.data == DEMO:
        frame = demo_interactions(demo.USERS, demo.ITEMS, demo.INTERACTIONS_PER_USER, settings.seed)
    else:
        frame = read_interactions(interaction_files(Path(settings.data)))
    frame = frame.with_columns(pl.col("user_id", "item_id").cast(pl.String))
    users = arrange(frame, world.catalogue).users
    if len(users) < count:
        raise SnowdropError(
            f"--users is {count}, but only {len(users)} users of {settings.data} take part; ask "
            "for fewer"
        )
    drawn = np.random.default_rng([settings.seed, 7]).choice(len(users), count, replace=False)
    return frame, [users[k] for k in drawn]


class Recorder(InProcessGrid):
    """Nodes in this process; what leaves them in answer to ``train`` is kept."""

    def __init__(self, run_config: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(len(nodes), run_config, nodes)
        self.seen: list[Seen] = []

    def deliver(self, message: Message) -> Message | None:
        reply = super().deliver(message)
        trains = message.metadata.message_type == messages.TRAIN
        if not trains or reply is None or not reply.has_content():
            return reply
        if messages.status_of(reply.content) is None:
            request = messages.TrainRequest.from_record(message.content)
            answer = messages.TrainAnswer.from_record(reply.content)
            self.seen.append(seen_in(name_of(message.metadata.dst_node_id), request, answer))
        return reply


def name_of(node: int) -> str:
    """What a node is called, by its id."""
    return f"node {node - 1}"


@dataclass(eq=False)
class Federation:
    """Nodes with a number of users each, and a server that trains on them.

    Parameters
    ----------
    world : World
    frame : DataFrame
        Interactions of everybody.
    users : Sequence[str]
        Those who take part.
    size : int
        Users of a node; who is left over takes no part.
    folder : Path
        Empty, for what nodes and server keep.
    """

    world: World
    frame: pl.DataFrame
    users: Sequence[str]
    size: int
    folder: Path
    grid: Recorder = field(init=False)
    training: Training = field(init=False)
    refused: str = field(init=False, default="")
    """Why there was no training, where nodes or numbers refused."""

    def __post_init__(self) -> None:
        settings = self.settings
        whole = [
            self.users[begin : begin + self.size]
            for begin in range(0, len(self.users) - self.size + 1, self.size)
        ]
        nodes = [self._node(place, users) for place, users in enumerate(whole)]
        self.grid = Recorder(settings.flat(), nodes)
        self.training = Training.begin(self.world.with_settings(settings))

    @property
    def settings(self) -> RunSettings:
        changed = {
            "run_dir": str(self.folder / "run"),
            "nodes": len(self.users) // self.size,
            "round_retries": 0,  # nobody here is slow or gone
        }
        return self.world.settings.model_copy(update=changed)

    def _node(self, place: int, users: Sequence[str]) -> dict[str, str]:
        """The configuration of a node that has these users' interactions in a file of its own."""
        folder = self.folder / f"node-{place + 1}"
        folder.mkdir(parents=True)
        own = self.frame.filter(pl.col("user_id").is_in(users))
        own.write_csv(folder / "interactions.csv")
        seed = f"snowdrop attack {self.settings.seed} {place}"
        write_checked(folder / "secret", seed.encode())
        policy = {"policy": self.settings.policy} if self.settings.policy else {}
        return {
            "interactions": str(folder / "interactions.csv"),
            "state-dir": str(folder),
            **policy,
        }

    def train(self, rounds: int) -> None:
        """Train for some rounds as a run does, but for what is done with cold items."""
        run_settings = self.training.settings
        nodes = Nodes(self.grid, self.training.index, run_settings.round_timeout)
        folder = RunFolder(Path(run_settings.run_dir))
        checkpoints = Checkpoints(folder.path / "checkpoint")
        task = Task(run_settings, nodes)
        strategy = ColdStart(self.training, nodes, task, checkpoints, folder)
        loud = logging.getLogger("snowdrop").level
        logging.getLogger("snowdrop").setLevel(logging.ERROR)
        try:
            strategy.start(self.grid, num_rounds=rounds)
        except SnowdropError as error:
            self.refused = str(error)
        finally:
            checkpoints.close()
            logging.getLogger("snowdrop").setLevel(loud)

    def truth(self) -> dict[str, list[np.ndarray]]:
        """Histories of the users of each node, by its name, int64 (interactions,) each."""
        found = {}
        index = self.training.index
        for node in self.grid.get_node_ids():
            own = Node(self.grid.context(node - 2))
            own.store.save_index(index)
            _, data = own.interactions(index.version)
            lists = tasks.histories(self.settings.task, data, own.keys(data))
            found[name_of(node)] = [lists.of(user) for user in range(len(data.users))]
        return found
