"""A small federation on somebody's data, in this process, whose answers are kept."""

import contextlib
import io
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from flwr.app import ArrayRecord, Message, MetricRecord

from cli.attack.seen import Seen, seen_in
from cli.attack.softmax import SENT
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
from server_app.methods import ItemTable
from server_app.methods.base import World
from server_app.nodes import Nodes
from server_app.publish import recommend
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


class Listening(ColdStart):
    """A server that trains as any other, and keeps what it sees of users.

    With secure sums that is the sum over all nodes, since masked vectors say nothing.
    """

    seen: list[Seen]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        told = list(replies)
        scale, expected = self.training.scale, self._method.expected()
        sent = self._method.arrays()
        sent = {name: sent[name] for name in SENT} if sent.keys() >= SENT else {}
        for reply in told:
            if reply.has_content():
                node = reply.metadata.src_node_id
                source = ALL if self.settings.secure_sums else name_of(node)
                answer = messages.TrainAnswer.from_record(reply.content)
                self.seen.append(seen_in(source, server_round, scale, answer, expected, sent))
        return super().aggregate_train(server_round, told)


class Overheard(InProcessGrid):
    """Nodes whose refusals are kept and not printed, and one whose messages are kept too.

    Parameters
    ----------
    run_config : Mapping[str, Any]
    node_configs : Sequence[Mapping[str, Any]]
        Of each node.
    """

    def __init__(
        self, run_config: Mapping[str, Any], node_configs: Sequence[Mapping[str, Any]]
    ) -> None:
        super().__init__(len(node_configs), run_config, node_configs)
        self.heard: list[Message] = []
        """All that the first node was sent."""
        self.refusal = ""
        """The last one, in the node's own words."""

    def deliver(self, message: Message) -> Message | None:
        if message.metadata.dst_node_id == FIRST:
            self.heard.append(message)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            reply = super().deliver(message)
        if reply is not None and reply.has_error():
            own = said.getvalue().strip().rpartition("snowdrop node: ")[2]
            known = reply.error.code == messages.OUTSIDE_POLICY or not own
            self.refusal = str(reply.error.reason) if known else own
        return reply


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without warnings of answers that are not used, which the tables of attacks tell."""
    logger = logging.getLogger("snowdrop")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


FIRST = 2
"""Id of the first node."""

ALL = "all nodes"


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
    absent : Collection[str]
        Users who are not there; a node without any other is not there either.
    """

    world: World
    frame: pl.DataFrame
    users: Sequence[str]
    size: int
    folder: Path
    absent: Collection[str] = ()
    grid: Overheard = field(init=False)
    seen: list[Seen] = field(init=False, default_factory=list)
    training: Training = field(init=False)
    refused: str = field(init=False, default="")
    """Why there was no training, where nodes or numbers refused."""

    def __post_init__(self) -> None:
        nodes = [self._node(place, users) for place, users in enumerate(self.groups()) if users]
        self.grid = Overheard(self.settings.flat(), nodes)
        self.training = Training.begin(self.world.with_settings(self.settings))

    def groups(self) -> list[list[str]]:
        """The users of each node who are there."""
        return [
            [user for user in self.users[begin : begin + self.size] if user not in self.absent]
            for begin in range(0, len(self.users) - self.size + 1, self.size)
        ]

    @property
    def settings(self) -> RunSettings:
        changed = {
            "run_dir": str(self.folder / "run"),
            "nodes": sum(map(bool, self.groups())),
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
        strategy = Listening(self.training, nodes, task, checkpoints, folder)
        strategy.seen = self.seen
        try:
            with quietly():
                strategy.start(self.grid, num_rounds=rounds)
        except SnowdropError as error:
            self.refused = self.grid.refusal or str(error)
        finally:
            checkpoints.close()

    def recommend(self) -> None:
        """Have nodes rank the new items, as at the end of a run; without a generator to be fitted.

        Where there is one, embeddings of new items tell a node less than the item table.
        """
        method, timeout = self.training.method, self.training.settings.round_timeout
        if self.refused or isinstance(method, ItemTable):
            return
        with quietly():
            recommend(self.training, Nodes(self.grid, self.training.index, timeout))

    def seen_truth(self, split: str = "warm") -> dict[str, list[np.ndarray]]:
        """As `truth`, of those whose sums are seen: with secure sums there is one source."""
        truth = self.truth(split)
        if self.settings.secure_sums:
            return {ALL: [history for own in truth.values() for history in own]}
        return truth

    def truth(self, split: str = "warm") -> dict[str, list[np.ndarray]]:
        """Items of a split that each node's users have, by its name, int64 (interactions,) each."""
        return {name: list(people.values()) for name, people in self.people(split).items()}

    def people(self, split: str = "warm") -> dict[str, dict[str, np.ndarray]]:
        """As `truth`, by the users' ids."""
        found = {}
        index = self.training.index
        for node in self.grid.get_node_ids():
            own = Node(self.grid.context(node - 2))
            own.store.save_index(index)
            _, data = own.interactions(index.version)
            lists = data.by_split[split]
            if split == "warm":
                lists = tasks.histories(self.settings.task, data, own.keys(data))
            found[name_of(node)] = {name: lists.of(k) for k, name in enumerate(data.users)}
        return found

    def without(self, absent: Collection[str], folder: Path) -> "Federation":
        """The same nodes, as they are before some users come; what it keeps goes to a folder."""
        return Federation(self.world, self.frame, self.users, self.size, folder, absent)
