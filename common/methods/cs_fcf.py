"""CS_FCF: federated collaborative filtering, adapted to cold items."""

from common.methods.card import Card, Paper
from common.methods.published import PUBLISHED_TRAINING
from common.methods.search import LOCAL
from common.methods.similar_items import NEIGHBOURS, NeighbourSettings

CARD = Card(
    name="cs-fcf",
    title="CS_FCF",
    kind="trained",
    server="server_app.methods.cs_fcf:CSFCF",
    paper=Paper(
        "Federated Collaborative Filtering for Privacy-Preserving Personalized Recommendation "
        "System",
        "Ammad-ud-din, Ivannikova, Khan, Oyomno, Fu, Tan, Flanagan",
        arxiv="1901.09888",
    ),
    settings=NeighbourSettings,
    fixed={"head": "dot"},
    # 37.9 on validation items of amazon-office, seed 0; from random numbers 10.6 to 23.4, from
    # features with other rates 27.6 to 37.8; 1 of 16 trials overflowed.
    tuned={"head_lr": 2.59, "item_lr": 17.1, "whitening": 0.398, "cs-fcf.neighbours": 5},
    published={**PUBLISHED_TRAINING, "condition_dim": 0},
    search={**LOCAL, "cs-fcf.neighbours": NEIGHBOURS},
    comparisons={"table2": ("cs-fcf",), "table2:paper": ("cs-fcf:paper",)},
    order=50,
)
