"""Nearest own items: cosines of a new item to a user's items, each to a power, added up."""

from common.methods import Card, MethodSettings
from common.methods.search import Number
from common.roles import Positive, Role, setting


class NearestOwnSettings(MethodSettings):
    """How much the nearest items count; nodes need it, so it travels."""

    power: Positive = setting(
        4.0, "exponent p of a cosine: the larger it is, the more the nearest count", Role.TRAVELS
    )


CARD = Card(
    name="nearest-own",
    title="nearest own items",
    kind="rule",
    server="nearest_own.server:NearestOwn",
    node="nearest_own.node:NearestOwn",
    settings=NearestOwnSettings,
    search={"nearest-own.power": Number(1, 12)},
    tasks=("cold-items", "last-warm-item"),
)
