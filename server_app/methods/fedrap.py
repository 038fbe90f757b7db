"""FedRAP's server half: the shared item table; users' own tables stay with them."""

from server_app.methods.backbone import Backbone


class FedRAP(Backbone):
    """As every backbone."""
