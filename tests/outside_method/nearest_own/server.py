"""Nearest own items, the server's half: item features as unit rows, centred on the warm items."""

from collections.abc import Sequence

from torch.nn.functional import normalize

from nearest_own.card import NearestOwnSettings
from server_app.methods import Rule
from server_app.methods.base import Scoring


class NearestOwn(Rule[NearestOwnSettings]):
    """Needs no training: `scoring` says what nodes are sent, and which scorer reads it."""

    def scoring(self, splits: Sequence[str]) -> Scoring:
        text, warm = self.world.modality("text"), self.world.rows("warm")
        unit = normalize(text - text[warm].mean(0)).numpy()  # float32 (items, c)
        arrays = {"warm": unit[warm], "items": unit[self.world.rows(splits)]}
        return Scoring("power-sum", arrays, self.name)  # its name: the node's half has the scorer
