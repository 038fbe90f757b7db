"""One run as the report reads it: each file when a part asks for it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from cli.report.lists import Kept, Sample, told_sample
from common.bar import TRAINED
from common.demo import is_generated
from common.errors import FormatError, SnowdropError
from common.settings import RunSettings
from server_app.checkpoint import newest_state
from server_app.plots import in_two_dimensions
from server_app.run_folder import EMBEDDINGS, ROUNDS, SAMPLE, SETTINGS, SUMMARY, USERS, RunFolder

Points = dict[int, dict[str, np.ndarray]]
"""By round, two-dimensional ``warm`` and ``cold`` points."""

Content = TypeVar("Content")


@dataclass(eq=False)
class Run:
    """One run's folder.

    A file that is damaged counts as absent; ``damaged`` has its name, and ``problems`` a sentence
    on it. A file that a later release wrote is an error.
    """

    folder: RunFolder
    method: str = ""
    seed: str = ""
    kind: str = TRAINED
    problems: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)

    @property
    def path(self) -> Path:
        """Where the run is."""
        return self.folder.path

    @cached_property
    def settings(self) -> RunSettings | None:
        """Its settings."""
        return self._readable(SETTINGS, self.folder.read_settings, None)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Its results; empty while it goes on."""
        return self._readable(SUMMARY, self.folder.read_summary, None) or {}

    @cached_property
    def rounds(self) -> list[dict[str, Any]]:
        """``rounds.csv``: one row per round, empty fields are None."""
        return self._readable(ROUNDS, self.folder.read_rounds, [])

    @property
    def data(self) -> str:
        """Name of the data."""
        name = self.settings.data if self.settings else ""
        return Path(name).name or self.path.name

    @property
    def generated_data(self) -> bool:
        """Whether the interactions are generated, so that no real person is behind them."""
        told = self.summary.get("generated_data")
        if told is not None:
            return bool(told)
        return self.settings is not None and is_generated(self.settings.data)

    @cached_property
    def points(self) -> Points:
        """Snapshots of embeddings in two dimensions."""
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
        """One row per user: ``history``, ``recall@…``, in a comparison ``similarity`` too."""
        if self._told_users is not None:
            return self._told_users if self._told_users.height else None
        return self._kept.recall() if self._kept else None

    @property
    def users_are_kept_lists(self) -> bool:
        """Whether `users` was counted from the lists that nodes keep."""
        return self._told_users is None

    @cached_property
    def sample(self) -> list[Sample]:
        """A few users with titles."""
        told = self._readable(SAMPLE, self.folder.read_sample, None)
        if told:
            return self._readable(SAMPLE, lambda: told_sample(told, self.path), [])
        return self._kept.sample() if self._kept else []

    @cached_property
    def _told_users(self) -> pl.DataFrame | None:
        return self._readable(USERS, self.folder.read_users, None)

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return self._readable(EMBEDDINGS, self.folder.read_embeddings, {})

    @cached_property
    def _snapshots(self) -> dict[int, Any]:
        state = self._readable("checkpoint", lambda: newest_state(self.path / "checkpoint"), None)
        return state["snapshots"] if state else {}

    @cached_property
    def _kept(self) -> Kept | None:
        return Kept.read(self.path, self.settings) if self.settings else None

    def _readable(self, file: str, read: Callable[[], Content], otherwise: Content) -> Content:
        try:
            return read()
        except FormatError:  # what a later release wrote is refused
            raise
        except SnowdropError as error:
            self.problems.append(str(error))
            self.damaged.add(file)
            return otherwise


def _finite(kinds: Mapping[str, Any]) -> bool:
    """Whether no embedding of a snapshot diverged."""
    return all(bool(np.isfinite(np.asarray(rows)).all()) for rows in kinds.values())
