"""Ridge map: a linear map from texts to embeddings."""

from common.methods.card import Card
from common.methods.generator import GeneratorSettings
from common.methods.published import PUBLISHED_TRAINING
from common.methods.search import LOCAL

CARD = Card(
    name="ridge",
    title="ridge map",
    kind="trained",
    server="server_app.methods.ridge:Ridge",
    settings=GeneratorSettings,
    fixed={"head": "linear"},
    tuned_like="mdifffr",
    published={**PUBLISHED_TRAINING, "condition_dim": 0},
    search=LOCAL,
    control=True,
    comparisons={"table2": ("ridge",), "inversion": ("ridge",)},
    order=80,
)
