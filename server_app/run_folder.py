"""The folder of one run: the only code that writes or reads its files.

Imports little, so that a command can look at a run without loading what trains one.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import methods
from common.durable import write_atomic
from common.errors import FormatError, SnowdropError
from common.settings import KS, RunSettings

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

FORMAT = 2
"""Number of the format of these files, written into every JSON object; files without are of 1."""

SETTINGS = "settings.json"
ROUNDS = "rounds.csv"
SUMMARY = "summary.json"
PUBLISHED = "published.json"
NODES = "nodes.json"
USERS = "users.parquet"
EMBEDDINGS = "embeddings.npz"
METRICS_PLOT = "metrics.png"
EMBEDDINGS_PLOT = "embeddings.png"
SAMPLE = "sample.json"
"""The last file that a run of `snowdrop bench` writes."""


def round_columns() -> list[str]:
    """The columns that ``rounds.csv`` always has, in order."""
    from common.metrics import metric_names

    return [
        "round", "users", "loss", "generator_loss",
        *(f"validation_{name}" for name in metric_names(KS)),
        "failed_nodes", "train_seconds", "generator_seconds", "evaluate_seconds", "seconds",
        "node_bytes_down", "node_bytes_up", "bytes_down", "bytes_up",
    ]  # fmt: skip


class RunFolder:
    """The files of one run.

    Every ``write_…`` replaces its file in one step and makes the folder where it is missing. Every
    ``read_…`` returns None where the file is absent (`read_rounds` and `read_embeddings` return
    an empty list and an empty dict).

    Parameters
    ----------
    path : Path
        A run directory, or one run of a comparison.

    Raises
    ------
    SnowdropError
        From every ``write_…`` where the folder cannot be written to; from every ``read_…`` where
        the file is damaged.
    FormatError
        From `read_settings`, `read_summary` and `read_published` where the file was written by a
        later release.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def results(self) -> list[str]:
        """Names of the files that are there for a reader."""
        shown = SUMMARY, ROUNDS, METRICS_PLOT, EMBEDDINGS_PLOT
        return [name for name in shown if (self.path / name).exists()]

    # What is known when a run starts.

    def write_settings(self, settings: RunSettings) -> None:
        """Write ``settings.json``: all settings by their dotted names."""
        self._write_object(SETTINGS, settings.flat())

    def read_settings(self) -> RunSettings | None:
        """Settings of the run, those of an older format under today's names."""
        stored = self._read_object(SETTINGS)
        if stored is None:
            return None
        stored.pop("format")
        try:
            return RunSettings.read(stored)
        except (SnowdropError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise SnowdropError(
                f"{self.path / SETTINGS} holds settings that this release cannot read: {reason}"
            ) from error

    # What grows while it goes on.

    def write_rounds(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write ``rounds.csv``: one row per round.

        Parameters
        ----------
        history : Sequence[Mapping[str, Any]]
            The known columns (`round_columns`) come first, then all others, as a privacy mechanism
            may add them, in the order in which they first appear.
        """
        known = round_columns()
        others = [name for row in history for name in row if name not in known]
        buffer = io.StringIO()
        columns = [*known, *dict.fromkeys(others)]
        writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_atomic(self.path / ROUNDS, buffer.getvalue().encode())

    def read_rounds(self) -> list[dict[str, Any]]:
        """One dict per round; numbers are int or float, empty fields None."""
        content = self._bytes(ROUNDS)
        if content is None:
            return []
        try:
            table = csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)
            if "round" not in (table.fieldnames or ()):
                raise ValueError("no column 'round'")
            return [
                {name: _value(text) for name, text in row.items()} | {"round": int(row["round"])}
                for row in table
            ]
        except (csv.Error, TypeError, ValueError):  # a row that is too long has a list in it
            raise SnowdropError(
                f"{self.path / ROUNDS} is damaged: it must be a CSV table with a column 'round' "
                "that counts rounds"
            ) from None

    def rounds_done(self) -> int:
        """Number of rounds that are finished; 0 where ``rounds.csv`` is absent or damaged."""
        try:
            rounds = self.read_rounds()
        except SnowdropError:
            return 0
        return rounds[-1]["round"] if rounds else 0

    def write_answered(self, answered: Mapping[int, str]) -> None:
        """Write ``nodes.json``: when each node last answered, with what it held already."""
        latest = self.read_answered()
        for node, moment in answered.items():
            latest[str(node)] = max(moment, latest.get(str(node), ""))
        self._write_object(NODES, {"answered": latest})

    def read_answered(self) -> dict[str, str]:
        """When each node last answered, in ISO format, by its id; empty where that is unknown."""
        try:
            answered = (self._read_object(NODES) or {}).get("answered", {})
        except SnowdropError:  # damaged: it is written anew in the next round
            return {}
        return answered if isinstance(answered, dict) else {}

    # What a run has found at its end.

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json``: results as fractions, seconds, megabytes."""
        self._write_object(SUMMARY, summary)

    def read_summary(self) -> dict[str, Any] | None:
        """Results of the run; baselines of an older format get their ``kind`` and ``title``."""
        summary = self._read_object(SUMMARY)
        if summary is None:
            return None
        if summary["format"] == 1:
            summary.setdefault("kind", kind_in_format_1(str(summary.get("method", ""))))
        baselines = summary.get("baselines", {})
        if not isinstance(baselines, dict) or not all(
            isinstance(parts, dict) for parts in baselines.values()
        ):
            raise SnowdropError(f"{self.path / SUMMARY} is damaged: 'baselines' must hold objects")
        summary["baselines"] = {
            name: {"kind": kind_in_format_1(name), "title": name} | parts
            for name, parts in baselines.items()
        }
        return summary

    def write_published(self, published: Mapping[str, Any]) -> None:
        """Write ``published.json``: counts of the last publishing."""
        self._write_object(PUBLISHED, published)

    def read_published(self) -> dict[str, Any] | None:
        """Counts of the last publishing."""
        return self._read_object(PUBLISHED)

    def write_plot(self, name: str, png: bytes) -> None:
        """Write a plot, `METRICS_PLOT` or `EMBEDDINGS_PLOT`."""
        write_atomic(self.path / name, png)

    # What a run of a comparison leaves beside that.

    def write_users(self, users: "pl.DataFrame") -> None:
        """Write ``users.parquet``: one row per test user.

        Parameters
        ----------
        users : DataFrame
            ``user`` (a number), ``history``, ``similarity`` and metrics.
        """
        buffer = io.BytesIO()
        users.write_parquet(buffer)
        write_atomic(self.path / USERS, buffer.getvalue())

    def read_users(self) -> "pl.DataFrame | None":
        """One row per test user."""
        import polars as pl

        content = self._bytes(USERS)
        if content is None:
            return None
        try:
            return pl.read_parquet(io.BytesIO(content))
        except (pl.exceptions.PolarsError, OSError, ValueError):
            raise SnowdropError(
                f"{self.path / USERS} is damaged: it must be a Parquet table"
            ) from None

    def write_embeddings(self, arrays: "Mapping[str, np.ndarray]") -> None:
        """Write ``embeddings.npz``: arrays by name, float32 (items, d)."""
        import numpy as np

        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomic(self.path / EMBEDDINGS, buffer.getvalue())

    def read_embeddings(self) -> "dict[str, np.ndarray]":
        """Arrays by name, float32 (items, d)."""
        from zipfile import BadZipFile

        import numpy as np

        content = self._bytes(EMBEDDINGS)
        if content is None:
            return {}
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (AttributeError, BadZipFile, EOFError, OSError, ValueError):
            raise SnowdropError(
                f"{self.path / EMBEDDINGS} is damaged: it must be an archive of NumPy arrays"
            ) from None

    def write_sample(self, sample: Sequence[Mapping[str, Any]]) -> None:
        """Write ``sample.json``, which makes a run of a comparison whole: write it last.

        Parameters
        ----------
        sample : Sequence[Mapping[str, Any]]
            One mapping per user: ``history`` (titles), ``history_length``, and ``recommended``
            (mappings with ``title``, ``score`` and ``hit``).
        """
        content = json.dumps(list(sample), indent=2, ensure_ascii=False)
        write_atomic(self.path / SAMPLE, content.encode())

    def read_sample(self) -> list[dict[str, Any]] | None:
        """A few users' histories and recommendations."""
        sample = self._read_json(SAMPLE)
        if sample is None:
            return None
        if not isinstance(sample, list) or not all(isinstance(user, dict) for user in sample):
            raise SnowdropError(f"{self.path / SAMPLE} is damaged: it must hold a list of objects")
        return sample

    @property
    def holds_training(self) -> bool:
        """Whether there are checkpoints, which a run goes on from or deletes."""
        return any((self.path / "checkpoint").glob("round-*.ckpt"))

    def refuse_training(self, settings: RunSettings, option: str = "") -> None:
        """Refuse a folder with a training unless the settings say what shall become of it.

        Parameters
        ----------
        settings : RunSettings
        option : str
            What a setting is given with: ``"--set "`` on a command line.

        Raises
        ------
        SnowdropError
            If there are checkpoints, and neither ``resume`` nor ``fresh`` is set.
        """
        if self.holds_training and not (settings.resume or settings.fresh):
            raise SnowdropError(
                f"{self.path} holds a training: {option}resume=true goes on with it, {option}"
                "fresh=true deletes it and begins anew"
            )

    @property
    def is_whole(self) -> bool:
        """Whether a run of a comparison has written all its files."""
        return (self.path / SAMPLE).exists()

    @property
    def is_run(self) -> bool:
        """Whether a run has left anything in the folder."""
        return any((self.path / name).exists() for name in (SUMMARY, ROUNDS))

    def _write_object(self, name: str, values: Mapping[str, Any]) -> None:
        others = {key: value for key, value in values.items() if key != "format"}
        content = json.dumps({"format": FORMAT, **others}, indent=2)
        write_atomic(self.path / name, content.encode())

    def _read_object(self, name: str) -> dict[str, Any] | None:
        """A JSON object with its ``format``."""
        values = self._read_json(name)
        if values is None:
            return None
        path = self.path / name
        if not isinstance(values, dict):
            raise SnowdropError(f"{path} is damaged: it must hold a JSON object")
        number = values.setdefault("format", 1)
        if type(number) is not int or number < 1:
            raise SnowdropError(
                f"{path} is damaged: its format is {number!r}, which must be a whole number from 1"
            )
        if number > FORMAT:
            raise FormatError(
                f"{path} has format {number}, and this release reads formats up to {FORMAT}; use "
                "the release that wrote it, or a later one"
            )
        return values

    def _read_json(self, name: str) -> Any:
        content = self._bytes(name)
        if content is None:
            return None
        try:
            values = json.loads(content)
        except (ValueError, RecursionError):
            raise SnowdropError(f"{self.path / name} is damaged: it must hold JSON") from None
        if values is None:
            raise SnowdropError(f"{self.path / name} is damaged: it holds null")
        return values

    def _bytes(self, name: str) -> bytes | None:
        path = self.path / name
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SnowdropError(f"cannot read {path}: {error.strerror or error}") from error


def kind_in_format_1(method: str) -> str:
    """The kind of a method where files of format 1 do not tell: 'trained', 'rule' or 'floor'."""
    own = methods.cards().get(method)
    return own.kind if own else "trained"  # a method of a card that is there no more, or a control


def _value(text: str | None) -> Any:
    if text is None:
        raise ValueError("a row is too short")
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
