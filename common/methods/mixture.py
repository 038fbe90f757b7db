"""A mixture of two methods: a cold item's embedding is a weighted mean of what each makes."""

from typing import TYPE_CHECKING

from common.methods.card import Card, MethodSettings
from common.methods.search import Number
from common.roles import Role, setting

if TYPE_CHECKING:
    from common.settings import RunSettings


class MixtureSettings(MethodSettings):
    """Which two methods, and how much of each."""

    first: str = setting(
        "mdifffr",
        "method that is mixed; its settings for nodes are taken",
        Role.IDENTITY,
        Role.TRAVELS,
    )
    second: str = setting("similar-items", "method that is mixed with it", Role.IDENTITY)
    share: float = setting(0.5, "share of the second method in a cold item's embedding", ge=0, le=1)

    def check(self, run: "RunSettings", name: str) -> None:
        from common import methods

        for key in ("first", "second"):
            part = methods.card(getattr(self, key))
            if part.kind != "trained" or part.parts or not part.ranks_new_items:
                fitting = [
                    own.name
                    for own in methods.cards().values()
                    if own.kind == "trained" and not own.parts and own.ranks_new_items
                ]
                raise ValueError(
                    f"{name}.{key} = {part.name} makes no embeddings of its own; choose one of "
                    f"{', '.join(fitting)}"
                )
        if self.first == self.second:
            raise ValueError(f"{name}.first and {name}.second must be two methods")


CARD = Card(
    name="mixture",
    title="MDiffFR + similar items",
    kind="trained",
    server="server_app.methods.mixture:Mixture",
    node="client_app.methods.mixture:Mixture",
    settings=MixtureSettings,
    # What is published is the first method alone.
    published={"mixture.share": 0.0},
    parts=("first", "second"),
    # Settings of the parts are searched as those of the parts.
    search={"mixture.share": Number(0, 1, log=False)},
    comparisons={"table2": ("mixture",)},
    order=10,
    formerly="snowdrop",
)
