"""FedNCF: a private user vector and a shared item table, scored by a shared network."""

from common.methods.backbone import FIXED, TASK, TUNED, SharedScorerSettings, published, search
from common.methods.card import Card, Paper
from common.methods.search import Number


class FedNCFSettings(SharedScorerSettings):
    """The network is shared; a user's vector is its own."""

    @property
    def shared(self) -> tuple[str, ...]:
        return ("user_weight", "item_weight", "hidden_bias", "weight", "bias")


CARD = Card(
    name="fedncf",
    title="FedNCF",
    kind="trained",
    server="server_app.methods.fedncf:FedNCF",
    node="client_app.methods.fedncf:FedNCF",
    paper=Paper(
        "Federated Neural Collaborative Filtering",
        "Perifanis, Efraimidis",
        arxiv="2106.04405",
        venue="Knowledge-Based Systems 2022",
    ),
    settings=FedNCFSettings,
    fixed={**FIXED, "head": "mlp"},
    tuned={**TUNED, "fedncf.scorer_lr": 1.0},
    # The paper's rates are those of Adam; these are what `cs-fedncf` publishes for its heads.
    published={
        **published("fedncf"),
        "head_lr": 0.5,
        "item_lr": 40.0,
        "fedncf.scorer_lr": 0.5,
        "fedncf.start_scale": 1.0,
    },
    search={**search("fedncf"), "fedncf.scorer_lr": Number(0.003, 3)},
    tasks=(TASK,),
    comparisons={
        "backbones": ("fedncf",),
        "backbones:paper": ("fedncf:paper",),
        "fusion": ("fedncf",),
    },
    order=120,
)
