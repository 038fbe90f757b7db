"""Which rule is the bar, and which differences are more than noise."""

import numpy as np
import polars as pl
import pytest

from cli.comparison import Comparison, Entry, with_twins
from common.bar import Bar, best_local_rule


def users_with(values: np.ndarray, first: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {"user": np.arange(first, first + len(values)), "recall@20": values, "ndcg@20": values}
    )


def entry(
    name: str, test: float, kind: str = "trained", twin_of: str = "", validation: float = 0.0
) -> Entry:
    return Entry(name, kind, twin_of, {"recall@20": [test]}, {"recall@20": [validation]})


def test_only_what_is_not_noise_is_behind() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    users = {
        "best": {0: users_with(base)},
        "always a little worse": {0: users_with(base - 0.01)},
        "as good, but noisy": {0: users_with(base - 0.001 + rng.normal(0, 0.5, 400))},
        "the same": {0: users_with(base)},
    }
    methods = Comparison([entry(name, 0.5 + (name == "best")) for name in users], users)
    assert methods.behind("recall@20") == {"always a little worse"}


def test_users_are_paired_by_number_within_a_seed() -> None:
    values = np.linspace(0, 1, 50)
    shuffled = users_with(values - 0.01).sample(fraction=1, shuffle=True, seed=1)
    users = {
        "best": {0: users_with(values), 1: users_with(values + 5)},
        "other": {0: shuffled, 1: users_with(values[10:] + 4.99, 10)},
        "elsewhere": {2: users_with(values - 1)},
    }
    methods = Comparison([entry("best", 1), entry("other", 0.9), entry("elsewhere", 0.1)], users)
    assert methods.behind("recall@20") == {"other"}
    assert methods.verdict("other", "best", "recall@20") == -1
    assert methods.behind("recall@50") == set()  # nobody has it


def test_the_bar_is_the_rule_that_validates_best() -> None:
    kinds = {"a": "rule", "b": "rule", "net": "trained", "chance": "floor"}
    validation = {"a": 0.3, "b": 0.2, "net": 0.9, "chance": 0.8}
    test = {"a": 0.1, "b": 0.2, "net": 0.9, "chance": 0.8}
    assert best_local_rule(kinds, validation, test) == Bar("a", True)
    assert best_local_rule(kinds, validation | {"a": None}, test) == Bar("b", True)
    assert best_local_rule(kinds, {}, test) == Bar("b", False)
    assert best_local_rule({"net": "trained"}, validation, test) is None
    assert best_local_rule(kinds, {}, {}) is None


def test_marks_tell_what_clears_the_bar_and_what_the_federation_adds() -> None:
    base = np.random.default_rng(0).random(300)
    users = {
        "net": {0: users_with(base + 0.02)},
        "net:frozen": {0: users_with(base - 0.02)},
        "weak": {0: users_with(base - 0.05)},
        "rule": {0: users_with(base)},
    }
    methods = Comparison(
        [
            entry("net", 0.52),
            entry("weak", 0.45),
            entry("rule", 0.5, "rule", validation=0.6),
            entry("other rule", 0.9, "rule", validation=0.1),
            entry("net:frozen", 0.48, twin_of="net"),
            entry("lost:frozen", 0.1, twin_of="lost"),
        ],
        users,
    )
    assert methods.order == ["net", "net:frozen", "weak", "rule", "other rule", "lost:frozen"]
    assert methods.ratio_cell("net") == "1.040 ▲"
    assert methods.ratio_cell("weak") == "0.900 ▼"
    assert methods.ratio_cell("rule") == "1.000"
    assert methods.ratio_cell("other rule") == "1.800"  # its users are not known
    assert methods.gain_cell("net") == "+4.00 ▲"
    assert methods.gain_cell("weak") == methods.gain_cell("lost:frozen") == ""
    assert not methods.is_twin("lost:frozen")
    assert "The best local rule is rule:" in methods.bar_words()
    assert methods.bar_words().endswith(
        " On test items other rule is ahead of it: 90.00 against 50.00. To compare with other "
        "rule, multiply “recall@20 ÷ best local rule” by 0.556."
    )
    assert "minus that of its frozen twin" in methods.gain_words()
    assert "generator" not in methods.gain_words()  # which not every method has
    assert (
        "▲ is above, ▼ below the best local rule (in “recall@20 ÷ best local rule”) or the frozen "
        "twin (in “federation adds”)."
    ) in methods.mark_words()


@pytest.mark.parametrize(
    ("test", "words"),
    [(0.5, ""), (0.5001, ""), (0.4, ""), (0.51, "51.00 against 50.00")],
)
def test_another_rule_is_named_only_where_it_is_ahead_in_the_shown_digits(
    test: float, words: str
) -> None:
    rules = [entry("rule", 0.5, "rule", validation=0.6), entry("other", test, "rule")]
    told = Comparison([*rules, entry("net", 0.9)], {}).bar_words()
    assert words in told
    assert ("ahead" in told) == bool(words)


def test_rules_that_validation_items_do_not_tell_apart_are_told_to_be_level() -> None:
    rules = [entry(name, 0.5, "rule", validation=v) for name, v in (("a", 1), ("b", 1), ("c", 0.9))]
    level = Comparison([*rules, entry("net", 0.9, validation=1)], {}).bar_words()
    assert level.endswith("highest mean validation recall@20, the first of 2 that are level there.")
    alone = Comparison(rules[1:], {}).bar_words()
    assert alone.endswith("highest mean validation recall@20.")


def test_a_rule_that_is_ahead_of_one_that_finds_nothing_gives_no_factor() -> None:
    rules = [entry("rule", 0.0, "rule", validation=0.6), entry("other", 0.1, "rule")]
    told = Comparison(rules, {}).bar_words()
    assert told.endswith("On test items other is ahead of it: 10.00 against 0.00.")


def test_marks_are_explained_as_far_as_they_can_be_shown() -> None:
    users = {name: {0: users_with(np.ones(9))} for name in ("net", "net:frozen", "rule")}
    net, twin = entry("net", 0.5), entry("net:frozen", 0.4, twin_of="net")
    unfinished = Comparison([net, twin], users).mark_words()
    assert "▲ is above, ▼ below the frozen twin (in" in unfinished
    assert "local rule" not in unfinished
    without = Comparison([net, entry("rule", 0.3, "rule")], users).mark_words()
    assert "▲ is above, ▼ below the best local rule (in" in without
    assert "twin" not in without
    alone = Comparison([net], users).mark_words()
    assert "* is behind the best method" in alone and "▲" not in alone


def test_without_users_nothing_is_called_noise_or_not() -> None:
    methods = Comparison([entry("net", 0.5), entry("rule", 0.25, "rule")], {})
    assert methods.ratio_cell("net") == "2.000"
    assert methods.mark_words() == methods.gain_words() == ""


@pytest.mark.parametrize("test", [0.0, None])
def test_a_rule_that_finds_nothing_is_no_divisor(test: float | None) -> None:
    level = {"recall@20": [test] if test is not None else []}
    methods = Comparison([entry("net", 0.5), Entry("rule", "rule", "", level)], {})
    assert methods.ratio_cell("net") == "–"
    assert Comparison([entry("net", 0.5)], {}).bar_words() == ""


def test_twins_follow_their_methods() -> None:
    told = {"b frozen": "b", "a": "", "b": "", "c": "", "a frozen": "a"}
    assert with_twins(told) == ["a", "a frozen", "b", "b frozen", "c"]
