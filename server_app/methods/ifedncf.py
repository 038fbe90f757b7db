"""IFedNCF's server half: the attribute network of IFedRec; its heads are FedNCF's."""

from server_app.methods.ipfedrec import IPFedRec


class IFedNCF(IPFedRec):
    """As IPFedRec."""
