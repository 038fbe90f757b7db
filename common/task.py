"""What is ranked for whom, as both sides name it.

'cold-items': for each user, the items of a cold split, none of which any training saw.
'last-warm-item': for each user, the warm items that it has not touched and one that it has, held
out of its training (leave-one-out): the last one to test, the last but one to validate. Which is
the last, a column of the interactions says (`ORDERS`); without one it is drawn for each user from
the seed.
"""

from typing import Literal

from common.catalogue import COLD_SPLITS, ItemIndex

Task = Literal["cold-items", "last-warm-item"]

Order = Literal["timestamp", "position", "seeded"]

ORDERS: tuple[Order, ...] = ("timestamp", "position")
"""Columns of an interactions file that say in what order they came, the first that is there."""

_SHOWN = {
    "cold-items": (
        "recall@20", "recall@50", "recall@100", "precision@20", "ndcg@20", "ndcg@100",
    ),
    "last-warm-item": ("recall@20", "recall@50", "ndcg@20", "ndcg@50"),
}  # fmt: skip


def draws_cold(task: str) -> bool:
    """Whether items are held back as cold ones where no file says the split."""
    return task == "cold-items"


def shown_metrics(task: str) -> tuple[str, ...]:
    """The metrics that tables show, by the names that files have."""
    return _SHOWN[task]


def metrics_of_users(task: str) -> tuple[str, ...]:
    """The metrics of single users that are kept, so that differences can be tested."""
    return ("recall@20", "ndcg@20") if task == "cold-items" else _SHOWN[task]


def metric_label(task: str, metric: str) -> str:
    """A metric as tables call it: the recall of one held-out item is the hit rate, ``hr@20``."""
    return metric if task == "cold-items" else metric.replace("recall@", "hr@")


def metric_words(metric: str, task: str = "cold-items") -> str:
    """A metric as captions call it: ``Recall@20``, ``HR@20``, ``NDCG@20``."""
    name, _, k = metric_label(task, metric).partition("@")
    return f"{name.upper() if name in ('ndcg', 'hr') else name.title()}@{k}"


def ranked_words(task: str, split: str = "test") -> str:
    """What the metrics of a split are about, as captions say it."""
    if task == "cold-items":
        return f"cold {split} items"
    return "each user's last warm item" if split == "test" else "each user's last warm item but one"


def candidates(task: str, split: str) -> str:
    """The split of the catalogue whose items are ranked when ``split`` is measured."""
    return split if task == "cold-items" else "warm"


def measured_splits(task: str, index: ItemIndex) -> list[str]:
    """What can be measured: 'validation' and 'test', as far as there is something to rank."""
    return [split for split in COLD_SPLITS if len(index.rows(candidates(task, split)))]
