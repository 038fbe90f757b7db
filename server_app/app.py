"""The ServerApp: settings → strategy → run → summary."""

import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common import demo
from common.catalogue import COLD_SPLITS, Catalogue, read_catalogue
from common.errors import SnowdropError
from common.settings import DEMO, RunSettings
from server_app.checkpoint import Checkpoints
from server_app.modality import encode, pick_device
from server_app.report import RunFolder, result_table
from server_app.strategy import ColdStart, timings
from server_app.training import Training

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


def run(grid: Grid, settings: RunSettings) -> dict[str, Any]:
    """One run: encode, train, test, recommend, report.

    Parameters
    ----------
    grid : Grid
    settings : RunSettings
        With a run directory.

    Returns
    -------
    dict
        What ``summary.json`` holds.

    Raises
    ------
    SnowdropError
        With one sentence that says what is wrong and what would be right.
    """
    started = time.perf_counter()
    device = pick_device(settings.server_device)
    catalogue = load_catalogue(settings)
    folder = RunFolder(Path(settings.run_dir))
    checkpoints = Checkpoints(folder.path / "checkpoint")
    try:
        log.info("results go to %s", folder.path)
        folder.write_settings(settings)
        features = encode(catalogue.texts, settings, device)
        encode_seconds = time.perf_counter() - started
        training = Training.begin(settings, catalogue.index(), features, device)
        _resume_or_clear(training, checkpoints, settings)
        strategy = ColdStart(settings, catalogue.index(), training, checkpoints, folder, device)
        strategy.start(grid)
        results = strategy.finish()
        described = strategy.describe()
        folder.plot_metrics(training.history)
        folder.plot_embeddings(training.snapshots)
        summary = {
            "method": method_name(settings),
            "training": training.id,
            "generated_data": settings.data == DEMO,
            "dataset": {
                "users": sum(d.users for d in described),
                "users_without_warm": sum(d.users_without_warm for d in described),
                "items": {split: len(rows) for split, rows in training.rows.items()},
                "interactions": {
                    split: sum(getattr(d, split) for d in described)
                    for split in ("warm", *COLD_SPLITS)
                },
                "unknown_interactions": sum(d.unknown for d in described),
            },
            **results,
            "failed_answers": strategy.nodes.failed,
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
        for line in result_table(summary).splitlines():
            log.info("%s", line)
        log.info("results are in %s", folder.path)
        return summary
    finally:
        checkpoints.close()


def method_name(settings: RunSettings) -> str:
    """What the field calls the method of these settings, or the generator's name."""
    names = {
        ("diffusion", "linear"): "MDiffFR",
        ("mapping", "linear"): "IPFedRec",
        ("mapping", "mlp"): "IFedNCF",
        ("neighbours", "dot"): "CS_FCF",
        ("neighbours", "mlp"): "CS_FedNCF",
    }
    return names.get((settings.generator, settings.head), settings.generator)


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


def _resume_or_clear(training: Training, checkpoints: Checkpoints, settings: RunSettings) -> None:
    if not settings.resume:
        checkpoints.clear()
        return
    state = checkpoints.newest()
    if state is None:
        log.warning("there is no whole checkpoint in %s: starting anew", checkpoints.folder)
        return
    training.restore(state)
    log.info("going on after round %d", training.round)


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
