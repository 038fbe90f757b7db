"""Measuring: how well items are ranked, asked of all nodes, as means over users."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from common import messages
from common.errors import SnowdropError
from common.metrics import metric_names
from common.settings import KS, RunSettings
from common.task import candidates, measured_splits
from server_app import aggregation
from server_app.methods import Method
from server_app.methods.base import Scoring
from server_app.nodes import Nodes
from server_app.training import Training

Metrics = dict[str, float]


@dataclass(frozen=True, eq=False)
class Task:
    """What is ranked for whom in a run, and how it is asked of the nodes."""

    settings: RunSettings
    nodes: Nodes

    def splits(self, training: Training) -> list[str]:
        """What can be measured: 'validation' and 'test', as far as there is something to rank."""
        return measured_splits(self.settings.task, training.index)

    def scoring(self, method: Method, split: str) -> Scoring:
        """How a method scores what is ranked when a split is measured."""
        return method.scoring([candidates(self.settings.task, split)])

    def request(self, training: Training, scoring: Scoring, split: str) -> messages.EvaluateRequest:
        """The message that asks nodes to rank a split."""
        return messages.EvaluateRequest(
            catalogue=training.index.version,
            training=training.id,
            round=training.round,
            settings=training.settings.pack(),
            task=self.settings.task,
            split=split,
            scorer=scoring.scorer,
            method=scoring.method or training.settings.card.name,
            forms=scoring.forms,
            arrays=packed(scoring.arrays, self.settings),
        )

    def measure(
        self, training: Training, split: str, scoring: Scoring | None = None
    ) -> tuple[Metrics, int]:
        """Mean of each metric over the users with items to find, and their number.

        Parameters
        ----------
        training : Training
        split : str
            'validation' or 'test'.
        scoring : Scoring, optional
            By default the one of the training's method.
        """
        how = scoring or self.scoring(training.method, split)
        record = self.request(training, how, split).to_record()
        return self.means(self.nodes.exchange(self.nodes.to_all(messages.EVALUATE, record)))

    def means(self, replies: Iterable[Message]) -> tuple[Metrics, int]:
        """Mean of each metric over the users of all usable replies, and their number."""
        (means,), users = self._means_of_forms(replies, 1)
        return means, users

    def best_form(
        self, training: Training, split: str, scoring: Scoring, metrics: Sequence[str]
    ) -> int:
        """The form of a scorer that ranks a split best; the first of equal ones.

        Parameters
        ----------
        training : Training
        split : str
        scoring : Scoring
        metrics : Sequence[str]
            By the names that files have: the first decides, the next where it is equal.
        """
        record = self.request(training, scoring, split).to_record()
        replies = self.nodes.exchange(self.nodes.to_all(messages.EVALUATE, record))
        means, _ = self._means_of_forms(replies, scoring.forms)
        return max(range(scoring.forms), key=lambda form: [means[form][m] for m in metrics])

    def _means_of_forms(self, replies: Iterable[Message], forms: int) -> tuple[list[Metrics], int]:
        """Mean of each metric for each form of a scorer, and the number of users."""
        names = metric_names(KS)
        totals = np.zeros((forms, len(names)))
        users = 0
        usable = self.nodes.usable(messages.EVALUATE, replies, messages.EvaluateAnswer)
        for node, answer in usable:
            try:
                aggregation.check_metrics(answer, names, self.settings, forms)
            except SnowdropError as error:
                self.nodes.refuse(node, messages.EVALUATE, error)
                continue
            users += answer.users
            totals += np.reshape(answer.sums, totals.shape)
        means = totals / max(users, 1)
        return [dict(zip(names, map(float, row), strict=True)) for row in means], users


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


def describe(nodes: Nodes, version: str) -> list[messages.DescribeAnswer]:
    """Every node's counts."""
    record = messages.DescribeRequest(version).to_record()
    answers = nodes.ask(messages.QUERY_DESCRIBE, record, messages.DescribeAnswer)
    return [answer for _, answer in answers]


def order_of(described: Sequence[messages.DescribeAnswer]) -> str:
    """What tells which items of a user are the last: a column, the seed, or 'mixed' over nodes."""
    orders = {answer.order for answer in described if answer.users}
    return orders.pop() if len(orders) == 1 else "mixed" if orders else "seeded"


def count_users(
    nodes: Nodes, version: str, rows: Sequence[int] | np.ndarray, settings: RunSettings
) -> np.ndarray:
    """How many users have interacted with each cold test item, int64 (rows,)."""
    users = np.zeros(len(rows), np.int64)
    record = messages.CountRequest(version).to_record()
    for node, answer in nodes.ask(messages.QUERY_COUNT, record, messages.CountAnswer):
        try:
            users += aggregation.check_counts(answer, len(rows), settings)
        except SnowdropError as error:
            nodes.refuse(node, messages.QUERY_COUNT, error)
    return users
