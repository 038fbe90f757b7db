"""One cell of the tables: a recommender trained on some users, and what it finds for others."""

import math
from typing import TYPE_CHECKING

import torch

from cli.bench_synthetic.names import METRICS, Mode
from cli.bench_synthetic.protocol import (
    Material,
    Rows,
    World,
    blocks,
    user_metrics,
    without,
)
from client_app.synthesis.base import Sample, Watch, unwatched

if TYPE_CHECKING:
    from cli.bench_synthetic.recommenders.base import Recommender


def material(
    world: World,
    recommender: "Recommender",
    mode: Mode,
    sample: Sample | None = None,
    by_search: bool = False,
) -> Material:
    """What a recommender is trained on.

    Parameters
    ----------
    world : World
    recommender : Recommender
    mode : str
        'original': real users; 'augment': real and synthetic ones; 'replace': synthetic ones.
    sample : Sample, optional
        Synthetic users.
    by_search : bool
        See `Material`.
    """
    split = world.split(recommender.counts())
    none = Rows.none(world.items)
    low = without(world.reported.rated, world.reported.likes)[split.users]
    return Material(
        real=none if mode == "replace" else world.real(),
        reported=Rows(split.fold_in, low),
        synthetic=none if sample is None else Rows(sample.likes, sample.dislikes),
        held_out=split.held_out.nnz,
        by_search=by_search,
    )


def evaluate(
    world: World,
    recommender: "Recommender",
    mode: Mode,
    seed: int,
    sample: Sample | None = None,
    by_search: bool = False,
    watch: Watch = unwatched,
) -> dict[str, float]:
    """Metrics of a recommender, means over the reported users.

    Parameters
    ----------
    world, recommender, mode, sample, by_search
        As for `material`.
    seed : int
        Of the recommender.
    watch : Watch

    Raises
    ------
    SnowdropError
        If the recommender cannot be trained.
    """
    recommender.fit(material(world, recommender, mode, sample, by_search), seed, watch)
    split = world.split(recommender.counts())
    sums, counted = dict.fromkeys(METRICS, 0.0), 0
    for rows in blocks(*split.held_out.shape):
        scores = recommender.scores(rows)
        scores[torch.from_numpy(split.fold_in[rows].toarray())] = -math.inf
        held_out = torch.from_numpy(split.held_out[rows].toarray())
        if recommender.drops_unknown:
            held_out &= scores > -math.inf
        values = user_metrics(scores, held_out, recommender.whole_ideal)
        known = held_out.any(1)
        counted += int(known.sum())
        for name in METRICS:
            sums[name] += float(values[name][known].sum())
    return {name: value / max(1, counted) for name, value in sums.items()}
