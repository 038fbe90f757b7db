"""Synthetic users on the server: one more participant of a training, with heads of its own.

They were made by nodes whose owners chose to send them, of users that exist on those nodes alone.
The server trains them as a node would train them, round by round, but without the bound and the
noise that protect real users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from common.catalogue import ItemIndex
from common.errors import OverflowedError
from common.users.heads import State
from common.users.ragged import Ragged
from common.users.randomness import user_keys
from common.users.synthetic import SyntheticUsers
from server_app.aggregation import Summed

if TYPE_CHECKING:
    from server_app.methods.base import Trained


@dataclass(eq=False)
class Part:
    """The synthetic users of one node.

    Parameters
    ----------
    made : SyntheticUsers
    keys : ndarray, uint64 (users,)
        Of their randomness.
    sent_bytes : int
        What they took on the way here.
    state : State, optional
        Their heads, tensors float32 (users, …); None before they have trained.
    """

    made: SyntheticUsers
    keys: np.ndarray
    sent_bytes: int
    state: State | None = None


class Crowd:
    """All synthetic users of a training.

    Parameters
    ----------
    seed : int
        Of the training; with the name of a set it makes its users' randomness.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._parts: dict[str, Part] = {}
        self._senders: dict[int, str] = {}  # name of the last set of each node

    @property
    def names(self) -> list[str]:
        """Names of the sets that are here, in order."""
        return sorted(self._parts)

    @property
    def users(self) -> int:
        """Synthetic users in all sets."""
        return sum(part.made.users for part in self._parts.values())

    @property
    def sent_bytes(self) -> int:
        """What all sets took on their way here, each sent once."""
        return sum(part.sent_bytes for part in self._parts.values())

    @property
    def epsilon(self) -> float | None:
        """The largest ε that a node states for its set; None where one states none."""
        told = [part.made.epsilon for part in self._parts.values()]
        stated = [epsilon for epsilon in told if epsilon is not None]
        return max(stated) if told and len(stated) == len(told) else None

    def told(self) -> dict[str, Any]:
        """The ``synthetic`` part of ``summary.json``."""
        return {
            "users": self.users,
            "silos": len(self._parts),
            "epsilon": self.epsilon,
            "bytes_up": self.sent_bytes,
        }

    def take(self, node: int, name: str, made: SyntheticUsers | None) -> None:
        """Take the set of a node; a former set of its goes.

        Parameters
        ----------
        node : int
        name : str
            Of its set.
        made : SyntheticUsers or None
            None where the set is here already, which another node may have sent.
        """
        if made is not None:
            lists = made.histories
            sent_bytes = lists.offsets.nbytes + lists.items.nbytes
            self._parts[name] = Part(made, self._keys(made), sent_bytes)
        self._senders[node] = name
        for former in self._parts.keys() - set(self._senders.values()):
            del self._parts[former]

    def train(self, method: "Trained", number: int) -> Summed:
        """One round of all synthetic users; sums as those of a node.

        Raises
        ------
        OverflowedError
            If their loss is no number.
        """
        total = Summed.nothing(method.expected())
        for name in self.names:
            part = self._parts[name]
            part.state, summed = method.train_synthetic(part.made, part.keys, part.state, number)
            total += summed
        if not np.isfinite(total.loss_sum):
            raise OverflowedError(
                f"the training of the synthetic users overflowed in round {number}; lower item_lr "
                "or head_lr. The checkpoint of the round before is kept"
            )
        return total

    def anew(self) -> "Crowd":
        """The same users, none of whom has trained."""
        other = Crowd(self._seed)
        other._senders = dict(self._senders)
        other._parts = {
            name: Part(part.made, part.keys, part.sent_bytes) for name, part in self._parts.items()
        }
        return other

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "senders": dict(self._senders),
            "parts": {
                name: {
                    "offsets": torch.from_numpy(part.made.histories.offsets),
                    "items": torch.from_numpy(part.made.histories.items.astype(np.int32)),
                    "epsilon": part.made.epsilon,
                    "sent_bytes": part.sent_bytes,
                    "state": part.state,
                }
                for name, part in self._parts.items()
            },
        }

    def restore(self, state: Mapping[str, Any], former: ItemIndex, today: ItemIndex) -> None:
        """Take over what `state` gave, with the items' rows of another catalogue.

        An item that is no warm one any more is forgotten, and so is a user who had no other.
        """
        self._senders = dict(state.get("senders", {}))
        self._parts = {}
        for name, kept in state.get("parts", {}).items():
            lists = Ragged(kept["offsets"].numpy(), kept["items"].numpy().astype(np.int64))
            made = SyntheticUsers(name, lists, kept["epsilon"])
            part = Part(made, self._keys(made), kept["sent_bytes"], kept["state"])
            self._parts[name] = (
                part if former.version == today.version else _moved(part, former, today)
            )

    def _keys(self, made: SyntheticUsers) -> np.ndarray:
        secret = f"synthetic users {self._seed} {made.name}".encode()
        return user_keys(secret, [str(user) for user in range(made.users)])


def _moved(part: Part, former: ItemIndex, today: ItemIndex) -> Part:
    """The same users on the rows of today's item table."""
    row_of = {item: row for row, item in enumerate(today.ids_of("warm"))}
    rows = np.array([row_of.get(item, -1) for item in former.ids_of("warm")], dtype=np.int64)
    lists = part.made.histories
    owners = np.repeat(np.arange(part.made.users), lists.counts)
    items = rows[lists.items]
    owners, items = owners[items >= 0], items[items >= 0]
    order = np.lexsort((items, owners))
    here, counts = np.unique(owners, return_counts=True)
    histories = Ragged(np.concatenate([[0], np.cumsum(counts)]), items[order])
    state = part.state and {name: tensor[torch.from_numpy(here)] for name, tensor in
                            part.state.items()}  # fmt: skip
    made = SyntheticUsers(part.made.name, histories, part.made.epsilon)
    return Part(made, part.keys[here], part.sent_bytes, state)
