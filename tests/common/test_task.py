import pytest

from common.catalogue import ItemIndex
from common.metrics import metric_names
from common.settings import KS
from common.task import (
    candidates,
    measured_splits,
    metric_label,
    metric_words,
    metrics_of_users,
    ranked_words,
    shown_metrics,
)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_ranked(split: str) -> None:
    assert candidates("cold-items", split) == split
    assert candidates("last-warm-item", split) == "warm"


@pytest.mark.parametrize(
    ("splits", "cold", "last"),
    [
        (("warm", "validation", "test"), ["validation", "test"], ["validation", "test"]),
        (("warm", "warm", "test"), ["test"], ["validation", "test"]),
        (("warm", "warm", "warm"), [], ["validation", "test"]),
        (("test", "test", "test"), ["test"], []),
    ],
)
def test_what_can_be_measured(splits: tuple[str, ...], cold: list[str], last: list[str]) -> None:
    index = ItemIndex(("a", "b", "c"), splits)
    assert measured_splits("cold-items", index) == cold
    assert measured_splits("last-warm-item", index) == last


def test_the_recall_of_one_item_is_the_hit_rate() -> None:
    assert [metric_label("last-warm-item", name) for name in shown_metrics("last-warm-item")] == [
        "hr@20", "hr@50", "ndcg@20", "ndcg@50",
    ]  # fmt: skip
    assert metric_label("cold-items", "recall@20") == "recall@20"
    words = [metric_words("recall@50", task) for task in ("cold-items", "last-warm-item")]
    assert words == ["Recall@50", "HR@50"]
    assert metric_words("ndcg@100") == "NDCG@100"


def test_words_for_what_is_ranked() -> None:
    assert ranked_words("cold-items") == "cold test items"
    assert ranked_words("cold-items", "validation") == "cold validation items"
    assert ranked_words("last-warm-item") == "each user's last warm item"
    assert ranked_words("last-warm-item", "validation") == "each user's last warm item but one"


def test_metrics_of_users_are_all_shown() -> None:
    for task in ("cold-items", "last-warm-item"):
        assert set(metrics_of_users(task)) <= set(shown_metrics(task)) <= set(metric_names(KS))
