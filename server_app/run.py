"""One run: begin or resume → train → test → recommend → summary."""

import logging
import resource
import statistics
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from common import messages
from common.catalogue import SPLITS, Catalogue
from common.demo import is_generated
from common.device import pick_device
from common.errors import SnowdropError
from common.settings import RunSettings
from server_app import accountant
from server_app.baselines import TWIN, compare, forget_twin, frozen_twin, to_best
from server_app.checkpoint import Checkpoints
from server_app.items import data_folder, load_catalogue, tell_of_lost, world_of
from server_app.measure import Task, count_users, describe, order_of
from server_app.methods import World
from server_app.metrics import serving
from server_app.modality import check_encoders
from server_app.nodes import Nodes
from server_app.pace import Stopwatch
from server_app.publish import publish, publish_todays_items
from server_app.result_table import result_table
from server_app.run_folder import EMBEDDINGS_PLOT, METRICS_PLOT, RunFolder
from server_app.strategy import ColdStart
from server_app.training import Training, former_index

log = logging.getLogger("snowdrop")

SEEN = {
    False: "the server sees what each node sends; with three nodes or more, secure_sums=true "
    "leaves it sums over nodes alone",
    True: "secure sums: the server sees sums over the nodes alone",
}
"""What a run tells of ``secure_sums``."""


def run(grid: Grid, settings: RunSettings, plots: bool = True) -> dict[str, Any]:
    """One run, from items to recommendations.

    Parameters
    ----------
    grid : Grid
    settings : RunSettings
        With a run directory.
    plots : bool
        Whether to draw into it.

    Returns
    -------
    dict
        What ``summary.json`` holds, or ``published.json`` where ``mode`` is 'publish'.

    Raises
    ------
    SnowdropError
        With one sentence that says what is wrong and what would be right.
    """
    if settings.mode == "publish":
        return publish(grid, settings)
    spent = Stopwatch()
    device = pick_device(settings.server_device)
    catalogue = load_catalogue(settings)
    check_encoders(data_folder(settings), settings)
    folder = RunFolder(Path(settings.run_dir))
    with ExitStack() as stack:
        checkpoints = Checkpoints(folder.path / "checkpoint")
        stack.callback(checkpoints.close)
        log.info("results go to %s", folder.path)
        state = _begin_or_resume(folder, checkpoints, settings)
        if state:
            former = former_index(state)
            tell_of_lost(catalogue, former)
            catalogue = catalogue.grown_from(former)
            if settings.warm_after:
                catalogue = _warm_enough(grid, catalogue, settings)
        else:
            forget_twin(folder)
        world = world_of(settings, catalogue, device)
        spent.lap("encode_seconds")
        training = Training.begin(world)
        if state:
            training.restore(state)
            log.info("going on after round %d", training.round)
        folder.write_settings(settings)
        nodes = Nodes(grid, training.index, settings.round_timeout)
        stack.enter_context(serving(settings.metrics_address, training, nodes))
        nodes.wait(settings.nodes, settings.nodes_timeout)
        spent.lap("start_seconds")
        log.info("%s", SEEN[settings.secure_sums])
        task = Task(settings, nodes)
        moves = training.trained is not None and settings.server_lr > 0
        # With noise, the twin's rounds would spend as much ε again.
        with_twin = settings.baselines and settings.twin and moves and not settings.noise
        if with_twin:
            log.info("afterwards its frozen twin is trained as well; twin=false leaves it out")
        if training.trained is None:
            folder.write_rounds([])
        else:
            ColdStart(training, nodes, task, checkpoints, folder).start(grid)
        spent.lap("training_seconds")
        answered = nodes.monitored.answers[messages.EVALUATE]
        results = _tested(training, task, checkpoints)
        if task.splits(training) and nodes.monitored.answers[messages.EVALUATE] == answered:
            _keep_results(folder, training)
        spent.lap("test_seconds")
        results["recommended_users"] = publish_todays_items(training, nodes, grid, folder)
        spent.lap("recommend_seconds")
        failed = nodes.failed  # before the frozen twin asks the same nodes
        results["baselines"] = {}
        if settings.baselines and (splits := [name for name in SPLITS if name in results]):
            results["baselines"] = compare(training, task, splits)
            spent.lap("baselines_seconds")
            if with_twin:
                results["baselines"][TWIN] = frozen_twin(training, task, folder, grid, splits)
                spent.lap("twin_seconds")
        described = describe(nodes, training.index.version, settings)
        order = {} if settings.task == "cold-items" else {"order": order_of(described)}
        if order:
            log.info("a user's last items are those of the order '%s'", order["order"])
        if plots:
            _plot(folder, training)
        peak = _peak_rss_mb()
        summary = {
            "method": settings.title(),
            "kind": settings.card.kind,
            "training": training.id,
            "task": settings.task,
            **order,
            "generated_data": is_generated(settings.data),
            "dataset": _dataset(world.catalogue, described),
            "features": _features(world),
            **results,
            **({} if training.trained is None else training.trained.told()),
            "embeddings": bool(training.snapshots),
            "synthetic": training.crowd.told(),
            "secure_sums": settings.secure_sums,
            "privacy": accountant.of_training(training),
            "failed_answers": failed,
            "wire": {"dtype": settings.wire_dtype, **traffic(training.history)},
            "timing": {
                **spent.laps,
                **timings(training.history),
                "total_seconds": spent.total(),
            },
            "memory": {
                "peak_rss_mb": max([peak, *(d.peak_rss_mb or 0.0 for d in described)]),
                "server_peak_rss_mb": peak,
                "device": str(device),
            },
        }
        folder.write_answered(nodes.monitored.answered)
        folder.write_summary(summary)
        if "test" in summary:
            for line in result_table(summary).splitlines():
                log.info("%s", line)
        log.info("the run folder is %s", folder.path)
        return summary


def _begin_or_resume(
    folder: RunFolder, checkpoints: Checkpoints, settings: RunSettings
) -> dict[str, Any] | None:
    """The newest whole checkpoint where the run is to go on, else None."""
    folder.refuse_training(settings)
    if not settings.resume:
        checkpoints.set_aside()
        return None
    state = checkpoints.newest()
    if state is None and checkpoints.rounds():
        raise SnowdropError(
            f"no checkpoint in {checkpoints.folder} can be read; restore one from a backup, or "
            "begin anew with resume=false fresh=true"
        )
    if state is None:
        log.info("there is no checkpoint in %s: starting anew", checkpoints.folder)
    return state


def _tested(training: Training, task: Task, checkpoints: Checkpoints) -> dict[str, Any]:
    """Test the best validated round, or the last: the results part of ``summary.json``."""
    results: dict[str, Any] = {"best_round": to_best(training, checkpoints)}
    if training.trained is not None:
        log.info("testing round %d", training.round)
    training.method.ensure_fitted()
    users = {"validation": 0, "test": 0}
    for split, (measured, users[split]) in task.own(training, task.splits(training)).items():
        if users[split]:
            results[split] = measured
        else:
            log.warning("no node has told how its users' %s items are ranked", split)
    if not training.settings.tells_metrics:
        log.warning("nothing is tested: metrics carry no noise; release_metrics=true asks for them")
    elif "test" not in task.splits(training):
        log.warning("no test item is cold: there is nothing to test")
    return results | {"validated_users": users["validation"], "tested_users": users["test"]}


def _keep_results(folder: RunFolder, training: Training) -> None:
    """Stop before results of this training are replaced by none, which no node has answered.

    Raises
    ------
    SnowdropError
        If the training was tested before.
    """
    before = folder.read_summary() or {}
    lost = [split for split in SPLITS if split in before]
    if lost and training.settings.tells_metrics and before.get("training") == training.id:
        raise SnowdropError(
            f"no node has told how its users' {' and '.join(lost)} items are ranked; the warnings "
            f"above say why. The results in {folder.path} stay as they were: mend the nodes, or "
            "change the settings, and test again with resume=true"
        )


def _warm_enough(grid: Grid, catalogue: Catalogue, settings: RunSettings) -> Catalogue:
    """The catalogue, with the test items warm that ``warm_after`` users have interacted with."""
    nodes = Nodes(grid, catalogue.index(), settings.round_timeout)
    nodes.wait(settings.nodes, settings.nodes_timeout)
    rows = catalogue.rows("test")
    users = count_users(nodes, catalogue.version, rows, settings)
    return catalogue.with_warm(rows[users >= settings.warm_after])


def _dataset(catalogue: Catalogue, described: list[messages.DescribeAnswer]) -> dict[str, Any]:
    """The ``dataset`` part of ``summary.json``: counts alone."""
    return {
        "users": sum(d.users for d in described),
        "users_without_warm": known_sum(d.users_without_warm for d in described),
        "items": {split: len(catalogue.rows(split)) for split in SPLITS},
        "interactions": {
            split: known_sum(getattr(d, split) for d in described) for split in SPLITS
        },
        "unknown_interactions": known_sum(d.unknown for d in described),
    }


def known_sum(counts: Iterable[int | None]) -> int | None:
    """The sum over nodes; None where one of them does not tell."""
    told = list(counts)
    return None if None in told else sum(count or 0 for count in told)


def _features(world: World) -> dict[str, dict[str, int]]:
    """The ``features`` part of ``summary.json``: numbers of an item, and items without any."""
    return {
        name: {"columns": rows.shape[1], "items_without": int((~rows.any(1)).sum())}
        for name, rows in world.features.items()
    }


def timings(history: list[dict[str, Any]]) -> dict[str, float | None]:
    """Medians over rounds, in seconds; None for what never happened."""
    columns = {
        "round_seconds_median": "train_seconds",
        "generator_seconds_median": "generator_seconds",
        "evaluate_seconds_median": "evaluate_seconds",
    }
    return {name: _median(history, column) for name, column in columns.items()}


def traffic(history: list[dict[str, Any]]) -> dict[str, int]:
    """Bytes of a training round to and from a node, the median round; and of the whole training.

    The latter are of all nodes together, and of validations and synthetic users too.
    """
    columns = {
        "bytes_down_per_node_and_round": "node_bytes_down",
        "bytes_up_per_node_and_round": "node_bytes_up",
    }
    medians = {name: int(_median(history, column) or 0) for name, column in columns.items()}
    totals = {name: sum(row.get(name, 0) for row in history) for name in ("bytes_down", "bytes_up")}
    return medians | totals


def _median(history: list[dict[str, Any]], column: str) -> float | None:
    values = [row[column] for row in history if column in row]
    return statistics.median(values) if values else None


def _plot(folder: RunFolder, training: Training) -> None:
    from server_app.plots import embeddings_plot, metrics_plot

    folder.write_plot(METRICS_PLOT, metrics_plot(training.history))
    if (drawn := embeddings_plot(training.snapshots)) is not None:
        folder.write_plot(EMBEDDINGS_PLOT, drawn)


def _peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
