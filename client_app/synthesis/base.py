"""What every synthesizer can do: learn from a silo's users, and make users that do not exist."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from scipy.sparse import csr_array

from client_app.synthesis.silo import Silo
from common.methods import MethodSettings

Own = TypeVar("Own", bound=MethodSettings)

Watch = Callable[[str, float, float], None]
"""Told again and again what is being done, how much of it is done, and of how much."""


def unwatched(stage: str, done: float, total: float) -> None:
    """A `Watch` that shows nothing."""


def is_private(settings: MethodSettings) -> bool:
    """Whether a synthesizer with these settings states an ε.

    Then the items of its synthetic users must not depend on what somebody has touched.
    """
    epsilon: float = getattr(settings, "epsilon", 0.0)
    return epsilon > 0


@dataclass(frozen=True, eq=False)
class Sample:
    """Synthetic users.

    Parameters
    ----------
    likes : csr_array, bool (users, items)
        Items that a synthetic user has interacted with.
    dislikes : csr_array, bool (users, items)
        The cells that it is least likely to like, about as many as likes; for recommenders that
        train on explicit negatives. Empty where a synthesizer knows none.
    """

    likes: csr_array
    dislikes: csr_array


class Synthesizer(ABC, Generic[Own]):
    """Learns the interactions of a silo's users, and makes synthetic users.

    Parameters
    ----------
    name : str
        Of its card.
    settings : MethodSettings
        Of its own group.
    items : int
    device : torch.device
        Where it trains and samples; matrices go in and come out on the CPU.
    """

    epsilon: float | None = None
    """ε of its training at `delta`, where it trained with differential privacy."""

    delta: float | None = None
    """δ at which `epsilon` holds."""

    def __init__(self, name: str, settings: Own, items: int, device: torch.device) -> None:
        self.name, self.own, self.items, self.device = name, settings, items, device

    @abstractmethod
    def fit(
        self, silo: Silo, seed: int, watch: Watch = unwatched, folder: Path | None = None
    ) -> None:
        """Train on a silo's users.

        Parameters
        ----------
        silo : Silo
        seed : int
            All randomness of the training comes from it.
        watch : Watch
            Raising in it stops the training.
        folder : Path, optional
            Where the training keeps how far it is; it goes on from what it finds there, if that
            was made from the same silo with the same settings and seed.

        Raises
        ------
        SnowdropError
            If the silo cannot be learnt from, or numbers overflow.
        """

    @abstractmethod
    def sample(self, users: int, seed: int, watch: Watch = unwatched) -> Sample:
        """Make synthetic users; memory is bounded, however many there are.

        Raises
        ------
        SnowdropError
            If it was not fitted, or numbers overflow.
        """
