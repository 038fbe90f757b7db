"""A small silo whose users like items of their own group."""

import numpy as np
from scipy.sparse import csr_array

from client_app.synthesis.silo import Silo

ITEMS = 24


def grouped_silo(users: int = 90, watched: bool = False) -> Silo:
    """Users of three groups, each of which likes items of its own third."""
    draw = np.random.default_rng(5)
    group = np.arange(users) % 3
    chance = np.where(np.arange(ITEMS) % 3 == group[:, None], 0.7, 0.03)
    likes = draw.random((users, ITEMS)) < chance
    rated = likes | (draw.random((users, ITEMS)) < 0.1)
    if not watched:
        return Silo(csr_array(likes), csr_array(rated))
    return Silo(csr_array(likes[20:]), csr_array(rated[20:]), csr_array(rated[:20]))
