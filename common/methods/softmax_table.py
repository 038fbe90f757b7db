"""Softmax table: an item table that users train with a softmax, carried to cold items by texts."""

from common.methods.card import Card
from common.methods.carried import CarriedSettings
from common.methods.kernel_ridge import kernel_search
from common.methods.search import Number, OneOf
from common.roles import Positive, Role, setting


class SoftmaxTableSettings(CarriedSettings):
    """How the item table is trained; all else is how it is carried to new items."""

    lr: Positive = setting(0.01, "learning rate of the server's Adam on the item table")
    scale_lr: Positive = setting(0.005, "the same on the logarithm of the scale")
    scale: Positive = setting(8.0, "first scale of the cosines in the softmax", Role.IDENTITY)
    negatives: int = setting(
        0,
        "warm items, drawn anew in each round, that stand for all in the softmax; 0: all of them",
        Role.TRAVELS,
        ge=0,
    )


CARD = Card(
    name="softmax-table",
    title="softmax table",
    kind="trained",
    server="server_app.methods.softmax_table:SoftmaxTable",
    node="client_app.methods.softmax_table:SoftmaxTable",
    settings=SoftmaxTableSettings,
    # No counts of touched rows leave a node: a softmax moves every row.
    fixed={"average": "users", "table_start": "features"},
    tuned={"rounds": 48, "evaluate_every": 24, "fraction": 1 / 6},
    search={
        "softmax-table.lr": Number(0.001, 0.03),
        "softmax-table.scale": Number(4, 16),
        "fraction": OneOf([1 / 12, 1 / 6, 1 / 3]),
        **kernel_search("softmax-table"),
    },
    tasks=("cold-items",),
    order=8,
)
