"""Settings of methods that fuse item embeddings for groups of users."""

from typing import TYPE_CHECKING, Literal

from common.methods.card import MethodSettings, Paper
from common.roles import Count, Positive, Role, setting

if TYPE_CHECKING:
    from common.settings import RunSettings

PAPER = Paper(
    "Multimodal-enhanced Federated Recommendation: A Group-wise Fusion Approach",
    "Zhang, Zhang, Long, Xue, Xia, Yang",
    arxiv="2509.19955",
    venue="WWW 2026",
)


class GroupSettings(MethodSettings):
    """How users are grouped, and how the network that fuses is trained."""

    groups: Count = setting(5, "groups of users", Role.IDENTITY, Role.TRAVELS)
    grouping: Literal["nearest", "clustered"] = setting(
        "nearest",
        "each user picks the group with the nearest centroid; or, as the published server does, "
        "spectral clustering of all users' private parameters, which must all be on one node",
        Role.IDENTITY,
        Role.TRAVELS,
    )
    distance: Literal["cosine", "euclidean"] = setting(
        "cosine", "by which a user picks the nearest centroid", Role.IDENTITY, Role.TRAVELS
    )
    least_users: Count = setting(
        10, "users of a round that a group needs; a smaller one is merged before it is used"
    )
    width: Count = setting(128, "hidden width of the fusion module mlp", Role.IDENTITY)
    fit_steps: Count = setting(10, "steps of the fusion's training in each round")
    fit_batch: Count = setting(256, "items in a step, each for all groups")
    item_weights: Literal["equal", "touches"] = setting(
        "equal",
        "how much an item counts in it: all alike, or as often as the group's users touched it in "
        "the round, which average = touches tells",
    )
    optimizer: Literal["adamw", "sgd"] = setting("adamw", "its optimiser", Role.IDENTITY)
    lr: Positive = setting(1e-3, "its learning rate")
    weight_decay: float = setting(1e-4, "its weight decay", ge=0)
    feature_noise: float = setting(
        0.0, "standard deviation of the noise on features while it trains", ge=0
    )

    def check(self, run: "RunSettings", name: str) -> None:
        if run.noise:
            raise ValueError(f"{name} needs {run.noise} = 0: sizes of groups carry no noise")
        if self.grouping == "clustered" and run.nodes != 1:
            raise ValueError(
                f"{name}.grouping = clustered needs nodes = 1: whoever clusters sees every user's "
                "parameters, so it is for comparisons on one machine. In a federation, users pick "
                f"the nearest group ({name}.grouping = nearest)"
            )
