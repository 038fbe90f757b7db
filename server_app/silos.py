"""How each node answers a training, asked once of each; synthetic users are checked here."""

import logging
import math
import re
from typing import get_args

import numpy as np

from common import messages
from common.errors import SnowdropError
from common.messages import SyntheticAnswer
from common.settings import Answer, RunSettings
from common.users.ragged import Ragged
from common.users.synthetic import NAME_DIGITS, SyntheticUsers
from server_app.aggregation import check_users
from server_app.crowd import Crowd
from server_app.nodes import Nodes

log = logging.getLogger("snowdrop")

_REFUSED = "refused"


class Silos:
    """The nodes of a training, by how their owners want them to answer it.

    Parameters
    ----------
    settings : RunSettings
    crowd : Crowd
        Takes the synthetic users that nodes send.
    nodes : Nodes
    version : str
        Of the catalogue.
    warm : int
        Rows of the item table.
    """

    def __init__(
        self, settings: RunSettings, crowd: Crowd, nodes: Nodes, version: str, warm: int
    ) -> None:
        self._settings, self._crowd, self._nodes = settings, crowd, nodes
        self._version, self._warm = version, warm
        self._answers: dict[int, str] = {}

    def ask(self, takes_synthetic: bool) -> None:
        """Ask the nodes that are there and have not answered yet, and take what they send.

        A node whose answer cannot be used takes no part in the rounds of this run.

        Parameters
        ----------
        takes_synthetic : bool
            Whether the method can be trained on synthetic users.
        """
        new = [node for node in self._nodes.there() if node not in self._answers]
        if not new:
            return
        kind = messages.QUERY_SYNTHETIC
        record = messages.SyntheticRequest(self._version, self._crowd.names).to_record()
        for node, answer in self._nodes.ask(kind, record, SyntheticAnswer, new):
            try:
                made = check_synthetic(answer, self._crowd.names, self._warm, self._settings)
                if answer.name and not takes_synthetic:
                    raise SnowdropError(why_not(self._settings))
            except SnowdropError as error:
                self._nodes.refuse(node, kind, error)
                self._answers[node] = _REFUSED
                continue
            self._answers[node] = answer.answer
            if answer.name:
                self._crowd.take(node, answer.name, made)
        if self._crowd.users:
            log.info("%s", self._told())

    def _told(self) -> str:
        crowd, counts = self._crowd, {each: self._with(each) for each in get_args(Answer)}
        training = len(counts["updates"]) + len(counts["both"])
        epsilon = "no ε is stated" if crowd.epsilon is None else f"ε at most {crowd.epsilon:g}"
        return (
            f"{crowd.users} synthetic users have come from {len(crowd.names)} nodes, "
            f"{crowd.sent_bytes / 1e6:.2f} MB in all, sent once; {epsilon}. {training} nodes "
            f"train in rounds, {len(counts['synthetic'])} do not"
        )

    def _with(self, answer: str) -> list[int]:
        return [node for node, told in self._answers.items() if told == answer]

    @property
    def without_updates(self) -> list[int]:
        """Nodes that must not be asked to train: their owners do not want it, or were refused."""
        return [*self._with("synthetic"), *self._with(_REFUSED)]

    @property
    def with_heads_to_fit(self) -> list[int]:
        """Nodes that are there and take part by synthetic users alone."""
        return sorted(set(self._with("synthetic")) & set(self._nodes.there()))

    @property
    def on_the_server_alone(self) -> bool:
        """Whether there are synthetic users, and no node that trains in rounds."""
        trains = self._with("updates") or self._with("both")
        return bool(self._crowd.users and self._answers and not trains)


def why_not(settings: RunSettings) -> str:
    """Why a method cannot be trained on synthetic users, as a sentence."""
    return (
        f"the method {settings.title()} has a training of its own and cannot be trained on "
        "synthetic users; choose a method that trains an item table, or let every node answer "
        "with updates"
    )


def check_synthetic(
    answer: SyntheticAnswer, known: list[str], warm: int, settings: RunSettings
) -> SyntheticUsers | None:
    """The synthetic users of an answer; None where it sends none, or the server has them.

    Parameters
    ----------
    answer : SyntheticAnswer
    known : list[str]
        Names of the sets that the server has.
    warm : int
        Rows of the item table.
    settings : RunSettings

    Raises
    ------
    SnowdropError
        If anything in it cannot be: its words, shapes, dtypes, ranges or number of users.
    """
    if answer.answer not in get_args(Answer):
        raise SnowdropError("its answer is none of " + ", ".join(get_args(Answer)))
    lists = answer.synthetic_users
    if answer.answer == "updates":
        if answer.name or lists or answer.epsilon is not None:
            raise SnowdropError("it answers with updates, and sends synthetic users")
        return None
    if not re.fullmatch(rf"[0-9a-f]{{{NAME_DIGITS}}}", answer.name):
        raise SnowdropError("its synthetic users have no name")
    if answer.epsilon is not None and not 0 < answer.epsilon < math.inf:
        raise SnowdropError("its ε is no number above 0")
    if answer.name in known:
        return None
    if lists.keys() != {"offsets", "items"}:
        raise SnowdropError("its synthetic users are not offsets and items")
    offsets, items = lists["offsets"], lists["items"]
    for name, array in lists.items():
        if array.ndim != 1 or array.dtype != np.int64:
            raise SnowdropError(f"the {name} of its synthetic users are no int64 in one row")
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(items):
        raise SnowdropError("the offsets of its synthetic users do not fit their items")
    if (np.diff(offsets) < 1).any():
        raise SnowdropError("one of its synthetic users has no item")
    check_users(len(offsets) - 1, settings)
    if items.min() < 0 or items.max() >= warm:
        raise SnowdropError(f"an item of its synthetic users is none of the {warm} warm ones")
    begins = np.zeros(len(items), dtype=bool)
    begins[offsets[:-1]] = True
    if (np.diff(items)[~begins[1:]] < 1).any():
        raise SnowdropError("the items of a synthetic user do not ascend")
    return SyntheticUsers(answer.name, Ragged(offsets, items), answer.epsilon)
