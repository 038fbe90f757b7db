"""Synthetic users: made on a silo from its users' interactions, to be shared in their place."""

from typing import Any

import torch

from client_app.synthesis.base import Synthesizer
from common import methods
from common.errors import SnowdropError
from common.methods import MethodSettings


def synthesizer_of(
    name: str, settings: MethodSettings, items: int, device: torch.device | None = None
) -> Synthesizer[Any]:
    """A synthesizer that has not seen a user yet.

    Parameters
    ----------
    name : str
        Of its card.
    settings : MethodSettings
        Of its own group.
    items : int
        Items of the catalogue that it makes interactions with.
    device : torch.device, optional
        Where it trains and samples (default: the CPU).

    Raises
    ------
    SnowdropError
        If there is no such synthesizer, or it cannot be imported here.
    """
    own = methods.synthesizer(methods.Named.parse(name)).card
    half = methods.load(own.node)
    if not (isinstance(half, type) and issubclass(half, Synthesizer)):
        raise SnowdropError(f"{own.node} of the method {name} is no Synthesizer")
    return half(own.name, settings, items, device or torch.device("cpu"))
