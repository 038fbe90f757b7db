"""The best new items of every user, made and kept on the node."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from client_app.evaluation import HeadScorer, membership, user_chunks
from client_app.interactions import NodeInteractions, Ragged
from client_app.scoring import State
from common.durable import write_atomic
from common.errors import SnowdropError
from common.metrics import rank
from common.settings import TrainingSettings

FILE = "recommendations.parquet"


def recommend(
    data: NodeInteractions,
    state: State,
    cold: Tensor,
    ids: list[str],
    top: int,
    settings: TrainingSettings,
    folder: Path,
    seen: Ragged | None = None,
) -> int:
    """Rank the cold items for every user and keep the best on disk.

    Parameters
    ----------
    data : NodeInteractions
    state : State
        Heads, float32 (users, …).
    cold : Tensor, float32 (cold, d)
    ids : list[str]
        Ids of the cold items, in the order of ``cold``.
    top : int
        Items kept for each user.
    settings : TrainingSettings
    folder : Path
        The node's state folder.
    seen : Ragged, optional
        Rows of ``cold`` that each user knows already; they are left out.

    Returns
    -------
    int
        Number of users with a list: those that do not know every item already.
    """
    scorer = HeadScorer(state, cold, settings)
    tie_order = torch.from_numpy(np.argsort(np.argsort(np.asarray(ids))))
    user_ids, item_ids = pl.Series(data.users, dtype=pl.String), pl.Series(ids, dtype=pl.String)
    frames, served = [], 0
    for users in user_chunks(np.arange(len(data.users)), len(ids)):
        logits = scorer(users)
        if seen is not None:
            logits = logits.masked_fill(membership(seen.take(users), len(ids)), -torch.inf)
        best = rank(logits, tie_order, top)
        scores = logits.gather(1, best)
        shown = best.shape[1]
        served += int(scores.isfinite().any(1).sum())
        frames.append(
            pl.DataFrame(
                {
                    "user_id": user_ids.gather(np.repeat(users, shown)),
                    "rank": np.tile(np.arange(1, shown + 1, dtype=np.int32), len(users)),
                    "item_id": item_ids.gather(best.flatten().numpy()),
                    "score": scores.flatten().sigmoid().numpy(),
                }
            ).filter(pl.Series(scores.isfinite().flatten().numpy()))
        )
    if not frames:
        (folder / FILE).unlink(missing_ok=True)
        return 0
    buffer = io.BytesIO()
    pl.concat(frames).write_parquet(buffer)
    write_atomic(folder / FILE, buffer.getvalue())
    return served


def read_recommendations(folder: Path, user: str) -> pl.DataFrame | None:
    """A user's kept list, best first, or None where this node does not have that user.

    Raises
    ------
    SnowdropError
        If the node has not kept any recommendations yet.
    """
    path = folder / FILE
    if not path.exists():
        raise SnowdropError(f"{path} is missing: no recommendations were made here yet")
    frame = pl.scan_parquet(path).filter(pl.col("user_id") == user).sort("rank").collect()
    return frame if frame.height else None
