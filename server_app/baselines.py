"""What a run is compared with: rules that need no federation, controls, and its frozen twin."""

import logging
from collections.abc import Iterator
from typing import Any

from flwr.serverapp import Grid

from common import methods
from common.bar import CONTROL
from common.methods import Card
from server_app.checkpoint import Checkpoints
from server_app.measure import Task
from server_app.methods import Generator, ItemTable, make
from server_app.methods.base import Scoring
from server_app.run_folder import RunFolder
from server_app.strategy import ColdStart
from server_app.training import Training

log = logging.getLogger("snowdrop")

TWIN = "frozen"

Results = dict[str, Any]


def compare(training: Training, task: Task, splits: list[str]) -> dict[str, Results]:
    """Rules, random ranking and controls on the users and items of a run, by name.

    Parameters
    ----------
    training : Training
        As it is to be tested.
    task : Task
    splits : list[str]
        What is measured.

    Returns
    -------
    dict
        By name of the method: ``kind``, ``title``, and the metrics of each split.
    """
    found: dict[str, Results] = {}

    def wanted() -> Iterator[tuple[tuple[str, str], str, Scoring]]:
        for own in _needing_no_training(training, task):
            found[own.name] = {"kind": own.kind, "title": own.title}
            method = make(own.name, training.world)
            for split in splits:
                yield (own.name, split), split, task.scoring(method, split)
        table = training.method
        if not isinstance(table, ItemTable) or task.settings.task != "cold-items":
            return
        for name, generator in _controls(table):
            found[name] = {"kind": CONTROL, "title": methods.card(name).title}
            for split in splits:
                yield (name, split), split, table.scoring([split], generator)

    for (name, split), (metrics, _) in task.measure(training, wanted()).items():
        found[name][split] = metrics
    return found


def _needing_no_training(training: Training, task: Task) -> list[Card]:
    return [
        own
        for own in methods.cards().values()
        if own.kind in ("rule", "floor")
        and own.name != training.settings.card.name
        and task.settings.task in own.tasks
    ]


def _controls(table: ItemTable) -> Iterator[tuple[str, Generator[Any]]]:
    """Generators on the same item table: the first that a mixture has, and other methods'."""
    shown = {table.name}
    for part in table.generator.parts[:1]:
        shown.add(part.name)
        yield part.name, part
    start = table.settings.table_start
    for own in methods.cards().values():
        if own.control and own.name not in shown and own.fixed.get("table_start", start) == start:
            yield own.name, table.control(own.name)


def frozen_twin(
    training: Training, task: Task, folder: RunFolder, grid: Grid, splits: list[str]
) -> Results:
    """The same method with the federation switched off: its training, and how it ranks.

    The item table stays as it starts (``server_lr = 0``), the generator is fitted to it, and
    heads train on the nodes as many rounds.
    """
    log.info("training the frozen twin: the same method with the federation switched off")
    path = folder.path / TWIN
    settings = training.settings.model_copy(update={"server_lr": 0.0, "run_dir": str(path)})
    world = training.world.with_settings(settings)
    checkpoints = Checkpoints(path / "checkpoint")
    try:
        twin = Training.begin(world)
        twin.crowd = training.crowd.anew()  # which nodes send only once
        if (state := checkpoints.newest()) is not None:
            twin.restore(state)
        own_task = Task(settings, task.nodes)
        ColdStart(twin, task.nodes, own_task, checkpoints, RunFolder(path)).start(grid)
        to_best(twin, checkpoints)
        measured = own_task.own(twin, splits)
    finally:
        checkpoints.close()
    title = f"{training.settings.title()}, frozen"
    return {"kind": "twin", "title": title} | {split: m for split, (m, _) in measured.items()}


def forget_twin(folder: RunFolder) -> None:
    """Delete the checkpoints of the twin of a training that is begun anew.

    Else a run that is stopped before its twin begins, and goes on, would show the former one's.
    """
    path = folder.path / TWIN / "checkpoint"
    if path.is_dir():
        checkpoints = Checkpoints(path)
        checkpoints.clear()
        checkpoints.close()


def to_best(training: Training, checkpoints: Checkpoints) -> int | None:
    """Take a training back to its best validated round; the number of that round.

    Returns
    -------
    int or None
        None where nothing was validated: the last round is kept then.
    """
    best = training.best_round
    if best and best != training.round and (state := checkpoints.best()):
        ended = training.history, training.snapshots
        training.restore(state)
        training.history, training.snapshots = ended
    return best if best == training.round > 0 else None
