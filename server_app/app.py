"""The ServerApp: settings → run."""

import json
import logging
import sys
from datetime import UTC, datetime

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.errors import SnowdropError
from common.settings import RunSettings

log = logging.getLogger("snowdrop")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run configuration asks for; a failure is one clear sentence in the log.

    The error is raised on, for Flower to call the run failed. `flwr run` has ended well by then:
    it submits a run, and its exit status says nothing about what becomes of it.
    """
    from server_app.run import run

    _log_to_stdout()
    logging.getLogger("flwr").addFilter(without_traceback)
    try:
        settings = RunSettings.of_run(context.run_config, context.run_id)
        if settings.log_format == "json":
            _log_to_stdout(JsonLines())
        run(grid, settings)
    except SnowdropError as error:
        log.error("snowdrop: %s", error)
        raise


def without_traceback(record: logging.LogRecord) -> bool:
    """Take the traceback off a record of an error that one sentence explains; keep every record."""
    if record.exc_info and isinstance(record.exc_info[1], SnowdropError):
        record.exc_info = None
    return True


class JsonLines(logging.Formatter):
    """One JSON object per line: ``time`` in ISO format, ``level``, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        """A record of the log as its line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told = {"time": moment, "level": record.levelname, "message": record.getMessage()}
        return json.dumps(told, ensure_ascii=False)


def _log_to_stdout(form: logging.Formatter | None = None) -> None:
    logger = logging.getLogger("snowdrop")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(sys.stdout))
    for handler in logger.handlers:
        handler.setFormatter(form or logging.Formatter("%(message)s"))
    logger.setLevel(logging.INFO)
    logger.propagate = False
