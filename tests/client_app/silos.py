"""Small silos for tests of synthesizers."""

import numpy as np
from scipy.sparse import csr_array

from client_app.synthesis.base import Sample, Watch
from client_app.synthesis.silo import Silo


class StoppedError(Exception):
    """What a watcher raises to stop a training."""


def stop_at(stage: str, done: float) -> Watch:
    """A watcher that stops a training at a pass of a stage."""

    def watch(name: str, at: float, total: float) -> None:
        if (name, at) == (stage, done):
            raise StoppedError

    return watch


def silo_of(likes: np.ndarray, rated: np.ndarray | None = None) -> Silo:
    """A silo from matrices of bool (users, items)."""
    return Silo(csr_array(likes), csr_array(likes if rated is None else rated))


def blocks(users: int = 60, items: int = 20, seed: int = 0) -> Silo:
    """Two kinds of users, each of whom likes most items of one half and dislikes a few others."""
    draw = np.random.default_rng(seed)
    own = np.arange(users)[:, None] % 2 == np.arange(items) * 2 // items
    likes = own & (draw.random((users, items)) < 0.7)
    lows = ~own & (draw.random((users, items)) < 0.2)
    return silo_of(likes, likes | lows)


def share_of_one_block(sample: Sample) -> float:
    """Share of a user's likes that lie in the half with more of them; 1: all of them.

    Of users that like items at random it is about 0.6.
    """
    likes = sample.likes.toarray()
    half = likes.shape[1] // 2
    counts = np.stack([likes[:, :half].sum(1), likes[:, half:].sum(1)])
    assert counts.sum() > 0
    return float(counts.max(0).sum() / counts.sum())


def kinds_of(sample: Sample) -> set[bool]:
    """Which of the two halves users like more of: both, where no kind of user is lost."""
    likes = sample.likes.toarray()
    half = likes.shape[1] // 2
    told = likes.any(1)
    return set((likes[:, :half].sum(1) > likes[:, half:].sum(1))[told].tolist())


def equal(one: Sample, other: Sample) -> bool:
    """Whether two samples are the same."""
    return all(
        np.array_equal(a.toarray(), b.toarray())
        for a, b in ((one.likes, other.likes), (one.dislikes, other.dislikes))
    )
