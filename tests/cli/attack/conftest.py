"""The attacks as a user calls them."""

from collections.abc import Sequence
from pathlib import Path

from typer.testing import CliRunner

from cli.commands import app
from tests.cli.conftest import QUICK

IN_ROUNDS = {"method": "mixture", **QUICK}
"""Settings of a method that trains in rounds."""

SETTINGS = [f"--set={name}={value}" for name, value in IN_ROUNDS.items()
            if name not in ("rounds", "evaluate_every")]  # fmt: skip


def attack(name: str, data: Path, *options: object, settings: Sequence[str] = SETTINGS) -> str:
    """What the command prints; raises what it refuses."""
    result = CliRunner().invoke(app, ["attack", name, str(data), *settings, *map(str, options)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output
