"""The control without a generator: a cold item is its own modality features."""

from torch import Tensor

from common.errors import SnowdropError
from server_app.generators.base import Generator


class FeaturesGenerator(Generator):
    """Returns an item's own d PCA dimensions, as the item table starts from them."""

    def fit(self, table: Tensor, conditions: Tensor, seed: int) -> float:
        return 0.0

    def generate(self, conditions: Tensor, own: Tensor | None, seed: int) -> Tensor:
        if own is None:
            raise SnowdropError("generator = 'features' needs dim principal components; lower dim")
        return own
