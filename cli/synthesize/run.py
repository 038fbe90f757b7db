"""From real users to a folder of synthetic ones: train, sample, measure, write."""

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from scipy.sparse import csr_array

from cli.progress import Progress
from cli.synthesize.page import page
from cli.synthesize.replay import planted_users, replay_test
from cli.synthesize.source import Source, part_users, read_source
from cli.synthesize.target import REPORT, Target, digest_of
from client_app.synthesis import synthesizer_of
from client_app.synthesis.base import Synthesizer, is_private
from client_app.synthesis.chosen import Chosen
from client_app.synthesis.measured import Measured, measure
from common.demo import is_generated
from common.errors import SnowdropError


@dataclass(frozen=True)
class Order:
    """What is to be made.

    Parameters
    ----------
    data : Path
        Data folder or interactions file.
    chosen : Chosen
    users : int, optional
        Synthetic users (default: as many as are real).
    hold_out : float
        Share of the users that the training never sees.
    warm_only : bool, optional
    replay : int
        Users to plant in further trainings.
    seed : int
    device : torch.device
    made : str
        Today's date, as the page shows it.
    """

    data: Path
    chosen: Chosen
    users: int | None
    hold_out: float
    warm_only: bool | None
    replay: int
    seed: int
    device: torch.device
    made: str

    @property
    def title(self) -> str:
        return self.chosen.named.title

    def request(self, source: Source) -> dict[str, Any]:
        """All that the synthetic users depend on."""
        return {
            "data": digest_of(source.users),
            "method": self.chosen.named.name,
            "settings": self.chosen.settings.model_dump(mode="json"),
            "users": self.users,
            "hold_out": self.hold_out,
            "warm_only": source.warm_only,
            "seed": self.seed,
        }

    def synthesizer(self, items: int) -> Synthesizer[Any]:
        """One that has not seen a user yet."""
        name = self.chosen.named.card.name
        return synthesizer_of(name, self.chosen.settings, items, self.device)


class Shown:
    """A `Watch` that shows one bar after another; a context manager."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.__exit__(kind, error, trace)
            self._bar = None

    def __call__(self, stage: str, done: float, total: float) -> None:
        if self._bar is None or stage != self._stage:
            self.__exit__(None, None, None)
            self._stage = stage
            self._bar = Progress("%", 100, each=False).__enter__()
        self._bar.update(100 * done / total if total else 100, stage)


def run(order: Order, out: Path, force: bool) -> Iterator[str]:
    """Make the folder; yields lines that say what is in it.

    Raises
    ------
    SnowdropError
        If something cannot be read, trained or written, or Ctrl-C stopped it.
    """
    private = is_private(order.chosen.settings)
    source = read_source(order.data, order.warm_only, order.seed, private)
    silo, people = part_users(source.users, order.hold_out, order.seed)
    if order.replay:
        planted_users(people.held_out, order.replay, order.seed)  # refuses what cannot be
    users = order.users or len(source.users.users)
    place = order.data if order.data.is_dir() else order.data.parent
    with Target(out, order.request(source), force) as target:
        try:
            with Shown() as watch:
                begin = time.monotonic()
                synthesizer = order.synthesizer(len(source.users.items))
                synthesizer.fit(silo, order.seed, watch, target.part("own"))
                trained = time.monotonic()
                likes, without = _with_items(synthesizer.sample(users, order.seed, watch).likes)
                sampled = time.monotonic()
                measured = measure(likes, people, order.seed, order.device, watch)
                plantings = replay_test(order, silo, people, likes, target, watch)
        except KeyboardInterrupt:
            raise SnowdropError(
                "stopped; the same command goes on from where the training was last kept"
            ) from None
        summary = {
            "data": order.data.resolve().name,
            "method": order.chosen.named.name,
            "title": order.title,
            "settings": order.chosen.settings.model_dump(mode="json"),
            "seed": order.seed,
            "epsilon": synthesizer.epsilon,
            "delta": synthesizer.delta if synthesizer.epsilon is not None else None,
            "users": likes.shape[0],
            "users_without_items": without,
            "items": likes.shape[1],
            "interactions": int(likes.nnz),
            "warm_only": source.warm_only,
            "with_items": source.items is not None,
            "generated_data": is_generated(str(place)),
            "real": {
                "users": len(source.users.users),
                "trained": people.trained.shape[0],
                "held_out": people.held_out.shape[0],
                "without_likes": source.left_out,
                "interactions": int(source.users.likes.nnz),
            },
            "measured": measured.as_json(),
            "replay": [planting.as_json() for planting in plantings],
            "cost": {
                "device": str(order.device),
                "train_seconds": round(trained - begin, 1),
                "went_on": target.goes_on,
                "sample_seconds": round(sampled - trained, 1),
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            },
        }
        html = page(summary, measured, plantings, order.made)
        target.write(likes, source.users.items, summary, html, source.items, order.data)
    yield from _lines(out, summary, measured)


def _with_items(likes: csr_array) -> tuple[csr_array, int]:
    """Synthetic users that have an item, and the number of those that have none.

    Raises
    ------
    SnowdropError
        If nobody has one.
    """
    having = np.flatnonzero(np.diff(likes.indptr))
    if not len(having):
        raise SnowdropError("no synthetic user has an item; train longer, or with other settings")
    return likes[having], likes.shape[0] - len(having)


def _lines(out: Path, summary: dict[str, Any], measured: Measured) -> Iterator[str]:
    yield (
        f"{out}: {summary['users']:,} synthetic users, {summary['items']:,} items, "
        f"{summary['interactions']:,} interactions"
    )
    if summary["users_without_items"]:
        yield f"left out: {summary['users_without_items']:,} synthetic users without an item"
    correlation = measured.fidelity.popularity_correlation
    if not np.isnan(correlation):
        yield (
            f"rank correlation of items' popularity with that among real users: {correlation:.3f} "
            "(1: the same order; 0: unrelated)"
        )
    if measured.attacks:
        name, roc = max(measured.attacks.items(), key=lambda pair: pair[1].auc)
        yield (
            f"the best of {len(measured.attacks)} membership attacks, {name}: AUC {roc.auc:.3f} "
            f"(95 %: {roc.low:.3f} to {roc.high:.3f}; 0.5 is guessing)"
        )
    yield f"what was measured, and what it means, is in {out / REPORT}"
