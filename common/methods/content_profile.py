"""Content profile: cosine of a cold item to the mean of the user's items, in centred features."""

from common.methods.card import Card

CARD = Card(
    name="content-profile",
    title="content profile",
    kind="rule",
    server="server_app.methods.content_profile:ContentProfile",
    order=240,
)
