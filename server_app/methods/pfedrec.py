"""PFedRec's server half: the item table alone; scoring functions stay with their users."""

from server_app.methods.backbone import Backbone


class PFedRec(Backbone):
    """As every backbone."""
