"""Group fusion: new items get an embedding for each group of users, fused of what is known."""

from typing import Literal

from common.methods.card import Card
from common.methods.fusion import PAPER, GroupSettings
from common.methods.search import LOCAL, Number, OneOf
from common.roles import Role, setting


class GroupFusionSettings(GroupSettings):
    """What fuses an item's modalities."""

    fusion: Literal["sum", "mlp", "gate", "attention", "mixture"] = setting(
        "mlp",
        "how an item's embedding for a group is made of the group and the item's modalities",
        Role.IDENTITY,
    )


CARD = Card(
    name="group-fusion",
    title="group fusion",
    kind="trained",
    server="server_app.methods.group_fusion:GroupFusion",
    node="client_app.methods.group_fusion:GroupFusion",
    paper=PAPER,
    settings=GroupFusionSettings,
    fixed={"head": "linear", "table_start": "features"},
    tuned={"group-fusion.feature_noise": 0.5, "group-fusion.fit_steps": 20},
    search={
        **LOCAL,
        "group-fusion.groups": OneOf([1, 2, 5, 8]),
        "group-fusion.fusion": OneOf(["sum", "mlp", "gate", "attention", "mixture"]),
        "group-fusion.lr": Number(3e-4, 1e-2),
        "group-fusion.feature_noise": Number(0, 1, log=False),
    },
    tasks=("cold-items",),
    order=95,
)
