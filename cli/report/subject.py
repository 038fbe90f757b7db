"""One data set's results and runs, and what captions say of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from cli.comparison import Comparison, Entry
from cli.report.charts import COLOURS
from cli.report.run import Run
from cli.report.source import Result, Source
from common.bar import BAR_METRIC, CONTROL, FLOOR, TRAINED, control_words
from common.catalogue import find_table, read_table
from common.counting import counted
from common.errors import SnowdropError
from common.settings import DEMO, NoiseBy, RunSettings
from common.task import draws_cold, metric_words, ranked_words


@dataclass(frozen=True, eq=False)
class Subject:
    """What every part of the report is about.

    ``by_method`` holds results, ``ranking`` methods, best first; ``main`` is the method that the
    report is told by: the best federation of a comparison, or the method that a run trained.
    """

    bench: bool
    name: str
    runs: list[Run]
    by_method: dict[str, list[Result]]
    ranking: list[str]
    main: str

    @classmethod
    def of(cls, source: Source, name: str) -> "Subject":
        """The part of a source with the data of that name."""
        by_method: dict[str, list[Result]] = {}
        for result in source.results:
            if result.data == name:
                by_method.setdefault(result.method, []).append(result)
        runs = [run for run in source.runs if run.data == name] or source.runs
        ranking = _ranking(by_method) or list(dict.fromkeys(run.method for run in runs))
        best = [
            method
            for method in ranking
            if all(r.kind == TRAINED and not r.twin_of for r in by_method.get(method, []))
        ]
        main = (best or ranking)[0] if source.bench else runs[0].method
        return cls(source.bench, name, runs, by_method, ranking, main)

    @cached_property
    def comparison(self) -> Comparison:
        """Its methods beside each other, best first."""
        users: dict[str, dict[str, Any]] = {}
        for run in self.runs:
            if run.users is not None and "user" in run.users.columns:
                users.setdefault(run.method, {})[run.seed] = run.users
        entries = []
        for method in self.ranking if self.by_method else []:
            group = self.by_method[method]
            test, validation = (
                {name: [part[name] for part in parts if name in part] for name in _names(parts)}
                for parts in ([r.test for r in group], [r.validation for r in group])
            )
            entries.append(Entry(method, group[0].kind, group[0].twin_of, test, validation))
        return Comparison(entries, users, self.task)

    @cached_property
    def task(self) -> str:
        """What was ranked."""
        return next((run.settings.task for run in self.runs if run.settings), "cold-items")

    @property
    def ranked(self) -> str:
        """What the test results are about, as captions say it."""
        return ranked_words(self.task)

    def words(self, metric: str) -> str:
        """A metric as captions write it."""
        return metric_words(metric, self.task)

    @property
    def bar(self) -> str:
        """Name of the best local rule; empty where no rule was measured."""
        return self.comparison.bar.name if self.comparison.bar else ""

    @property
    def floors(self) -> list[str]:
        """Methods that rank at random."""
        of_runs = [run.method for run in self.runs if run.kind == FLOOR]
        told = [m for m, group in self.by_method.items() if group[0].kind == FLOOR]
        return list(dict.fromkeys([*told, *of_runs]))

    @property
    def seeds(self) -> list[str]:
        """Seeds of all runs."""
        told = {r.seed for group in self.by_method.values() for r in group}
        seeds = (told or {run.seed for run in self.runs}) - {""}
        return sorted(seeds, key=lambda seed: (len(seed), seed))

    @cached_property
    def colours(self) -> Mapping[str, int | None]:
        """Colours of the main method, the best others and the best local rule; None is grey."""
        kinds = {method: group[0].kind for method, group in self.by_method.items()}
        others = [
            m for m in self.ranking if m != self.main and kinds.get(m, TRAINED) == TRAINED
        ]  # fmt: skip
        colours: dict[str, int | None] = dict.fromkeys([self.main, *self.ranking])
        colours |= {method: k + 1 for k, method in enumerate(others[: COLOURS - 2])}
        colours |= {self.bar: COLOURS - 1} if self.bar else {}
        return colours | {self.main: 0}

    @property
    def generated(self) -> bool:
        """Whether the data is generated."""
        return any(run.generated_data for run in self.runs)

    def mean(self, method: str, name: str) -> float:
        """A method's mean of a test metric over its runs; 0 where it has none."""
        return self.comparison.mean(method, name) or 0.0

    def damaged(self, files: Sequence[str]) -> str:
        """The first of some files that is damaged in one of its runs; empty where none is."""
        return next((f for f in files if any(f in run.damaged for run in self.runs)), "")

    def runs_of(self, method: str) -> list[Run]:
        """Runs of a method, one per seed."""
        return [run for run in self.runs if run.method == method]

    @property
    def embeds(self) -> bool:
        """Whether one of its methods makes embeddings; true where no run tells."""
        told = [run.summary.get("embeddings") for run in self.runs]
        return any(told) or None in told or not told

    @property
    def summary(self) -> dict[str, Any]:
        """What a run of the main method found."""
        told = (run.summary for run in self.runs if run.method == self.main)
        return next((summary for summary in told if summary), {})

    @property
    def seed(self) -> str:
        """The seeds in words."""
        seeds = self.seeds
        if not seeds:
            return "seed unknown"
        return f"seed {seeds[0]}" if len(seeds) == 1 else f"mean over seeds {', '.join(seeds)}"

    @property
    def where(self) -> str:
        """Data and seeds, as every caption names them."""
        return f"{self.name} ({'generated data, ' if self.generated else ''}{self.seed})"

    def facts(self) -> list[tuple[str, str]]:
        """Term and value."""
        data = self.summary.get("dataset", {})
        items, settings = data.get("items", {}), self.runs[0].settings if self.runs else None
        facts = []
        if data.get("users"):
            facts.append(("Users", f"{data['users']:,}"))
        for split, label in (
            ("warm", "Warm items"),
            ("validation", "Validation items"),
            ("test", "Test items"),
        ):
            if items.get(split):
                facts.append((label, f"{items[split]:,}"))
        if interactions := sum(count or 0 for count in data.get("interactions", {}).values()):
            facts.append(("Interactions", f"{interactions:,}"))
        facts.append(("Seeds" if len(self.seeds) > 1 else "Seed", ", ".join(self.seeds) or "–"))
        if order := self.summary.get("order"):
            facts.append(("Order of interactions", order))
        if settings and (split := _split_words(settings, self.seeds)):
            facts.append(("Split", split))
        if settings and not self.bench:
            facts.append(("Preset", settings.preset))
            if settings.card.has_dimensions:
                facts.append(("Dimensions", str(settings.dim)))
            facts.append(("Nodes", str(settings.nodes)))
        told = self.summary.get("synthetic", {})
        if told.get("users"):
            sent = f"{told['users']:,} of {told['silos']} nodes, {told['bytes_up'] / 1e6:.2f} MB"
            facts.append(("Synthetic users", sent))
        if private := self.summary.get("privacy"):
            facts.append(("Privacy of a user", _privacy_words(private)))
        return facts

    def table(self) -> list[str]:
        """Paragraphs under the result table."""
        told = (run.summary.get("tested_users") for run in self.runs_of(self.main))
        users = sorted({count for count in told if count})
        tested = f" over {_span(users)} users with a test item" if users else ""
        several = len(self.seeds) > 1
        spread = " ± standard deviation over seeds" if several else ""
        best = self.summary.get("best_round")
        chosen = "; the tested round is the best on validation items" if best else ""
        if best and not self.bench:
            chosen += f", round {best}"
        validated = _validated(self.by_method)
        order = "validation" if validated else "test results, because not all were validated"
        asked = (
            "no user's training saw them, and every user ranks all of them"
            if self.task == "cold-items"
            else "held out of training, and ranked against all items that the user never touched"
        )
        sentences = [
            f"{self.ranked[0].upper()}{self.ranked[1:]} of {self.where}: {asked}. Means in per "
            f"cent{tested}{spread}{chosen}. Methods are in the order of their {order}; bold is the "
            "best of a column, underlined the second.",
            self.comparison.bar_words(),
            self.comparison.gain_words(),
            control_words(
                [m for m in self.ranking if any(r.kind == CONTROL for r in self.by_method[m])]
            ),
            self.comparison.mark_words(),
            self._diverged(),
        ]
        return [sentence for sentence in sentences if sentence]

    def _diverged(self) -> str:
        methods = [m for m in self.ranking if any(r.diverged for r in self.by_method.get(m, []))]
        if not methods:
            return ""
        return (
            f"The training of {', '.join(methods)} diverged in at least one run; its best "
            "validated round is tested."
        )

    def sample(self, run: Run) -> str:
        """Over the users' lists."""
        kind = "generated users" if run.generated_data else "users"
        drawn = "" if run.folder.is_whole else " drawn at random (seed 0)"
        what = (
            "The recommended items are new: they were in nobody's training. A tick marks those "
            "that the user did interact with."
            if self.task == "cold-items"
            else "The recommended items are those that the user never touched, and the last one, "
            "which has a tick."
        )
        return (
            f"A few {kind}{drawn} of {self.name}, {run.method}, seed {run.seed or 'unknown'}. "
            f"{what} The lists come from a simulation: in a deployment they "
            "stay on each user's node."
        )


def _names(parts: Sequence[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))


def _span(counts: Sequence[int]) -> str:
    """The only count, or the least and the most."""
    return " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))


_WHO_ADDS: Mapping[NoiseBy, str] = {
    "nodes": "the nodes",
    "sum": "the nodes together, under secure sums",
    "server": "the server, which is trusted",
}


def _privacy_words(told: Mapping[str, Any]) -> str:
    """What ``summary.json`` says of ε, in words."""
    who = _WHO_ADDS[told["noise_by"]]
    metrics = ", without the metrics" if told["metrics_without_noise"] else ""
    rounds = counted(told["rounds"], "round")
    return (
        f"ε = {told['epsilon']:.3g} over {rounds} at δ = {told['delta']:.2g}, "
        f"{told['noise']} noise of {who}{metrics}"
    )


def _split_words(settings: RunSettings, seeds: Sequence[str]) -> str:
    """Where the split comes from, as far as the data is still there to tell."""
    if settings.data != DEMO:
        try:
            items = read_table(find_table(Path(settings.data), "items"))
        except SnowdropError:
            return ""
        if "split" in items.columns:
            return "given with the data"
    if not draws_cold(settings.task):
        return "all items are warm"
    return "6 : 1 : 3 by each seed" if len(seeds) > 1 else f"6 : 1 : 3 by seed {''.join(seeds)}"


def _ranking(by_method: Mapping[str, list[Result]]) -> list[str]:
    """Methods, best first: by validation where every method has it, else by test."""
    validated = _validated(by_method)

    def score(method: str) -> float:
        group = by_method[method]
        return fmean((r.validation if validated else r.test).get(BAR_METRIC, 0.0) for r in group)

    return sorted(by_method, key=score, reverse=True)


def _validated(by_method: Mapping[str, list[Result]]) -> bool:
    return all(r.validation for group in by_method.values() for r in group)
