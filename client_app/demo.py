"""The users of the generated demo data: interactions drawn from a few tastes of each user."""

import numpy as np
import polars as pl

from common import demo

TASTES = 3
"""Themes that a user likes."""

WANDERING = 0.1
"""Share of interactions with items of any theme."""


def demo_interactions(
    users: int, items: int, per_user: int, seed: int, shared: float = 0.0
) -> pl.DataFrame:
    """``user_id`` and ``item_id`` of generated interactions, each pair once.

    Each user likes `TASTES` themes, to unequal degrees, and interacts with items of these themes,
    popular ones more often; about one interaction in ten is with any item.

    Parameters
    ----------
    users, items, per_user, seed : int
    shared : float
        Share of the users who like themes that go together (`circles`), all three alike. What goes
        together, no text tells: only other users' interactions do.
    """
    rng = np.random.default_rng([seed, 3])
    themes = demo.item_themes(items, seed)
    by_theme = np.argsort(themes, kind="stable")
    counts = np.bincount(themes, minlength=len(demo.THEMES))
    starts = np.cumsum(counts) - counts

    tastes = rng.random((users, len(demo.THEMES)), dtype=np.float32).argpartition(TASTES, axis=1)
    tastes, together = _in_circles(tastes[:, :TASTES], shared, seed)
    per = np.clip(rng.poisson(per_user, users), 5, None)
    user = np.repeat(np.arange(users), per)
    rank = np.minimum(rng.geometric(0.5, len(user)) - 1, TASTES - 1)
    even = np.random.default_rng([seed, 6]).integers(0, TASTES, len(user))
    theme = tastes[user, np.where(together[user], even, rank)]
    popular = rng.random(len(user)) ** 1.5
    liked = by_theme[
        np.minimum(starts[theme] + (popular * counts[theme]).astype(np.int64), items - 1)
    ]
    item = np.where(rng.random(len(user)) < WANDERING, rng.integers(0, items, len(user)), liked)

    ids = pl.Series(demo.item_ids(items))
    width = max(4, len(str(users)))
    return (
        pl.DataFrame({"user": user, "item": item})
        .unique(maintain_order=True)
        .select(
            pl.format("user-{}", pl.col("user").cast(pl.String).str.zfill(width)).alias("user_id"),
            pl.col("item").replace_strict(range(items), ids).alias("item_id"),
        )
    )


def circles(seed: int) -> np.ndarray:
    """Themes that go together, int64 (circles, `TASTES`); each theme is in one circle."""
    themes = np.random.default_rng([seed, 4]).permutation(len(demo.THEMES))
    return themes[: len(themes) // TASTES * TASTES].reshape(-1, TASTES)


def _in_circles(tastes: np.ndarray, shared: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tastes int64 (users, `TASTES`), of a share of the users those of a circle; of whom, bool."""
    rng = np.random.default_rng([seed, 5])
    known = circles(seed)
    drawn = known[rng.integers(0, len(known), len(tastes))]
    together = rng.random(len(tastes)) < shared
    return np.where(together[:, None], drawn, tastes), together
