"""The server's half of a method: what it may use, and what the rest of the server asks of it.

`Rule` needs no training. `Generator` makes embeddings of cold items, for methods that train an
item table in a federation (`server_app.methods.table`). `Trained` is what both that table and a
method with a training of its own are to the strategy.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from common.catalogue import Catalogue, ItemIndex
from common.errors import SnowdropError
from common.methods import MethodSettings
from common.settings import RunSettings, weighted_modalities
from common.users.heads import State
from common.users.synthetic import SyntheticUsers
from common.users.training import Pull
from server_app.aggregation import Expected, Summed
from server_app.features import Blocks

Own = TypeVar("Own", bound=MethodSettings)
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class World:
    """What a method may use on the server: never an interaction."""

    settings: RunSettings
    catalogue: Catalogue
    features: Mapping[str, Tensor]  # float32 (items, c) by modality, in catalogue order
    device: torch.device
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def rows(self, splits: str | Sequence[str]) -> np.ndarray:
        """Places of the items of one or several splits in the catalogue, int64."""
        names = [splits] if isinstance(splits, str) else splits
        return np.concatenate([self.catalogue.rows(split) for split in names])

    def with_settings(self, settings: RunSettings) -> "World":
        """The same items with other settings."""
        return replace(self, settings=settings)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, called once for a key: a run and its frozen twin share it.

        Parameters
        ----------
        key : Hashable
            All settings that the result depends on.
        make : Callable
            Makes it from the items.
        """
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def modality(self, name: str) -> Tensor:
        """Features of a modality, float32 (items, c).

        Raises
        ------
        SnowdropError
            If the settings do not name it.
        """
        if name not in self.features:
            raise SnowdropError(
                f"this method reads {name} features; add {name} to modalities (now "
                f"{self.settings.modalities})"
            )
        return self.features[name]

    def blocks(self) -> Blocks:
        """The modalities that the setting ``modality`` names, scaled on the warm items.

        Raises
        ------
        SnowdropError
            If no warm item has one of them.
        """
        weights = weighted_modalities(self.settings.modality)
        features = {name: self.modality(name) for name in weights}
        return Blocks.fit(features, self.rows("warm"), weights)


@dataclass(frozen=True)
class Scoring:
    """How nodes are to score items: a scorer by name, and the arrays that it needs."""

    scorer: str
    arrays: Mapping[str, np.ndarray]
    method: str = ""
    """The method whose node's half brings the scorer; empty for the scorers that all have."""
    forms: int = 1
    """Forms of the scorer that are to be tried at once."""


class Method(ABC):
    """What every method can do: say how nodes score items."""

    @abstractmethod
    def scoring(self, splits: Sequence[str]) -> Scoring:
        """How to score the items of these splits of the catalogue, one split after the other."""

    def ensure_fitted(self) -> None:  # noqa: B027
        """Fit what new items are scored with, where no round has done so."""


class Rule(Method, Generic[Own]):
    """A method that needs no federation: each user's own history against items' features.

    Parameters
    ----------
    name : str
        Of its card.
    world : World
    """

    def __init__(self, name: str, world: World) -> None:
        self.name, self.world = name, world
        self.own: Own = world.settings.group(name)


class Trained(Method):
    """A method with a training of its own, as the strategy drives it.

    A round: `arrays` go to the nodes, their sums come back to `step`, then `prepare`.
    """

    trains_synthetic = False
    """Whether `train_synthetic` is there: whether nodes may send synthetic users for updates."""

    has_loss = True
    """Whether nodes minimise a loss and tell it."""

    has_heads = True
    """Whether nodes train scoring heads, of the form that ``head`` says."""

    @property
    @abstractmethod
    def fitted_round(self) -> int:
        """The last round after which it was fitted to what nodes sent; 0: never."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """What nodes need for the next round, as float32 or int64."""

    @abstractmethod
    def expected(self) -> dict[str, Expected]:
        """The sums that nodes answer with."""

    @abstractmethod
    def step(self, summed: Summed) -> None:
        """Take a round's sums over.

        Raises
        ------
        OverflowedError
            If what is trained overflows.
        """

    def train_synthetic(
        self, made: SyntheticUsers, keys: np.ndarray, state: State | None, number: int
    ) -> tuple[State, Summed]:
        """What a node with these users would do and answer in a round, done on the server.

        Parameters
        ----------
        made : SyntheticUsers
        keys : ndarray, uint64 (users,)
        state : State or None
            Their heads after the round before, tensors float32 (users, …); None at first.
        number : int
            Of the round.

        Returns
        -------
        state : State
            After the round.
        summed : Summed
            The sums of `expected` over these users.

        Raises
        ------
        NotImplementedError
            If it does not have `trains_synthetic`.
        """
        raise NotImplementedError

    @abstractmethod
    def prepare(self, number: int, validating: bool) -> dict[str, Any]:
        """What is to be done on the server after round ``number``.

        Parameters
        ----------
        number : int
        validating : bool
            Whether items are scored after this round.

        Returns
        -------
        dict
            Columns of ``rounds.csv``: ``generator_loss`` and ``generator_seconds`` where a
            generator was fitted.
        """

    def trial(self, splits: Sequence[str]) -> Scoring | None:
        """Several forms of its scorer, of which validation items are to choose one; None: none.

        Asked after `prepare`, in rounds after which items are scored.
        """
        return None

    def choose(self, tried: Sequence[Mapping[str, float]], users: int) -> None:
        """Score by one of the forms of `trial` from now on.

        Parameters
        ----------
        tried : Sequence[Mapping[str, float]]
            For each form, the mean of each metric over the users with validation items.
        users : int
            How many these are.

        Raises
        ------
        NotImplementedError
            If it has no `trial`.
        """
        raise NotImplementedError

    def fits_in(self, coming: Sequence[tuple[int, bool]]) -> int:
        """How many of the coming rounds fit a generator, for the time that is left.

        Parameters
        ----------
        coming : Sequence[tuple[int, bool]]
            Number of each round, and whether items are scored after it.
        """
        return 0

    def told(self) -> dict[str, Any]:
        """Parts of ``summary.json`` that this method adds; nothing of single users."""
        return {}

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any], former: ItemIndex) -> None:
        """Take over what `state` gave, from a checkpoint of the same or a smaller catalogue.

        Raises
        ------
        SnowdropError
            If the checkpoint is of other items.
        """

    def moved_to(self, world: World) -> Self:
        """The same state on another catalogue; nothing is fitted anew."""
        moved = copy(self)
        moved.move(world)
        return moved

    @abstractmethod
    def move(self, world: World) -> None:
        """Take another catalogue, in place."""

    def snapshot(self) -> dict[str, Tensor]:
        """Some embeddings for the plots, float32 (items, d) ``warm`` and ``cold``; may be empty."""
        return {}


class Generator(ABC, Generic[Own]):
    """Learns on the server to make an item's embedding from its features.

    Parameters
    ----------
    name : str
        Of its card.
    dim : int
        Dimensions d of an item embedding.
    condition_dim : int
        Dimensions of a condition.
    settings : RunSettings
    device : torch.device
        Where it trains and generates; tensors go in and come out on the CPU.
    """

    instant = False
    """Whether fitting takes next to no time, so that it is done before items are scored."""

    parts: "tuple[Generator[Any], ...]" = ()
    """Generators that it combines: these are fitted and asked in its place."""

    def __init__(
        self,
        name: str,
        dim: int,
        condition_dim: int,
        settings: RunSettings,
        device: torch.device,
    ) -> None:
        self.name, self.dim, self.condition_dim = name, dim, condition_dim
        self.settings, self.device = settings, device
        self.own: Own = settings.group(name)
        self._begin()

    def _begin(self) -> None:
        """Make what it has before it is first fitted."""

    @property
    def learns_change(self) -> bool:
        """Whether its target is the change of an embedding from the item's own features."""
        return getattr(self.own, "target", "embedding") == "change"

    @property
    def mapping(self) -> "Generator[Any] | None":
        """The generator whose embeddings of the warm items nodes are sent in every round."""
        return None

    def pull(self, table: Tensor, mapped: Tensor) -> Pull | None:
        """The further gradient of a node's training, where users train on the server.

        Parameters
        ----------
        table : Tensor, float32 (warm, d)
        mapped : Tensor, float32 (warm, d)
            What `mapping` makes of the warm items.
        """
        return None

    @property
    def fit_every(self) -> int:
        """Rounds between two trainings of it; 0: only before items are scored."""
        return int(getattr(self.own, "fit_every", 0))

    @property
    def goes_on(self) -> bool:
        """Whether each training of it goes on from the one before."""
        own = not getattr(self.own, "refit", True)
        return own or any(part.goes_on for part in self.parts)

    @abstractmethod
    def fit(self, target: Tensor, conditions: Tensor, seed: int) -> float:
        """Train on the warm items; afterwards the mean loss of the last pass.

        Parameters
        ----------
        target : Tensor, float32 (warm, d)
            Item embeddings, or their change from the items' own features.
        conditions : Tensor, float32 (warm, c)
        seed : int
            All randomness of this training comes from it.
        """

    @abstractmethod
    def generate(self, conditions: Tensor, seed: int) -> Tensor:
        """The target for cold items, float32 (cold, d).

        Parameters
        ----------
        conditions : Tensor, float32 (cold, c)
        seed : int
        """

    def with_sampling_noise(self, level: float) -> Self | None:
        """The same generator, fitted as it is, with noise of its own in what it makes.

        Parameters
        ----------
        level : float
            Strength of the noise; 0: none.

        Returns
        -------
        Generator or None
            None where its kind adds no noise.
        """
        return None

    def combine(self, made: Sequence[Tensor]) -> Tensor:
        """What its parts made, as one: float32 (cold, d) each.

        Raises
        ------
        NotImplementedError
            If it has no parts.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, on this generator's device."""
