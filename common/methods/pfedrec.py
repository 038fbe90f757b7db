"""PFedRec: a private scoring function on a shared item table that each user makes its own."""

from common.methods.backbone import FIXED, NOISES, TASK, TUNED, BackboneSettings, published, search
from common.methods.card import Card, Paper
from common.methods.search import OneOf
from common.roles import Role, setting


class PFedRecSettings(BackboneSettings):
    """Whether items are scored by the shared table, or by each user's own copy of it."""

    personal: bool = setting(
        False,
        "before it scores, a user trains its own copy of the item table for one more round",
        Role.TRAVELS,
    )


CARD = Card(
    name="pfedrec",
    title="PFedRec",
    kind="trained",
    server="server_app.methods.pfedrec:PFedRec",
    node="client_app.methods.pfedrec:PFedRec",
    paper=Paper(
        "Dual Personalization on Federated Recommendation",
        "Zhang, Long, Zhou, Yan, Zhang, Zhang, Yang",
        arxiv="2301.08143",
        venue="IJCAI 2023",
    ),
    settings=PFedRecSettings,
    fixed={**FIXED, "head": "linear"},
    tuned=TUNED,
    # As its code has it.
    published={
        **published("pfedrec"),
        "head_lr": 0.1,
        "item_lr": 8.0,
        "item_lr_per_item": True,
        "pfedrec.start_scale": 1.0,
        "pfedrec.personal": True,
    },
    search={**search("pfedrec"), "pfedrec.personal": OneOf([False, True])},
    tasks=(TASK,),
    comparisons={
        "backbones": ("pfedrec",),
        "backbones:paper": ("pfedrec:paper",),
        "fusion": ("pfedrec",),
        "fusion-modalities": ("pfedrec",),
        "fusion-noise": tuple(f"pfedrec@{noise}" for noise in NOISES),
    },
    order=130,
)
