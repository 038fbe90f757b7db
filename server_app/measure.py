"""Measuring: how well items are ranked, asked of all nodes, as means over users."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from flwr.app import Message

from common import messages
from common.errors import SnowdropError
from common.metrics import metric_names
from common.settings import KS, RunSettings
from common.task import candidates, measured_splits
from server_app import aggregation, masked
from server_app.methods import Method
from server_app.methods.base import Scoring
from server_app.nodes import Nodes
from server_app.training import Training

MESSAGE_BYTES = 2**25
"""Arrays that one message that asks for several rankings may carry."""

Metrics = dict[str, float]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, eq=False)
class Task:
    """What is ranked for whom in a run, and how it is asked of the nodes."""

    settings: RunSettings
    nodes: Nodes

    def splits(self, training: Training) -> list[str]:
        """What can be measured: 'validation' and 'test', as far as there is something to rank.

        Nothing where metrics would leave nodes without the noise that all else has.
        """
        if not self.settings.tells_metrics:
            return []
        return measured_splits(self.settings.task, training.index)

    def scoring(self, method: Method, split: str) -> Scoring:
        """How a method scores what is ranked when a split is measured."""
        return method.scoring([candidates(self.settings.task, split)])

    def ranked(self, training: Training, scoring: Scoring, split: str) -> messages.Ranked:
        """A ranking of a split, as a message asks for it."""
        return messages.Ranked(
            split=split,
            scorer=scoring.scorer,
            method=scoring.method or training.settings.card.name,
            forms=scoring.forms,
            arrays=packed(scoring.arrays, self.settings),
        )

    def request(
        self, training: Training, rankings: Sequence[messages.Ranked]
    ) -> messages.EvaluateRequest:
        """The message that asks nodes for some rankings."""
        header = {
            "catalogue": training.index.version,
            "training": training.id,
            "round": training.round,
            "settings": training.settings.pack(),
            "task": self.settings.task,
        }
        return messages.EvaluateRequest.of(header, rankings)

    def measure(
        self, training: Training, wanted: Iterable[tuple[Key, str, Scoring]]
    ) -> dict[Key, tuple[Metrics, int]]:
        """Mean of each metric over the users with items to find, and their number.

        All of it is asked in one message, or in as few as hold `MESSAGE_BYTES` of arrays each; an
        array that is larger has a message of its own.

        Parameters
        ----------
        training : Training
        wanted : Iterable
            A key, a split ('validation' or 'test') and how its items are scored; taken one by one,
            so that not more than one message's arrays are held at once.

        Returns
        -------
        dict
            By key.
        """
        measured: dict[Key, tuple[Metrics, int]] = {}
        part: dict[Key, messages.Ranked] = {}
        size = 0
        for key, split, scoring in wanted:
            ranked = self.ranked(training, scoring, split)
            own = sum(array.nbytes for array in ranked.arrays.values())
            if part and size + own > MESSAGE_BYTES:
                measured |= self._asked(training, part)
                part, size = {}, 0
            part[key] = ranked
            size += own
        if part:
            measured |= self._asked(training, part)
        return measured

    def own(self, training: Training, splits: Sequence[str]) -> dict[str, tuple[Metrics, int]]:
        """As `measure`, by split, of the training's own method."""
        return self.measure(
            training, ((split, split, self.scoring(training.method, split)) for split in splits)
        )

    def _asked(
        self, training: Training, part: Mapping[Key, messages.Ranked]
    ) -> dict[Key, tuple[Metrics, int]]:
        replies = self._replies(training, list(part.values()))
        return dict(zip(part, self.means(replies, len(part)), strict=True))

    def _replies(self, training: Training, rankings: Sequence[messages.Ranked]) -> list[Message]:
        record = self.request(training, rankings).to_record()
        asked = self.nodes.to_all(messages.EVALUATE, record, tasks=len(rankings))
        return self.replies(asked, [ranked.forms for ranked in rankings])

    def replies(self, asked: Sequence[Message], forms: Sequence[int]) -> list[Message]:
        """What the nodes answer to messages that ask for rankings; ``forms``: of each scorer."""
        sums = masked.of_metrics(forms, metric_names(KS))
        return masked.replies(self.nodes, asked, sums, self.settings)

    def measure_forms(
        self, training: Training, split: str, scoring: Scoring
    ) -> tuple[list[Metrics], int]:
        """Mean of each metric for each form of a scorer, and the number of users.

        Parameters
        ----------
        training : Training
        split : str
        scoring : Scoring
        """
        replies = self._replies(training, [self.ranked(training, scoring, split)])
        means, (users,) = self._means_of_forms(replies, [scoring.forms])
        return means, users

    def means(self, replies: Iterable[Message], rankings: int) -> list[tuple[Metrics, int]]:
        """For each ranking, the mean of each metric over all usable replies' users; their number.

        A reply is used as a whole or not at all.
        """
        return list(zip(*self._means_of_forms(replies, [1] * rankings), strict=True))

    def _means_of_forms(
        self, replies: Iterable[Message], forms: Sequence[int]
    ) -> tuple[list[Metrics], list[int]]:
        """Means of the metrics for each form of each ranking's scorer; users of each ranking."""
        names = metric_names(KS)
        totals = np.zeros((sum(forms), len(names)))
        users = np.zeros(len(forms), np.int64)
        usable = self.nodes.usable(messages.EVALUATE, replies, messages.EvaluateAnswer)
        for node, answer in usable:
            try:
                sums = aggregation.check_metrics(answer, forms, names, self.settings)
            except SnowdropError as error:
                self.nodes.refuse(node, messages.EVALUATE, error)
                continue
            users += answer.users
            totals += sums
        means = totals / np.repeat(np.maximum(users, 1), forms)[:, None]
        return [dict(zip(names, row.tolist(), strict=True)) for row in means], users.tolist()


def packed(arrays: Mapping[str, np.ndarray], settings: RunSettings) -> messages.Arrays:
    """Arrays as they travel: tables in the dtype of ``wire_dtype``, whole numbers as they are.

    Raises
    ------
    OverflowedError
        If a number does not fit.
    """
    return {
        name: messages.for_wire(array, settings) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }


def describe(
    nodes: Nodes, version: str, settings: RunSettings, without: Collection[int] = ()
) -> list[messages.DescribeAnswer]:
    """Every node's counts, but for nodes ``without``; with noise the numbers of users alone.

    With ``secure_sums`` they are of all nodes together.
    """
    record = messages.DescribeRequest(version, counts=not settings.noise).to_record()
    among = [node for node in nodes.there() if node not in without]
    kind, answer_type = messages.QUERY_DESCRIBE, messages.DescribeAnswer
    if settings.secure_sums:
        asked = nodes.to_all(kind, record, among)
        sums = masked.total_of(nodes, asked, answer_type.fields())
        return [] if sums is None else answer_type.of_sums(sums)
    return [answer for _, answer in nodes.ask(kind, record, answer_type, among)]


def order_of(described: Sequence[messages.DescribeAnswer]) -> str:
    """What tells which items of a user are the last: a column, the seed, or 'mixed' over nodes."""
    orders = {answer.order for answer in described if answer.users}
    return orders.pop() if len(orders) == 1 else "mixed" if orders else "seeded"


def count_users(
    nodes: Nodes, version: str, rows: Sequence[int] | np.ndarray, settings: RunSettings
) -> np.ndarray:
    """How many users have interacted with each cold test item, int64 (rows,)."""
    users = np.zeros(len(rows), np.int64)
    kind, record = messages.QUERY_COUNT, messages.CountRequest(version).to_record()
    asked, sums = nodes.to_all(kind, record), masked.of_counts(len(rows))
    replies = masked.replies(nodes, asked, sums, settings)
    for node, answer in nodes.usable(kind, replies, messages.CountAnswer):
        try:
            users += aggregation.check_counts(answer, len(rows), settings)
        except SnowdropError as error:
            nodes.refuse(node, messages.QUERY_COUNT, error)
    return users
