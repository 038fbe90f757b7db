"""A synthesizer of another package, for tests: item popularities, and copies of real users."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from client_app.synthesis.base import Sample, Synthesizer, Watch, unwatched
from client_app.synthesis.silo import Silo
from common import methods
from common.durable import write_atomic
from common.errors import OverflowedError
from common.methods import Card, MethodSettings, Variant
from common.roles import Role, setting


class DrawnSettings(MethodSettings):
    """How many synthetic users are copies, and how long the training takes."""

    copies: float = setting(0.0, "share of synthetic users that are copies", ge=0, le=1)
    epochs: int = setting(3, "epochs of doing nothing", Role.IDENTITY, ge=1)
    sampling: str = setting("full", "'full', or 'multi': half as many items for each user")
    epsilon: float = setting(0.0, "ε; 0: none", Role.IDENTITY, ge=0)
    delta: float = setting(1e-5, "δ", Role.IDENTITY)
    interrupt: int = setting(
        -1, "the epoch of a fresh training in which Ctrl-C comes", Role.IDENTITY
    )
    filled: float = setting(1.0, "share of the likes that synthetic users have", ge=0, le=1)
    overflow: bool = setting(False, "whether numbers overflow", Role.IDENTITY)


class Drawn(Synthesizer[DrawnSettings]):
    """Every cell of a user by its item's popularity; some users are copies."""

    def fit(
        self, silo: Silo, seed: int, watch: Watch = unwatched, folder: Path | None = None
    ) -> None:
        kept = folder / "epoch" if folder else None
        first = int(kept.read_text()) if kept and kept.exists() else 0
        for epoch in range(first, self.own.epochs):
            watch("doing nothing", epoch, self.own.epochs)
            if kept:
                write_atomic(kept, str(epoch).encode())
            if epoch == self.own.interrupt and not first:
                raise KeyboardInterrupt
        if self.own.overflow:
            raise OverflowedError("the loss is no number; give a smaller learning rate")
        self._began = first
        self._likes = silo.likes
        self._shares = np.asarray(silo.likes.mean(axis=0)).ravel()
        self.epsilon = self.own.epsilon or None

    def sample(self, users: int, seed: int, watch: Watch = unwatched) -> Sample:
        watch("drawing", 0, 1)
        draw = np.random.default_rng(seed)
        shares = self._shares * self.own.filled / (2 if self.own.sampling == "multi" else 1)
        made = draw.random((users, self.items)) < shares
        copied = draw.random(users) < self.own.copies
        sources = draw.integers(0, self._likes.shape[0], copied.sum())
        made[copied] = self._likes[sources].toarray()
        return Sample(csr_array(made), csr_array(made.shape, dtype=bool))


CARD = Card(
    name="drawn",
    title="Drawn by popularity",
    kind="synthesizer",
    node="tests.synthesizers:Drawn",
    settings=DrawnSettings,
    tuned={"drawn.epochs": 2},
    published={"drawn.epochs": 5},
    variants={"copying": Variant("Half of them copies", {"drawn.copies": 0.5})},
    order=1000,
)


class _Point:
    name, value = CARD.name, "tests.synthesizers:CARD"

    def load(self) -> Card:
        return CARD


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    """The method ``drawn``, as an entry point of another package brings it."""
    monkeypatch.setattr(methods, "entry_points", lambda **_: [_Point()])
    methods.cards.cache_clear()
    yield CARD
    methods.cards.cache_clear()
