"""Which device torch computes on, and with how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def one_thread() -> Iterator[None]:
    """One CPU thread within.

    Float sums come out the same whatever the number of cores, and small steps do not wait for
    threads that a busy machine holds up.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
