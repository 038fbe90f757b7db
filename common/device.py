"""Which device torch computes on, and with how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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


def pick_dtype(name: str, device: "torch.device") -> "torch.dtype":
    """The torch dtype of a name; 'auto' takes bfloat16 where the processor multiplies in it."""
    import torch

    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    fast = device.type == "cpu" and has_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 (AVX-512 BF16 or AMX)."""
    import torch

    # Older releases of torch cannot tell.
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


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
