"""Methods beside each other: the bar, the frozen twins, and what is more than noise.

`snowdrop bench` and `snowdrop report` tell the same of the same numbers, since both ask here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from common.bar import BAR_METRIC, RULE, Bar, best_local_rule
from common.task import metric_label, metrics_of_users

if TYPE_CHECKING:
    import polars as pl

FEWER = r"@federated=[^@]*$"
"""End of the name of a method that is trained with fewer users in its federation."""

RESAMPLES = 2_000
LEVEL = 95
GAIN_HEAD = "federation adds"
ABOVE, BELOW, BEHIND = "▲", "▼", "*"

Users = Mapping[str, Mapping[Any, "pl.DataFrame"]]
"""By method and seed, one row per test user: ``user`` and its metrics."""


@dataclass(frozen=True)
class Entry:
    """One method of a comparison.

    Parameters
    ----------
    name : str
    kind : str
        'trained', 'rule' or 'floor'.
    twin_of : str
        Name of the method whose frozen twin this is; else empty.
    test, validation : Mapping[str, Sequence[float]]
        By metric, the fractions of its runs.
    """

    name: str
    kind: str
    twin_of: str = ""
    test: Mapping[str, Sequence[float]] = field(default_factory=dict)
    validation: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Comparison:
    """Methods on the same data.

    Parameters
    ----------
    entries : Sequence[Entry]
        In the order in which they shall stand.
    users : Mapping[str, Mapping[str, DataFrame]]
        Test users' metrics by method and seed, as far as they are known.
    task : str
        What all of them ranked.
    """

    def __init__(self, entries: Sequence[Entry], users: Users, task: str = "cold-items") -> None:
        self.entries = {entry.name: entry for entry in entries}
        self.task, self.tested = task, metrics_of_users(task)
        self._users = users
        self._verdicts: dict[tuple[str, str, str], int] = {}

    def label(self, metric: str) -> str:
        """A metric as tables call it."""
        return metric_label(self.task, metric)

    @property
    def ratio_head(self) -> str:
        """Over the column of `ratio_cell`."""
        return f"{self.label(BAR_METRIC)} ÷ best local rule"

    def mean(self, name: str, metric: str) -> float | None:
        """A method's mean of a test metric over its runs."""
        entry = self.entries.get(name)
        values = entry.test.get(metric) if entry else None
        return fmean(values) if values else None

    @cached_property
    def bar(self) -> Bar | None:
        """The best local rule."""
        return best_local_rule(
            {name: entry.kind for name, entry in self.entries.items()},
            {name: self._validated(name) for name in self.entries},
            {name: self.mean(name, BAR_METRIC) for name in self.entries},
        )

    def _validated(self, name: str) -> float | None:
        """A method's mean of the bar's metric on validation items."""
        values = self.entries[name].validation.get(BAR_METRIC)
        return fmean(values) if values else None

    @property
    def order(self) -> list[str]:
        """Names, each frozen twin right after its method."""
        return with_twins({name: entry.twin_of for name, entry in self.entries.items()})

    def twin(self, name: str) -> str | None:
        """The frozen twin of a method."""
        return next((e.name for e in self.entries.values() if e.twin_of == name), None)

    def is_twin(self, name: str) -> bool:
        """Whether it is the frozen twin of a method that is here too."""
        return self.entries[name].twin_of in self.entries

    def ratio(self, name: str) -> float | None:
        """A method's mean test Recall@20 over that of the best local rule."""
        own = self.mean(name, BAR_METRIC)
        level = self.mean(self.bar.name, BAR_METRIC) if self.bar else None
        return own / level if own is not None and level else None

    def gain(self, name: str) -> float | None:
        """What the federation adds: mean test Recall@20 less that of the twin, in points."""
        twin = self.twin(name)
        own = self.mean(name, BAR_METRIC)
        without = self.mean(twin, BAR_METRIC) if twin else None
        return 100 * (own - without) if own is not None and without is not None else None

    def ratio_mark(self, name: str) -> str:
        """▲ or ▼ where a method is above or below the best local rule by more than noise."""
        if self.bar is None or self.bar.name == name:
            return ""
        return _mark(self.verdict(name, self.bar.name, BAR_METRIC))

    def gain_mark(self, name: str) -> str:
        """▲ or ▼ where a method is above or below its twin by more than noise."""
        twin = self.twin(name)
        return _mark(self.verdict(name, twin, BAR_METRIC)) if twin else ""

    def ratio_cell(self, name: str) -> str:
        """`ratio` with its mark, as tables show it."""
        ratio = self.ratio(name)
        return "–" if ratio is None else _joined(f"{ratio:.3f}", self.ratio_mark(name))

    def gain_cell(self, name: str) -> str:
        """`gain` with its mark, as tables show it; empty for what has no twin."""
        gain = self.gain(name)
        return "" if gain is None else _joined(f"{gain:+.2f}", self.gain_mark(name))

    def behind(self, metric: str) -> set[str]:
        """Methods that are behind the best one of a test metric by more than noise."""
        means = {name: self.mean(name, metric) for name in self.entries}
        known = {name: mean for name, mean in means.items() if mean is not None}
        if not known:
            return set()
        best = max(known, key=lambda name: known[name])
        return {n for n in known if n != best and self.verdict(best, n, metric) > 0}

    def verdict(self, first: str, second: str, metric: str) -> int:
        """1 or -1 where the first method is above or below the second by more than noise, else 0.

        By a paired bootstrap over the users of the seeds that both have; 0 where there are none.
        """
        key = first, second, metric
        if key not in self._verdicts:
            lead = self._lead(first, second, metric)
            tail = (100 - LEVEL) / 200
            low, high = (0.0, 0.0) if lead is None else np.quantile(lead, (tail, 1 - tail))
            self._verdicts[key] = int(low > 0) - int(high < 0)
        return self._verdicts[key]

    @property
    def is_tested(self) -> bool:
        """Whether there are users' metrics by which differences can be tested."""
        return bool(self._users)

    def bar_words(self) -> str:
        """Which rule is the bar, as a sentence; empty where there is none."""
        if self.bar is None:
            return ""
        metric = self.label(BAR_METRIC)
        if self.bar.validated:
            highest = self._validated(self.bar.name)
            level = [
                name for name, entry in self.entries.items()
                if entry.kind == RULE and self._validated(name) == highest
            ]  # fmt: skip
            first = f", the first of {len(level)} that are level there" if len(level) > 1 else ""
            return (
                f"The best local rule is {self.bar.name}: of the rules that need no federation, it "
                f"has the highest mean validation {metric}{first}."
                f"{self._ahead_words(self.bar.name)}"
            )
        return (
            f"The best local rule is {self.bar.name}: of the rules that need no federation, it has "
            f"the highest mean test {metric}. It was chosen on test items, because no rule was "
            "validated."
        )

    def _ahead_words(self, bar: str) -> str:
        """Which rule is ahead of the bar on test items, as a sentence; empty where none is."""
        level = self.mean(bar, BAR_METRIC)
        rules = [name for name, entry in self.entries.items() if entry.kind == RULE]
        best = max(rules, key=lambda name: self.mean(name, BAR_METRIC) or 0.0)
        highest = self.mean(best, BAR_METRIC)
        if level is None or not highest or round(level / highest, 3) >= 1:
            return ""
        other = f" To compare with {best}, multiply “{self.ratio_head}” by {level / highest:.3f}."
        return (
            f" On test items {best} is ahead of it: {100 * highest:.2f} against "
            f"{100 * level:.2f}.{other if level else ''}"
        )

    @property
    def has_twins(self) -> bool:
        """Whether a method and its frozen twin are here."""
        return any(self.is_twin(name) for name in self.entries)

    def gain_words(self) -> str:
        """What the gain of the federation is, as a sentence; empty where no twin is here."""
        if not self.has_twins:
            return ""
        return (
            f"“{GAIN_HEAD[0].upper()}{GAIN_HEAD[1:]}” is the mean {self.label(BAR_METRIC)} of a "
            "method minus that of its frozen twin (↳), in percentage points. The frozen twin is "
            "the same method with the federation switched off: nothing that users send counts. "
            "Only what the items' texts say and what each node learns of its own users is left."
        )

    def mark_words(self) -> str:
        """What the marks mean, as sentences; empty where nothing was tested."""
        if not self.is_tested:
            return ""
        others = [f"the best local rule (in “{self.ratio_head}”)"] if self.bar else []
        others += [f"the frozen twin (in “{GAIN_HEAD}”)"] if self.has_twins else []
        beside = f" {ABOVE} is above, {BELOW} below {' or '.join(others)}." if others else ""
        *tested, last = map(self.label, self.tested)
        return (
            f"{BEHIND} is behind the best method of the column.{beside} Each mark means a "
            "difference by more than noise: a paired bootstrap over users with "
            f"{RESAMPLES:,} resamples, at {LEVEL} %. "
            f"Only {', '.join(tested)} and {last} are tested. Users are resampled within each "
            "seed; the spread over seeds is not part of this test. Seeds change the random numbers "
            "and, where items.csv has no split, the split."
        )

    def _lead(self, first: str, second: str, metric: str) -> np.ndarray | None:
        """Lead of the first method in each resample, summed over seeds, float64 (resamples,)."""
        tables = self._users.get(first, {}), self._users.get(second, {})
        lead = np.zeros(RESAMPLES)
        tested = False
        rng = np.random.default_rng(0)
        for seed in sorted(tables[0].keys() & tables[1].keys()):
            one, other = (table[seed] for table in tables)
            if not all({"user", metric} <= set(frame.columns) for frame in (one, other)):
                continue
            pair = one.join(other, on="user", how="inner")
            gap = (pair[metric] - pair[f"{metric}_right"]).to_numpy()
            if not len(gap):
                continue
            tested = True
            for at in range(RESAMPLES):
                lead[at] += gap[rng.integers(0, len(gap), len(gap))].mean()
        return lead if tested else None


def with_twins(twin_of: Mapping[str, str]) -> list[str]:
    """Names in their order, but each frozen twin right after its method.

    Parameters
    ----------
    twin_of : Mapping[str, str]
        By name, whose twin it is; empty for none.
    """
    own = [name for name, of in twin_of.items() if of not in twin_of]
    return [x for name in own for x in (name, *(n for n, of in twin_of.items() if of == name))]


def _mark(verdict: int) -> str:
    return {1: ABOVE, -1: BELOW, 0: ""}[verdict]


def _joined(text: str, mark: str) -> str:
    return f"{text} {mark}" if mark else text
