"""The `snowdrop` command as a process: what it imports, and how Ctrl-C ends it."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from cli.commands import _Commands, app
from cli.lazy import LazyGroup
from cli.prepare import _Sources

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
HEAVY = (
    "torch", "transformers", "diffusers", "sklearn", "optuna", "flwr", "ray", "matplotlib",
)  # fmt: skip
CALLS = [
    [], *([name] for name in _Commands.later), *(["prepare", name] for name in _Sources.later),
    ["deploy", "up"],
]  # fmt: skip

IMPORTED = """
import atexit, sys
from cli.main import main
atexit.register(lambda: print("imported:", *sorted({name.split(".")[0] for name in sys.modules})))
sys.argv[0] = "snowdrop"
main()
"""


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_help_imports_nothing_that_takes_seconds(call: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *call, "--help"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    shown, _, imported = done.stdout.partition("imported:")
    assert "Usage: snowdrop" in shown
    assert not set(HEAVY) & set(imported.split())
    if not call:
        assert not {"numpy", "polars", "pydantic"} & set(imported.split())


def test_the_version_is_that_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shown = CliRunner().invoke(app, ["--version"])
    assert shown.exit_code == 0
    assert shown.output == f"snowdrop {declared['version']}\n"


def test_the_entry_imports_next_to_nothing() -> None:
    """Whatever it imports, Ctrl-C would end with a traceback."""
    code = (
        "import os, signal, sys; had = set(sys.modules); import cli.main;"
        "print(*set(sys.modules) - had)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == {"cli", "cli.main"}


@pytest.mark.parametrize("group", [_Commands, _Sources])
def test_the_list_of_commands_says_what_their_help_says(group: type[LazyGroup]) -> None:
    for name, later in group.later.items():
        command = group().load(name)
        assert command.name == name
        assert " ".join((command.help or "").split("\n\n")[0].split()) == later.summary


def test_an_unknown_command_is_refused_with_what_was_meant() -> None:
    result = CliRunner().invoke(app, ["simulat"])
    assert result.exit_code == 2
    assert "Did you mean 'simulate'" in result.output
    assert isinstance(typer.main.get_command(app), click.Group)


# Sends itself Ctrl-C when a module is looked for, or in a callback where Python can raise nothing.
INTERRUPTED = """
import os, signal, sys
where = sys.argv.pop(1)

class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == where:
            sys.meta_path.remove(Finder)
            os.kill(os.getpid(), signal.SIGINT)

class Lost:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(10))

class LostFinder(Finder):
    @staticmethod
    def find_spec(name, *_):
        if "lost " + name == where:
            sys.meta_path.remove(LostFinder)
            Lost()

sys.meta_path[:0] = [Finder, LostFinder]
from cli.main import main
sys.argv[0] = "snowdrop"
main()
"""


@pytest.mark.parametrize(
    "where",
    ["cli.commands", "typer", "rich", "cli.simulate", "pydantic", "polars", "flwr", "torch",
     "lost polars", "lost torch.nn"],
)  # fmt: skip
def test_ctrl_c_while_something_is_imported_is_silent(where: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, where, "simulate", str(tmp_path / "data"),
         "--run-dir", str(tmp_path / "run")],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 130)


def interrupted(arguments: Sequence[str], seconds: float) -> tuple[int, str]:
    """Exit status and stderr of a command that hears Ctrl-C, with all that it started, then."""
    code = "print(flush=True); import sys; from cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=120)
    return process.returncode, told


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.5, 1, 2, 5])
@pytest.mark.parametrize("command", ["help", "bench", "tune", "simulate"])
def test_ctrl_c_at_any_moment_shows_no_traceback(
    command: str, seconds: float, tmp_path: Path
) -> None:
    calls = {
        "help": ["bench", "--help"],
        "bench": ["bench", "demo", "--out", str(tmp_path), "--methods", "ridge"],
        "tune": ["tune", "demo", "--out", str(tmp_path), "--method", "ridge"],
        "simulate": ["simulate", "demo", "--run-dir", str(tmp_path / "run")],
    }
    if command == "help" and seconds > 1:
        pytest.skip("it has long ended")
    status, told = interrupted(calls[command], seconds)
    assert "Traceback" not in told
    assert "Exception" not in told
    said = status == 1 and "snowdrop: stopped" in told
    # While Python shuts down, the signal itself ends the process: a shell shows 130 for it, too.
    ended = status in (130, -signal.SIGINT)
    assert said or ended or (command == "help" and status == 0)


def test_sigterm_ends_a_command_as_ctrl_c_does() -> None:
    code = (
        "import os, signal; from cli import settings; from cli.main import main;"
        "settings.settings = lambda: os.kill(os.getpid(), signal.SIGTERM);"
        "import sys; sys.argv = ['snowdrop', 'settings']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.returncode) == ("", 130)
