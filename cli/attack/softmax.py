"""Histories from the gradients of a softmax over all items, read by a server that only listens.

What a user changes (`common.users.softmax`) is the same vector on each row of the context, and a
multiple of the user's head on every other row: positive for a target, negative for the rest. So the
rows of k users have rank 2k, and most of them lie in the k dimensions of the heads. What is left of
the others outside of these dimensions is one vector for each user, by which the contexts are told
apart. A context gives the user's head, since the server knows the item table. The shares of the
heads in a row tell whose target it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from cli.attack.seen import Seen

SENT = frozenset({"table", "log_scale"})
"""What nodes are sent where users answer with gradients of a softmax."""

_GAP = 30.0
"""Least ratio of the last singular value that is a user's and the first that is rounding."""
_MOVED = 1e-9
"""Least length of a row that is not rounding alone, as a share of the longest."""
_OUTSIDE = 1e-3
"""Least share of a row outside of the dimensions of the heads, for a row of a context."""
_ALIKE = 1e-3
"""Most that two rows of one context differ by, as a share of the longer one."""
_WHOLE = 0.05
"""Most that a membership, 0 or 1, is off."""
_FITS = 1e-3
"""Most of a head that is left outside of the dimensions of all heads."""
_MISCOUNTED = 0.2
"""Most that the number of targets is off from what the shares make it, as a share of that."""
_SCORED = 1e-6
"""Least share of a head in a row that its user scores, as a multiple of its largest."""
_STEPS = 100
_COLLAPSED = 1e-10


@dataclass(frozen=True, eq=False)
class Gradients:
    """The sum of some users' gradients, in the 2k dimensions that it has.

    Parameters
    ----------
    places : ndarray, float64 (warm, 2k)
        Rows, as multiples of ``axes``.
    axes : ndarray, float64 (2k, d)
    users : int
        k, who have two interactions or more.
    """

    places: np.ndarray
    axes: np.ndarray
    users: int


def histories_in(seen: Seen) -> list[np.ndarray]:
    """Histories of the users of one sum, int64 (interactions,) each.

    Empty where the sum is not one of gradients of a softmax, where noise covers it, and where its
    users are more than half as many as the table has dimensions. Users whose context does not fit
    their head are left out.

    Parameters
    ----------
    seen : Seen
        With ``change`` and what nodes were sent, `SENT`.
    """
    gradients = taken_apart(seen.sums["change"].astype(np.float64), seen.users)
    if gradients is None:
        return []
    table = seen.sent["table"].astype(np.float64)
    of_heads = _commonest_dimensions(gradients.places, gradients.users)
    axes = np.linalg.qr(gradients.axes.T @ of_heads)[0]
    outside = gradients.places - gradients.places @ of_heads @ of_heads.T
    contexts, heads = [], []
    for context in filter(len, contexts_of(outside, gradients.users)):
        head = table[context].mean(0)
        head /= np.linalg.norm(head) or 1.0
        if np.linalg.norm(head - axes @ (axes.T @ head)) < _FITS:
            contexts.append(context)
            heads.append(head)
    if not heads:
        return []
    known = np.stack(heads)
    every = np.concatenate([known, _missing(known, axes)])
    shares = (gradients.places @ gradients.axes @ np.linalg.pinv(every))[:, : len(heads)]
    weights = np.exp(np.exp(float(seen.sent["log_scale"][0, 0])) * table @ known.T)
    targets = targets_of(shares, weights, contexts)
    return [np.union1d(*both) for both in zip(contexts, targets, strict=True)]


def _missing(heads: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """What the dimensions of all heads have beside the known heads, float64 (k − users, d).

    Parameters
    ----------
    heads : ndarray, float64 (users, d)
    axes : ndarray, float64 (d, k)
    """
    left = axes.T - axes.T @ np.linalg.pinv(heads) @ heads
    return np.asarray(np.linalg.svd(left, full_matrices=False)[2][: axes.shape[1] - len(heads)])


def taken_apart(change: np.ndarray, users: int) -> Gradients | None:
    """A sum in as many dimensions as it has, twice the number of its users; None: not told.

    Parameters
    ----------
    change : ndarray, float64 (warm, d)
    users : int
        At most so many are in it.
    """
    most = 2 * min(users, min(change.shape) // 2 - 1)
    if most < 2 or not np.isfinite(change).all() or not change.any():
        return None
    frame = _row_space(change, most + 16)
    left, sizes, right = np.linalg.svd(change @ frame, full_matrices=False)
    ranks = np.arange(2, most + 1, 2)
    gaps = sizes[ranks - 1] / np.maximum(sizes[ranks], 1e-12 * sizes[0])
    if gaps.max() < _GAP:
        return None
    rank = int(ranks[gaps.argmax()])
    return Gradients(left[:, :rank], sizes[:rank, None] * (right[:rank] @ frame.T), rank // 2)


def _row_space(matrix: np.ndarray, dimensions: int) -> np.ndarray:
    """Columns that span most of the rows, orthonormal, float64 (d, at most ``dimensions``).

    Halko, Martinsson and Tropp, "Finding structure with randomness", arXiv 0909.4061, algorithm
    4.4 with one step; exact for rows of fewer dimensions.
    """
    if dimensions >= matrix.shape[1]:
        return np.eye(matrix.shape[1])
    drawn = np.random.default_rng(0).normal(size=(len(matrix), dimensions))
    frame = np.linalg.qr(matrix.T @ drawn)[0]
    return np.asarray(np.linalg.qr(matrix.T @ (matrix @ frame))[0])


def _commonest_dimensions(rows: np.ndarray, dimensions: int) -> np.ndarray:
    """The subspace that holds more than half of the rows exactly, float64 (n, ``dimensions``).

    Tyler's M-estimator of a covariance finds it (Zhang, "Robust subspace recovery by Tyler's
    M-estimator", arXiv 1206.1386): its other eigenvalues fall to nothing.

    Parameters
    ----------
    rows : ndarray, float64 (rows, n)
    """
    sizes = np.linalg.norm(rows, axis=1)
    moved = sizes > _MOVED * sizes.max()
    units = rows[moved] / sizes[moved, None]
    width = units.shape[1]
    covariance = np.eye(width) / width
    for _ in range(_STEPS):
        inverse = np.linalg.inv(covariance + 1e-14 * np.eye(width))
        weights = 1 / np.maximum(np.einsum("ij,ij->i", units @ inverse, units), 1e-300)
        covariance = (units * weights[:, None]).T @ units
        covariance /= np.trace(covariance)
        values, vectors = np.linalg.eigh(covariance)
        if values[-dimensions - 1] < _COLLAPSED * values[-dimensions]:
            break
    return np.asarray(vectors[:, -dimensions:])


def contexts_of(outside: np.ndarray, users: int) -> list[np.ndarray]:
    """Items of each user's context, int64; empty where it is not found.

    Parameters
    ----------
    outside : ndarray, float64 (warm, n)
        What the heads leave of each row: the sum of one vector for each user in whose context the
        item is.
    users : int
    """
    sizes = np.linalg.norm(outside, axis=1)
    items = np.flatnonzero(sizes > _OUTSIDE * sizes.max())
    rows, sizes = outside[items], sizes[items]
    close = cdist(rows, rows) < _ALIKE * np.maximum(sizes[:, None], sizes)
    count, label = connected_components(csr_array(close), directed=False)
    alike = np.bincount(label, minlength=count)
    means = np.stack([np.bincount(label, column) for column in rows.T], 1) / alike[:, None]
    # Rows of one user alone come before sums of several: there are more of them, or they are short.
    order = np.lexsort((np.linalg.norm(means, axis=1), -alike))
    chosen = means[order[_independent(means[order], users)]]
    members = rows @ np.linalg.pinv(chosen)
    told = (np.abs(members - members.round().clip(0, 1)) < _WHOLE).all(1)
    return [items[told & (own > 0.5)] for own in members.T]


def _independent(rows: np.ndarray, most: int) -> list[int]:
    """Places of the first rows, at most ``most``, of which none is a combination of those before.

    Parameters
    ----------
    rows : ndarray, float64 (rows, n)
    """
    chosen: list[int] = []
    basis = np.zeros((0, rows.shape[1]))
    for place, row in enumerate(rows):
        left = row - basis.T @ (basis @ row)
        left -= basis.T @ (basis @ left)
        if np.linalg.norm(left) > _OUTSIDE * np.linalg.norm(row):
            basis = np.concatenate([basis, left[None] / np.linalg.norm(left)])
            chosen.append(place)
        if len(chosen) == most:
            break
    return chosen


def targets_of(
    shares: np.ndarray, weights: np.ndarray, contexts: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Items of each user's targets, int64.

    An item that is no target has a share of −q times its weight in the softmax, with the same q for
    all items of a user. A target has the same number c more than that, and of n targets, q times
    the sum of all weights is n c. On a row of somebody's context stands his own vector besides, of
    which the shares are the same on all rows. Nothing is told of a user whose targets are not n.

    Parameters
    ----------
    shares : ndarray, float64 (warm, users)
        Of each user's head in each row.
    weights : ndarray, float64 (warm, users)
        exp z of each item in the softmax of each user.
    contexts : Sequence[ndarray]
        Of each user.
    """
    member = np.zeros(shares.shape, dtype=bool)
    for user, context in enumerate(contexts):
        member[context, user] = True
    owners = member.sum(1)
    scored = np.abs(shares) > _SCORED * np.abs(shares).max(0)
    more, least, number = np.zeros(shares.shape), *np.zeros((2, len(contexts)))
    of_context = np.full((len(contexts), len(contexts)), np.nan)
    for user in range(len(contexts)):
        usual = scored[:, user] & (owners == 0)
        more[:, user], q, c = _above_negatives(shares[:, user], weights[:, user], usual)
        if c > 0:
            least[user] = c / 2
            number[user] = q * weights[scored[:, user] & ~member[:, user], user].sum() / c
    for user in range(len(contexts)):
        alone = member[:, user] & (owners == 1)
        if alone.any():
            of_context[user] = np.quantile(more[alone], 0.5, axis=0, method="lower")
    elsewhere = member[:, np.isnan(of_context).any(1)].sum(1) > 0
    more -= member @ np.nan_to_num(of_context)
    target = ~member & (scored | (owners > 0)[:, None]) & (more > least)
    target[elsewhere] = False
    fits = (least > 0) & (np.abs(target.sum(0) - number) <= _MISCOUNTED * number + 0.5)
    return [np.flatnonzero(own) for own in (target & fits).T]


def _above_negatives(
    share: np.ndarray, weight: np.ndarray, usual: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """What a user's shares have more than those of items that are no targets; q; and c.

    Parameters
    ----------
    share, weight : ndarray, float64 (warm,)
        As `targets_of` has them, of one user.
    usual : ndarray, bool (warm,)
        Rows in nobody's context that the user scores; most are of no target.
    """
    if not usual.any():
        return np.zeros(len(share)), 0.0, 0.0
    q = float(np.median(-share[usual] / weight[usual]))
    more = share + q * weight
    largest = more[usual].max()
    clear = more[usual & (more > largest / 2)]
    return more, q, float(np.median(clear)) if largest > 0 else 0.0
