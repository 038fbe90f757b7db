"""Users on which a training stops early: who they are, and how well it does for them."""

from collections.abc import Callable

import torch
from torch import Tensor

from client_app.synthesis.rows import Rows, recall

SCORED = 1024
"""Users that are scored at once."""


def parted(rows: Rows, watched: Rows | None, held_out: float) -> tuple[Rows, Rows | None]:
    """Users to train on, and those that stop the training, if there are any.

    Whoever stops it has two items at least, so that one can be held out. Draws from torch's
    generator.

    Parameters
    ----------
    rows : Rows
        The users of a silo.
    watched : Rows, optional
        Users that stop it; else some of its own do, on whom it is not trained.
    held_out : float
        Share of its own users with two items or more that stop it, where they do.
    """
    device = rows.starts.device
    if watched is not None:
        able = (watched.counts >= 2).nonzero()[:, 0]
        return rows, watched.take(able) if len(able) else None
    able = (rows.counts >= 2).nonzero()[:, 0]
    held = able[torch.randperm(len(able), device=device)][: round(held_out * len(able))]
    if not len(held) or len(held) == len(rows):
        return rows, None
    trained = torch.ones(len(rows), dtype=torch.bool, device=device)
    trained[held] = False
    return rows.take(trained.nonzero()[:, 0]), rows.take(held)


@torch.no_grad()
def watched_recall(scores: Callable[[Rows], Tensor], users: Rows) -> float:
    """Mean Recall@10 of a fifth of each user's items, drawn anew, from the other ones.

    Parameters
    ----------
    scores : Callable[[Rows], Tensor]
        Scores of all items, float32 (users, items), from what some users kept.
    users : Rows
        Each with two items at least.
    """
    found = []
    for chosen in torch.arange(len(users), device=users.starts.device).split(SCORED):
        kept, held = users.take(chosen).cut()
        found.append(recall(scores(kept), kept, held))
    return float(torch.cat(found).mean())
