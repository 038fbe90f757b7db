"""What a node is sent, and the sums over all users that it can compute from that.

Whoever holds a node sees all messages to it: the item table of each round, of which two in a row
differ by what the users of all nodes changed, or the directions of a sum of pairs and how much each
counts. So secure sums hide nothing from a node that the server sends on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from flwr.app import Message

from cli.attack.federation import ALL, FIRST, Federation, name_of
from cli.attack.histories import Known, Reading, read
from cli.attack.seen import Seen
from cli.attack.spanned import AXES, SIZES
from cli.attack.verdict import Verdict, judge
from common import messages
from common.users.item_sums import packed

BY_NODE = "another node: "
"""Before the names of attacks."""

_REQUESTS: Mapping[str, type[messages.OfTraining]] = {
    messages.TRAIN: messages.TrainRequest,
    messages.QUERY_RECOMMEND: messages.RecommendRequest,
}
_OWN = 0.5
"""Share of a claim in a history of the node's own users above which it is dropped as known."""


def by_another_node(federation: Federation) -> list[Verdict]:
    """Verdicts on what the first node reads of the users of all others; none if it is alone.

    Parameters
    ----------
    federation : Federation
        That has trained, and recommended.
    """
    truth = federation.truth()
    own = truth.pop(name_of(FIRST))
    others = [history for people in truth.values() for history in people]
    if not others:
        return []
    warm = len(federation.training.index.rows("warm"))
    known = Known.of(federation.settings, warm)
    if federation.settings.noise_by == "server":  # what nodes are sent carries it, too
        known = replace(known, noise_of_sum=federation.settings.gaussian_scale)
    seen, known = sums_of(
        federation.grid.heard, federation.settings.server_lr, len(own + others), known
    )
    return [
        judge(
            replace(one, attack=f"{BY_NODE}{one.attack}", people=_of_others(one, own)),
            {ALL: others},
        )
        for one in read(seen, known)
        if not one.anybody
    ]


def _of_others(reading: Reading, own: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Claims that are not about the node's own users, whom it knows."""

    def is_own(claim: np.ndarray) -> bool:
        return any(len(np.intersect1d(claim, one)) > _OWN * len(claim) for one in own)

    return {
        source: [claim for claim in claims if not is_own(claim)]
        for source, claims in reading.people.items()
    }


def sums_of(
    heard: Sequence[Message], server_lr: float, users: int, known: Known
) -> tuple[list[Seen], Known]:
    """Sums over all users that follow from what a node was sent.

    Parameters
    ----------
    heard : Sequence[Message]
        To one node, in order.
    server_lr : float
        Step size of the server.
    users : int
        Of all nodes, which is public.
    known : Known

    Returns
    -------
    seen : list[Seen]
    known : Known
        With what rounding adds to the noise of these sums.
    """
    tables: list[np.ndarray] = []
    sent: messages.Arrays = {}
    for message in heard:
        kind = message.metadata.message_type
        if kind not in _REQUESTS or not message.has_content():
            continue
        arrays: messages.Arrays = _REQUESTS[kind].from_record(message.content).arrays  # type: ignore[attr-defined]
        sent |= arrays
        if "table" in arrays:
            tables.append(arrays["table"])
    if len(tables) > 1 and server_lr:
        return _of_tables(tables, server_lr, users, known)
    if "axes" in sent:
        return [_of_directions(sent, users)], known
    return [], known


def _of_tables(
    tables: Sequence[np.ndarray], server_lr: float, users: int, known: Known
) -> tuple[list[Seen], Known]:
    """The sum of changes of each round but the last, from the item tables of two rounds."""
    scale = users / server_lr
    seen = [
        Seen(ALL, number, users, {"change": (after.astype(np.float64) - before) * scale})
        for number, (before, after) in enumerate(pairwise(tables), 1)
    ]
    largest = max(float(np.abs(table).max()) for table in tables)
    rounding = scale * largest * float(np.finfo(tables[0].dtype).eps)
    return seen, replace(known, noise_of_sum=known.noise_of_sum + rounding)


def _of_directions(sent: messages.Arrays, users: int) -> Seen:
    """The sum of pairs Σ_u x_u x_uᵀ / n_u, or its sketch.

    The mean is A diag(s) Aᵀ. Nodes are sent A and f = s / (s + λ) with the same λ for all s, so
    that f / (1 − f) is s up to a factor; the mean of parts x xᵀ / n has a trace of 1. A sketch
    Y = G Q, with Q as nodes are sent it, is that of this estimate of G, up to a factor.
    """
    axes = sent["axes"].astype(np.float64)
    gains = sent["gains"][0].astype(np.float64)
    sizes = gains / (1 - gains)
    sizes *= users / (sizes.sum() or 1.0)
    if "basis" in sent:
        sketch = (axes * sizes) @ (axes.T @ sent["basis"].astype(np.float64))
        return Seen(ALL, 1, users, {"sketch": sketch}, {AXES: axes, SIZES: sizes})
    gram = packed((axes * sizes) @ axes.T)
    return Seen(ALL, 1, users, {"gram": gram}, {AXES: axes, SIZES: sizes})
