"""The node's halves of methods, one per file; most methods need no half of their own."""

from client_app.methods.base import NodeMethod
from common import methods
from common.errors import SnowdropError


def half_of(name: str) -> NodeMethod:
    """The node's half of the method of that name.

    Raises
    ------
    SnowdropError
        If there is no such method, or its half cannot be imported here.
    """
    own = methods.card(name)
    half = methods.load(own.node) if own.node else NodeMethod
    if not (isinstance(half, type) and issubclass(half, NodeMethod)):
        raise SnowdropError(f"{own.node} of the method {name} is no NodeMethod")
    return half(own.name)
