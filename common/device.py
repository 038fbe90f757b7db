"""Which device torch computes on."""

from typing import TYPE_CHECKING

from common.errors import SnowdropError

if TYPE_CHECKING:
    import torch


def pick_device(name: str, asked: str = "server_device") -> "torch.device":
    """The torch device of a name; 'auto' takes a GPU where there is one.

    Parameters
    ----------
    name : str
    asked : str
        The setting or option that named it, for the error.

    Raises
    ------
    SnowdropError
        If the name is no device of this machine.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise SnowdropError(f"{asked} = {name!r} cannot be used on this machine") from error
    return torch.device(name)
