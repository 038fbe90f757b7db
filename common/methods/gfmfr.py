"""GFMFR: groups of similar users, whose fused item embeddings teach a federated backbone."""

import math
from typing import TYPE_CHECKING, Literal

from common.methods.backbone import FIXED, NOISES, TASK, BackboneSettings
from common.methods.card import Card, Variant
from common.methods.fusion import PAPER, GroupSettings
from common.methods.search import Number, OneOf
from common.roles import Positive, Role, setting

if TYPE_CHECKING:
    from common.settings import RunSettings


class GFMFRSettings(GroupSettings):
    """Which recommender is taught, how users are grouped, and how modalities are fused."""

    backbone: str = setting(
        "pfedrec",
        "recommender for warm items that is taught; its settings for nodes are taken",
        Role.IDENTITY,
        Role.TRAVELS,
    )
    fusion: Literal["off", "sum", "mlp", "gate", "attention", "mixture"] = setting(
        "mlp",
        "how an item's embedding for a group is made of the group and the item's modalities; off: "
        "the backbone alone",
        Role.IDENTITY,
        Role.TRAVELS,
    )
    weight: float = setting(
        1.0, "weight λ of the distance to the teacher in a user's loss", Role.TRAVELS, ge=0
    )
    balance: Literal["constant", "adaptive"] = setting(
        "constant",
        "whether λ is multiplied by a running mean of each user's (other loss) / (distance to the "
        "teacher)",
        Role.IDENTITY,
        Role.TRAVELS,
    )
    fade_rounds: int = setting(
        100, "R: λ falls as cos(π r / 2 R) and is 0 from round R on; 0: it stays", Role.TRAVELS,
        ge=0,
    )  # fmt: skip
    temperature: Positive = setting(
        1.0, "T: scores of teacher and user are divided by it", Role.TRAVELS
    )

    history_weight: float = setting(
        -1.0,
        "weight ω, in a score, of the user's own history among its group's fused embeddings; 0: "
        "the backbone alone scores, −1: chosen on validation items",
        ge=-1,
    )
    sharpness: Positive = setting(
        10.0,
        "β of log mean exp(β cos) over the history; large: the most similar item decides",
        Role.TRAVELS,
    )

    def share_of(self, number: int) -> float:
        """The weight λ of round ``number``."""
        if not self.fade_rounds:
            return self.weight
        if number >= self.fade_rounds:
            return 0.0
        return self.weight * math.cos(math.pi / 2 * number / self.fade_rounds)

    def check(self, run: "RunSettings", name: str) -> None:
        from common import methods

        super().check(run, name)
        if -1 < self.history_weight < 0:
            raise ValueError(f"{name}.history_weight must be −1, or 0 or more")
        every = methods.cards().values()
        fitting = [own.name for own in every if issubclass(own.settings, BackboneSettings)]
        if self.backbone not in fitting:
            raise ValueError(
                f"{name}.backbone = {self.backbone} is no recommender that can be taught; choose "
                f"one of {', '.join(fitting)}"
            )
        for key, value in methods.card(self.backbone).fixed.items():
            if getattr(run, key) != value:
                raise ValueError(f"{name}.backbone = {self.backbone} needs {key} = {value}")
        own: BackboneSettings = run.group(self.backbone)
        if self.fusion != "off" and not own.takes_steps:
            raise ValueError(
                f"{name} teaches users that train by steps: it needs {self.backbone}.solver = sgd"
            )


HISTORY_WEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Values of ω among which validation items choose."""

MODULES = ("sum", "gate", "attention", "mixture")
COUNTS = (1, 2, 3, 4, 6, 8, 10)

TAUGHT = "gfmfr.weight=0.3"

CARD = Card(
    name="gfmfr",
    title="GFMFR",
    kind="trained",
    server="server_app.methods.gfmfr:GFMFR",
    node="client_app.methods.gfmfr:GFMFR",
    paper=PAPER,
    settings=GFMFRSettings,
    fixed=FIXED,
    # Chosen on validation items of ml-100k with PFedRec, seed 0; λ on those of ml-100k, movielens
    # and amazon-office, seeds 0 and 1: with λ = 0.1 and 0.3, the mean of HR@50 and NDCG@50 over
    # the three sets is 0.983 and 0.963 of that without a teacher.
    tuned={
        "gfmfr.weight": 0.0,
        "gfmfr.temperature": 0.5,
        "gfmfr.lr": 3e-3,
        "gfmfr.feature_noise": 0.3,
        "gfmfr.item_weights": "touches",
    },
    published={
        "gfmfr.weight": 1.0,
        "gfmfr.distance": "euclidean",
        "gfmfr.balance": "adaptive",
        "gfmfr.fit_steps": 350,  # 50 passes over ml-100k
        "gfmfr.optimizer": "sgd",
        "gfmfr.lr": 0.01,
        "gfmfr.history_weight": 0.0,
    },
    variants={
        "fcf": Variant(
            "FCF + GFMFR",
            {"gfmfr.backbone": "fcf"},
            published={"fcf.solver": "sgd", "average": "users"},
        ),
        "fedncf": Variant("FedNCF + GFMFR", {"gfmfr.backbone": "fedncf"}),
        "pfedrec": Variant("PFedRec + GFMFR", {"gfmfr.backbone": "pfedrec"}),
        "fedrap": Variant("FedRAP + GFMFR", {"gfmfr.backbone": "fedrap"}),
    },
    parts=("backbone",),
    search={
        "gfmfr.weight": OneOf([0.0, 0.1, 0.3, 1.0]),
        "gfmfr.groups": OneOf([1, 2, 3, 5, 8]),
        "gfmfr.fusion": OneOf(["sum", "mlp", "gate", "attention", "mixture"]),
        "gfmfr.temperature": Number(0.3, 3),
        "gfmfr.lr": Number(3e-4, 1e-2),
    },
    tasks=(TASK,),
    comparisons={
        "fusion": (
            *(f"gfmfr:{name}" for name in ("fcf", "fedncf", "pfedrec", "fedrap")),
            f"gfmfr:pfedrec@{TAUGHT}",
            f"gfmfr:pfedrec@{TAUGHT}@gfmfr.history_weight=0.0",
            *(f"gfmfr:pfedrec@gfmfr.fusion={module}" for module in MODULES),
            *(f"gfmfr:pfedrec@gfmfr.groups={count}" for count in COUNTS),
        ),
        "fusion-modalities": tuple(
            f"gfmfr:pfedrec@modality={read}" for read in ("text", "image", "text+image")
        ),
        "fusion-noise": tuple(f"gfmfr:pfedrec@{noise}" for noise in NOISES),
    },
    order=145,
)
