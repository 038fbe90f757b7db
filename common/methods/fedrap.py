"""FedRAP: an item is a row that all users share plus a row of each user's own."""

import math
from typing import Literal

from common.methods.backbone import FIXED, TASK, TUNED, BackboneSettings, published, search
from common.methods.card import Card, Paper
from common.methods.search import Number, OneOf
from common.roles import Positive, Role, setting


class FedRAPSettings(BackboneSettings):
    """Both tables, and what keeps them apart and the shared one sparse."""

    difference: float = setting(
        0.1, "weight α of the mean squared distance between both rows, which is to be large",
        Role.TRAVELS, ge=0,
    )  # fmt: skip
    sparsity: float = setting(
        0.1, "weight β of the mean absolute entry of the shared rows", Role.TRAVELS, ge=0
    )
    schedule: Literal["tanh", "constant"] = setting(
        "tanh", "α and β grow from 0 as tanh((round − 1) / 10), or stay the same", Role.TRAVELS
    )
    own_scale: float = setting(
        0.1, "standard deviation of the start of users' own rows", Role.IDENTITY, Role.TRAVELS,
        ge=0,
    )  # fmt: skip
    own_start: Literal["own", "same"] = setting(
        "own", "each user's own rows start at random, or from one table for all", Role.IDENTITY,
        Role.TRAVELS,
    )  # fmt: skip
    own_rate: Positive = setting(
        1.0, "learning rate of users' own rows, as a multiple of item_lr", Role.TRAVELS
    )
    keep: Literal["touched", "history"] = setting(
        "touched",
        "own rows that a user keeps from round to round: all that it has trained, or those of "
        "items that it interacted with",
        Role.TRAVELS,
    )

    def weights(self, number: int) -> tuple[float, float]:
        """α and β of round ``number``."""
        left = math.tanh((number - 1) / 10) if self.schedule == "tanh" else 1.0
        return self.difference * left, self.sparsity * left


CARD = Card(
    name="fedrap",
    title="FedRAP",
    kind="trained",
    server="server_app.methods.fedrap:FedRAP",
    node="client_app.methods.fedrap:FedRAP",
    paper=Paper(
        "Federated Recommendation with Additive Personalization",
        "Li, Long, Zhou",
        arxiv="2301.09109",
        venue="ICLR 2024",
    ),
    settings=FedRAPSettings,
    fixed={**FIXED, "head": "linear"},
    tuned={
        **TUNED,
        "fedrap.difference": 0.001,
        "fedrap.sparsity": 0.001,
        "fedrap.own_rate": 0.1,
        "fedrap.keep": "history",
    },
    # As its code has it for ml-100k, with the schedule of the paper; it stops a user's passes
    # early where the loss no longer falls.
    published={
        **published("fedrap"),
        "head_lr": 1e-4,
        "item_lr": 1000.0,
        "local_epochs": 10,
        "batch_size": 2048,
        "fedrap.lr_decay": 0.97,
        "fedrap.difference": 0.1,
        "fedrap.sparsity": 0.001,
        "fedrap.start_scale": 1.0,
        "fedrap.own_scale": 1.0,
        "fedrap.own_start": "same",
    },
    search={
        **search("fedrap"),
        "fedrap.difference": Number(1e-4, 1),
        "fedrap.sparsity": Number(1e-4, 1),
        "fedrap.own_rate": Number(0.01, 1),
        "fedrap.keep": OneOf(["touched", "history"]),
    },
    tasks=(TASK,),
    comparisons={
        "backbones": ("fedrap",),
        "backbones:paper": ("fedrap:paper",),
        "fusion": ("fedrap",),
    },
    order=140,
)
