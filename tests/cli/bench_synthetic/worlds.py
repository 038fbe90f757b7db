"""Small folders of users who fall into communities, for tests."""

from pathlib import Path

import numpy as np
import polars as pl

from cli.bench_synthetic.protocol import World


def write_users(
    folder: Path, users: int = 60, items: int = 30, communities: int = 3, seed: int = 0
) -> Path:
    """Write train, test and validation: users like items of their community; some rate low."""
    draws = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        for item in range(items):
            own = item % communities == user % communities
            if draws.random() < (0.6 if own else 0.08):
                rows.append((user, item, int(own and draws.random() < 0.9)))
    frame = pl.DataFrame(rows, ["user_id", "item_id", "liked"], orient="row")
    folder.mkdir(parents=True, exist_ok=True)
    cuts = {"train": (0, 0.7), "test": (0.7, 0.8), "validation": (0.8, 1)}
    for name, (low, high) in cuts.items():
        part = frame.filter((pl.col("user_id") >= low * users) & (pl.col("user_id") < high * users))
        part.write_csv(folder / f"{name}.csv")
    return folder


def small_world(folder: Path, **given: int) -> World:
    """The world of `write_users`."""
    return World.read(write_users(folder, **given))
