"""Scorers: what turns a user's history or head into a score of each item that is ranked.

A scorer is known by name (`SCORERS`); a method of another package brings its own
(`client_app.methods.base.NodeMethod.scorers`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from client_app.history import kernel_scores, weight_scores
from common.users.heads import HEADS
from common.users.randomness import mix, stream

if TYPE_CHECKING:
    from client_app.methods.base import Local


def standardised(scores: Tensor) -> Tensor:
    """Scores (users, items) with mean 0 and deviation 1 for each user; 0 where all are equal."""
    # Scaled first, so that squares of very small or large scores stay within float32.
    largest = scores.abs().amax(1, keepdim=True)
    scaled = scores / torch.where(largest > 0, largest, 1.0)
    centred = scaled - scaled.mean(1, keepdim=True)
    centred = centred - centred.mean(1, keepdim=True)  # What rounding left of a large mean.
    spread = centred.square().mean(1, keepdim=True).sqrt()
    return torch.where(spread > 1e-6, centred / spread.clamp(min=1e-6), 0.0)


class Scorer(ABC):
    """Scores of items for some users at a time.

    Parameters
    ----------
    local : Local
        What it may use of the node and of the message.
    """

    logits = False
    """Whether the sigmoid of a score is a probability."""

    share = 1.0
    """Share of the users that items are ranked for to measure, the same for all its forms."""

    @abstractmethod
    def __init__(self, local: "Local") -> None: ...

    @abstractmethod
    def __call__(self, users: np.ndarray) -> Tensor:
        """Scores float32 (users, items) of the users with these numbers."""

    def forms(self, users: np.ndarray) -> Iterator[Tensor]:
        """The scores of each form that the message asks to try; most scorers have one."""
        yield self(users)


class Head(Scorer):
    """The users' own heads on item embeddings (equation 2). Needs ``items``: (items, d)."""

    logits = True

    def __init__(self, local: "Local") -> None:
        self._items = local.table("items", local.items, local.settings.dim)
        self._state, self._head = local.state_of(), HEADS[local.settings.head]

    def __call__(self, users: np.ndarray) -> Tensor:
        state = {name: tensor[users] for name, tensor in self._state.items()}
        return self._head.logits(state, self._items.expand(len(users), -1, -1))


class Profile(Scorer):
    """Cosine of an item to the mean of the user's items, in features centred on the warm items.

    Needs ``warm``: (warm, c) and ``items``: (items, c).
    """

    def __init__(self, local: "Local") -> None:
        warm = local.table("warm", local.warm)
        items = local.table("items", local.items, warm.shape[1])
        mean = warm.mean(0)
        self._warm = normalize(warm - mean)
        self._items = normalize(items - mean)
        self._histories = local.histories

    def __call__(self, users: np.ndarray) -> Tensor:
        own = self._histories.take(users)
        items, offsets = torch.from_numpy(own.items), torch.from_numpy(own.offsets[:-1])
        profile = embedding_bag(items, self._warm, offsets, mode="mean")
        return normalize(profile) @ self._items.T


class Kernel(Scorer):
    """Log mean exp(β cos) over the user's items.

    Needs ``warm``: (warm, c) and ``items``: (items, c), unit rows; ``sharpness``: (1, 1), β.
    """

    def __init__(self, local: "Local") -> None:
        self._warm = local.table("warm", local.warm)
        self._items = local.table("items", local.items, self._warm.shape[1])
        self._sharpness = local.number("sharpness")
        self._histories = local.histories

    def __call__(self, users: np.ndarray) -> Tensor:
        own = self._histories.take(users)
        return kernel_scores(own, self._warm, self._items, self._sharpness)


class Weights(Scorer):
    """Sum of an item's weights over the user's items. Needs ``weights``: (items, warm)."""

    def __init__(self, local: "Local") -> None:
        self._weights = local.table("weights", local.items, local.warm)
        self._histories = local.histories

    def __call__(self, users: np.ndarray) -> Tensor:
        return weight_scores(self._histories.take(users), self._weights)


class Random(Scorer):
    """A random order for each user, the same on whatever node the user lives."""

    def __init__(self, local: "Local") -> None:
        self._keys, self._items = local.keys, local.items

    def __call__(self, users: np.ndarray) -> Tensor:
        starts = stream(self._keys[users], "random ranking")
        numbers = mix(starts[:, None] ^ mix(np.arange(self._items, dtype=np.uint64)))
        return torch.from_numpy((numbers >> np.uint64(40)).astype(np.float32))


SCORERS: dict[str, type[Scorer]] = {
    "head": Head,
    "profile": Profile,
    "kernel": Kernel,
    "weights": Weights,
    "random": Random,
}
