"""The `snowdrop` command as a process: what it imports, and how Ctrl-C ends it."""

import json
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

from cli.attack import _Attacks
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

# Runs one call after the other: a module that one of them imports is told with that call.
IMPORTED = """
import contextlib, io, json, sys
had = set(sys.modules)
from cli.main import main
for call in json.loads(sys.argv[1]):
    sys.argv = ["snowdrop", *call, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main()
    new = {name.split(".")[0] for name in set(sys.modules) - had}
    print(json.dumps([shown.getvalue(), sorted(new)]))
"""


@pytest.fixture(scope="module")
def helped() -> dict[str, tuple[str, set[str]]]:
    """What `--help` of each call shows, and which packages are imported by then."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, json.dumps(CALLS)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = map(json.loads, done.stdout.splitlines())
    return {
        " ".join(call): (shown, set(new)) for call, (shown, new) in zip(CALLS, told, strict=True)
    }


@pytest.mark.parametrize("call", [" ".join(call) for call in CALLS])
def test_help_imports_nothing_that_takes_seconds(
    call: str, helped: dict[str, tuple[str, set[str]]]
) -> None:
    shown, imported = helped[call]
    assert f"Usage: snowdrop {call}".rstrip() in shown
    assert not set(HEAVY) & imported
    if not call:
        assert not {"numpy", "polars", "pydantic"} & imported


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


@pytest.mark.parametrize("group", [_Commands, _Sources, _Attacks])
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
    ("command", "where"),
    [
        *(("simulate", name) for name in ("cli.commands", "typer", "rich", "cli.simulate")),
        *(("simulate", name) for name in ("pydantic", "polars", "lost polars")),
        *(("report", name) for name in ("torch", "lost torch.nn")),
    ],
)
def test_ctrl_c_while_something_is_imported_is_silent(
    command: str, where: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, where, command, str(tmp_path)],
        env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 130)


def begin(arguments: Sequence[str]) -> "subprocess.Popen[str]":
    """A command as a process, at its first line of code."""
    code = "print(flush=True); import sys; from cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    return process


def interrupted(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit status and stderr of a command that hears Ctrl-C, with all that it started."""
    with process:
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=120)
    return process.returncode, told


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.5, 1, 2, 5])
def test_ctrl_c_at_any_moment_shows_no_traceback(seconds: float, tmp_path: Path) -> None:
    calls = {
        "bench": ["bench", "demo", "--out", str(tmp_path / "bench"), "--methods", "ridge"],
        "tune": ["tune", "demo", "--out", str(tmp_path / "tune"), "--methods", "ridge"],
        "simulate": ["simulate", "demo", "--run-dir", str(tmp_path / "run")],
    }
    if seconds <= 1:  # it has ended later on
        calls["help"] = ["bench", "--help"]
    begun = {name: begin(call) for name, call in calls.items()}  # at once: they wait together
    time.sleep(seconds)
    for name, (status, told) in {name: interrupted(each) for name, each in begun.items()}.items():
        assert "Traceback" not in told, name
        assert "Exception" not in told, name
        said = status == 1 and "snowdrop: stopped" in told
        # While Python shuts down, the signal itself ends the process: a shell shows 130, too.
        ended = status in (130, -signal.SIGINT)
        assert said or ended or (name == "help" and status == 0), (name, status, told)


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


def test_ctrl_c_that_a_library_swallows_ends_the_command() -> None:
    code = """
import os, signal, sys, time
from cli import settings
from cli.main import main

def swallow():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(10))
    except:
        pass
    time.sleep(60)

settings.settings = swallow
sys.argv = ["snowdrop", "settings"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, timeout=30
    )
    assert (done.stderr, done.returncode) == ("", 130)
