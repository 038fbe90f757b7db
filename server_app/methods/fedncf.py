"""FedNCF's server half: the item table, and the network that all users share."""

from server_app.methods.backbone import Backbone


class FedNCF(Backbone):
    """As every backbone."""
