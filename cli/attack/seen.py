"""What a server sees of users: sums, each of one node or of several whose masked answers add up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from common.messages import TrainAnswer
from server_app.aggregation import Expected


@dataclass(frozen=True, eq=False)
class Seen:
    """One sum of one round.

    Parameters
    ----------
    source : str
        Whose users are in it. What is told of a source is about the same users in every round.
    round : int
    users : int
        That took part.
    sums : Mapping[str, ndarray]
        As `common.messages.TrainAnswer` names them, at their own scale.
    sent : Mapping[str, ndarray]
        What nodes were sent for it, where readers need that.
    """

    source: str
    round: int
    users: int
    sums: Mapping[str, np.ndarray]
    sent: Mapping[str, np.ndarray] = field(default_factory=dict)


def seen_in(
    source: str,
    number: int,
    scale: float,
    answer: TrainAnswer,
    expected: Mapping[str, Expected],
    sent: Mapping[str, np.ndarray],
) -> Seen:
    """What one answer shows.

    Parameters
    ----------
    source : str
        The node, or what several are called whose masked answers were added up.
    number : int
        Of the round.
    scale : float
        That tables were divided by.
    answer : TrainAnswer
    expected : Mapping[str, Expected]
        What the server has asked for.
    sent : Mapping[str, ndarray]
        What nodes were sent for it, where readers need that.
    """
    sums = {
        name: array if expected[name].counts else array * expected[name].unit(scale)
        for name, array in answer.sums.items()
    }
    return Seen(source, number, answer.users, sums, sent)


def by_source(seen: Iterable[Seen]) -> dict[str, list[Seen]]:
    """All rounds of each source."""
    found: dict[str, list[Seen]] = {}
    for one in seen:
        found.setdefault(one.source, []).append(one)
    return found


def added(seen: Sequence[Seen], source: str) -> list[Seen]:
    """What is left to see where answers are masked: one sum over all sources in each round.

    Parameters
    ----------
    seen : Sequence[Seen]
    source : str
        What to call the users of all sources together.
    """
    totals: dict[int, Seen] = {}
    for one in seen:
        known = totals.get(one.round)
        if known is None:
            totals[one.round] = replace(one, source=source)
        else:
            sums = {name: known.sums[name] + array for name, array in one.sums.items()}
            totals[one.round] = replace(known, users=known.users + one.users, sums=sums)
    return list(totals.values())
