"""Histories from two sums, one of which is over some more users than the other.

A server that has both subtracts. What is left is the sum over the users that make the difference,
as if it had come from a node of their own, whatever crowd or masks they were added up under.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cli.attack.federation import ALL, Federation
from cli.attack.histories import Known, Reading, read
from cli.attack.seen import Seen
from cli.attack.verdict import Verdict, judge
from common.settings import LEAST

JOINED = "differences of sums, a user joins"
GROUPS = "differences of sums, without a node"
_ROUNDING = 2.0**-22
"""Of the largest number of a float32 sum, what additions in another order may change."""


def compared(federation: Federation, times: int) -> list[Verdict]:
    """Verdicts on what sums of the first round give away beside those over fewer users.

    Parameters
    ----------
    federation : Federation
        That has trained.
    times : int
        Sums that are compared with, at most, for each kind of difference.
    """
    nodes = federation.groups()
    verdicts = []
    if federation.size > 1:
        if federation.settings.secure_sums:  # one sum, so one user at a time
            leaving = [[people[-1]] for people in nodes[:times]]
        else:
            leaving = [[people[-1 - time] for people in nodes]
                       for time in range(min(times, federation.size - 1))]  # fmt: skip
        verdicts.append(_verdict(JOINED, federation, leaving))
    if federation.settings.secure_sums and len(nodes) > LEAST:
        verdicts.append(_verdict(GROUPS, federation, nodes[:times]))
    return verdicts


def _verdict(attack: str, federation: Federation, leaving: Sequence[Sequence[str]]) -> Verdict:
    """What is read of users who are in one sum and not in the other."""
    warm = len(federation.training.index.rows("warm"))
    known = Known.of(federation.settings, warm)
    later = {seen.source: seen for seen in reversed(federation.seen)}  # of the first round
    people: dict[str, Sequence[np.ndarray]] = {}
    truth: dict[str, list[np.ndarray]] = {}
    told = federation.refused
    for time, absent in enumerate(leaving):
        earlier = federation.without(absent, federation.folder / f"{attack} {time}")
        earlier.train(1)
        told = told or earlier.refused
        for node, own in federation.people().items():
            source = ALL if federation.settings.secure_sums else node
            histories = truth.setdefault(f"{source}, {time}", [])
            histories += [own[user] for user in absent if user in own]
        for seen in earlier.seen:
            if seen.source not in later:
                continue
            left, noise = subtracted(later[seen.source], seen, known)
            found = read([replace(left, source=f"{seen.source}, {time}")], noise)
            people |= next((one.people for one in found if one.people), {})
    return judge(Reading(attack, people, told=told), truth)


def subtracted(later: Seen, earlier: Seen, known: Known) -> tuple[Seen, Known]:
    """The sum over the users who are in one sum and not in the other, and its noise.

    Parameters
    ----------
    later, earlier : Seen
        Of one question; all users of the second are in the first.
    known : Known
    """
    sums = {name: array.astype(np.float64) - earlier.sums[name]
            if array.dtype.kind == "f" else array - earlier.sums[name]
            for name, array in later.sums.items()}  # fmt: skip
    largest = max((np.abs(array).max(initial=0) for array in later.sums.values()
                   if array.dtype.kind == "f"), default=0.0)  # fmt: skip
    noise = np.hypot(known.noise_in(later.users), known.noise_in(earlier.users))
    users = later.users - earlier.users
    return (
        replace(later, users=users, sums=sums),
        replace(known, noise=0.0, noise_of_sum=float(noise + _ROUNDING * largest)),
    )
