"""Messages made by hand, of users whose histories are known."""

from collections.abc import Sequence

import numpy as np

from cli.attack.histories import Known
from cli.attack.seen import Seen

KNOWN = Known(warm=300, negatives=5, fraction=1.0, noise=0.0)
D = 16


def histories(users: int, each: int, seed: int = 0, warm: int = KNOWN.warm) -> list[np.ndarray]:
    """Histories of ``users`` users, ascending."""
    rng = np.random.default_rng(seed)
    return [np.sort(rng.choice(warm, each, replace=False)) for _ in range(users)]


def rounds_of(
    own: Sequence[np.ndarray],
    rounds: int,
    seed: int = 0,
    told: bool = True,
    noise: float = 0.0,
    known: Known = KNOWN,
    source: str = "node 1",
    dims: int = D,
) -> list[Seen]:
    """What a node with these users answers, each with a head that moves a little every round."""
    rng = np.random.default_rng([seed, 1])
    heads = rng.normal(size=(len(own), dims))
    seen = []
    for number in range(1, rounds + 1):
        change, touches = np.zeros((known.warm, dims)), np.zeros(known.warm, np.int64)
        heads = heads + 0.2 * rng.normal(size=heads.shape)
        there = np.flatnonzero(rng.random(len(own)) < known.fraction)
        for user in there:
            others = np.setdiff1d(np.arange(known.warm), own[user])
            drawn = rng.choice(others, known.negatives * len(own[user]), replace=False)
            size = rng.uniform(0.2, 1, known.warm)[:, None] * heads[user]
            change[own[user]] += size[own[user]]
            change[drawn] -= size[drawn]
            touches[own[user]] += 1
            touches[drawn] += 1
        change += noise * rng.normal(size=change.shape)
        sums = {"change": change.astype(np.float32)} | ({"touches": touches} if told else {})
        seen.append(Seen(source, number, len(there), sums))
    return seen
