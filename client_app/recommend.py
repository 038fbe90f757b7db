"""The best new items of every user, made and kept on the node."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from client_app.interactions import NodeInteractions
from client_app.lists import FILE, keep
from client_app.ranking import user_chunks
from client_app.scorers import Scorer
from client_app.tasks import membership
from common.metrics import rank, tie_order
from common.users.ragged import Ragged


def recommend(
    data: NodeInteractions,
    scorer: Scorer,
    ids: list[str],
    top: int,
    folder: Path,
    seen: Ragged | None = None,
) -> int:
    """Rank the cold items for every user and keep the best on disk.

    Parameters
    ----------
    data : NodeInteractions
    scorer : Scorer
        Scores of the cold items.
    ids : list[str]
        Ids of the cold items, in the scorer's order.
    top : int
        Items kept for each user.
    folder : Path
        The node's state folder.
    seen : Ragged, optional
        Cold items that each user knows already; they are left out.

    Returns
    -------
    int
        Number of users with a list: those that do not know every item already.
    """
    order = tie_order(ids)
    user_ids, item_ids = pl.Series(data.users, dtype=pl.String), pl.Series(ids, dtype=pl.String)
    frames, served = [], 0
    for users in user_chunks(np.arange(len(data.users)), len(ids)):
        raw = scorer(users)
        if seen is not None:
            raw = raw.masked_fill(membership(seen.take(users), len(ids)), -torch.inf)
        best = rank(raw, order, top)
        scores = raw.gather(1, best)
        shown = best.shape[1]
        served += int(scores.isfinite().any(1).sum())
        frames.append(
            pl.DataFrame(
                {
                    "user_id": user_ids.gather(np.repeat(users, shown)),
                    "rank": np.tile(np.arange(1, shown + 1, dtype=np.int32), len(users)),
                    "item_id": item_ids.gather(best.flatten().numpy()),
                    "score": (scores.sigmoid() if scorer.logits else scores).flatten().numpy(),
                }
            ).filter(pl.Series(scores.isfinite().flatten().numpy()))
        )
    if not frames:
        (folder / FILE).unlink(missing_ok=True)
        return 0
    keep(pl.concat(frames), folder / FILE)
    return served
