"""What the cells of the tables are called."""

from typing import Literal

Protocol = Literal["published", "likes"]
Mode = Literal["original", "augment", "replace"]

PROTOCOLS: tuple[Protocol, ...] = ("published", "likes")
MODES: tuple[Mode, ...] = ("augment", "replace")

KS = (1, 3, 5, 10, 20, 50)
METRICS = tuple(f"{metric}@{k}" for metric in ("recall", "ndcg") for k in KS)

ORIGINAL = "original"
"""Real users, the control of every table."""

POPULAR = "popular"
"""The recommender of the most popular items, the floor of every table."""

RECOMMENDERS = ("svd", "mlp", "neumf")
"""Those that a comparison may name; the most popular items come with every comparison."""
