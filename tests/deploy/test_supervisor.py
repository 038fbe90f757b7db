"""The supervisor, over small programs in the place of Flower's."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.errors import SnowdropError
from deploy import certificate, credentials, local, supervisor
from deploy.federation import Federation
from deploy.flower import end_family
from deploy.processes import EXECUTOR, SECRET, SUPERLINK
from tests.deploy.test_credentials import Made

# Flower's programs, as far as the supervisor can tell: they start a child and wait.
STUB = """#!/bin/sh
echo "$0 starts $*"
case "$*" in *node-1*) exit 3;; esac
sleep 1000 &
exec sleep 1000
"""


def wait_for(what: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A supervised federation of a SuperLink, an executor, node-0, and node-1 that always ends."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("flower-superlink", "flower-superexec", "flower-supernode"):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    place = tmp_path / "fed"
    place.mkdir()
    Federation.new(place, "fed", 2, (), 0, programs=str(programs)).save(place)
    local._start_supervisor(place)
    try:
        wait_for(lambda: state(place, "node-0") == "running")
        wait_for(lambda: len(supervisor.family(place, "node-0")) == 3)  # and the warm process
        yield place
    finally:
        local.down(place)


def state(folder: Path, name: str) -> str | None:
    report = supervisor.report(folder, name)
    return report.state if report else None


def pid(folder: Path, name: str) -> int | None:
    report = supervisor.report(folder, name)
    return report.pid if report else None


def cmdline(process: psutil.Process) -> list[str]:
    """Of a process; empty once it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_process_that_dies_is_started_again_without_its_orphans(folder: Path) -> None:
    old = supervisor.family(folder, "node-0")
    os.kill(pid(folder, "node-0") or 0, signal.SIGKILL)
    wait_for(lambda: pid(folder, "node-0") not in (None, *[p.pid for p in old]))
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in old)
    report = supervisor.report(folder, "node-0")
    assert report and report.restarts == 1


def test_it_never_gives_up_and_pauses_longer_each_time(folder: Path) -> None:
    def pauses() -> list[str]:
        told = (folder / "logs" / "supervisor.log").read_text()
        return [
            line.split()[-2] for line in told.splitlines() if "node-1 ended with status 3" in line
        ]

    wait_for(lambda: len(pauses()) >= 3)
    assert pauses()[:3] == ["0.5", "1", "2"]


def test_the_server_is_started_first(folder: Path) -> None:
    def started() -> list[str]:
        told = (folder / "logs" / "supervisor.log").read_text().splitlines()
        return [line.split()[2] for line in told if " started, pid " in line]

    wait_for(lambda: len(started()) >= 4)
    assert started()[:4] == ["superlink", "executor", "node-0", "node-1"]


def test_a_held_process_stays_away_until_it_is_let_go(folder: Path) -> None:
    supervisor.held_path(folder, "node-0").touch()
    wait_for(lambda: state(folder, "node-0") == "held")
    assert not supervisor.family(folder, "node-0")
    assert state(folder, "superlink") == "running"
    supervisor.held_path(folder, "node-0").unlink()
    wait_for(lambda: state(folder, "node-0") == "running")


def test_a_new_node_is_started_and_a_removed_one_ended(folder: Path) -> None:
    Federation.load(folder).with_node("late", free=True).save(folder)
    wait_for(lambda: state(folder, "late") == "running")
    Federation.load(folder).without_node("late").save(folder)
    wait_for(lambda: state(folder, "late") is None)
    wait_for(lambda: not supervisor.family(folder, "late"))


def test_a_node_is_started_as_the_description_says_by_then(folder: Path) -> None:
    Federation.load(folder).with_answer("node-0", "both").save(folder)
    time.sleep(0.5)
    assert not (folder / "logs" / "node-0.log").read_text().count("answer=")
    os.kill(pid(folder, "node-0") or 0, signal.SIGKILL)
    wait_for(lambda: 'answer="both"' in (folder / "logs" / "node-0.log").read_text())


def test_down_leaves_nothing(folder: Path) -> None:
    wait_for(lambda: len(supervisor.family(folder)) >= 6)
    assert local.down(folder)
    assert not supervisor.family(folder)
    assert supervisor.supervisor_pid(folder) is None
    assert not local.down(folder)


def test_down_ends_what_a_killed_supervisor_left(folder: Path) -> None:
    os.kill(supervisor.supervisor_pid(folder) or 0, signal.SIGKILL)
    wait_for(lambda: supervisor.supervisor_pid(folder) is None)
    assert supervisor.family(folder)
    assert local.down(folder)
    assert not supervisor.family(folder)


def test_executors_that_hide_their_environment_are_known_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower shuts it off (PR_SET_DUMPABLE), and only root can read it then."""
    mine, other = tmp_path / "fed", tmp_path / "fed-2"
    marks = {supervisor.MARK: str(mine), supervisor.NAME_MARK: "node-0"}
    executor, stranger, node = started = [
        subprocess.Popen(["sh", "-c", *command], stdin=subprocess.PIPE, env=os.environ | extra)
        for command, extra in (
            (["read line", "sh", str(mine / SECRET)], {}),
            (["read line", "sh", str(other / SECRET)], {}),
            (["sh -c 'read line'; read line"], marks),
        )
    ]
    readable = psutil.Process.environ

    def hidden(process: psutil.Process) -> dict[str, str]:
        if process.pid != node.pid:
            raise psutil.AccessDenied(process.pid)
        return readable(process)

    try:
        wait_for(lambda: psutil.Process(node.pid).children())
        of_node = [node.pid, *(child.pid for child in psutil.Process(node.pid).children())]
        wait_for(lambda: all(cmdline(psutil.Process(p.pid))[:1] == ["sh"] for p in started))
        monkeypatch.setattr(psutil.Process, "environ", hidden)
        for name, pids in (
            (None, [executor.pid, *of_node]),
            (EXECUTOR, [executor.pid]),
            ("node-0", of_node),
            (SUPERLINK, []),
        ):
            assert sorted(p.pid for p in supervisor.family(mine, name)) == sorted(pids)
        supervisor.end_all(mine)
        assert executor.wait(10) == node.wait(10) == -signal.SIGTERM
        assert not supervisor.family(mine)
        assert stranger.poll() is None
    finally:
        for process in started:
            process.communicate()


def test_ctrl_c_before_the_supervisor_is_there_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it starts, nor before anybody knows its process id."""
    Federation.new(tmp_path, "fed", 1, (), 0, programs="/nowhere").save(tmp_path)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            raise KeyboardInterrupt

    for where, name, what in (
        (supervisor, "supervisor_pid", interrupted),
        (subprocess, "Popen", Interrupted),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, what)
            with pytest.raises(KeyboardInterrupt):
                local._start_supervisor(tmp_path)
        left = [p for p in psutil.process_iter() if str(tmp_path) in cmdline(p)]
        end_family(left)
        assert not left


def test_a_supervisor_that_fails_leaves_nothing(folder: Path) -> None:
    (folder / "federation.json").write_text("{")
    wait_for(lambda: supervisor.supervisor_pid(folder) is None)
    assert not supervisor.family(folder)


def test_whoever_asks_for_the_supervisor_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    path = supervisor.lock_path(tmp_path)
    path.parent.mkdir()
    with path.open("w") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        threading.Timer(0.3, lambda: fcntl.flock(asking, fcntl.LOCK_UN)).start()
        with supervisor._only_one(tmp_path):
            assert supervisor.supervisor_pid(tmp_path) == os.getpid()


def test_a_second_supervisor_is_refused(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.supervisor", str(folder)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "is supervised already" in done.stderr
    with pytest.raises(SnowdropError, match="is up"):
        local.up(folder, print)
    assert state(folder, "node-0") == "running"


class FakeSuperLink:
    """As the supervisor's child of that name."""

    def __init__(self) -> None:
        self.pid: int | None = 1
        self.ended = 0

    def end(self) -> None:
        self.pid = None
        self.ended += 1


def test_a_certificate_that_ends_soon_is_renewed_and_taken_between_two_runs(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[int] = [1]
    monkeypatch.setattr(supervisor, "serverapps", lambda _: running)
    monkeypatch.setattr(supervisor, "_CERTIFICATE_SECONDS", 0.0)
    superlink, renewal = FakeSuperLink(), supervisor.Renewal(made[0])
    renewal.tend(superlink)  # type: ignore[arg-type]
    assert not superlink.ended
    with monkeypatch.context() as patch:
        patch.setattr(credentials, "SERVER_DAYS", 3)
        certificate.renew(*made)
    renewal.tend(superlink)  # type: ignore[arg-type]
    assert (certificate.validity(made[0])[1] - certificate.validity(made[0])[0]).days > 700
    assert not superlink.ended  # a run is under way
    running.clear()
    renewal.tend(superlink)  # type: ignore[arg-type]
    assert superlink.ended == 1
    superlink.pid = 2
    renewal.tend(superlink)  # type: ignore[arg-type]
    assert superlink.ended == 1
