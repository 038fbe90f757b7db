"""The mixture's node half: nodes train as for the first of its two methods."""

from torch import Tensor

from client_app.methods.base import Local, NodeMethod
from common.users.training import Pull


class Mixture(NodeMethod):
    """Trains as the first method does."""

    def pull(self, table: Tensor, local: Local) -> Pull | None:
        from client_app.methods import half_of

        return half_of(local.settings.group(self.name).first).pull(table, local)
