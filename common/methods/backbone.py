"""Settings that the federated recommenders for warm items share."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from common.methods.card import MethodSettings
from common.methods.search import Number, OneOf, Range, Together
from common.roles import Positive, Role, setting

if TYPE_CHECKING:
    from common.settings import TrainingSettings

TASK = "last-warm-item"

FIXED: dict[str, Any] = {"task": TASK, "table_start": "random"}
"""They rank items that were trained, and never see an item's features."""


class BackboneSettings(MethodSettings):
    """How the item table starts, and how learning rates fall."""

    start_scale: Positive = setting(
        0.1, "standard deviation of the item table's random start", Role.IDENTITY
    )
    item_lr_per_sample: bool = setting(
        True,
        "item_lr is of each sample, whatever the number in a step; else of their mean",
        Role.TRAVELS,
    )
    lr_decay: float = setting(
        1.0, "share of the learning rates that each round leaves to the next", Role.TRAVELS,
        gt=0, le=1,
    )  # fmt: skip

    @property
    def shared(self) -> tuple[str, ...]:
        """Parts of the scoring head that all users share, in the order in which they travel."""
        return ()

    @property
    def takes_steps(self) -> bool:
        """Whether users train by steps down a loss, to which a further one can be added."""
        return True

    def rates(self, settings: "TrainingSettings", number: int) -> dict[str, float]:
        """Learning rates of round ``number``, by the names of the settings."""
        left = self.lr_decay ** (number - 1)
        return {"head_lr": settings.head_lr * left, "item_lr": settings.item_lr * left}


class SharedScorerSettings(BackboneSettings):
    """Of a method whose users share parts of their scoring head."""

    scorer_lr: Positive = setting(
        0.1, "learning rate of the parts of the head that users share", Role.TRAVELS
    )

    def rates(self, settings: "TrainingSettings", number: int) -> dict[str, float]:
        left = self.lr_decay ** (number - 1)
        return super().rates(settings, number) | {"scorer_lr": self.scorer_lr * left}


TUNED: dict[str, Any] = {"dim": 32, "head_lr": 10.0, "item_lr": 1.0, "rounds": 100}

PUBLISHED: dict[str, Any] = {
    "dim": 32,
    "head_start": "random",
    "negatives": 4,
    "batch_size": 256,
    "average": "users",
    "rounds": 100,
    "evaluate_every": 1,
}
"""As the published code of PFedRec has it."""


BOUNDED = "average=users@release_metrics=true@clip_norm=100.0"

NOISES = (
    "average=users",
    BOUNDED,
    *(f"{BOUNDED}@laplace_scale={scale}" for scale in (0.002, 0.02, 0.2, 2.0)),
)
"""None, a bound C = 100 alone, and with Laplace noise of a scale b: a round has ε = 2 C / b."""


def published(name: str) -> dict[str, Any]:
    """The published training, for one of them."""
    return {**PUBLISHED, f"{name}.item_lr_per_sample": False}


def search(name: str) -> Mapping[str, Range]:
    """What may be chosen for the training of each of them."""
    return {
        "head_lr": Number(0.03, 30),
        "item_lr": Number(0.03, 30),
        "average": OneOf(["touches", "users"]),
        "local": Together(
            {
                "one step": {"local_epochs": 1, "batch_size": 0},
                "batches": {"local_epochs": 1, "batch_size": 64},
                "more passes": {"local_epochs": 5, "batch_size": 0},
            }
        ),
        "dim": OneOf([16, 32, 64]),
        "rounds": OneOf([40, 100]),
        f"{name}.start_scale": Number(0.01, 1),
    }
