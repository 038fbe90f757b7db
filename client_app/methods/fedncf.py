"""FedNCF's node half: a private user vector; the network and the item table are shared."""

from client_app.methods.backbone import Backbone


class FedNCF(Backbone):
    """As every backbone; its card says what is shared."""
