"""The ServerApp: settings → strategy → run → summary."""

import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common import demo, messages
from common.catalogue import SPLITS, Catalogue, read_catalogue
from common.errors import SnowdropError
from common.settings import DEMO, OPERATION, RunSettings
from server_app.aggregation import check_counts
from server_app.checkpoint import Checkpoints
from server_app.modality import encode, pick_device
from server_app.nodes import Nodes
from server_app.report import RunFolder, result_table
from server_app.strategy import ColdStart, method_name, timings, traffic
from server_app.training import Training, former_index

log = logging.getLogger("snowdrop")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run configuration asks for; a failure is one clear sentence in the log.

    The error is raised on, for Flower to call the run failed.
    """
    _log_to_stdout()
    try:
        run(grid, RunSettings.of_run(context.run_config, context.run_id))
    except SnowdropError as error:
        log.error("snowdrop: %s", error)
        raise


def run(grid: Grid, settings: RunSettings, plots: bool = True) -> dict[str, Any]:
    """One run: encode, train, test, recommend, report.

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
        What ``summary.json`` holds.

    Raises
    ------
    SnowdropError
        With one sentence that says what is wrong and what would be right.
    """
    if settings.mode == "publish":
        return publish(grid, settings)
    started = time.perf_counter()
    device = pick_device(settings.server_device)
    catalogue = load_catalogue(settings)
    folder = RunFolder(Path(settings.run_dir))
    checkpoints = Checkpoints(folder.path / "checkpoint")
    try:
        log.info("results go to %s", folder.path)
        state = _newest_or_clear(checkpoints, settings)
        if state:
            catalogue = catalogue.grown_from(former_index(state))
            if settings.warm_after:
                catalogue = _warm_enough(grid, catalogue, settings)
        features = encode(catalogue.texts, settings, device)
        encode_seconds = time.perf_counter() - started
        training = Training.begin(settings, catalogue.index(), features, device)
        if state:
            training.restore(state)
            log.info("going on after round %d", training.round)
        folder.write_settings(settings)
        strategy = ColdStart(settings, training, checkpoints, folder, device)
        strategy.start(grid)
        results = strategy.finish()
        results["recommended_users"] = _recommend_todays_items(grid, settings, strategy)
        described = strategy.describe()
        if plots:
            folder.plot_metrics(training.history)
            folder.plot_embeddings(training.snapshots)
        summary = {
            "method": method_name(settings),
            "training": training.id,
            "generated_data": settings.data == DEMO,
            "dataset": _dataset(training, described),
            **results,
            "failed_answers": strategy.nodes.failed,
            "wire": {"dtype": settings.wire_dtype, **traffic(training.history)},
            "timing": {
                "encode_seconds": encode_seconds,
                **timings(training.history),
                "total_seconds": time.perf_counter() - started,
            },
            "memory": {
                "peak_rss_mb": max([_peak_rss_mb(), *(d.peak_rss_mb for d in described)]),
                "server_peak_rss_mb": _peak_rss_mb(),
                "device": str(device),
            },
        }
        folder.write_summary(summary)
        if "test" in summary:
            for line in result_table(summary).splitlines():
                log.info("%s", line)
        log.info("results are in %s", folder.path)
        return summary
    finally:
        checkpoints.close()


def _recommend_todays_items(grid: Grid, settings: RunSettings, strategy: ColdStart) -> int:
    """Users served; what was added to the catalogue during the training is published with it."""
    try:
        if settings.data != DEMO:
            today = load_catalogue(settings).grown_from(strategy.index, training=False)
            if today.version != strategy.index.version:
                log.info("the catalogue has changed during the training: publishing it")
                return int(publish(grid, settings)["users"])
    except SnowdropError as error:
        log.warning("recommending the items that the training began with alone: %s", error)
    return strategy.recommend()[0]


def _dataset(training: Training, described: list[messages.DescribeAnswer]) -> dict[str, Any]:
    """The ``dataset`` part of ``summary.json``: counts alone."""
    return {
        "users": sum(d.users for d in described),
        "users_without_warm": sum(d.users_without_warm for d in described),
        "items": {split: len(rows) for split, rows in training.rows.items()},
        "interactions": {split: sum(getattr(d, split) for d in described) for split in SPLITS},
        "unknown_interactions": sum(d.unknown for d in described),
    }


def load_catalogue(settings: RunSettings) -> Catalogue:
    """The items that the settings name.

    Raises
    ------
    SnowdropError
        If the data folder is missing, relative, or malformed.
    """
    if settings.data == DEMO:
        return demo.demo_catalogue(demo.ITEMS, settings.seed)
    folder = Path(settings.data)
    if not folder.is_absolute():
        raise SnowdropError(f"data = {settings.data!r} must be an absolute path, or 'demo'")
    if not folder.is_dir():
        raise SnowdropError(f"the data folder {folder} does not exist")
    return read_catalogue(folder, settings.seed)


def publish(grid: Grid, settings: RunSettings) -> dict[str, Any]:
    """Recommend the cold items of today's catalogue with the best round of a training.

    Parameters
    ----------
    grid : Grid
    settings : RunSettings
        ``run_dir`` names the training, which tells all settings but those of `OPERATION`.

    Returns
    -------
    dict
        What ``published.json`` holds.

    Raises
    ------
    SnowdropError
        If there is no training, no new item, or no node.
    """
    folder = RunFolder(Path(settings.run_dir))
    state = Checkpoints(folder.path / "checkpoint", exclusive=False).best()
    if state is None:
        raise SnowdropError(f"{folder.path} has no whole checkpoint; set run_dir to a training's")
    today = settings.model_dump(mode="json", include=set(OPERATION))
    settings = RunSettings.parse(state["settings"] | today)
    device = pick_device(settings.server_device)
    catalogue = load_catalogue(settings).grown_from(former_index(state), training=False)
    features = encode(catalogue.texts, settings, device)
    training = Training.begin(settings, catalogue.index(), features, device)
    training.restore(state)
    checkpoints = Checkpoints(folder.path / "checkpoint", exclusive=False)
    published = ColdStart(settings, training, checkpoints, folder, device).publish(grid)
    folder.write_published(published)
    return published


def _newest_or_clear(checkpoints: Checkpoints, settings: RunSettings) -> dict[str, Any] | None:
    if not settings.resume:
        checkpoints.clear()
        return None
    state = checkpoints.newest()
    if state is None and checkpoints.rounds():
        raise SnowdropError(
            f"no checkpoint in {checkpoints.folder} can be read; restore one from a backup, or "
            "start anew with resume=false"
        )
    if state is None:
        log.info("there is no checkpoint in %s: starting anew", checkpoints.folder)
    return state


def _warm_enough(grid: Grid, catalogue: Catalogue, settings: RunSettings) -> Catalogue:
    """The catalogue, with the test items warm that ``warm_after`` users have interacted with."""
    nodes = Nodes(grid, catalogue.index(), settings.round_timeout)
    nodes.wait(settings.nodes, settings.nodes_timeout)
    rows = catalogue.rows("test")
    request = messages.CountRequest(catalogue.version).to_record()
    users = np.zeros(len(rows), np.int64)
    for node, answer in nodes.ask(messages.QUERY_COUNT, request, messages.CountAnswer):
        try:
            users += check_counts(answer, len(rows), settings)
        except SnowdropError as error:
            nodes.refuse(node, messages.QUERY_COUNT, error)
    return catalogue.with_warm(rows[users >= settings.warm_after])


def _log_to_stdout() -> None:
    logger = logging.getLogger("snowdrop")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _peak_rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
