"""Did this user interact with this item? Scores of that for pairs of a user and an item.

Members are interactions of users; others are items that the same user has not interacted with and
that are as popular, so that popularity alone tells nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from cli.attack.seen import Seen
from client_app.synthesis.attacks import Roc, roc
from common.privacy import Cost, cost_of
from common.settings import TrainingSettings
from common.users.item_sums import unpacked

RESAMPLES = 500
_LEAST = 2


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a user and an item, half of them interactions.

    Parameters
    ----------
    users, items : ndarray, int64 (pairs,)
    members : ndarray, bool (pairs,)
    known : Sequence[ndarray]
        Of each user, interactions that the attacker knows beside, int64; none of them is asked for.
    """

    users: np.ndarray
    items: np.ndarray
    members: np.ndarray
    known: Sequence[np.ndarray]


def pairs_of(histories: Sequence[np.ndarray], items: int, seed: int, knows: bool = True) -> Pairs:
    """Pairs of all users, with items of equal popularity.

    Parameters
    ----------
    histories : Sequence[ndarray]
    items : int
    seed : int
    knows : bool
        Whether the attacker knows half of each history, of which nothing is asked; users with one
        interaction are then left out.
    """
    rng = np.random.default_rng([seed, 13])
    owned = np.concatenate([*histories, np.zeros(0, np.int64)])
    popularity = np.bincount(owned, minlength=items) + 0.5 * rng.random(items)  # ties at random
    by_popularity = np.argsort(popularity, kind="stable")
    place = np.argsort(by_popularity)
    users, asked, members, known = [], [], [], []
    for user, history in enumerate(histories):
        mixed = rng.permutation(history)
        half = len(mixed) // 2 if knows else 0
        known.append(np.sort(mixed[:half]))
        if knows and len(history) < _LEAST:
            continue
        free = np.setdiff1d(np.arange(items), history)
        for item in mixed[half:]:
            if not len(free):
                break
            near = int(np.argmin(np.abs(place[free] - place[item])))
            users += [user, user]
            asked += [int(item), int(free[near])]
            members += [True, False]
            free = np.delete(free, near)
    return Pairs(np.array(users, np.int64), np.array(asked, np.int64),
                 np.array(members, dtype=bool), known)  # fmt: skip


def scores_of_updates(rounds: Sequence[Seen], warm: int, known: np.ndarray) -> np.ndarray:
    """How much each item's row moves as those of the known interactions do, float64 (warm,).

    Both are multiples of the user's scoring head, so that their inner product is positive for an
    interaction; noise is averaged over rounds and rows.

    Parameters
    ----------
    rounds : Sequence[Seen]
        Of the node, or of all nodes.
    warm : int
    known : ndarray, int64 (known,)
    """
    total = np.zeros(warm)
    for seen in rounds:
        if "gram" in seen.sums:
            total += unpacked(seen.sums["gram"].astype(np.float64), warm)[:, known].sum(1)
            continue
        rows = seen.sums.get("change", seen.sums.get("sketch"))
        if rows is None:
            continue
        rows = rows.reshape(-1, warm, rows.shape[-1]).sum(0, dtype=np.float64)
        size = np.linalg.norm(rows, axis=1, keepdims=True)
        units = rows / np.where(size > 0, size, 1)
        total += units @ units[known].sum(0)
    return total


def shares_of_rankings(places: np.ndarray, recalls: np.ndarray, cuts: Sequence[int]) -> np.ndarray:
    """Σ_u 1[u has the item] / (items of u), from recalls of known rankings, float64 (items,).

    Parameters
    ----------
    places : ndarray, int64 (rankings, items)
        Place of each item in each ranking, from 0.
    recalls : ndarray, float64 (rankings, cuts)
        Sums of Recall@k over the users of a node.
    cuts : Sequence[int]
    """
    within = np.concatenate([places < cut for cut in cuts]).astype(np.float64)
    shares: np.ndarray = nnls(within, recalls.T.flatten())[0]
    return shares


def scores_of_table(made: np.ndarray, known: Sequence[np.ndarray], pairs: Pairs) -> np.ndarray:
    """Cosine of an item to the mean of a user's known items, float64 (pairs,).

    Parameters
    ----------
    made : ndarray, float (warm, d)
        Rows of the warm items, as far as they can be told from what is released.
    known : Sequence[ndarray]
    pairs : Pairs
    """
    units = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
    means = np.stack([units[own].sum(0) for own in known])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return np.asarray((units[pairs.items] * means[pairs.users]).sum(1), dtype=np.float64)


def carried_over(cold: np.ndarray, cold_features: np.ndarray, warm_features: np.ndarray,
                 ridge: float = 10.0) -> np.ndarray:  # fmt: skip
    """Embeddings of the warm items by a linear map that is fitted to the released cold ones.

    Parameters
    ----------
    cold : ndarray, float (cold, d)
    cold_features : ndarray, float (cold, c)
    warm_features : ndarray, float (warm, c)
    ridge : float
    """
    mean = cold_features.mean(0)
    x = cold_features - mean
    weights = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ (cold - cold.mean(0)))
    return np.asarray((warm_features - mean) @ weights)


def judged(scores: np.ndarray, pairs: Pairs, seed: int) -> Roc:
    """The curve of an attack, whose interval is a bootstrap over users.

    Pairs of one user are not independent; users are.

    Parameters
    ----------
    scores : ndarray, float64 (pairs,)
    pairs : Pairs
    seed : int
    """
    found = roc(scores[pairs.members], scores[~pairs.members])
    rng = np.random.default_rng([seed, 17])
    places = {user: np.flatnonzero(pairs.users == user) for user in np.unique(pairs.users)}
    own = list(places.values())
    areas = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([own[k] for k in rng.integers(0, len(own), len(own))])
        areas.append(area(scores[drawn], pairs.members[drawn]))
    low, high = np.quantile(areas, [0.025, 0.975])
    return replace(found, low=float(low), high=float(high))


def area(scores: np.ndarray, members: np.ndarray) -> float:
    """Area under the curve: how often a member has a higher score than another, ties half."""
    others = np.sort(scores[~members])
    below = np.searchsorted(others, scores[members], side="left")
    upto = np.searchsorted(others, scores[members], side="right")
    return float((below + upto).mean() / (2 * len(others)))


def bound_of(settings: TrainingSettings, rounds: int, by_server: bool) -> float | None:
    """The largest AUC that ε of so many rounds leaves to any attack; None where there is no ε.

    Of two values of a user, who is there in either case; drawing users is not counted.

    Parameters
    ----------
    settings : TrainingSettings
    rounds : int
    by_server : bool
        Whether it is the server that attacks, from whom its own noise hides nothing.
    """
    cost = cost_of(settings)
    if cost is None or (by_server and settings.noise_by == "server"):
        return None
    of_all = Cost(rounds * cost.pure, rounds * cost.gaussian)
    return of_all.of_substitution(settings).auc_bound()


def as_json(found: Roc) -> Mapping[str, float | int]:
    """What ``attack.json`` holds of a curve."""
    return {
        "auc": found.auc,
        "low": found.low,
        "high": found.high,
        "caught": found.caught,
        "members": found.members,
        "others": found.others,
    }
