"""What a report is made from: a run directory, or a bench directory with many runs.

Whatever is missing or of another shape leaves its part of the report empty; only a folder that
holds no result at all is an error.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from client_app.interactions import NodeInteractions, load_interactions
from client_app.recommend import FILE
from common.catalogue import COLD_SPLITS, Catalogue
from common.errors import SnowdropError
from common.settings import DEMO, NodeSettings, RunSettings
from server_app.app import load_catalogue
from server_app.checkpoint import newest_state
from server_app.report import in_two_dimensions

METRIC = re.compile(r"(?:(validation|test)_)?((?:recall|precision|ndcg)@\d+)")
PROFILE = "content-profile"
SAMPLE_USERS = 4
SHOWN_HISTORY = 8
SHOWN_ITEMS = 8

Points = dict[int, dict[str, np.ndarray]]
"""By round, two-dimensional ``warm`` and ``cold`` points."""


@dataclass(frozen=True)
class Result:
    """One row of the result table: a method's metrics in one run, as fractions."""

    data: str
    method: str
    seed: str
    test: Mapping[str, float]
    validation: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    generator_seconds: float | None = None
    memory_mb: float | None = None
    diverged: bool = False


@dataclass(frozen=True)
class Shown:
    """An item in a user's list; ``score`` and ``hit`` only where it was recommended."""

    title: str
    score: float | None = None
    hit: bool = False


@dataclass(frozen=True)
class Sample:
    """A user's history beside the recommendations."""

    name: str
    history: list[Shown]
    recommended: list[Shown]
    history_length: int


@dataclass(eq=False)
class Run:
    """One run's folder, read when a part is asked for."""

    folder: Path
    method: str
    seed: str

    @cached_property
    def settings(self) -> dict[str, Any]:
        return _json(self.folder / "settings.json")

    @cached_property
    def summary(self) -> dict[str, Any]:
        return _json(self.folder / "summary.json")

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        """``rounds.csv``: a row a round, empty fields are None."""
        table = _table(self.folder / "rounds.csv")
        return [] if table is None or "round" not in table.columns else table.to_dicts()

    @property
    def data(self) -> str:
        """Name of the data."""
        name = str(self.settings.get("data", ""))
        return "demo" if name == DEMO else Path(name).name or self.folder.name

    @property
    def generated_data(self) -> bool:
        """Whether nobody ever did what the data says."""
        told = self.summary.get("generated_data")
        return bool(told) if told is not None else self.settings.get("data") == DEMO

    @cached_property
    def points(self) -> Points:
        """Snapshots in two dimensions."""
        if self._arrays:
            found: Points = {}
            for name, rows in self._arrays.items():
                if match := re.fullmatch(r"snapshot_(\d+)_(warm|cold)", name):
                    found.setdefault(int(match[1]), {})[match[2]] = rows
            return {k: kinds for k, kinds in found.items() if len(kinds) == 2 and _finite(kinds)}
        kept = {k: kinds for k, kinds in self._snapshots.items() if _finite(kinds)}
        return in_two_dimensions(kept) if kept else {}

    @cached_property
    def embeddings(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Warm and generated cold test embeddings, float32 (items, d)."""
        if {"warm", "cold"} <= self._arrays.keys():
            return self._arrays["warm"], self._arrays["cold"]
        if self._snapshots:
            last = self._snapshots[max(self._snapshots)]
            return last["warm"].numpy(), last["cold"].numpy()
        return None

    @cached_property
    def users(self) -> pl.DataFrame | None:
        """A row a user: ``history``, ``recall@…``, perhaps ``similarity``."""
        path = self.folder / "users.parquet"
        if path.exists():
            try:
                frame = pl.read_parquet(path)
                return frame if frame.height else None
            except (pl.exceptions.PolarsError, OSError):
                return None
        return _kept_recall(self._private) if self._private else None

    @property
    def users_are_kept_lists(self) -> bool:
        """Whether `users` was counted from the lists that nodes keep."""
        return not (self.folder / "users.parquet").exists()

    @cached_property
    def sample(self) -> list[Sample]:
        """A few users with titles."""
        told = _json(self.folder / "sample.json")
        if told:
            return _told_sample(told)
        return _drawn_sample(self._private) if self._private else []

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        path = self.folder / "embeddings.npz"
        try:
            with np.load(path, allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        except (OSError, ValueError):
            return {}

    @cached_property
    def _snapshots(self) -> dict[int, Any]:
        state = newest_state(self.folder / "checkpoint")
        return state["snapshots"] if state else {}

    @cached_property
    def _private(self) -> "_Private | None":
        return _Private.read(self)


@dataclass(frozen=True, eq=False)
class Source:
    """All results of a folder, and the runs behind them."""

    folder: Path
    bench: bool
    results: list[Result]
    runs: list[Run]


def read_source(folder: Path) -> Source:
    """Read a run directory or a bench directory.

    Raises
    ------
    SnowdropError
        If it is neither.
    """
    if (folder / "results.csv").exists() or (folder / "runs").is_dir():
        return _read_bench(folder)
    if not any((folder / name).exists() for name in ("summary.json", "rounds.csv")):
        raise SnowdropError(
            f"{folder} holds no results; give a folder that `snowdrop simulate --run-dir` or "
            "`snowdrop bench --out` made"
        )
    run = Run(folder, "", "")
    run.method = str(run.summary.get("method") or run.settings.get("generator") or "run")
    run.seed = str(run.settings.get("seed", ""))
    return Source(folder, False, _results_of(run), [run])


def _results_of(run: Run) -> list[Result]:
    summary = run.summary
    if "test" not in summary:
        return []
    timing, memory = summary.get("timing", {}), summary.get("memory", {})
    own = Result(
        data=run.data,
        method=run.method,
        seed=run.seed,
        test=_numbers(summary["test"]),
        validation=_numbers(summary.get("validation")),
        seconds=timing.get("total_seconds"),
        generator_seconds=_sum(run.rounds, "generator_seconds"),
        memory_mb=memory.get("peak_rss_mb"),
        diverged="broke_off" in summary,
    )
    others = [
        Result(run.data, name, run.seed, _numbers(x.get("test")), _numbers(x.get("validation")))
        for name, x in summary.get("baselines", {}).items()
    ]
    return [own, *others]


def _read_bench(folder: Path) -> Source:
    table = _table(folder / "results.csv")
    rows = [] if table is None else table.to_dicts()
    presets = {str(row.get("preset") or "") for row in rows}
    results = []
    for row in rows:
        method = str(row.get("method") or row.get("name") or "?")
        if len(presets) > 1 and row.get("preset") and str(row["preset"]) not in method:
            method = f"{method} ({row['preset']})"
        split: dict[str, dict[str, float]] = {"test": {}, "validation": {}}
        for name, value in row.items():
            match = METRIC.fullmatch(name)
            if match and (number := _number(value)) is not None:
                split[match[1] or "test"][match[2]] = number
        if not split["test"]:
            continue
        results.append(
            Result(
                data=Path(str(row.get("data") or "data")).name,
                method=method,
                seed=str(row.get("seed", "")),
                test=split["test"],
                validation=split["validation"],
                seconds=_first(row, "seconds", "total_seconds"),
                generator_seconds=_first(row, "generator_seconds"),
                memory_mb=_first(row, "memory", "memory_mb", "peak_rss_mb", "peak_mb"),
                diverged=bool(row.get("diverged")),
            )
        )
    compared = {row["digest"] for row in rows if row.get("digest")}  # else a comparison goes on
    runs = []
    for path in sorted((folder / "runs").glob("*/")):
        parts = path.name.rsplit("-", 2)
        if len(parts) == 3 and (not compared or parts[2] in compared):
            run = Run(path, parts[0], parts[1])
            run.method = str(run.summary.get("method") or run.method)
            runs.append(run)
    if not results:
        for run in runs:
            results += _results_of(run)[:1]
    if not results and not runs:
        raise SnowdropError(f"{folder}/results.csv has no run yet; `snowdrop bench` makes them")
    return Source(folder, True, results, runs)


@dataclass(frozen=True, eq=False)
class _Private:
    """What the nodes of a simulation keep, beside its data and titles."""

    data: NodeInteractions
    catalogue: Catalogue
    lists: pl.DataFrame

    @classmethod
    def read(cls, run: Run) -> "_Private | None":
        files = sorted((run.folder / "nodes").glob(f"*/{FILE}"))
        try:
            settings = RunSettings(**run.settings)
            if not files or not run.settings:
                return None
            catalogue = load_catalogue(settings)
            node = NodeSettings(state_dir=run.folder, partition=0, partitions=1)
            data = load_interactions(node, settings.data, settings.seed, catalogue.index())
            lists = pl.concat([pl.read_parquet(file) for file in files])
        except (SnowdropError, ValidationError, pl.exceptions.PolarsError, OSError):
            return None
        return cls(data, catalogue, lists)

    def items(self, user: int, split: str) -> list[str]:
        """Ids of a user's items of a split."""
        ids = self.catalogue.ids_of(split)
        return [ids[row] for row in self.data.by_split[split].of(user)]

    def pairs(self) -> pl.DataFrame:
        """``user_id`` and ``item_id`` of everything cold that a user interacted with."""
        parts = []
        users = np.asarray(self.data.users, dtype=object)
        for split in COLD_SPLITS:
            lists = self.data.by_split[split]
            ids = np.asarray(self.catalogue.ids_of(split), dtype=object)
            parts.append(
                pl.DataFrame(
                    {"user_id": np.repeat(users, lists.counts), "item_id": ids[lists.items]},
                    schema={"user_id": pl.String, "item_id": pl.String},
                )
            )
        return pl.concat(parts)


def _kept_recall(private: _Private) -> pl.DataFrame | None:
    if private.lists.is_empty():
        return None
    top = private.lists["rank"].to_numpy().max()
    history = pl.DataFrame(
        {"user_id": private.data.users, "history": private.data.warm.counts},
        schema={"user_id": pl.String, "history": pl.Int64},
    )
    kept = private.lists.select("user_id", "item_id", pl.lit(1.0).alias("hit"))
    return (
        private.pairs()
        .join(kept, on=["user_id", "item_id"], how="left")
        .group_by("user_id", maintain_order=True)
        .agg(pl.col("hit").fill_null(0.0).mean().alias(f"recall@{top}"))
        .join(history, on="user_id", how="inner")
        .drop("user_id")
    )


def _drawn_sample(private: _Private) -> list[Sample]:
    data = private.data
    cold = sum(data.by_split[split].counts for split in COLD_SPLITS)
    able = np.flatnonzero((data.warm.counts >= 3) & (cold > 0))
    drawn = np.random.default_rng(0).permutation(able)[:SAMPLE_USERS]
    texts = dict(zip(private.catalogue.ids, private.catalogue.texts, strict=True))
    sample = []
    for k, user in enumerate(drawn.tolist()):
        history = private.items(user, "warm")
        truth = {item for split in COLD_SPLITS for item in private.items(user, split)}
        kept = private.lists.filter(pl.col("user_id") == data.users[user]).sort("rank")
        sample.append(
            Sample(
                name=_letter(k),
                history=[Shown(texts[item]) for item in history[:SHOWN_HISTORY]],
                recommended=[
                    Shown(texts.get(row["item_id"], row["item_id"]), row["score"],
                          row["item_id"] in truth)
                    for row in kept.head(SHOWN_ITEMS).iter_rows(named=True)
                ],
                history_length=len(history),
            )
        )  # fmt: skip
    return sample


def _told_sample(told: Any) -> list[Sample]:
    users = told.get("users", []) if isinstance(told, dict) else told
    sample = []
    for k, user in enumerate(users[:SAMPLE_USERS] if isinstance(users, list) else []):
        history = [_shown(item) for item in user.get("history", [])]
        items = user.get("recommended") or user.get("recommendations") or []
        sample.append(
            Sample(
                name=_letter(k),
                history=history[:SHOWN_HISTORY],
                recommended=[_shown(item) for item in items[:SHOWN_ITEMS]],
                history_length=int(user.get("history_length") or len(history)),
            )
        )
    return sample


def _letter(user: int) -> str:
    return f"User {'ABCDEFGH'[user]}"


def _shown(item: Any) -> Shown:
    if isinstance(item, str):
        return Shown(item)
    if isinstance(item, dict):
        title = item.get("title") or item.get("text") or item.get("item_id") or "?"
        hit = item.get("hit", item.get("relevant", False))
        return Shown(str(title), item.get("score"), bool(hit))
    title, *rest = item
    return Shown(str(title), float(rest[0]) if rest else None)


def _finite(kinds: Mapping[str, Any]) -> bool:
    """Whether no embedding of a snapshot diverged."""
    return all(bool(np.isfinite(np.asarray(rows)).all()) for rows in kinds.values())


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _numbers(metrics: Any) -> dict[str, float]:
    told = metrics if isinstance(metrics, dict) else {}
    return {k: number for k, v in told.items() if (number := _number(v)) is not None}


def _first(row: Mapping[str, Any], *names: str) -> float | None:
    return next((v for n in names if (v := _number(row.get(n))) is not None), None)


def _sum(rows: list[dict[str, Any]], column: str) -> float | None:
    values = [row[column] for row in rows if row.get(column) is not None]
    return float(sum(values)) if values else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _table(path: Path) -> pl.DataFrame | None:
    try:
        return pl.read_csv(path, infer_schema_length=None, schema_overrides={"digest": pl.String})
    except (OSError, pl.exceptions.PolarsError):
        return None
