"""The table that a run prints at its end."""

from typing import Any

from common.metrics import metric_names
from common.settings import KS
from server_app.result_table import result_table


def parts(recall: float, kind: str, title: str, validation: float = 0.0) -> dict[str, Any]:
    return {
        "kind": kind,
        "title": title,
        "test": dict.fromkeys(metric_names(KS), recall),
        "validation": {"recall@20": validation},
    }


def summary(**baselines: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": "The method",
        "generated_data": False,
        "tested_users": 12,
        "test": dict.fromkeys(metric_names(KS), 0.5),
        "baselines": baselines,
    }


def test_last_warm_items_have_a_hit_rate() -> None:
    told = {**summary(rule=parts(0.25, "rule", "Rule", validation=0.9)), "task": "last-warm-item"}
    lines = result_table(told).splitlines()
    assert lines[0] == "each user's last warm item, 12 users, per cent; HR hit rate, N ndcg"
    assert lines[1].split() == ["HR@20", "HR@50", "N@20", "N@50"]
    assert lines[3].split() == ["Rule", *["25.00"] * 4]
    assert lines[4].startswith("2.00 times the HR@20 of the best rule")


def test_the_method_stands_beside_rules_and_its_frozen_twin() -> None:
    text = result_table(
        summary(
            a=parts(0.25, "rule", "Rule A", validation=0.9),
            b=parts(0.4, "rule", "Rule B", validation=0.1),
            frozen=parts(0.45, "twin", "The method, frozen"),
            random=parts(0.0, "floor", "Random"),
        )
    )
    lines = text.splitlines()
    assert lines[0].startswith("cold test items, 12 users, per cent")
    assert lines[2].startswith("The method ") and lines[2].endswith("   50.00")
    assert lines[5].startswith("The method, frozen   45.00")
    assert (
        "2.00 times the Recall@20 of the best rule that needs no federation (Rule A, the best on "
        "validation items)" in lines
    )
    assert "on test items Rule B is ahead of that rule: 1.25 times its Recall@20" in lines
    assert lines[-1].startswith("the federation adds +5.00 points of Recall@20")
    level = result_table(
        summary(a=parts(0.25, "rule", "Rule A", validation=0.9), b=parts(0.25, "rule", "Rule B"))
    )
    assert "ahead" not in level


def test_controls_are_explained() -> None:
    controls = {name: parts(0.4, "control", name) for name in ("One", "Two", "Three")}
    lines = result_table(summary(**controls)).splitlines()
    assert lines[-1].startswith("Other ways to make embeddings of cold items from the item table")
    assert lines[-1].endswith(": One, Two and Three.")
    alone = result_table(summary(One=controls["One"])).splitlines()
    assert alone[-1].endswith(": One.")


def test_without_baselines_nothing_is_compared() -> None:
    assert len(result_table(summary()).splitlines()) == 3
    nothing = result_table(summary(a=parts(0.0, "rule", "Rule A")) | {"generated_data": True})
    assert "times" not in nothing and "(generated data)" in nothing
