"""The server's side of one training: its method's state, and what has happened so far."""

import logging
import secrets
from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor

from common.catalogue import ItemIndex
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.crowd import Crowd
from server_app.methods import Method, Trained, World, make

log = logging.getLogger("snowdrop")

_PLAIN_FIELDS = (
    "id", "round", "best_round", "best_recall", "scale", "history", "snapshots", "spent",
)  # fmt: skip


@dataclass(eq=False)
class Training:
    """One learning history, from its first round on, however often it is resumed.

    A method that needs no federation has one as well, which stays at round 0.
    """

    id: str
    world: World
    method: Method
    crowd: Crowd
    """Synthetic users that nodes have sent."""
    round: int = 0
    best_round: int = 0
    best_recall: float = -1.0
    scale: float = 1.0
    """What nodes divide tables by before they travel as float16, in the next round."""
    history: list[dict[str, Any]] = field(default_factory=list)
    spent: list[tuple[float, float, float, bool]] = field(default_factory=list)
    """What each round gave away, as `server_app.accountant.Release`; repeated ones too."""
    users: int = 0
    """Users of all nodes that train, where they were counted in this run."""
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    @classmethod
    def begin(cls, world: World) -> Self:
        """A new training with a random id.

        Raises
        ------
        SnowdropError
            If the settings and the data do not fit the method.
        """
        settings = world.settings
        method = make(settings.card.name, world)
        return cls(secrets.token_hex(16), world, method, Crowd(settings.seed))

    @property
    def settings(self) -> RunSettings:
        return self.world.settings

    @property
    def index(self) -> ItemIndex:
        """The catalogue as nodes are told of it."""
        return self.world.catalogue

    @property
    def trained(self) -> Trained | None:
        """The method, where it is trained in rounds."""
        return self.method if isinstance(self.method, Trained) else None

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave, from a checkpoint of the same or a smaller catalogue.

        If the catalogue has changed, the best round is sought anew, since other items are ranked.

        Raises
        ------
        SnowdropError
            If the checkpoint was made with other settings, or is of other items.
        """
        check_identity(state, self.settings)
        for name in _PLAIN_FIELDS:
            setattr(self, name, state.get(name, getattr(self, name)))
        if "spent" not in state:  # an older release knew the ε of each round alone
            known = [row["epsilon"] for row in self.history if "epsilon" in row]
            self.spent = [(each, 0.0, 1.0, False) for each in known]
        former = former_index(state)
        if self.trained is not None:
            self.trained.restore(state, former)
        self.crowd.restore(state.get("crowd", {}), former, self.index)
        if former.version != self.index.version:
            self.best_round, self.best_recall = 0, -1.0

    def moved_to(self, world: World) -> Self:
        """The same training on another catalogue; nothing is fitted anew."""
        moved = replace(self, world=world)
        if self.trained is None:
            moved.method = make(world.settings.card.name, world)
        else:
            moved.method = self.trained.moved_to(world)
        return moved

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        own = {} if self.trained is None else self.trained.state()
        return own | {name: getattr(self, name) for name in _PLAIN_FIELDS} | {
            "crowd": self.crowd.state(),
            "ids": list(self.world.catalogue.ids),
            "splits": list(self.world.catalogue.splits),
            "settings": self.settings.flat(),
        }  # fmt: skip

    def snapshot(self) -> None:
        """Keep some warm and generated embeddings of this round for the plots."""
        if self.trained is not None and (taken := self.trained.snapshot()):
            self.snapshots[self.round] = taken


def check_identity(state: dict[str, Any], settings: RunSettings) -> None:
    """Refuse settings that would give a checkpoint's numbers another meaning.

    Raises
    ------
    SnowdropError
    """
    began = RunSettings.read(state["settings"]).identity()
    for name, now in settings.identity().items():
        if name in began and now != began[name]:
            raise SnowdropError(
                f"the checkpoint was made with {name} = {began[name]!r}, these settings say "
                f"{now!r}; resume with the settings it began with"
            )


def former_index(state: dict[str, Any]) -> ItemIndex:
    """The catalogue that a checkpoint was made with."""
    return ItemIndex(tuple(state["ids"]), tuple(state["splits"]))
