"""FCF: federated collaborative filtering, a private user vector times a shared item table."""

from typing import TYPE_CHECKING, Literal

from common.methods.backbone import FIXED, TASK, TUNED, BackboneSettings, published, search
from common.methods.card import Card, Paper, Variant
from common.roles import Positive, Role, setting

if TYPE_CHECKING:
    from common.settings import RunSettings


class FCFSettings(BackboneSettings):
    """How users' vectors and item embeddings are found."""

    solver: Literal["sgd", "least-squares"] = setting(
        "sgd",
        "users train as in all methods, or solve for their vectors on all items and send gradients",
        Role.IDENTITY,
        Role.TRAVELS,
    )
    confidence: float = setting(
        1.0, "α of least-squares: how much more an interaction weighs than another item",
        Role.TRAVELS, ge=0,
    )  # fmt: skip
    ridge: Positive = setting(1.0, "λ of least-squares", Role.TRAVELS)
    adam_lr: Positive = setting(0.1, "learning rate of the server's Adam, with least-squares")

    @property
    def takes_steps(self) -> bool:
        return self.solver == "sgd"

    def check(self, run: "RunSettings", name: str) -> None:
        if self.solver == "least-squares" and run.average != "users":
            raise ValueError(
                f"{name}.solver = least-squares needs average = users: every user's gradient is of "
                "all items"
            )


LEAST_SQUARES = {"fcf.solver": "least-squares", "average": "users"}

CARD = Card(
    name="fcf",
    title="FCF",
    kind="trained",
    server="server_app.methods.fcf:FCF",
    node="client_app.methods.fcf:FCF",
    paper=Paper(
        "Federated Collaborative Filtering for Privacy-Preserving Personalized Recommendation "
        "System",
        "Ammad-ud-din, Ivannikova, Khan, Oyomno, Fu, Tan, Flanagan",
        arxiv="1901.09888",
    ),
    settings=FCFSettings,
    fixed={**FIXED, "head": "dot"},
    tuned=TUNED,
    # The algorithm is the paper's; its hyperparameters could not be had.
    published={**published("fcf"), **LEAST_SQUARES},
    variants={"least-squares": Variant("FCF, least squares", LEAST_SQUARES)},
    search=search("fcf"),
    tasks=(TASK,),
    comparisons={
        "backbones": ("fcf", "fcf:least-squares"),
        "backbones:paper": ("fcf:paper",),
        "fusion": ("fcf",),
    },
    order=110,
)
