"""Synthetic users: users that do not exist, the one kind of user that a server may hold."""

from dataclasses import dataclass

from common.users.ragged import Ragged


@dataclass(frozen=True, eq=False)
class SyntheticUsers:
    """A set of users that a node has made of its own ones.

    Parameters
    ----------
    name : str
        Names the set, not a user: `NAME_DIGITS` hexadecimal digits.
    histories : Ragged
        Rows of the item table that each of them has interacted with, one at least.
    epsilon : float, optional
        ε of the whole set, as its node states it; None where it states none.
    """

    name: str
    histories: Ragged
    epsilon: float | None = None

    @property
    def users(self) -> int:
        """How many they are."""
        return len(self.histories.counts)


NAME_DIGITS = 16
