"""One round: item-item weights from a single sum over users, carried to cold items by texts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from common.methods.card import Card
from common.methods.carried import CarriedSettings
from common.methods.kernel_ridge import kernel_search
from common.methods.search import Number
from common.roles import Count, Positive, Role, setting

if TYPE_CHECKING:
    from common.settings import RunSettings

NUMBERS = 2**23
"""Numbers of the sum, at most, where nobody chose its columns; see `LEAST_COLUMNS`."""
LEAST_COLUMNS, MOST_COLUMNS = 64, 512
"""Of a sketch whose columns nobody chose."""

ITEM_RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0)
"""Values among which validation items choose."""


class OneRoundSettings(CarriedSettings):
    """The sum, the item-item weights that come of it, and how much they count."""

    FORMER: ClassVar[Mapping[str, Any]] = {"kernels": 1, "rarity": 0.0}

    columns: int = setting(
        -1,
        "columns of the sum over users: 0, one for each warm item; −1, that where the sum then has "
        "at most 2²³ numbers, else a sketch of 64 to 512 columns; with noise one of 64",
        Role.IDENTITY,
        ge=-1,
    )
    directions: Count = setting(256, "numbers of a warm item that say what people take with it")
    kernels: int = setting(
        0,
        "1: the kernel of the history also carries the sum to new items; 2: a kernel of its own "
        "does, with sum_whitening and sum_sharpness; 0: chosen on validation items, 1 without "
        "them, and 2 with noise",
        ge=0,
        le=2,
    )
    sum_whitening: float = setting(0.9, "whitening of the sum's own kernel", ge=0, le=1)
    sum_sharpness: Positive = setting(3.0, "sharpness of the sum's own kernel")
    rarity: float = setting(
        0.5,
        "power to which an item of a history counts less in the sum's score the more popular it "
        "is; without noise alone",
        ge=0,
        le=1,
    )
    item_ridge: float = setting(
        0.0,
        "λ of the item-item weights, in users for each warm item; 0: chosen on validation items",
        ge=0,
    )

    def check(self, run: "RunSettings", name: str) -> None:
        super().check(run, name)
        if run.laplace_scale:
            raise ValueError(f"{name} needs laplace_scale = 0: set gaussian_scale in its place")
        if run.clip_norm != 1 and (run.clip_norm or run.noise):
            raise ValueError(f"{name} needs clip_norm = 1: a user's part of its sum has that norm")
        if run.noise and self.columns == 0:
            raise ValueError(
                f"{name}.columns = 0 needs gaussian_scale = 0: with noise the sum is a sketch, "
                f"which has fewer numbers; set {name}.columns = {LEAST_COLUMNS}, or −1"
            )

    def lacking_for_noise(self, run: "RunSettings") -> dict[str, str]:
        lacking = {}
        if not run.clip_norm:
            lacking["clip_norm"] = "clip_norm = 1 (the norm of a user's part of the sum)"
        if run.rounds > 1 and not run.resume:
            lacking["rounds"] = "rounds = 1 (each round makes the same sum anew, for as much ε)"
        return lacking

    def kernel_of_sum(self) -> Self:
        """The settings of the sum's own kernel, as those of a history's."""
        return self.model_copy(
            update={"whitening": self.sum_whitening, "sharpness": self.sum_sharpness}
        )

    def columns_for(self, warm: int, noise: bool = False) -> int:
        """Columns of the sketch for ``warm`` warm items; 0: the whole sum.

        With noise it is always a sketch: it has fewer numbers, each of which carries noise.
        """
        columns = self.columns
        if noise:
            return min(LEAST_COLUMNS if columns < 0 else columns, warm)
        if columns < 0 and warm * (warm + 1) // 2 > NUMBERS:
            columns = min(MOST_COLUMNS, max(LEAST_COLUMNS, NUMBERS // warm))
        return columns if 0 < columns < warm else 0


CARD = Card(
    name="one-round",
    title="one round",
    kind="trained",
    server="server_app.methods.one_round:OneRound",
    node="client_app.methods.one_round:OneRound",
    settings=OneRoundSettings,
    # Later rounds only make the sum anew, with whoever has come since.
    fixed={"rounds": 1},
    # Kernels as for kernel ridge; λ, share and how many kernels are chosen in each run, on
    # validation items too.
    search={
        **kernel_search("one-round"),
        "one-round.sum_whitening": Number(0, 1, log=False),
        "one-round.sum_sharpness": Number(1, 12),
    },
    item_table=False,
    tasks=("cold-items",),
    comparisons={"table2": ("one-round",)},
    order=5,
)
