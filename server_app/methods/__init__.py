"""The server's halves of methods, one per file, and how a run gets the one that it names."""

from common import methods
from common.errors import SnowdropError
from server_app.methods.base import Generator, Method, Rule, Trained, World
from server_app.methods.table import ItemTable


def make(name: str, world: World) -> Method:
    """The server's half of a method, ready to begin.

    Raises
    ------
    SnowdropError
        If it cannot be imported, or the settings or features do not fit it.
    """
    half = methods.load(methods.card(name).server)
    if isinstance(half, type) and issubclass(half, Generator):
        return ItemTable(half, name, world)
    if isinstance(half, type) and issubclass(half, Method):
        return half(name, world)  # type: ignore[call-arg]
    raise SnowdropError(
        f"{methods.card(name).server} of the method {name} is neither a Generator nor a Method"
    )


__all__ = ["Generator", "ItemTable", "Method", "Rule", "Trained", "World", "make"]
