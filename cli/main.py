"""The `snowdrop` command."""

import logging
import os
import signal
import sys

import typer

from cli.bench import bench
from cli.deploy import app as deploy_app
from cli.prepare import app as prepare_app
from cli.recommend import recommend
from cli.report import report
from cli.settings import settings
from cli.simulate import simulate
from cli.tune import tune
from common.errors import SnowdropError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Recommend brand-new items in a federation that never collects an interaction.",
)
app.add_typer(prepare_app, name="prepare")
app.add_typer(deploy_app, name="deploy")
app.command()(simulate)
app.command()(bench)
app.command()(tune)
app.command()(recommend)
app.command()(report)
app.command()(settings)


@app.callback()
def _setup() -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)  # what a command started ends with it
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; an error that the user can mend is one sentence and exit status 1."""
    try:
        app()
    except SnowdropError as error:
        sys.stdout.flush()
        print(f"snowdrop: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
