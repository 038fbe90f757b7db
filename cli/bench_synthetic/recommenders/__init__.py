"""Recommenders that are trained on real or synthetic users to judge these."""

from typing import TYPE_CHECKING

from cli.bench_synthetic.names import RECOMMENDERS
from common.errors import SnowdropError

if TYPE_CHECKING:
    from cli.bench_synthetic.recommenders.base import Recommender

PLACES = {
    "svd": "cli.bench_synthetic.recommenders.svd:SVD",
    "mlp": "cli.bench_synthetic.recommenders.mlp:MLP",
    "neumf": "cli.bench_synthetic.recommenders.neumf:NeuMF",
    "popular": "cli.bench_synthetic.recommenders.popular:Popular",
}
"""Where each recommender is, by name."""


def recommender(name: str) -> "type[Recommender]":
    """The class of a recommender.

    Raises
    ------
    SnowdropError
        If there is none of that name.
    """
    from common.methods import load

    if name not in PLACES:
        raise SnowdropError(
            f"recommender '{name}' is unknown; choose from {', '.join(RECOMMENDERS)}"
        )
    found: type[Recommender] = load(PLACES[name])
    return found
