"""Random: nodes order items at random and need nothing for it."""

from collections.abc import Sequence

from common.methods import MethodSettings
from server_app.methods.base import Rule, Scoring


class Random(Rule[MethodSettings]):
    """Needs no training."""

    def scoring(self, splits: Sequence[str]) -> Scoring:
        return Scoring("random", {})
