"""Nearest warm item: a cold item takes the embedding of the warm item that is most like it."""

from common.methods import Card

CARD = Card(
    name="nearest-warm",
    title="nearest warm item",
    kind="trained",
    server="nearest_warm.server:NearestWarm",
    fixed={"head": "linear"},
    tuned_like="mdifffr",
)
