"""IPFedRec's node half: item embeddings are pulled towards what the attribute network makes.

With λ = ``ipfedrec.pull`` (`common.users.pull`).
"""

from torch import Tensor

from client_app.methods.base import Local, NodeMethod
from common.errors import SnowdropError
from common.users.pull import MappedPull
from common.users.training import Pull


class IPFedRec(NodeMethod):
    """Heads and an item table as for every method, with the pull."""

    def pull(self, table: Tensor, local: Local) -> Pull | None:
        strength = local.settings.group(self.name).pull
        if not strength:
            return None
        if "mapped" not in local.arrays:
            raise SnowdropError("train with a pull carries no mapped embeddings")
        mapped = local.table("mapped", *table.shape)
        return MappedPull(table, mapped, strength, local.settings)
