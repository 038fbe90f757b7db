"""`snowdrop attack inversion`: items' features from the embeddings that are sent to nodes."""

import logging
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.attack.options import Data, Out, Set, folder_of, settings_given
from cli.attack.output import FORMAT, publish
from common.errors import SnowdropError

if TYPE_CHECKING:
    import numpy as np

    from cli.bench.methods import Chosen
    from server_app.measure import Task
    from server_app.methods.table import ItemTable
    from server_app.training import Training

GROUP = "inversion"
LEVELS = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Strengths of sampling noise, and of noise on finished embeddings as multiples of a quarter of
their deviation."""
_QUARTER = 0.25
SHOWN_ITEMS = 20


def inversion(
    data: Data,
    methods: Annotated[
        str, typer.Option(help="methods that make embeddings of cold items, comma-separated")
    ] = GROUP,
    known: Annotated[
        float, typer.Option(help="share of the cold items whose features the attacker knows")
    ] = 0.2,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="training rounds (default: each method's own)")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of everything that is drawn")] = 0,
    set_: Set = None,
    out: Out = None,
) -> None:
    """Train a network from embeddings of cold items back to their features."""
    if not 0 < known < 1:
        raise SnowdropError(f"--known is {known:g}; give a share above 0 and below 1")
    folder = folder_of(out, "inversion", data)
    given = settings_given(set_)

    from cli.attack.inversion_page import HEAD, page, rows_of
    from cli.bench.methods import Chosen, groups
    from cli.progress import Progress

    names = [name for part in methods.split(",") for name in groups().get(part, (part,))]
    chosen = [Chosen.parse(name) for name in names]
    entries: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="snowdrop-attack-") as scratch,
        Progress("methods", len(chosen)) as progress,
    ):
        for done, one in enumerate(chosen):
            progress.update(done, one.title)
            place = Path(scratch) / str(done)
            values = {**given, "data": data, "seed": seed}
            entries += _entries(one, values, rounds, place, known)
        progress.update(len(chosen), "")
    told = {
        "format": FORMAT,
        "attack": "inversion",
        "data": Path(data).name,
        "seed": seed,
        "known": known,
        "settings": {name: str(value) for name, value in given.items()},
        "entries": entries,
    }
    made = f"{datetime.now():%-d %B %Y}"
    publish(folder, told, page(told, made), HEAD, rows_of(told))


def _entries(
    chosen: "Chosen", values: dict[str, Any], rounds: int | None, folder: Path, known: float
) -> Iterator[dict[str, Any]]:
    """One method: its embeddings as they are, with sampling noise, and with noise on them."""
    from cli.attack import features

    training, task = trained(chosen, values, rounds, folder)
    table: ItemTable = training.method  # type: ignore[assignment]
    world = training.world
    rows = world.rows("test")
    true = features.standardised(table.features[rows].numpy())
    known_rows, hidden = features.parted(len(rows), known, training.settings.seed)
    some = hidden[:SHOWN_ITEMS]
    for kind, level, made in _tables(table):
        back = features.inverted(made, true, known_rows, training.settings.seed)
        found = features.leakage(true[hidden], back[hidden])
        gap = features.structure(back[some]) - features.structure(true[some])
        yield {
            "method": chosen.title,
            "noise": kind,
            "level": level,
            "recall@20": _recall(training, task, made),
            **found.as_json(),
            "structure_gap": [[round(float(value), 3) for value in row] for row in gap],
        }


def trained(
    chosen: "Chosen", values: dict[str, Any], rounds: int | None, folder: Path
) -> "tuple[Training, Task]":
    """A method after its rounds on one node with all users, its generator fitted.

    Raises
    ------
    SnowdropError
        If it makes no embeddings of cold items, or the data cannot be used.
    """
    from cli.in_process import InProcessGrid
    from cli.simulate import check_data
    from common.device import pick_device
    from common.settings import RunSettings
    from server_app.checkpoint import Checkpoints
    from server_app.items import load_catalogue, world_of
    from server_app.measure import Task
    from server_app.methods.table import ItemTable
    from server_app.nodes import Nodes
    from server_app.run_folder import RunFolder
    from server_app.strategy import ColdStart
    from server_app.training import Training

    given = {"run_dir": str(folder), "nodes": 1, "twin": False}
    if rounds is not None:
        given["rounds"] = rounds
    shared = {name: value for name, value in values.items() if name != "data"}
    settings = chosen.settings({}, shared, {**given, "data": values["data"]})
    changed = {"data": check_data(settings), "evaluate_every": settings.rounds}
    settings = RunSettings.of_complete({**settings.flat(), **changed})
    world = world_of(settings, load_catalogue(settings), pick_device(settings.server_device))
    training = Training.begin(world)
    if not isinstance(training.method, ItemTable):
        raise SnowdropError(
            f"the method {chosen.name} makes no embeddings of cold items, so there is nothing to "
            "invert"
        )
    grid = InProcessGrid(1, settings.flat())
    nodes = Nodes(grid, training.index, settings.round_timeout)
    run_folder = RunFolder(folder)
    checkpoints = Checkpoints(folder / "checkpoint")
    task = Task(settings, nodes)
    log = logging.getLogger("snowdrop")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        ColdStart(training, nodes, task, checkpoints, run_folder).start(grid)
    finally:
        checkpoints.close()
        log.setLevel(level)
    training.method.ensure_fitted()
    return training, task


def _tables(table: "ItemTable") -> "Iterator[tuple[str, float, np.ndarray]]":
    """Embeddings of the test items, float32 (cold, d), by the kind of noise and its strength."""
    import numpy as np

    plain = table.cold_table("test").numpy()
    yield "none", 0.0, plain
    for level in LEVELS[1:]:
        noisy = table.generator.with_sampling_noise(level)
        if noisy is not None:
            yield "sampling", level, table.cold_table("test", noisy).numpy()
    rng = np.random.default_rng(table.settings.seed)
    scale = _QUARTER * float(plain.std())
    for level in LEVELS[1:]:
        noise = (level * scale * rng.normal(size=plain.shape)).astype(np.float32)
        yield "added", level, plain + noise


def _recall(training: "Training", task: "Task", made: "np.ndarray") -> float | None:
    """Recall@20 on test items when users' heads score these embeddings; None where nobody tells."""
    from server_app.methods.base import Scoring

    if "test" not in task.splits(training):
        return None
    scoring = Scoring("head", {"items": made}, training.settings.card.name)
    measured, users = task.measure(training, [(0, "test", scoring)])[0]
    return measured["recall@20"] if users else None
