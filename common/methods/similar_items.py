"""Similar items: a cold item is the mean of the warm items most similar in text."""

from common.methods.card import Card
from common.methods.generator import GeneratorSettings
from common.methods.published import PUBLISHED_TRAINING
from common.methods.search import LOCAL, OneOf
from common.roles import Count, setting


class NeighbourSettings(GeneratorSettings):
    """How many warm items are averaged."""

    neighbours: Count = setting(
        10, "warm items, most similar in text, whose embeddings are averaged"
    )


NEIGHBOURS = OneOf([1, 3, 5, 10, 20, 50, 100])

CARD = Card(
    name="similar-items",
    title="similar items",
    kind="trained",
    server="server_app.methods.similar_items:SimilarItems",
    settings=NeighbourSettings,
    fixed={"head": "linear"},
    tuned_like="mdifffr",
    published={**PUBLISHED_TRAINING, "condition_dim": 0},
    search={**LOCAL, "similar-items.neighbours": NEIGHBOURS},
    control=True,
    order=70,
)
