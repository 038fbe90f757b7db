"""Settings that several methods' groups share: of what makes a cold item's embedding."""

from typing import TYPE_CHECKING, Literal

from common.methods.card import MethodSettings
from common.roles import Count, Positive, Role, setting

if TYPE_CHECKING:
    from common.settings import RunSettings


class GeneratorSettings(MethodSettings):
    """Of whatever makes embeddings of cold items."""

    target: Literal["embedding", "change"] = setting(
        "embedding",
        "what is made: item embeddings, or how they differ from the items' own features",
        Role.IDENTITY,
    )

    def check(self, run: "RunSettings", name: str) -> None:
        if run.table_start == "random" and self.target == "change":
            raise ValueError(f"{name}.target = change needs table_start = features")


class NetworkSettings(GeneratorSettings):
    """Of a network that is trained by mini-batches on the server."""

    fit_every: Count = setting(40, "rounds between two trainings of the network")
    refit: bool = setting(True, "train from scratch each time, instead of going on (algorithm 1)")
    fit_steps: int = setting(
        2000, "steps in a training, rounded up to whole passes; 0: fit_epochs passes", ge=0
    )
    fit_epochs: Count = setting(1, "passes over the warm items in a training")
    fit_batch: int = setting(256, "warm items in one step; 0: all of them", ge=0)
    optimizer: Literal["adamw", "sgd"] = setting("adamw", "its optimiser", Role.IDENTITY)
    lr: Positive = setting(1e-3, "its learning rate")
    lr_decay: Literal["cosine", "none"] = setting(
        "cosine", "how the learning rate falls during a training from scratch"
    )
    weight_decay: float = setting(1e-3, "its weight decay", ge=0)
    condition_noise: float = setting(
        0.5, "standard deviation of the noise on the condition while it trains", ge=0
    )
