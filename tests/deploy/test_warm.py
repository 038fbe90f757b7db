"""The warm process: real processes, with small stand-ins in the place of the libraries."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.warm import server
from tests.deploy.test_supervisor import wait_for

ROOT = Path(__file__).parents[2]

STANDS_IN = '''
"""Says what it is, and does what its arguments say."""
import json, os, signal, sys, time

def flwr_clientapp():
    told = {
        "arguments": sys.argv, "folder": os.getcwd(), "pid": os.getpid(), "parent": os.getppid(),
        "environment": dict(os.environ), "descriptors": sorted(os.listdir("/proc/self/fd")),
        "modules": sorted(sys.modules), "random": numpy.random.seeds,
    }
    os.close(os.open("made", os.O_CREAT, 0o666))
    print(json.dumps(told), flush=True)
    print("an error", file=sys.stderr, flush=True)
    kind, *more = sys.argv[1:]
    if kind == "exit":
        sys.exit(int(more[0]))
    if kind == "die":
        os.kill(os.getpid(), int(more[0]))
    if kind == "raise":
        raise ValueError("as asked")
    if kind == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        print("waiting", flush=True)
        time.sleep(100)

import numpy
'''
NUMPY = "class random:\n    seeds = 0\n    @classmethod\n    def seed(cls): cls.seeds += 1\n"
COLD = '#!/bin/sh\necho cold "$@"\n'


class Launch:
    """A launcher, with files for its output: a server that it starts keeps them open."""

    def __init__(self, path: Path, arguments: tuple[object, ...], **more: Any) -> None:
        self._out, self._err = path.with_suffix(".out"), path.with_suffix(".err")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                ["flwr-clientapp", *map(str, arguments)],
                stdout=out, stderr=err, **({"cwd": path.parent} | more),
            )  # fmt: skip

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(30)


class Node:
    """A stand-in for a SuperNode, started as `deploy.processes` says, and its launcher."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.home, self._launches = folder, folder / "home", 0
        self.libraries = folder / "own-packages"
        if not self.libraries.exists():
            self._make_libraries()
        programs = folder / "programs"
        programs.mkdir(exist_ok=True)
        (programs / "flwr-clientapp").write_text(COLD)
        (programs / "flwr-clientapp").chmod(0o755)
        self.log = folder / "log"
        self.environment = os.environ | {
            "FLWR_HOME": str(self.home),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": f"{self.libraries}:{ROOT}",
            "MARK": str(folder),
        } | environment  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "deploy.warm", "sleep", "1000"],
                env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip

    def _make_libraries(self) -> None:
        for name in server.PRELOADED:
            path = self.libraries.joinpath(*name.split("."))
            path.mkdir(parents=True)
            for place in (path, *path.relative_to(self.libraries).parents):
                (self.libraries / place / "__init__.py").touch()
        (self.libraries / "__init__.py").unlink()
        (self.libraries / "flwr" / "supernode" / "cli" / "__init__.py").write_text(STANDS_IN)
        (self.libraries / "numpy" / "__init__.py").write_text(NUMPY)

    def launch(
        self, *arguments: object, env: dict[str, str] | None = None, **more: Any
    ) -> "Launch":
        """Start what a SuperNode starts for a message."""
        path = f"{self.home / 'warm' / 'bin'}:{self.environment['PATH']}"
        environment = self.environment | {"PATH": path} | (env or {})
        self._launches += 1
        return Launch(self.folder / f"{self._launches}", arguments, env=environment, **more)

    def told(self, *arguments: object, **more: Any) -> tuple[dict[str, Any], int, str]:
        """What the process that handled a message says, its exit status, and its errors."""
        launch = self.launch(*arguments, **more)
        status = launch.wait()
        assert not launch.out.startswith("cold"), launch.err
        return json.loads(launch.out.splitlines()[0]), status, launch.err

    def warm_up(self) -> None:
        """Have the warm process import, which it does at the first message."""
        wait_for(lambda: (self.home / "warm" / "socket").exists())
        wait_for(lambda: self.launch("exit", 3).wait() == 3)

    def family(self) -> list[psutil.Process]:
        """All that runs for this node, the SuperNode itself too."""
        return [p for p in psutil.process_iter() if _mark(p) == str(self.folder)]

    def server(self) -> psutil.Process:
        """Its warm process, which is none of its forks."""

        def servers() -> list[psutil.Process]:
            return [p for p in self.family() if _is_server(p) and not _is_fork(p)]

        wait_for(lambda: len(servers()) == 1)  # another finds the place taken, and ends
        return servers()[0]

    def end(self) -> None:
        for process in self.family():
            process.kill()
        self.process.wait()


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("MARK") if process.status() != "zombie" else None
    except psutil.Error:
        return None


def _is_server(process: psutil.Process) -> bool:
    return any(part.endswith("server.py") for part in process.cmdline())


def _is_fork(process: psutil.Process) -> bool:
    parent = process.parent()
    return parent is not None and _is_server(parent)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Starts a node in a folder whose path is longer than that of a socket may be."""
    folder = tmp_path / ("a folder " * 12).strip()
    folder.mkdir()
    nodes: list[Node] = []

    def started(**environment: str) -> Node:
        nodes.append(Node(folder, **environment))
        return nodes[-1]

    yield started
    for node in nodes:
        node.end()


@pytest.fixture
def node(start: Callable[..., Node]) -> Node:
    """A node whose warm process is ready."""
    made = start()
    made.warm_up()
    return made


def test_a_fork_is_what_a_process_of_its_own_would_be(node: Node, tmp_path: Path) -> None:
    told, status, err = node.told(
        "exit", 3, "a b", "\udcff", cwd=tmp_path, umask=0o027,
        env={"OF_THIS": "message \udcfe", "MARK": str(node.folder)},
    )  # fmt: skip
    assert status == 3
    assert err.splitlines() == [
        "snowdrop: a fork of the warm process takes this message",
        "an error",
    ]
    assert told["arguments"] == ["flwr-clientapp", "exit", "3", "a b", "\udcff"]
    assert told["folder"] == str(tmp_path)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640
    assert told["parent"] == node.server().pid
    inherited = told["environment"]
    assert inherited.pop("PATH") == node.environment["PATH"]
    assert inherited.items() >= {"OF_THIS": "message \udcfe", "MARK": str(node.folder)}.items()
    assert told["descriptors"][:3] == ["0", "1", "2"]
    assert len(told["descriptors"]) == 4  # and the folder that is listed
    assert told["random"] == 1
    packages = {module.partition(".")[0] for module in told["modules"]}
    assert packages & {"deploy", "common", "client_app", "server_app", "cli"} == set()


def test_a_forks_end_is_the_launchers(node: Node) -> None:
    assert node.told("exit", 0)[1] == 0
    assert node.told("die", signal.SIGSEGV.value)[1] == -signal.SIGSEGV
    assert node.told("die", signal.SIGKILL.value)[1] == -signal.SIGKILL
    _, status, err = node.told("raise")
    assert (status, err.splitlines()[-1]) == (1, "ValueError: as asked")
    assert node.told("exit", 0)[0]["parent"] == node.server().pid


def waiting(node: Node) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """A launcher, and the fork that handles its message until it is told to end."""
    launch = node.launch("wait")
    wait_for(lambda: launch.out.endswith("waiting\n"))
    return launch.process, psutil.Process(json.loads(launch.out.splitlines()[0])["pid"])


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_two_messages_at_once_have_a_fork_each(node: Node) -> None:
    first, of_first = waiting(node)
    second, of_second = waiting(node)
    assert of_first.pid != of_second.pid
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 7
    assert not is_gone(of_second)
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 7


def test_signals_reach_the_fork(node: Node) -> None:
    for number, status in ((signal.SIGTERM, 7), (signal.SIGUSR1, -signal.SIGUSR1)):
        process, fork = waiting(node)
        process.send_signal(number)
        assert process.wait(20) == status
        assert is_gone(fork)


def test_a_killed_launcher_takes_its_fork_along(node: Node) -> None:
    process, fork = waiting(node)
    process.kill()
    wait_for(lambda: is_gone(fork))
    assert node.told("exit", 0)[1] == 0


def test_a_killed_server_takes_its_forks_along_and_comes_back(node: Node) -> None:
    process, fork = waiting(node)
    node.server().kill()
    assert process.wait(20) == -signal.SIGKILL
    wait_for(lambda: is_gone(fork))

    launch = node.launch("exit", 0)
    assert (launch.wait(), launch.out) == (0, "cold exit 0\n")
    assert "did not take this message" in launch.err
    wait_for(lambda: node.launch("exit", 5).wait() == 5)


def test_a_server_that_is_told_to_end_lets_its_forks_end_themselves(node: Node) -> None:
    process, fork = waiting(node)
    node.server().terminate()
    assert process.wait(20) == 7
    assert is_gone(fork)
    wait_for(lambda: not [p for p in node.family() if _is_server(p)])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_node_has_ended(node: Node, number: signal.Signals) -> None:
    process, _ = waiting(node)
    node.process.send_signal(number)
    node.process.wait()
    assert process.wait(20) == 7
    wait_for(lambda: not node.family())


def test_a_restarted_node_has_a_server_of_its_own(node: Node, start: Callable[..., Node]) -> None:
    node.process.kill()
    node.process.wait()
    again = start()
    again.warm_up()
    assert again.told("exit", 0)[1] == 0
    assert str(again.process.pid) in again.server().cmdline()


def test_a_message_waits_for_a_server_that_still_imports(start: Callable[..., Node]) -> None:
    node = start()
    wait_for(lambda: (node.home / "warm" / "socket").exists())
    assert "is ready" not in node.log.read_text()
    os.kill(node.server().pid, signal.SIGSTOP)
    launch = node.launch("exit", 4)
    time.sleep(0.3)
    assert launch.process.poll() is None
    os.kill(node.server().pid, signal.SIGCONT)
    assert launch.wait() == 4


def test_other_libraries_need_another_server(node: Node) -> None:
    before = node.server().pid
    (node.libraries / "newer.py").touch()
    launch = node.launch("exit", 0)
    assert (launch.wait(), launch.out) == (0, "cold exit 0\n")
    wait_for(lambda: node.launch("exit", 6).wait() == 6)
    assert node.told("exit", 0)[0]["parent"] != before


def test_a_run_that_brings_libraries_of_its_own_gets_a_process_of_its_own(node: Node) -> None:
    launch = node.launch("--token", "t", "--allow-runtime-dependency-installation")
    assert launch.wait() == 0
    assert launch.out == "cold --token t --allow-runtime-dependency-installation\n"
    assert launch.err == ""
    assert node.told("exit", 0)[0]["parent"] == node.server().pid


def test_no_other_account_can_reach_it(node: Node) -> None:
    assert (node.home / "warm").stat().st_mode & 0o777 == 0o700


def test_it_can_be_switched_off(start: Callable[..., Node]) -> None:
    node = start(SNOWDROP_WARM="0")
    launch = node.launch("exit", 0)
    assert (launch.wait(), launch.out) == (0, "cold exit 0\n")
    assert not (node.home / "warm").exists()


def test_a_node_starts_without_it_where_its_folder_cannot_be_made(
    start: Callable[..., Node], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    node = start(FLWR_HOME=str(tmp_path / "file"))
    wait_for(lambda: "there is no warm process for messages" in node.log.read_text())
    wait_for(lambda: psutil.Process(node.process.pid).name() == "sleep")
    launch = node.launch("exit", 0)
    assert (launch.wait(), launch.out) == (0, "cold exit 0\n")


def test_what_is_imported_starts_no_thread_and_is_all_but_polars_and_the_app() -> None:
    code = (
        "import os, runpy, sys\n"
        f"namespace = runpy.run_path({server.__file__!r}, run_name='warm')\n"
        "namespace['preload']()\n"
        "threads = len(os.listdir('/proc/self/task'))\n"
        "before = {name.partition('.')[0] for name in sys.modules}\n"
        "import client_app.app\n"
        "import json\n"
        "after = {name.partition('.')[0] for name in sys.modules}\n"
        "print(json.dumps([threads, sorted(before), sorted(after - before)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "could not import" not in done.stderr
    threads, before, more = json.loads(done.stdout.splitlines()[-1])
    assert threads == 1
    assert not set(before) & {"client_app", "common", "deploy", "server_app", "cli"}
    own = {name for name in more if not name.startswith(("polars", "_polars"))}
    assert own - set(sys.stdlib_module_names) == {"client_app", "common"}
