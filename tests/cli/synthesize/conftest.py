"""The synthesizer of the tests, and the command as a user calls it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import app
from common.errors import SnowdropError
from tests.synthesizers import drawn  # noqa: F401  a fixture

Synthesize = Callable[..., str]


@pytest.fixture
def synthesize(drawn: object, monkeypatch: pytest.MonkeyPatch) -> Synthesize:  # noqa: F811
    """The command with the method ``drawn``; returns what it prints, raises what it refuses."""
    monkeypatch.setattr("client_app.synthesis.likelihood.EPOCHS", 2)

    def call(data: Path, out: Path, *options: object) -> str:
        given = ["--method", "drawn", *map(str, options)]
        result = CliRunner().invoke(app, ["synthesize", str(data), "--out", str(out), *given])
        if isinstance(result.exception, SnowdropError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
