"""Local differential privacy: what happens to a user's change before anything leaves the node.

MDiffFR, section 6.7: zero-mean Laplace noise of scale δ on every entry of a user's item
embeddings. Each change is first clipped to an L1 norm C, so that δ = 2 C / ε gives ε-LDP a round,
to the change alone: sums of losses and metrics, and numbers of users, leave a node as they are.
"""

import secrets

import numpy as np
import torch
from torch import Tensor


def clip_shares(change: Tensor, norm: float, elsewhere: Tensor | float = 0.0) -> Tensor:
    """Share of each user's change that an L1 norm of at most ``norm`` leaves, float32 (users,).

    Parameters
    ----------
    change : Tensor, float32 (users, rows, d)
    norm : float
        0 leaves everything as it is.
    elsewhere : Tensor, float32 (users,), optional
        L1 norm of what is not in ``change``.
    """
    if not norm:
        return torch.ones(len(change))
    return norm / (change.abs().sum(dim=(1, 2)) + elsewhere).clamp(min=norm)


def laplace_sum(users: int, shape: tuple[int, ...], scale: float) -> Tensor:
    """The sum of ``users`` independent Laplace(0, ``scale``) noises on every entry, float32.

    Drawn as the difference of two Gamma(users, scale) variables, which has exactly that
    distribution. The randomness comes from the operating system.
    """
    if not scale or not users:
        return torch.zeros(shape)
    rng = np.random.default_rng(secrets.randbits(256))
    noise = rng.gamma(users, scale, shape)
    noise -= rng.gamma(users, scale, shape)
    return torch.from_numpy(noise).float()
