"""Histories from the sums of training rounds, read by a server that only listens.

With one local step, a user's change of a row of the item table is a multiple of the user's scoring
head: positive for an interaction and negative for an item that was drawn as a negative (the
gradient of equation 1 is (σ − y) w). So the rows of one user are parallel, those that nobody else
touched stand out in any crowd, and which of the two signs means interactions is told by their
numbers, and by what is touched again in every round. Over several rounds, directions add up to
those of the people who interacted with an item, even where no row is one user's alone.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import binom, poisson

from cli.attack.seen import Seen, by_source
from cli.attack.softmax import SENT, histories_in
from cli.attack.spanned import AXES, SIZES, people_in_span
from common.settings import TrainingSettings
from common.users.item_sums import unpacked

DIRECTIONS = "directions of rows"
MEANS = "mean directions over rounds"
TOUCHES = "touches over rounds"
PAIRS = "sum of pairs"
SOFTMAX = "rows of a softmax"
SPANNED = "histories in few directions"

_PARALLEL = 1e-6
"""Most that 1 − |cosine| of two rows of one user comes to: float32 leaves no more."""
_LEAST_ROWS = 2
_SURE = 30.0
"""Log odds at most that one row may add."""
_EXPLAINED = 1e-4
"""Most of a row that known heads may leave unexplained, as a share of its norm."""
_WORST_CONDITION = 1e3
_MOST_OWNERS = 40
_MOST_ITEMS = 6_000
"""Items whose mean directions are compared with one another."""
_CLEAR = 2.0
"""Square of a mean direction's length over its variance, above which it is no accident."""
_ALIKE = 0.5
"""Least cosine, on average, of mean directions of one person's items."""
_PRESENT = 0.4
"""Least share of a head in an owner's item, as a multiple of its usual share."""
_BLURRED = 0.3
"""The same at most where noise blurs rows."""


@dataclass(frozen=True)
class Known:
    """What the server knows, since it chose it.

    Parameters
    ----------
    warm : int
        Warm items.
    negatives : int
        Drawn for each interaction.
    fraction : float
        Share of users that train in a round.
    noise : float
        Standard deviation of the noise that nodes add for one user to each number.
    noise_of_sum : float
        The same of the noise that nodes add together, at least.
    """

    warm: int
    negatives: int
    fraction: float
    noise: float
    noise_of_sum: float = 0.0

    @classmethod
    def of(cls, settings: TrainingSettings, warm: int) -> "Known":
        noise = settings.laplace_scale * np.sqrt(2)
        if settings.noise_by == "nodes":
            noise = max(noise, settings.gaussian_scale)
        of_sum = settings.gaussian_scale if settings.noise_by == "sum" else 0.0
        return cls(warm, settings.negatives, settings.fraction, float(noise), of_sum)

    def noise_in(self, users: int) -> float:
        """Standard deviation of the noise of each number of a sum over users."""
        return self.noise * users**0.5 + self.noise_of_sum


@dataclass(frozen=True, eq=False)
class Reading:
    """What one attack claims.

    Parameters
    ----------
    attack : str
    people : Mapping[str, Sequence[ndarray]]
        By source, the items that it ties together as one person's, int64 each.
    anybody : Mapping[str, ndarray]
        By source, items that somebody there interacted with, int64; where it names no people.
    told : str
        A few words, such as why it failed.
    """

    attack: str
    people: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    anybody: Mapping[str, np.ndarray] = field(default_factory=dict)
    told: str = ""


def read(seen: Sequence[Seen], known: Known) -> list[Reading]:
    """All that the attacks of this file read out of sums, whoever's they are.

    Parameters
    ----------
    seen : Sequence[Seen]
        Of all rounds and sources.
    known : Known
    """
    sources = by_source(seen)
    readings = []
    if any(one.sent.keys() >= SENT for one in seen):
        people = {source: people_in_softmax(rounds, known) for source, rounds in sources.items()}
        readings.append(Reading(SOFTMAX, people))
    if any("change" in one.sums for one in seen):
        people = {source: people_in_changes(rounds, known) for source, rounds in sources.items()}
        readings.append(Reading(DIRECTIONS, people))
        crowds = {k: own for k, own in sources.items() if max(seen.users for seen in own) > 1}
        if crowds:
            people = {source: people_in_means(rounds, known) for source, rounds in crowds.items()}
            readings.append(Reading(MEANS, people))
        anybody = {
            source: np.flatnonzero(owners_likelihood(rounds, known).argmax(0))
            for source, rounds in sources.items()
        }
        readings.append(Reading(TOUCHES, anybody=anybody))
    if any({"gram", "sketch"} & one.sums.keys() for one in seen):
        pairs = {source: people_in_pairs(rounds[-1], known) for source, rounds in sources.items()}
        readings.append(Reading(PAIRS, pairs))
    if any(AXES in one.sent for one in seen):
        last = {source: rounds[-1] for source, rounds in sources.items()}
        people = {
            source: people_in_span(one.sent[AXES], one.sent[SIZES], one.users)
            for source, one in last.items()
        }
        readings.append(Reading(SPANNED, people))
    return readings


@dataclass(frozen=True, eq=False)
class Crowd:
    """The sum of one group of users in one round: the rows that it changes.

    Parameters
    ----------
    items : ndarray, int64 (rows,)
    rows : ndarray, float64 (rows, d)
    touchers : ndarray, int64 (rows,)
        Users who touched each row; 0 where that is not told.
    users : int
    noise : float
        Standard deviation of the noise of each number.
    """

    items: np.ndarray
    rows: np.ndarray
    touchers: np.ndarray
    users: int
    noise: float


def crowds_in(seen: Seen, known: Known) -> list[Crowd]:
    """The sums of the groups of users in one answer; without groups there is one."""
    change = seen.sums["change"].reshape(-1, known.warm, seen.sums["change"].shape[-1])
    counts = seen.sums.get("touches", np.zeros(change.shape[:2], np.int64))
    members = seen.sums.get("members", np.array([seen.users]))
    if members.dtype.kind == "f":  # with noise it is not told how many are in a group
        members = np.full(len(members), seen.users)
    noise = known.noise_in(seen.users)
    crowds = []
    for table, touchers, users in zip(
        change, counts.reshape(-1, known.warm), members.tolist(), strict=True
    ):
        items = np.flatnonzero((touchers > 0) | _above_noise(table, noise))
        rows = table[items].astype(np.float64)
        crowds.append(Crowd(items, rows, touchers[items], users, noise))
    return crowds


def _above_noise(table: np.ndarray, noise: float) -> np.ndarray:
    """Rows that are longer than noise makes them, by four standard deviations, bool (rows,)."""
    d = table.shape[1]
    size = np.linalg.norm(table.astype(np.float64), axis=1)
    return np.asarray(size > noise * np.sqrt(d + 4 * np.sqrt(2 * d)))


def owners_likelihood(rounds: Sequence[Seen], known: Known) -> np.ndarray:
    """Log likelihood that 0, 1, 2 … users interacted with each item, float64 (numbers, warm).

    Who interacted with an item touches its row in each round in which he takes part; others touch
    it now and then, as a negative: Binomial(owners, fraction) + Poisson(negatives) users do. With
    every user in every round, no item has more owners than its row ever had touchers. Where only
    the rows that move are told and not how often, owners are 0 or 1.

    Parameters
    ----------
    rounds : Sequence[Seen]
        Of one source.
    known : Known
    """
    touched = np.stack([touches(seen, known) for seen in rounds])
    if any("touches" not in seen.sums for seen in rounds):
        return _likelihood_of_moved(touched > 0, known.fraction)
    of_negatives = known.negatives / (1 + known.negatives)
    rate = max(touched.sum(1).mean() * of_negatives / known.warm, 1e-9)
    numbers = range(min(int(touched.max()), _MOST_OWNERS) + 1)
    chances = np.stack([_chance_of_touches(touched, k, known.fraction, rate) for k in numbers])
    return np.log(np.maximum(chances, np.exp(-_SURE))).sum(1)


def _chance_of_touches(touched: np.ndarray, owners: int, fraction: float, rate: float) -> Any:
    """P(touched | owners), float64 of its shape."""
    there = np.arange(owners + 1)
    present = binom.pmf(there, owners, fraction)
    return sum(
        chance * poisson.pmf(touched - k, rate)
        for k, chance in zip(there, present, strict=True)
        if chance > 0
    )


def _likelihood_of_moved(moved: np.ndarray, fraction: float) -> np.ndarray:
    """As `owners_likelihood`, for 0 and 1 owners, from whether rows moved, bool (rounds, warm)."""
    others = float(np.clip(moved.mean(), 1e-6, 1 - 1e-6))
    owned = min(1 - (1 - fraction) * (1 - others), 1 - np.exp(-_SURE))
    times, not_times = moved.sum(0), (~moved).sum(0)
    return np.stack([times * np.log(p) + not_times * np.log1p(-p) for p in (others, owned)])


def touches(seen: Seen, known: Known) -> np.ndarray:
    """Users who touched each row in a round; 1 or more where only that it moved is told."""
    touched = np.zeros(known.warm, np.int64)
    for crowd in crowds_in(seen, known):
        touched[crowd.items] += np.maximum(crowd.touchers, 1)
    return touched


def interaction_odds(likelihood: np.ndarray, rounds: int, known: Known) -> np.ndarray:
    """Log odds that who touches a row does so for an interaction, float64 (warm,).

    Parameters
    ----------
    likelihood : ndarray, float64 (numbers, warm)
        As `owners_likelihood` has it.
    rounds : int
        On which it rests; the one that is looked at tells nothing beside the number of negatives.
    known : Known
    """
    gain = likelihood[1:].max(0, initial=-_SURE) - likelihood[0]
    return np.clip(gain * (rounds - 1) / rounds, -_SURE, _SURE) - np.log(known.negatives)


def people_in_changes(rounds: Sequence[Seen], known: Known) -> list[np.ndarray]:
    """Histories from changes of the item table, int64 (interactions,) each.

    Parameters
    ----------
    rounds : Sequence[Seen]
        Of one source.
    known : Known
    """
    odds = interaction_odds(owners_likelihood(rounds, known), len(rounds), known)
    parts = [
        part
        for seen in rounds
        for crowd in crowds_in(seen, known)
        for part in parts_of(crowd, odds)
    ]
    if not parts:
        return []
    if known.fraction == 1 and all(seen.users == 1 for seen in rounds):
        persons = [parts]
    else:
        persons = linked(parts, known)
    return _histories_of(persons, rounds, known)


def people_in_softmax(rounds: Sequence[Seen], known: Known) -> list[np.ndarray]:
    """Histories from gradients of a softmax, int64 (interactions,) each.

    Parameters
    ----------
    rounds : Sequence[Seen]
        Of one source.
    known : Known
    """
    parts = [
        Part(seen, history, liked=np.ones(len(history), bool), alone=np.zeros(len(history), bool))
        for seen in rounds
        for history in histories_in(seen)
    ]
    return _histories_of(linked(parts, known), rounds, known) if parts else []


def _histories_of(
    persons: Sequence[Sequence["Part"]], rounds: Sequence[Seen], known: Known
) -> list[np.ndarray]:
    if known.fraction == 1:  # all are there in every round: no more people than users
        persons = sorted(persons, key=_rows_in, reverse=True)[: max(s.users for s in rounds)]
    histories = [_mostly_liked(own, known.warm) for own in persons]
    return [history for history in histories if len(history)]


def _rows_in(parts: Sequence["Part"]) -> int:
    return sum(len(part.items) for part in parts)


def _mostly_liked(parts: Sequence["Part"], warm: int) -> np.ndarray:
    """Items that look like interactions in most of one person's rounds, int64."""
    balance = np.zeros(warm, np.int64)
    for part in parts:
        balance[part.items] += np.where(part.liked, 1, -1)
    return np.flatnonzero(balance > 0)


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of one user in one round.

    Parameters
    ----------
    of : Crowd or Seen
        In which they are.
    items : ndarray, int64 (rows,)
    liked : ndarray, bool (rows,)
        Whether each is an interaction; else it was drawn as a negative.
    alone : ndarray, bool (rows,)
        Whether nobody else touched it.
    """

    of: "Crowd | Seen"
    items: np.ndarray
    liked: np.ndarray
    alone: np.ndarray


def parts_of(crowd: Crowd, odds: np.ndarray) -> list[Part]:
    """What each user whose head shows in a crowd did there.

    Parameters
    ----------
    crowd : Crowd
    odds : ndarray, float64 (warm,)
        As `interaction_odds` has them.
    """
    if not len(crowd.items):
        return []
    groups = [np.arange(len(crowd.items))] if crowd.users == 1 else parallel(crowd)
    if not groups:
        return []
    heads = np.stack([np.linalg.svd(crowd.rows[g], full_matrices=False)[2][0] for g in groups])
    shares = np.zeros((len(crowd.items), len(groups)))
    alone = np.zeros(len(crowd.items), dtype=bool)
    for column, group in enumerate(groups):
        shares[group, column] = crowd.rows[group] @ heads[column]
        alone[group] = True
    shares[~alone] = _explained(crowd.rows[~alone], crowd.touchers[~alone], heads)
    parts = []
    for column, group in enumerate(groups):
        own = shares[:, column]
        there = np.union1d(group, np.flatnonzero(own))
        liked, evidence = own[there] > 0, odds[crowd.items[there]]
        moved = own[there] != 0
        if evidence[liked].sum() < evidence[~liked & moved].sum():
            liked = ~liked
        # The loss of an item that is scored high enough has no gradient left.
        liked = np.where(moved, liked, evidence > 0)
        parts.append(Part(crowd, crowd.items[there], liked, alone[there]))
    return parts


def parallel(crowd: Crowd) -> list[np.ndarray]:
    """Places of rows that lie along one direction: those that one user alone touched.

    Returns
    -------
    list of ndarray, int64
        One place at least where it is told that a row has one toucher, else two.
    """
    size = np.linalg.norm(crowd.rows, axis=1)
    alone = np.flatnonzero((crowd.touchers <= 1) & (size > 0))
    if not len(alone):
        return []
    units = crowd.rows[alone] / size[alone, None]
    blur = crowd.noise**2 * crowd.rows.shape[1] / size[alone] ** 2
    close = np.abs(units @ units.T) >= 1 - np.minimum(_PARALLEL + blur[:, None] + blur, _BLURRED)
    count, label = connected_components(csr_array(close), directed=False)
    order = np.argsort(label, kind="stable")
    groups = np.split(alone[order], np.cumsum(np.bincount(label, minlength=count))[:-1])
    least = 1 if crowd.touchers.any() else _LEAST_ROWS
    return [group for group in groups if len(group) >= least]


def _explained(rows: np.ndarray, touchers: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Shares of the known heads in rows that several users touched; 0 where they do not fit.

    Parameters
    ----------
    rows : ndarray, float64 (rows, d)
    touchers : ndarray, int64 (rows,)
        0 where that is not told.
    heads : ndarray, float64 (users, d)

    Returns
    -------
    ndarray, float64 (rows, users)
    """
    size = np.linalg.norm(rows, axis=1)
    condition = np.linalg.cond(heads)
    if len(heads) < heads.shape[1] and condition < _WORST_CONDITION:
        shares = rows @ np.linalg.pinv(heads)
        shares[np.abs(shares) <= _EXPLAINED * condition * size[:, None]] = 0
    else:
        shares = _pursued(rows, touchers, heads)
    fits = np.linalg.norm(rows - shares @ heads, axis=1) < _EXPLAINED * condition * size
    fits &= (touchers == 0) | ((shares != 0).sum(1) == touchers)
    shares[~fits] = 0
    return shares


def _pursued(rows: np.ndarray, touchers: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """The same by orthogonal matching pursuit, for more heads than dimensions.

    As many heads as a row has touchers, up to a quarter of the dimensions: that few are told apart
    for certain where the rest is nothing.
    """
    from sklearn.linear_model import orthogonal_mp_gram

    shares = np.zeros((len(rows), len(heads)))
    gram = heads @ heads.T
    for count in range(1, min(heads.shape[1] // 4, len(heads)) + 1):
        own = np.flatnonzero(touchers == count)
        if len(own):
            with warnings.catch_warnings():
                # Where it ends early, fewer heads than touchers explain a row, which is not used.
                warnings.filterwarnings("ignore", "Orthogonal matching pursuit", RuntimeWarning)
                found = orthogonal_mp_gram(gram, heads @ rows[own].T, n_nonzero_coefs=count)
            shares[own] = found.reshape(len(heads), len(own)).T
    return shares


def linked(parts: Sequence[Part], known: Known) -> list[list[Part]]:
    """Parts of several rounds, person by person.

    Two are one person's if their interactions are mostly the same. Where all users train in every
    round, a row with one toucher is nobody else's interaction, and one that is shared is enough.
    """
    liked = _matrix([part.items[part.liked] for part in parts], known.warm)
    shared = (liked @ liked.T).toarray()
    sizes = np.diag(shared)
    same = shared > (sizes[:, None] + sizes - shared) / 2
    if known.fraction == 1:
        sole = _matrix([part.items[part.liked & part.alone] for part in parts], known.warm)
        same |= (sole @ sole.T).toarray() > 0
    sums = np.array([id(part.of) for part in parts])
    same &= sums[:, None] != sums  # two parts of one sum are two people's
    count, label = connected_components(csr_array(same), directed=False)
    persons: list[list[Part]] = [[] for _ in range(count)]
    for part, person in zip(parts, label, strict=True):
        persons[person].append(part)
    return persons


def _matrix(lists: Sequence[np.ndarray], width: int) -> csr_array:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])])
    items = np.concatenate(lists)
    return csr_array((np.ones(len(items)), items, offsets), shape=(len(lists), width))


def people_in_means(rounds: Sequence[Seen], known: Known) -> list[np.ndarray]:
    """Histories from mean directions of rows over rounds, int64 (interactions,) each.

    Negatives change from round to round, an owner stays, and a user's head changes slowly. So the
    mean of the directions of an item's row turns to the heads of those who interacted with it,
    however many touch it in each round; items of one owner have the same mean direction.

    Parameters
    ----------
    rounds : Sequence[Seen]
        Of one source with several users.
    known : Known
    """
    likelihood = owners_likelihood(rounds, known)
    owners = likelihood.argmax(0)
    means, spread = _mean_directions(rounds, known)
    free = owners == 0
    means -= means[free].mean(0) if free.any() else means.mean(0)
    strength = np.linalg.norm(means, axis=1)
    items = np.flatnonzero((strength > np.sqrt(_CLEAR * spread)) & (owners > 0))
    items = np.sort(items[np.argsort(-strength[items])][:_MOST_ITEMS])
    if len(items) < _LEAST_ROWS:
        return []
    units = means[items] / strength[items, None]
    label = fcluster(linkage(units, "average", metric="cosine"), 1 - _ALIKE, "distance")
    groups = [items[label == k] for k in np.unique(label) if (label == k).sum() >= _LEAST_ROWS]
    groups.sort(key=lambda group: -np.linalg.norm(means[group].sum(0)))
    groups = groups[: max(seen.users for seen in rounds)] if known.fraction == 1 else groups
    if not groups:
        return []
    sums = np.stack([means[group].sum(0) for group in groups])
    heads = sums / np.linalg.norm(sums, axis=1)[:, None]
    usual = [np.median(means[g] @ head) for g, head in zip(groups, heads, strict=True)]
    liked = np.zeros((len(groups), known.warm), dtype=bool)
    for item in items:
        liked[_owners_of(means[item], heads, np.array(usual), int(owners[item])), item] = True
    return [np.flatnonzero(row) for row in liked if row.any()]


def _mean_directions(rounds: Sequence[Seen], known: Known) -> tuple[np.ndarray, np.ndarray]:
    """Mean unit rows, float64 (warm, d), and the variance of each mean's length, (warm,).

    A row counts the less the more users touched it.
    """
    d = rounds[0].sums["change"].shape[-1]
    total, squares = np.zeros((known.warm, d)), np.zeros(known.warm)
    weights, weights_squared = np.zeros(known.warm), np.zeros(known.warm)
    for seen in rounds:
        for crowd in crowds_in(seen, known):
            size = np.linalg.norm(crowd.rows, axis=1)
            weight = (size > 0) / np.maximum(crowd.touchers, 1)
            total[crowd.items] += crowd.rows * (weight / np.where(size > 0, size, 1))[:, None]
            squares[crowd.items] += weight
            weights[crowd.items] += weight
            weights_squared[crowd.items] += weight**2
    divisor = np.maximum(weights, 1e-12)
    means = total / divisor[:, None]
    variance = squares / divisor - np.square(means).sum(1)
    return means, np.maximum(variance, 0) * weights_squared / divisor**2


def _owners_of(mean: np.ndarray, heads: np.ndarray, usual: np.ndarray, most: int) -> list[int]:
    """Whose heads an item's mean direction is made of, at most as many as it has owners."""
    left, chosen = mean, list[int]()
    while len(chosen) < most:
        share = heads @ left / usual
        share[chosen] = -np.inf
        best = int(share.argmax())
        if share[best] < _PRESENT:
            break
        chosen.append(best)
        basis = heads[chosen].T
        left = mean - basis @ np.linalg.lstsq(basis, mean, rcond=None)[0]
    return chosen


def people_in_pairs(seen: Seen, known: Known) -> list[np.ndarray]:
    """Histories from a sum over users of what goes with what, int64 (interactions,) each.

    Parameters
    ----------
    seen : Seen
        With ``gram``, as `common.users.item_sums.gram_sum` has it, or ``sketch``.
    known : Known
    """
    if "gram" in seen.sums:
        return people_in_gram(unpacked(seen.sums["gram"].astype(np.float64), known.warm))
    rows, noise = seen.sums["sketch"].astype(np.float64), known.noise_in(seen.users)
    items = np.flatnonzero((np.linalg.norm(rows, axis=1) > _PARALLEL) & _above_noise(rows, noise))
    if seen.users == 1:
        return [items] if len(items) else []
    crowd = Crowd(items, rows[items], np.zeros(len(items), np.int64), seen.users, noise)
    return [items[group] for group in parallel(crowd)]


def people_in_gram(gram: np.ndarray) -> list[np.ndarray]:
    """Histories from Σ_u x_u x_uᵀ / n_u, one after the other.

    The row of an item that one user alone has is that user's history over its length, which is
    taken away; what is left has further such rows.

    Parameters
    ----------
    gram : ndarray, float64 (warm, warm)
    """
    left = gram.copy()
    people = []
    waiting = list(np.flatnonzero(np.diag(left) > _EXPLAINED))
    while waiting:
        item = next((i for i in waiting if _is_history(left[i])), None)
        if item is None:
            break
        history = np.flatnonzero(left[item] > _EXPLAINED)
        people.append(history)
        left[np.ix_(history, history)] -= 1 / len(history)
        waiting = [i for i in waiting if left[i, i] > _EXPLAINED]
    return people


def _is_history(row: np.ndarray) -> bool:
    values = row[row > _EXPLAINED]
    return bool(len(values) and np.abs(values * len(values) - 1).max() < _EXPLAINED * len(values))
