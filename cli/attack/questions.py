"""Histories from crafted questions, asked by a server that does not follow the protocol.

Each question is a message of the protocol, and each answer is a sum over a node's users. What is
crafted is what it is about: a catalogue that calls one item warm and all others cold, or an item
table in which one row differs from all others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from flwr.app import Message

from cli.attack.histories import Reading
from cli.in_process import InProcessGrid
from common import messages, methods
from common.catalogue import ItemIndex
from common.settings import RunSettings, TrainingSettings

COUNTS = "crafted catalogues, counts"
DESCRIPTIONS = "crafted catalogues, descriptions"
LOSSES = "crafted item tables, losses"

_CUTS = 6
"""Times that the items are cut in two: whose items all lie in one half shows in another cut."""
_HEAD_LR = 60.0
"""Moves a bias from 0 to −20 in one step: an interaction's loss is 20, a negative's nothing."""
_ROW = 100.0
_TRAINING = "0" * 32
_NEXT_TO_NOTHING = 1e-5
"""What float32 and negatives may change of a user's loss."""

Answer = TypeVar("Answer", bound=messages.Body)
Counts = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""Of the users with a warm item, how many have each test item, int64 (test,)."""


class RefusedError(Exception):
    """A node did not answer, or the questions are used up."""


@dataclass
class Budget:
    """Questions that may still be asked of all nodes together."""

    left: int


@dataclass
class Asked:
    """One node that is asked.

    Parameters
    ----------
    grid : InProcessGrid
    node : int
        Its id.
    name : str
    users : int
        It has, as it tells anyway.
    budget : Budget
    """

    grid: InProcessGrid
    node: int
    name: str
    users: int
    budget: Budget

    def ask(self, kind: str, body: messages.Body, answer: type[Answer]) -> Answer:
        """The node's answer.

        Raises
        ------
        RefusedError
        """
        if not self.budget.left:
            raise RefusedError("the attack has used up its --questions; with more it may read more")
        self.budget.left -= 1
        reply = self.grid.deliver(Message(body.to_record(), self.node, kind))
        if reply is None or reply.has_error():
            raise RefusedError("no answer" if reply is None else reply.error.reason)
        return answer.from_record(reply.content)

    def tell(self, index: ItemIndex) -> str:
        """Announce a catalogue; its version."""
        notice = messages.CatalogueNotice.of(index).to_record()
        self.grid.deliver(Message(notice, self.node, messages.QUERY_CATALOGUE))
        return index.version

    def counts(self, warm: Sequence[str], test: Sequence[str]) -> np.ndarray:
        """`Counts` by one ``query.count``."""
        version = self.tell(_catalogue(warm, test))
        request = messages.CountRequest(version)
        return self.ask(messages.QUERY_COUNT, request, messages.CountAnswer).users

    def counts_described(self, warm: Sequence[str], test: Sequence[str]) -> np.ndarray:
        """`Counts` by ``query.describe``, which tells their sum: by halves, until that is 0."""
        return _by_halves(test, lambda part: self._describe(warm, part).test)

    def owners_by_cuts(self, ids: Sequence[str], seed: int) -> np.ndarray:
        """Users who have each item and another one, at least, int64 (items,): by `counts`."""
        rng = np.random.default_rng(seed)
        owners = np.zeros(len(ids), np.int64)
        for _ in range(_CUTS):
            halves = np.array_split(rng.permutation(len(ids)), 2)
            for warm, test in (halves, halves[::-1]):
                found = self.counts([ids[k] for k in warm], [ids[k] for k in test])
                owners[test] = np.maximum(owners[test], found)
        return owners

    def owners_described(self, ids: Sequence[str]) -> np.ndarray:
        """Users who have each item, int64 (items,): those who take part where it alone is warm."""
        return _by_halves(ids, lambda part: self._describe(part, []).users)

    def _describe(self, warm: Sequence[str], test: Sequence[str]) -> messages.DescribeAnswer:
        version = self.tell(_catalogue(warm, test))
        request = messages.DescribeRequest(version)
        return self.ask(messages.QUERY_DESCRIBE, request, messages.DescribeAnswer)


def _by_halves(items: Sequence[Any], told: Callable[[Sequence[Any]], int | None]) -> np.ndarray:
    """What is told of each item alone, int64 (items,), where 0 of several means 0 of each."""
    if not len(items):
        return np.zeros(0, np.int64)
    number = told(items)
    if number is None:
        raise RefusedError("it tells no counts")
    if number == 0 or len(items) == 1:
        return np.full(len(items), number, np.int64)
    half = len(items) // 2
    return np.concatenate([_by_halves(items[:half], told), _by_halves(items[half:], told)])


def _catalogue(warm: Sequence[str], test: Sequence[str]) -> ItemIndex:
    return ItemIndex((*warm, *test), ("warm",) * len(warm) + ("test",) * len(test))


def counts(
    nodes: Sequence[Asked], index: ItemIndex, settings: RunSettings
) -> tuple[Reading, list[str]]:
    """Histories from ``query.count`` on catalogues that are not the federation's.

    Parameters
    ----------
    nodes : Sequence[Asked]
        Asked one after the other, as far as their questions reach.
    index : ItemIndex
        The federation's catalogue.
    settings : RunSettings
        Of the federation.

    Returns
    -------
    reading : Reading
    reached : list[str]
        Names of the nodes that were asked.
    """
    ids = index.ids_of("warm")
    return _people(COUNTS, nodes, lambda node: people_by_counts(
        node.owners_by_cuts(ids, settings.seed), node.counts, ids))  # fmt: skip


def descriptions(
    nodes: Sequence[Asked], index: ItemIndex, settings: RunSettings
) -> tuple[Reading, list[str]]:
    """The same from ``query.describe``, which every deployed node answers."""
    ids = index.ids_of("warm")
    return _people(DESCRIPTIONS, nodes, lambda node: people_by_counts(
        node.owners_described(ids), node.counts_described, ids))  # fmt: skip


def losses(
    nodes: Sequence[Asked], index: ItemIndex, settings: RunSettings
) -> tuple[Reading, list[str]]:
    """Interactions from sums of losses on crafted item tables; histories where a node has one user.

    Parameters and what is returned are those of `counts`.
    """
    if all(node.users == 1 for node in nodes):
        return _people(LOSSES, nodes, lambda node: iter([items_by_losses(node, index, settings)]))
    reached: list[str] = []
    anybody: dict[str, np.ndarray] = {}
    why = ""
    for node in nodes:
        if not node.budget.left:
            break
        reached.append(node.name)
        try:
            anybody[node.name] = items_by_losses(node, index, settings)
        except RefusedError as error:
            anybody[node.name], why = np.zeros(0, np.int64), str(error)
    return Reading(LOSSES, anybody=anybody, told=why), reached


def _people(
    attack: str, nodes: Sequence[Asked], histories: Callable[[Asked], Iterator[np.ndarray]]
) -> tuple[Reading, list[str]]:
    """Histories that nodes give away until the questions are used up, and who was asked."""
    people: dict[str, list[np.ndarray]] = {}
    why = ""
    for node in nodes:
        if not node.budget.left:
            break
        people[node.name] = []
        try:
            for history in histories(node):
                people[node.name].append(history)
        except RefusedError as error:
            why = str(error)
    return Reading(attack, people, told=why), list(people)


def people_by_counts(
    owners: np.ndarray, counts: Counts, ids: Sequence[str]
) -> Iterator[np.ndarray]:
    """Histories one after the other, as rows of ``ids``, int64 (interactions,) each.

    Where one item alone is warm, the counts are of its owners' other items. Of an item with one
    owner, they are that user's history; it is taken away from all counts, which leaves further
    items with one owner.

    Parameters
    ----------
    owners : ndarray, int64 (items,)
        Users who have each item, as far as that is known.
    counts : Callable
    ids : Sequence[str]
    """
    rows: dict[int, np.ndarray] = {}  # of an item, the other items of its owners
    known = np.zeros((0, len(ids)), np.int64)
    more = True
    while more:
        more = False
        waiting: list[int] = np.flatnonzero(owners - known.sum(0) == 1).tolist()
        for item in waiting:
            if owners[item] - known[:, item].sum() != 1:
                continue  # what was found since explains it
            if item not in rows:
                others = np.delete(np.arange(len(ids)), item)
                rows[item] = np.zeros(len(ids), np.int64)
                rows[item][others] = counts([ids[item]], [ids[k] for k in others.tolist()])
            rest = rows[item] - known[known[:, item] == 1].sum(0)
            rest[item] = 1
            if rest.max() > 1 or rest.min() < 0:
                continue  # it has more owners than the cuts have shown
            known = np.concatenate([known, rest[None]])
            more = True
            yield np.flatnonzero(rest)


def items_by_losses(node: Asked, index: ItemIndex, settings: RunSettings) -> np.ndarray:
    """Rows of the item table that somebody of a node interacted with, int64.

    Few rows of each table are not zero. With heads that start at zero, two passes and the same
    round each time, so that the same negatives are drawn, a user's loss moves with these rows if
    and only if the user interacted with one of their items.

    Raises
    ------
    RefusedError
    """
    node.tell(index)
    warm = len(index.rows("warm"))
    crafted = _crafted_settings(settings)

    sizes = np.random.default_rng(settings.seed).uniform(0.5, 1, warm)  # so that none add up to 0

    def losses(rows: Sequence[int]) -> tuple[float, int]:
        table = np.zeros((warm, 1), np.float32)
        table[rows, 0] = _ROW * sizes[rows]
        request = messages.TrainRequest(
            catalogue=index.version,
            training=_TRAINING,
            round=1,
            settings=crafted.pack(),
            best_round=0,
            arrays={"table": table},
        )
        answer = node.ask(messages.TRAIN, request, messages.TrainAnswer)
        if answer.loss_sum is None:
            raise RefusedError("it tells no loss")
        return answer.loss_sum, answer.users

    nothing, users = losses([])

    def moves(rows: Sequence[int]) -> int:
        return int(abs(losses(rows)[0] - nothing) > _NEXT_TO_NOTHING * users)

    return np.flatnonzero(_by_halves(range(warm), moves))


def _crafted_settings(settings: RunSettings) -> TrainingSettings:
    """Settings under which a loss tells most: of a method whose nodes train heads on a table."""
    plain = next(own for own in methods.cards().values()
                 if own.kind == "trained" and not own.node and not own.parts)  # fmt: skip
    return RunSettings.parse(
        {
            "method": plain.name,
            "dim": 1,
            "head": "linear",
            "head_start": "zero",
            "head_lr": _HEAD_LR,
            "item_lr": 1e-9,
            "local_epochs": 2,
            "batch_size": 0,
            "average": "users",
            "task": settings.task,
            "seed": settings.seed,
        }
    ).training()
