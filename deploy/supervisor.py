"""Keeps a federation's processes running on one machine: `python -m deploy.supervisor DIR`.

It does what systemd or Docker do on other machines: a process that ends is started again, after a
pause that grows to some seconds. While the file ``DIR/run/NAME.held`` exists, that process is not
started. ``DIR/run/NAME.json`` holds the state of each process.
"""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psutil

from common.durable import write_atomic
from common.errors import SnowdropError
from deploy import certificate
from deploy.federation import FILE, Federation
from deploy.flower import end_family
from deploy.processes import EXECUTOR, SECRET, SUPERLINK, Process, processes

log = logging.getLogger("snowdrop.supervisor")

MARK = "SNOWDROP_FEDERATION"
"""Environment variable that all processes of a federation carry: its folder."""

NAME_MARK = "SNOWDROP_PROCESS"
_TICK_SECONDS = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
_WELL_SECONDS = 30.0  # after a run of this length, the first pause is taken again
_LOG_BYTES = 50_000_000
_CERTIFICATE_SECONDS = 60.0  # between two looks at the server's certificate
_LOCK_SECONDS = 1.0  # reading the supervisor's pid takes the lock for a moment


@dataclass(frozen=True)
class Report:
    """The state of one process."""

    state: str  # running, waiting or held
    pid: int | None
    since: str
    restarts: int


class Child:
    """One process, kept running."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.process = process
        self._folder = folder
        self._popen: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._next = 0.0
        self._pause = _FIRST_PAUSE
        self._starts = 0
        self._report: Report | None = None

    @property
    def pid(self) -> int | None:
        """Id of the process; None where it is not there."""
        return self._popen.pid if self._popen else None

    def tend(self) -> None:
        """Start, restart or end the process, whichever is due."""
        held = held_path(self._folder, self.process.name).exists()
        if self._popen is not None and self._popen.poll() is not None:
            self._note_end()
        if self._popen is not None and held:
            self.end()
        elif self._popen is None and not held and time.monotonic() >= self._next:
            self._start()
        state = "running" if self._popen else "held" if held else "waiting"
        self._tell(state)

    def end(self) -> None:
        """End the process and all that it started."""
        end_family(family(self._folder, self.process.name))
        if self._popen is not None:
            self._popen.wait()
            self._popen = None
        self._next, self._pause = 0.0, _FIRST_PAUSE

    def _start(self) -> None:
        path = log_path(self._folder, self.process.name)
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        marks = {MARK: str(self._folder), NAME_MARK: self.process.name}
        try:
            with path.open("ab") as output:
                self._popen = subprocess.Popen(
                    self.process.command,
                    cwd=self._folder,
                    env=os.environ | self.process.environment | marks,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            log.error("%s cannot be started: %s", self.process.name, error)
            self._wait()
            return
        self._starts += 1
        self._started = time.monotonic()
        log.info("%s started, pid %d", self.process.name, self._popen.pid)

    def _note_end(self) -> None:
        assert self._popen is not None
        code = self._popen.returncode
        end_family(family(self._folder, self.process.name))  # what it left behind
        self._popen = None
        if time.monotonic() - self._started > _WELL_SECONDS:
            self._pause = _FIRST_PAUSE
        log.warning(
            "%s ended with status %d; it starts again in %g s", self.process.name, code, self._pause
        )
        self._wait()

    def _wait(self) -> None:
        self._next = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _tell(self, state: str) -> None:
        pid = self.pid
        last = self._report
        if last and (last.state, last.pid) == (state, pid):
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._report = Report(state, pid, now, max(0, self._starts - 1))
        with suppress(SnowdropError):  # a full disk is no reason to stop
            write_atomic(
                report_path(self._folder, self.process.name),
                json.dumps(asdict(self._report)).encode(),
            )


class Renewal:
    """Renews the server's certificate before it ends; the SuperLink takes it between two runs.

    A certificate that somebody else has put there is taken as well.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "server" / "server.crt"
        self._next = 0.0
        self._pid: int | None = None
        self._taken = 0

    def tend(self, superlink: Child) -> None:
        """Renew, or have the SuperLink start again, where that is due; looks once in a minute."""
        if superlink.pid != self._pid:
            self._pid, self._taken = superlink.pid, self._stamp()
        if time.monotonic() < self._next or not self._path.exists():
            return
        self._next = time.monotonic() + _CERTIFICATE_SECONDS
        try:
            if certificate.renew_if_due(self._folder, Federation.load(self._folder)):
                log.info("%s is renewed", self._path)
        except SnowdropError as error:
            log.warning("the server's certificate ends soon and cannot be renewed: %s", error)
        if self._pid and self._stamp() != self._taken and not serverapps(self._folder):
            log.info("the SuperLink starts again, to take its new certificate")
            superlink.end()

    def _stamp(self) -> int:
        return self._path.stat().st_mtime_ns if self._path.exists() else 0


def supervise(folder: Path) -> None:
    """Keep the federation running until SIGTERM, then end it, nodes first."""
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))
    with _only_one(folder):
        end_family(family(folder))  # left by a supervisor that was killed
        children: dict[str, Child] = {}
        renewal = Renewal(folder)
        stamp = 0
        try:
            while not stopping:
                if (changed := (folder / FILE).stat().st_mtime_ns) != stamp:
                    stamp = changed
                    wanted = {p.name: p for p in processes(Federation.load(folder))}
                    for name in children.keys() - wanted.keys():
                        children.pop(name).end()
                        report_path(folder, name).unlink(missing_ok=True)
                    for name, process in wanted.items():  # the server's first
                        if name not in children:
                            children[name] = Child(folder, process)
                        children[name].process = process  # as it is started the next time
                renewal.tend(children[SUPERLINK])
                for child in children.values():
                    child.tend()
                time.sleep(_TICK_SECONDS)
        finally:
            end_all(folder)
            log.info("all ended")


def serverapps(folder: Path) -> list[psutil.Process]:
    """The processes that run a ServerApp now: one for each run that is under way."""
    found = []
    for process in family(folder, EXECUTOR):
        with suppress(psutil.Error):
            if any("flwr-serverapp" in part for part in process.cmdline()):
                found.append(process)
    return found


def end_all(folder: Path) -> None:
    """End every process of the federation; nodes first, while they can still sign off."""
    server = (SUPERLINK, EXECUTOR)
    end_family([p for p in family(folder) if _part(p, folder) not in server])
    end_family(family(folder, EXECUTOR))
    end_family(family(folder))


def family(folder: Path, name: str | None = None) -> list[psutil.Process]:
    """The processes of the federation, or of one of its parts, with all that they started."""
    parts = ((process, _part(process, folder)) for process in _others())
    return [process for process, part in parts if part and name in (None, part)]


def started_with(variable: str, value: str) -> list[psutil.Process]:
    """All other processes whose environment holds a variable with this value."""
    return [p for p in _others() if _environment(p).get(variable) == value]


def _others() -> Iterator[psutil.Process]:
    psutil.process_iter.cache_clear()  # it may hold another process that had the same pid
    return (process for process in psutil.process_iter() if process.pid != os.getpid())


def _part(process: psutil.Process, folder: Path) -> str | None:
    """Name of the federation's part that a process belongs to; None where it is a stranger's."""
    marks = _environment(process)
    if marks:
        return marks.get(NAME_MARK) if marks.get(MARK) == str(folder) else None
    with suppress(psutil.Error):  # Flower hides the environment of its executors from all but root
        if str(folder / SECRET) in process.cmdline():
            return EXECUTOR
        if (parent := process.parent()) is not None:  # a node starts an executor of its own
            return _part(parent, folder)
    return None


def _environment(process: psutil.Process) -> dict[str, str]:
    """The environment of a process; empty where it cannot be read, or the process has ended."""
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def supervisor_pid(folder: Path) -> int | None:
    """Process id of the supervisor of the federation; None where none runs."""
    try:
        with lock_path(folder).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except (FileNotFoundError, NotADirectoryError):
        pass
    return None


def report(folder: Path, name: str) -> Report | None:
    """The state of a process, as its supervisor last wrote it down."""
    try:
        return Report(**json.loads(report_path(folder, name).read_text()))
    except (OSError, ValueError):
        return None


def held_path(folder: Path, name: str) -> Path:
    """While this file exists, the process is not started."""
    return folder / "run" / f"{name}.held"


def report_path(folder: Path, name: str) -> Path:
    """Where the supervisor writes the state of a process."""
    return folder / "run" / f"{name}.json"


def log_path(folder: Path, name: str) -> Path:
    """The log of a process."""
    return folder / "logs" / f"{name}.log"


def lock_path(folder: Path) -> Path:
    """Locked by the supervisor while it runs; holds its pid."""
    return folder / "run" / "supervisor.lock"


@contextmanager
def _only_one(folder: Path) -> Iterator[IO[str]]:
    path = lock_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise SnowdropError(
                        f"{folder} is supervised already; `snowdrop deploy down {folder}` ends it"
                    ) from error
                time.sleep(0.01)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    supervise(Path(sys.argv[1]).absolute())
