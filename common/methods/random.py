"""Random: a random order of the cold items for each user."""

from common.methods.card import Card

CARD = Card(
    name="random",
    title="random",
    kind="floor",
    server="server_app.methods.random:Random",
    order=300,
)
