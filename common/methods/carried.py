"""Settings of methods that score by a user's history and by what warm items were taught together.

Both are carried over to new items by the weights of texts of kernel ridge.
"""

from typing import TYPE_CHECKING

from common.methods.kernel_ridge import KernelRidgeSettings
from common.roles import Count, setting

if TYPE_CHECKING:
    from common.settings import RunSettings

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
"""Values among which validation items choose."""


class CarriedSettings(KernelRidgeSettings):
    """How the weights of texts travel, and how much counts what the federation has learnt."""

    rank: Count = setting(384, "numbers of a cold item that say what it has in common with others")
    neighbours: int = setting(
        64, "warm items of a cold item whose weights are told beside these numbers", ge=0
    )
    share: float = setting(
        -1.0,
        "share of what the federation has learnt in a score, the rest is the user's own history "
        "and texts; −1: chosen on validation items",
        ge=-1,
        le=1,
    )

    def check(self, run: "RunSettings", name: str) -> None:
        if -1 < self.share < 0:
            raise ValueError(f"{name}.share must be −1, or lie between 0 and 1")
