"""Own features: a cold item is its own principal components, as the item table starts from them."""

from common.methods.card import Card
from common.methods.published import PUBLISHED_TRAINING
from common.methods.search import LOCAL

CARD = Card(
    name="own-features",
    title="own features",
    kind="trained",
    server="server_app.methods.own_features:OwnFeatures",
    fixed={"head": "linear", "table_start": "features"},
    tuned_like="mdifffr",
    published=PUBLISHED_TRAINING,
    search=LOCAL,
    control=True,
    comparisons={"table2": ("own-features",)},
    order=90,
)
