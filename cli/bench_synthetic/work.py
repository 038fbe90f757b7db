"""Making what a training's cells need, in a process of its own."""

import json
import resource
import shutil
import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from cli.bench_synthetic.evaluation import evaluate
from cli.bench_synthetic.methods import Row
from cli.bench_synthetic.names import Mode, Protocol
from cli.bench_synthetic.protocol import World
from cli.bench_synthetic.recommenders import recommender
from cli.bench_synthetic.runs import (
    FORMAT,
    Cell,
    Sampling,
    Ticker,
    Training,
    grouped,
    read_sample,
    write_sample,
)
from client_app.synthesis import synthesizer_of
from client_app.synthesis.base import Sample, Synthesizer, Watch
from common.device import pick_device
from common.durable import make_folder, write_atomic
from common.errors import SnowdropError
from common.methods import MethodSettings

TRAINING_EFFORT = 30.0
"""That of a training, in comparison to those of recommenders."""


def effort(cells: Sequence[Cell]) -> float:
    """About how long cells of one training take, in units of the quickest one."""
    trained = any(not cell.sampling.path.exists() for cell in cells if cell.row.named)
    return TRAINING_EFFORT * trained + sum(recommender(c.recommender).effort for c in cells)


def make(
    cells: Sequence[Cell], world: World, users: int, device: str, keep: bool
) -> dict[str, str]:
    """Make the cells of one training, and before them the samples that they need.

    Parameters
    ----------
    cells : Sequence[Cell]
        All of one training; those that are whole are left as they are.
    world : World
    users : int
        Synthetic users of a sample.
    device : str
    keep : bool
        Whether the trained synthesizer stays on disk, for samplings that are asked for later.

    Returns
    -------
    dict[str, str]
        Names of the files of cells that cannot be made, and why.

    Raises
    ------
    SnowdropError
        If the synthesizer cannot be trained, so that none can be made.
    """
    (training,) = grouped(cells)
    missing = [cell for cell in cells if not cell.whole]
    make_folder(training.folder)
    made = _Maker(training, world, users, pick_device(device, "--device"))
    try:
        return made.all(missing, keep)
    finally:
        training.progress.unlink(missing_ok=True)


def worth(
    row: Row,
    settings: MethodSettings,
    world: World,
    name: str,
    modes: Sequence[Mode],
    protocol: Protocol,
    runs: int,
    users: int,
    device: str,
) -> float:
    """Recall@10 of a recommender on synthetic users, the mean over modes and runs.

    Parameters
    ----------
    row : Row
    settings : MethodSettings
        Of its synthesizer.
    world : World
    name : str
        Of the recommender.
    modes : Sequence[str]
    protocol : str
    runs, users : int
    device : str

    Raises
    ------
    SnowdropError
        If the synthesizer or the recommender cannot be trained.
    """
    card, place = row.card, pick_device(device, "--device")
    assert card is not None
    found = []
    try:
        for run in range(runs):
            maker = synthesizer_of(card.name, settings, world.items, place)
            maker.fit(world.silo(protocol, row.published), run)
            made = maker.sample(users, run)
            for mode in modes:
                model = recommender(name)(protocol == "published", place)
                metrics = evaluate(world, model, mode, run, made, card.scored_by_search)
                found.append(metrics["recall@10"])
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise SnowdropError(explained(error)) from error
    return fmean(found)


class _Maker:
    def __init__(self, training: Training, world: World, users: int, device: torch.device) -> None:
        self._training, self._world, self._users, self._device = training, world, users, device
        self._ticker = Ticker(training.progress)
        self._done = 0.0

    def all(self, cells: Sequence[Cell], keep: bool) -> dict[str, str]:
        samplings = {cell.sampling.digest: cell.sampling for cell in cells}
        absent = [each for each in samplings.values() if each.settings and not each.path.exists()]
        if absent:
            self._sample(absent)
        if not keep:
            shutil.rmtree(self._training.state, ignore_errors=True)
        failures: dict[str, str] = {}
        samples: dict[str, tuple[Sample | None, dict[str, Any]]] = {}
        for cell in cells:
            known = cell.sampling
            if known.digest not in samples:
                samples = {known.digest: read_sample(known.path) if known.settings else (None, {})}
            try:
                self._evaluate(cell, *samples[known.digest])
            except (SnowdropError, MemoryError, torch.OutOfMemoryError) as error:
                failures[cell.path.name] = explained(error)
            self._done += recommender(cell.recommender).effort
        return failures

    def _watch(self, label: str, effort: float) -> Watch:
        def watch(stage: str, done: float, total: float) -> None:
            share = done / total if total else 0.0
            self._ticker.tell(f"{label}{stage}", self._done + effort * min(1.0, share))

        return watch

    def _sample(self, samplings: Sequence[Sampling]) -> None:
        """Train, and make all samples.

        Raises
        ------
        SnowdropError
            If it fails, for want of memory, too.
        """
        training = self._training
        first = samplings[0].settings
        assert first is not None
        try:
            maker = synthesizer_of(training.method, first, self._world.items, self._device)
            silo = self._world.silo(training.protocol or "likes", training.published)
            make_folder(training.state)
            began = time.perf_counter()
            watch = self._watch("", TRAINING_EFFORT)
            maker.fit(silo, training.run, watch, training.state)
            seconds = time.perf_counter() - began
            self._done += TRAINING_EFFORT
            for sampling in samplings:
                self._draw(maker, sampling, seconds)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise SnowdropError(explained(error)) from error

    def _draw(self, maker: Synthesizer[Any], sampling: Sampling, trained: float) -> None:
        maker.own = sampling.settings
        began = time.perf_counter()
        made = maker.sample(self._users, self._training.run, self._watch("", 0.0))
        told = {
            "train_seconds": round(trained, 3),
            "sample_seconds": round(time.perf_counter() - began, 3),
            "likes_per_user": made.likes.nnz / max(1, made.likes.shape[0]),
            "epsilon": maker.epsilon,
            "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
        write_sample(sampling.path, made, told)

    def _evaluate(self, cell: Cell, sample: Sample | None, told: dict[str, Any]) -> None:
        kind = recommender(cell.recommender)
        card = cell.row.card
        began = time.perf_counter()
        metrics = evaluate(
            self._world,
            kind(cell.protocol == "published", self._device),
            cell.mode,
            cell.run,
            sample,
            card is not None and card.scored_by_search,
            self._watch(f"{cell.recommender}, {cell.mode}, {cell.protocol}: ", kind.effort),
        )
        whole = {
            "format": FORMAT,
            "method": cell.row.name,
            "protocol": cell.protocol,
            "recommender": cell.recommender,
            "mode": cell.mode,
            "run": cell.run,
            "metrics": metrics,
            "seconds": round(time.perf_counter() - began, 3),
            **told,
        }
        write_atomic(cell.path, json.dumps(whole, indent=1).encode())


def explained(error: BaseException) -> str:
    """Why something cannot be made, as a table says it."""
    return str(error) if isinstance(error, SnowdropError) else "there is not enough memory for it"
