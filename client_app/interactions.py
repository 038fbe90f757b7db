"""This node's interactions, checked and laid out user by user."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from client_app.demo import demo_interactions
from common import demo
from common.catalogue import (
    COLD_SPLITS,
    CONTROL,
    SPLITS,
    ItemIndex,
    check_ids,
    collect_table,
    find_table,
    scan_table,
)
from common.settings import DEMO, NodeSettings
from common.task import ORDERS, Order
from common.users.ragged import Ragged

log = logging.getLogger("snowdrop.node")

CACHED_NODES = 1024
"""Nodes of one process, as of a simulation, whose data stay in memory between messages."""


@dataclass(frozen=True, eq=False)
class NodeInteractions:
    """The users that take part, in the order of their ids, and their items by split.

    Items of the warm split are rows of the item table, those of a cold split rows of its cold
    table. Users without a warm interaction take no part and are only counted.
    """

    users: tuple[str, ...]
    by_split: dict[str, Ragged]
    users_without_warm: int
    unknown: int
    order: Order = "seeded"
    """The column that says in what order a user's interactions came; 'seeded' where none does."""
    times: np.ndarray | None = None  # float64 (warm interactions,)
    """What that column holds of each warm interaction, NaN where it is no number."""

    @property
    def warm(self) -> Ragged:
        return self.by_split["warm"]

    @cached_property
    def users_digest(self) -> str:
        """Names this set of users in the state store."""
        return digest_of(self.users)


def digest_of(users: Sequence[str]) -> str:
    """Names a set of users in the state store."""
    return hashlib.sha256("\n".join(users).encode()).hexdigest()[:16]


class Staying(Protocol):
    """Tells which users still take part; equal and hashable by what it tells."""

    def staying(self, users: Iterable[str]) -> list[bool]:
        """Whether each of these users still takes part."""
        ...

    def __hash__(self) -> int: ...


def shard_of(users: Sequence[str], shards: int) -> np.ndarray:
    """Node of each user in a simulation: a stable hash of its id modulo ``shards``, int64."""
    raw = b"".join(hashlib.blake2b(user.encode(), digest_size=8).digest() for user in users)
    return (np.frombuffer(raw, "<u8") % np.uint64(shards)).astype(np.int64)


def first_user(path: Path) -> str | None:
    """The user of the first row of an interactions file that has one; None where none has.

    Raises
    ------
    SnowdropError
        If the file is missing or malformed.
    """
    users = scan_table(path, ["user_id"], private=True).drop_nulls().head(1)
    first = collect_table(users, path, private=True)
    return None if first.is_empty() else str(first.item())


def read_interactions(paths: Sequence[Path], timed: bool = False) -> pl.DataFrame:
    """Columns ``user_id`` and ``item_id`` of interactions files, Categorical.

    Parameters
    ----------
    paths : Sequence[Path]
    timed : bool
        Whether a column that tells their order comes too, Float64, where all files have one:
        ``timestamp``, else ``position``. A cell that is no number is null.

    Raises
    ------
    SnowdropError
        On a missing file or column, a row without a user or an item, or an id that holds control
        characters. The error's text never holds a cell of the file.
    """
    ids = ("user_id", "item_id")
    times = time_columns(paths)[:1] if timed else []
    frames = []
    for path in paths:
        fields = scan_table(path, (*ids, *times), private=True)
        fields = fields.select(pl.all().str.strip_chars())
        rows = fields.filter(~pl.all_horizontal(pl.all().is_null()))
        typed = rows.with_columns(
            pl.col(ids).cast(pl.Categorical), pl.col(times).cast(pl.Float64, strict=False)
        )
        frame = collect_table(typed, path, private=True)
        if any(_faulty(frame[name]) for name in ids):
            check_ids(collect_table(fields, path, private=True), path, *ids)
        frames.append(frame)
    return pl.concat(frames)


def time_columns(paths: Sequence[Path]) -> list[str]:
    """Columns that tell an order and that all files have, the best first."""
    there = [set(scan_table(p, private=True).collect_schema().names()) for p in paths]
    return [name for name in ORDERS if all(name in names for names in there)]


def _faulty(ids: pl.Series) -> bool:
    """Whether `check_ids` would find a fault; quick, since each id is looked at once."""
    found = ids.unique().cast(pl.String)
    return bool(found.null_count() or (found == "").any() or found.str.contains(CONTROL).any())


def interaction_files(folder: Path) -> list[Path]:
    """``interactions`` of a data folder, or its ``train``, ``validation`` and ``test``."""
    train = find_table(folder, "train")
    if train.exists():
        return [train, *(find_table(folder, name) for name in COLD_SPLITS)]
    return [find_table(folder, "interactions")]


def arrange(frame: pl.DataFrame, index: ItemIndex) -> NodeInteractions:
    """Interactions laid out user by user; repeated ones count once, unknown items not at all."""
    places = index.frame().select(
        pl.col("item_id").cast(pl.Categorical),
        pl.col("row"),
        pl.col("split").replace_strict(SPLITS, range(len(SPLITS)), return_dtype=pl.Int64),
    )
    ids = pl.col("user_id", "item_id").cast(pl.Categorical)
    placed = frame.with_columns(ids).join(places, on="item_id", how="left")
    known = placed.filter(pl.col("row").is_not_null())
    unknown = placed.filter(pl.col("row").is_null()).select("user_id", "item_id").n_unique()
    users = known.filter(pl.col("split") == 0)["user_id"].unique().cast(pl.String).sort()
    numbers = pl.DataFrame({"user_id": users.cast(pl.Categorical)}).with_row_index("user")
    numbered = known.join(numbers, on="user_id", how="inner")
    user, split, row = (numbered[name].to_numpy() for name in ("user", "split", "row"))
    by_split = {}
    all_pairs = user.astype(np.int64) * len(index.ids) + row
    for code, name in enumerate(SPLITS):
        pairs = np.unique(all_pairs[split == code])
        counts = np.bincount(pairs // len(index.ids), minlength=len(users))
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        by_split[name] = Ragged(offsets, pairs % len(index.ids))
    order: Order = next((name for name in ORDERS if name in frame.columns), "seeded")
    times = None
    if order != "seeded":
        times = _first_times(all_pairs[split == 0], numbered[order].to_numpy()[split == 0])
    return NodeInteractions(
        users=tuple(users.to_list()),
        by_split=by_split,
        users_without_warm=frame["user_id"].n_unique() - len(users),
        unknown=unknown,
        order=order,
        times=times,
    )


def _first_times(pairs: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The earliest time of each pair, float64 (distinct pairs,), in ascending order of pairs."""
    by_time = np.lexsort((times, pairs))  # NaN comes last
    return times[by_time][np.unique(pairs[by_time], return_index=True)[1]]


def _stamp(paths: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    return tuple((s.st_mtime_ns, s.st_size) for s in (p.stat() for p in paths if p.exists()))


@lru_cache(maxsize=1)
def _shares(source: str | Path, stamp: object, partitions: int, seed: int) -> list[pl.DataFrame]:
    """The interactions of each node, read once for all nodes of this process."""
    if source == DEMO:
        frame = demo_interactions(demo.USERS, demo.ITEMS, demo.INTERACTIONS_PER_USER, seed)
    else:
        path = Path(source)
        frame = read_interactions(interaction_files(path) if path.is_dir() else [path], timed=True)
    if partitions == 1:
        return [frame]
    users = frame["user_id"].unique()
    shares = pl.Series("share", shard_of(users.cast(pl.String).to_list(), partitions))
    shared = frame.join(users.to_frame().with_columns(shares), on="user_id", how="left")
    parts = shared.partition_by("share", as_dict=True, include_key=False)
    return [parts.get((share,), frame.clear()) for share in range(partitions)]


@lru_cache(maxsize=CACHED_NODES)
def _load(
    source: str | Path,
    stamp: object,
    partition: int,
    partitions: int,
    seed: int,
    index: ItemIndex,
    among: Staying | None,
) -> NodeInteractions:
    frame = _shares(source, stamp, partitions, seed)[partition]
    if among is not None:
        users = frame["user_id"].unique()
        stay = pl.Series(among.staying(users.cast(pl.String).to_list()), dtype=pl.Boolean)
        frame = frame.join(users.filter(stay).to_frame(), on="user_id", how="semi")
    return arrange(frame, index)


def load_interactions(
    node: NodeSettings, data: str, seed: int, index: ItemIndex, among: Staying | None = None
) -> NodeInteractions:
    """This node's share of the data, read again only when a file has changed.

    Parameters
    ----------
    node : NodeSettings
        With an interactions file, or a partition of ``data``.
    data : str
        The simulation's data folder, or 'demo'.
    seed : int
        Of the demo data.
    index : ItemIndex
        The announced catalogue; the same object gives a cached answer.
    among : Staying, optional
        Which users take part; by default all.
    """
    source = node.interactions or (DEMO if data == DEMO else Path(data))
    if isinstance(source, Path):
        files = interaction_files(source) if source.is_dir() else [source]
        stamp = _stamp(files)
    else:
        stamp = ()
    return _load(source, stamp, node.partition, node.partitions, seed, index, among)
