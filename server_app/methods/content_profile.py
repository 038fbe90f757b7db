"""Content profile: nodes get the features as they are, and compare their profiles with them."""

from collections.abc import Sequence

from common.methods import MethodSettings
from server_app.methods.base import Rule, Scoring


class ContentProfile(Rule[MethodSettings]):
    """Needs no training."""

    def scoring(self, splits: Sequence[str]) -> Scoring:
        text = self.world.modality("text").numpy()
        arrays = {"warm": text[self.world.rows("warm")], "items": text[self.world.rows(splits)]}
        return Scoring("profile", arrays)
