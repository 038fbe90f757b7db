"""Settings of methods that fuse item embeddings for groups of users."""

from typing import TYPE_CHECKING, Literal

from common.methods.card import MethodSettings, Paper
from common.roles import Count, Positive, Role, setting

if TYPE_CHECKING:
    from common.settings import RunSettings, TrainingSettings

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
    member_share: float = setting(
        0.25,
        "with noise: share of clip_norm that a user's membership in its group takes, so that sizes "
        "of groups carry noise too",
        Role.TRAVELS,
        ge=2.0**-10,
        lt=1,
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

    def membership(self, training: "TrainingSettings") -> float:
        """What a user adds to the size of its group; 0: it is counted, without noise."""
        return self.member_share * training.clip_norm if training.noise else 0.0

    def check(self, run: "RunSettings", name: str) -> None:
        if self.grouping == "clustered" and run.noise:
            raise ValueError(
                f"{name}.grouping = clustered needs {run.noise} = 0: there, a user's group depends "
                "on all other users, whom the bound of one user does not cover"
            )
        if self.grouping == "clustered" and run.nodes != 1:
            raise ValueError(
                f"{name}.grouping = clustered needs nodes = 1: whoever clusters sees every user's "
                "parameters, so it is for comparisons on one machine. In a federation, users pick "
                f"the nearest group ({name}.grouping = nearest)"
            )
