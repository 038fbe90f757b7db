"""Flower's own commands: finding and calling them, and ending the processes that they start."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from common.errors import SnowdropError

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # Every run and every message of a node waits until it is looked for: 1 s if this is unset.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
    "PYTHONUNBUFFERED": "1",
}
"""Environment variables that every process of Flower gets."""

_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_FLOWER_NOISE = re.compile(
    r"^\s*$|\x1b\[9[0-9]m|^(INFO|DEBUG|WARNING) *:|^Using SuperLink|^Successfully installed"
)
_FAILURE = re.compile(r"^snowdrop: ")


class Flower:
    """The `flwr` command and one of its connections, with a home of their own.

    Parameters
    ----------
    environment : Mapping[str, str]
        With ``FLWR_HOME``.
    connection : str
        Name of the connection in its ``config.toml``.
    """

    def __init__(self, environment: Mapping[str, str], connection: str) -> None:
        self.connection = connection
        self._environment = dict(environment)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One `flwr` command, run to its end."""
        return subprocess.run(
            [tool("flwr"), *arguments],
            env=self._environment, capture_output=True, text=True, check=False,
            start_new_session=True,
        )  # fmt: skip

    def json(self, *arguments: str) -> Any:
        """The JSON that a `flwr` command prints.

        Raises
        ------
        SnowdropError
            If it fails, with what it printed.
        """
        done = self.call(*arguments, "--format", "json")
        try:
            answer = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError as error:
            raise _failed(arguments[0], done.stdout + done.stderr) from error
        if done.returncode or answer.get("success") is False:
            raise _failed(arguments[0], str(answer.get("error-message", answer)))
        return answer

    def follow(self, run_id: str, verbose: bool) -> bool:
        """Show the log of a run until it ends; whether there was anything to show."""
        process = subprocess.Popen(
            [tool("flwr"), "log", run_id, self.connection, "--stream"],
            env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            explained = shown = False
            for line in process.stdout:
                # What follows our own sentence on a failure is Flower's traceback of it.
                if verbose or not (explained or _FLOWER_NOISE.search(line)):
                    sys.stdout.write(line)
                    sys.stdout.flush()
                    shown = True
                explained = explained or bool(_FAILURE.search(line))
            process.wait()
        finally:
            end(process)
        return shown

    def status(self, run_id: str) -> str:
        """Final status of a run, such as ``finished:completed``."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            status = str(self.json("ls", self.connection, "--run-id", run_id)["runs"][0]["status"])
            if status.startswith("finished") or time.monotonic() > deadline:
                return status
            time.sleep(0.5)


def _failed(command: str, said: str) -> SnowdropError:
    told = [line for line in said.splitlines() if not _FLOWER_NOISE.search(line)]
    return SnowdropError(f"flwr {command} failed: " + "\n".join(told))


def tool(name: str) -> str:
    """Path of a command that is installed beside this Python."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SnowdropError(f"the command {name} is not installed; run `pip install flwr`")
    return found


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the SuperLink answers on its port.

    Raises
    ------
    SnowdropError
        If it ends or does not come up, with the end of its log.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SnowdropError(f"the SuperLink did not start: {log.read_text()[-500:]}")


def end_family(family: Sequence[psutil.Process]) -> None:
    """End processes: first by SIGTERM, then by SIGKILL."""
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    for member in (alive := _alive_after(family, _STOP_SECONDS)):
        with suppress(psutil.NoSuchProcess):
            member.kill()
    _alive_after(alive, _STOP_SECONDS)


def _alive_after(family: Sequence[psutil.Process], seconds: float) -> Sequence[psutil.Process]:
    """Those that still run after some seconds; returns as soon as none does.

    Unlike psutil's own wait, it counts a zombie as ended: its parent may be slow to collect it.
    """
    deadline = time.monotonic() + seconds
    while (alive := [p for p in family if _runs(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(process: subprocess.Popen[Any]) -> None:
    """End a process and its descendants in all sessions: first by SIGTERM, then by SIGKILL."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        with suppress(ProcessLookupError):
            process.terminate()
    end_family(family)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
