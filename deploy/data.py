"""Sharing out a data folder: items to the server, each user's interactions to one node."""

import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from client_app.interactions import shard_of
from common.durable import write_atomic
from common.errors import SnowdropError


def share(
    items: pl.DataFrame, interactions: pl.DataFrame, folder: Path, nodes: Sequence[str]
) -> dict[str, int]:
    """Write ``server/data/items.csv`` and each node's ``data/interactions.csv``.

    Parameters
    ----------
    items : DataFrame
        ``item_id``, text columns, optionally ``split``; all strings.
    interactions : DataFrame
        ``user_id``, ``item_id``, as strings.
    folder : Path
        The federation's folder.
    nodes : Sequence[str]
        Names of the nodes; the k-th one has the users whose stable hash modulo n is k.

    Returns
    -------
    dict[str, int]
        Users of each node.

    Raises
    ------
    SnowdropError
        If a file cannot be written.
    """
    if not nodes:
        raise SnowdropError("the federation has no nodes to share data with; add one")
    users = interactions["user_id"].unique().sort()
    shards = pl.DataFrame({"user_id": users, "shard": shard_of(users.to_list(), len(nodes))})
    placed = interactions.join(shards, on="user_id", how="left", maintain_order="left")
    _write(folder / "server" / "data" / "items.csv", items)
    for number, name in enumerate(nodes):
        mine = placed.filter(pl.col("shard") == number).drop("shard")
        _write(folder / "nodes" / name / "data" / "interactions.csv", mine)
    counts = dict(shards["shard"].value_counts().iter_rows())
    return {name: counts.get(number, 0) for number, name in enumerate(nodes)}


def _write(path: Path, frame: pl.DataFrame) -> None:
    buffer = io.BytesIO()
    frame.write_csv(buffer)
    write_atomic(path, buffer.getvalue())
