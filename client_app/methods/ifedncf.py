"""IFedNCF's node half: the pull of IFedRec, with FedNCF's heads."""

from client_app.methods.ipfedrec import IPFedRec


class IFedNCF(IPFedRec):
    """The same as IPFedRec; a setting chooses the heads."""
