"""How much of what an attack claims is true."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from cli.attack.histories import Reading

RIGHT = 0.9
"""Share of the claimed interactions that must be right for a user to count as linked."""
_PAIR = 2


@dataclass(frozen=True)
class Verdict:
    """What an attack read.

    Parameters
    ----------
    attack : str
    users : int
        Whose histories were there to be read.
    interactions : int
    claimed, right : int
        Interactions that the attack claimed, and those among them that are true.
    linkable : int
        Users with two or more items that nobody else of the same source has.
    linked : int or None
        Users of whom it ties two interactions or more together (or the only one), at least nine
        tenths of what it claims of them being right; None where it names no people.
    linkable_linked : int or None
        The linkable ones among them.
    exact : int or None
        Users whose whole history it has, without a wrong item.
    told : str
        Why it read nothing, where nodes refused.
    """

    attack: str
    users: int
    interactions: int
    claimed: int
    right: int
    linkable: int = 0
    linked: int | None = None
    linkable_linked: int | None = None
    exact: int | None = None
    told: str = ""

    @property
    def precision(self) -> float:
        """Share of what is claimed that is right; 0 where nothing is claimed."""
        return self.right / self.claimed if self.claimed else 0.0

    @property
    def recall(self) -> float:
        """Share of the interactions that are claimed."""
        return self.right / self.interactions if self.interactions else 0.0

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "precision": self.precision, "recall": self.recall}


def judge(reading: Reading, truth: Mapping[str, Sequence[np.ndarray]]) -> Verdict:
    """Compare what an attack claims with what is so.

    Parameters
    ----------
    reading : Reading
    truth : Mapping[str, Sequence[ndarray]]
        Histories of the users of each source, int64 (interactions,) each; sources that the reading
        says nothing of count as not read.
    """
    histories = [own for source in truth.values() for own in source]
    linkable = {source: _linkable(own) for source, own in truth.items()}
    about = {"users": len(histories), "linkable": sum(map(len, linkable.values()))}
    if reading.anybody:
        return _of_anybody(reading, truth, about)
    claimed = right = linked = linkable_linked = exact = 0
    for source, claims in reading.people.items():
        own = truth[source]
        claimed += sum(map(len, claims))
        for claim, user in _matched(claims, own):
            common = len(np.intersect1d(claim, own[user]))
            right += common
            together = common >= min(_PAIR, len(own[user])) and common >= RIGHT * len(claim)
            linked += together
            linkable_linked += together and user in linkable[source]
            exact += common == len(claim) == len(own[user])
    return Verdict(reading.attack, **about, interactions=sum(map(len, histories)), claimed=claimed,
                   right=right, linked=linked, linkable_linked=linkable_linked, exact=exact,
                   told=reading.told)  # fmt: skip


def _linkable(histories: Sequence[np.ndarray]) -> set[int]:
    """Users with two or more items that nobody else has."""
    if not histories:
        return set()
    owners = np.bincount(np.concatenate(histories))
    return {user for user, own in enumerate(histories) if (owners[own] == 1).sum() >= _PAIR}


def _of_anybody(
    reading: Reading, truth: Mapping[str, Sequence[np.ndarray]], about: Mapping[str, int]
) -> Verdict:
    """As `judge`, where the claim is that somebody of a source has an item."""
    claimed = right = there = 0
    for source, own in truth.items():
        items = np.unique(np.concatenate(own)) if own else np.zeros(0, np.int64)
        claim = reading.anybody.get(source, items[:0])
        there += len(items)
        claimed += len(claim)
        right += len(np.intersect1d(claim, items))
    return Verdict(reading.attack, **about, interactions=there, claimed=claimed, right=right,
                   told=reading.told)  # fmt: skip


def _matched(
    claims: Sequence[np.ndarray], histories: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, int]]:
    """Claims with the numbers of the users that they fit best, each user once."""
    if not claims or not histories:
        return []
    width = 1 + max(int(one.max(initial=0)) for one in [*claims, *histories])
    shared = (_rows(claims, width) @ _rows(histories, width).T).toarray()
    pairs = zip(*linear_sum_assignment(-shared), strict=True)
    return [(claims[row], int(user)) for row, user in pairs]


def _rows(lists: Sequence[np.ndarray], width: int) -> csr_array:
    items = np.concatenate(lists)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])])
    return csr_array((np.ones(len(items)), items, offsets), shape=(len(lists), width))
