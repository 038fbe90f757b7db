"""The ServerApp: settings → run."""

import logging
import sys

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.errors import SnowdropError
from common.settings import RunSettings

log = logging.getLogger("snowdrop")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run configuration asks for; a failure is one clear sentence in the log.

    The error is raised on, for Flower to call the run failed.
    """
    from server_app.run import run

    _log_to_stdout()
    try:
        run(grid, RunSettings.of_run(context.run_config, context.run_id))
    except SnowdropError as error:
        log.error("snowdrop: %s", error)
        raise


def _log_to_stdout() -> None:
    logger = logging.getLogger("snowdrop")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
