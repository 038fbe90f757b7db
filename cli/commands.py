"""The commands of `snowdrop`, each imported when it runs."""

import logging
import os
import signal
import sys
from typing import Annotated

import typer

from cli.lazy import Later, LazyGroup
from cli.main import INTERRUPTED, Interrupt


class _Commands(LazyGroup):
    later = {  # noqa: RUF012
        "simulate": Later(
            "cli.simulate:simulate",
            "Train, test and recommend in a federation simulated on this machine.",
        ),
        "bench": Later(
            "cli.bench:bench",
            "Compare methods on the same data, split and seeds; make only the runs that are "
            "missing.",
        ),
        "tune": Later(
            "cli.tune:tune",
            "Search settings of methods by Recall@20 on validation items; `snowdrop bench` takes "
            "them.",
        ),
        "synthesize": Later(
            "cli.synthesize:synthesize",
            "Make synthetic users from a silo's interactions, and measure what they give away.",
        ),
        "bench-synthetic": Later(
            "cli.bench_synthetic:bench_synthetic",
            "Judge synthetic users by what recommenders learn from them; make only what is "
            "missing.",
        ),
        "tune-synthetic": Later(
            "cli.bench_synthetic.tuning:tune_synthetic",
            "Search settings of synthesizers by Recall@10, with as many trials for each of them.",
        ),
        "recommend": Later(
            "cli.recommend:recommend",
            "Print one user's new items with scores and titles, from what the node keeps.",
        ),
        "report": Later(
            "cli.report:report",
            "Make one self-contained HTML page of results, curves, embeddings and recommendations.",
        ),
        "privacy": Later(
            "cli.privacy:privacy",
            "Tell the noise that a training needs for an ε, or the ε that a noise gives.",
        ),
        "attack": Later(
            "cli.attack:app",
            "Attack a federation on your own data: histories, memberships, features of items.",
        ),
        "settings": Later(
            "cli.settings:settings", "List every setting with its value and meaning."
        ),
        "prepare": Later("cli.prepare:app", "Turn a known source of data into a data folder."),
        "deploy": Later("cli.deploy:app", "Set up and run a federation of separate processes."),
    }


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Recommend brand-new items in a federation that never collects an interaction.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"snowdrop {version('snowdrop')}")
        raise typer.Exit


_VersionOption = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
]


@app.callback()
def _setup(version: _VersionOption = False) -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[_ToStderr()])
    # From here on a command may have started something, which ends with it.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")


def _interrupt(*_: object) -> None:
    if _importing("torch"):  # its C++ code answers an exception with an abort; nothing runs yet
        os._exit(INTERRUPTED)
    raise Interrupt


def _importing(name: str) -> bool:
    """Whether the import of a module has begun and not yet ended."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


class _ToStderr(logging.Handler):
    """Writes to what ``sys.stderr`` is now: under a progress bar, that puts lines above it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)
