"""Taking part no more: one user of this node, or all of them, and what is deleted then.

``withdrawn.json`` in the state folder says who has withdrawn. What earlier sums hold of them stays
in the item table: nobody can take a part out of a sum.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from client_app.lists import forget_recommendations
from client_app.masked import forget_sums
from client_app.store import StateStore
from common.durable import check_format, read_checked, write_checked
from common.errors import SnowdropError

FILE = "withdrawn.json"

FORMAT = 1


@dataclass(frozen=True)
class Withdrawn:
    """Who takes part no more.

    Parameters
    ----------
    everyone : bool
        All users, and whoever comes later.
    users : frozenset[str]
        Salted digests of single users, so that their ids stand nowhere.
    salt : str
    """

    everyone: bool = False
    users: frozenset[str] = frozenset()
    salt: str = field(default_factory=lambda: secrets.token_hex(16))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Who has withdrawn, of a state folder.

        Raises
        ------
        SnowdropError
            If the file is damaged or of a later release: the node must not answer then.
        """
        path = folder / FILE
        if not path.exists():
            return cls(salt="")
        try:
            stored = json.loads(read_checked(path))
            check_format(path, stored["format"], FORMAT)
            return cls(bool(stored["everyone"]), frozenset(stored["users"]), str(stored["salt"]))
        except (KeyError, TypeError, ValueError) as error:
            raise SnowdropError(f"{path} is damaged; withdraw again to write it anew") from error

    def write(self, folder: Path) -> None:
        """Replace the file of a state folder."""
        content = {
            "format": FORMAT,
            "everyone": self.everyone,
            "users": sorted(self.users),
            "salt": self.salt,
        }
        write_checked(folder / FILE, json.dumps(content).encode())

    def with_user(self, user: str) -> Self:
        """The same, and one user more."""
        salted = replace(self, salt=self.salt or secrets.token_hex(16))
        return replace(salted, users=self.users | {salted.digest(user)})

    def staying(self, users: Iterable[str]) -> list[bool]:
        """Whether each of these users still takes part."""
        return [self.digest(user) not in self.users for user in users]

    def digest(self, user: str) -> str:
        """How a user is noted here."""
        return hashlib.sha256(f"{self.salt} {user}".encode()).hexdigest()


def withdraw_all(folder: Path) -> None:
    """Delete all users' state and recommendations, and take part in nothing more.

    The ledger of ε stays: what was spent is spent.

    Raises
    ------
    SnowdropError
        If the folder cannot be written to.
    """
    Withdrawn(everyone=True).write(folder)  # first: a node at work keeps nothing from now on
    StateStore(folder).forget_all()
    forget_sums(folder)
    forget_recommendations(folder)


def withdraw_user(folder: Path, user: str, listed: bool = True) -> bool:
    """Delete one user's state and recommendations; their interactions are read no more.

    Parameters
    ----------
    folder : Path
    user : str
    listed : bool
        Whether there are interactions of this user; one of whom there is nothing is not noted.

    Returns
    -------
    bool
        Whether there was any state or list.

    Raises
    ------
    SnowdropError
        If the folder cannot be written to, or holds what a later release wrote.
    """
    without = Withdrawn.read(folder).with_user(user)
    if listed:
        without.write(folder)  # first: a node at work keeps nothing from now on
    known = StateStore(folder).forget(user)
    known = forget_recommendations(folder, user) or known
    if known:
        without.write(folder)
    return known
