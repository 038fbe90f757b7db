"""Starting, watching and stopping a federation on this machine."""

import errno
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from common.durable import write_atomic
from common.errors import SnowdropError
from deploy import supervisor
from deploy.certificate import check_certificate
from deploy.federation import Federation
from deploy.flower import Flower, end_family
from deploy.folder import check_synthetic, give_policies
from deploy.health import healthy
from deploy.processes import SUPERLINK, processes
from deploy.reach import obstacle

_START_SECONDS = 120.0
_IN_USE = "already in use"
"""What the SuperLink says of a key that it knows."""
_DOWN_SECONDS = 60.0


def connection(folder: Path, federation: Federation) -> Flower:
    """The `flwr` command with the federation's connection."""
    environment = os.environ | processes(federation)[0].environment
    # The folder may stand elsewhere on this machine than where the server runs.
    home = folder / "server" / "flower-home"
    return Flower(environment | {"FLWR_HOME": str(home)}, federation.name)


def up(folder: Path, say: Callable[[str], None]) -> None:
    """Start the federation and wait until every process is healthy and every node is online.

    Raises
    ------
    SnowdropError
        If it is up already, a port is in use, the server's certificate is not valid today, a node
        lacks what it shall send or cannot reach the SuperLink, or a process does not start; what
        was started is ended again.
    """
    federation = Federation.load(folder)
    if Path(federation.root) != folder:
        raise SnowdropError(f"{folder} was made to stand in {federation.root}; move it there")
    if supervisor.supervisor_pid(folder):
        raise SnowdropError(f"{folder} is up; `snowdrop deploy status {folder}` shows its state")
    check_certificate(folder, federation)
    check_synthetic(folder, federation)
    give_policies(folder, federation)
    _check_ports(federation)
    for process in processes(federation):
        supervisor.held_path(folder, process.name).unlink(missing_ok=True)
    known = registered(folder)
    for name in federation.node_names():
        if not (folder / "nodes" / name / "data" / "interactions.csv").exists():
            raise SnowdropError(
                f"{name} has no interactions; give --data, or put them into "
                f"{folder / 'nodes' / name / 'data' / 'interactions.csv'}"
            )
        if name not in known:  # the SuperLink would refuse it; it starts once it is registered
            write_atomic(supervisor.held_path(folder, name), b"")
    began = time.monotonic()

    def has_come(name: str) -> bool:
        return name in online(folder, federation, within=time.monotonic() - began)

    _start_supervisor(folder)
    try:
        say("starting the SuperLink")
        superlink = processes(federation)[0]
        _wait(lambda: healthy(superlink.health), folder, SUPERLINK)
        for name in register(folder, federation):
            say(f"registered the key of {name}")
            supervisor.held_path(folder, name).unlink(missing_ok=True)
        for name in federation.node_names():
            if (why := node_obstacle(folder, federation, name)) is not None:
                raise SnowdropError(f"{name} cannot take part: {why}")
        say(f"waiting for {len(federation.nodes)} nodes")
        for process in processes(federation)[1:]:
            _wait(lambda process=process: healthy(process.health), folder, process.name)  # type: ignore[misc]
        for name in federation.node_names():
            _wait(lambda name=name: has_come(name), folder, name)  # type: ignore[misc]
    except BaseException:
        down(folder)
        raise


def node_obstacle(folder: Path, federation: Federation, name: str) -> str | None:
    """What keeps a node of this machine from the SuperLink; None where nothing does."""
    place = folder / "nodes" / name
    return obstacle(federation.fleet_address, place / "ca.crt", place / "key")


def _check_ports(federation: Federation) -> None:
    """Refuse ports that another process listens on, or an address that is not this machine's."""
    for name, host, port in federation.listeners():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise SnowdropError(
                        f"port {port} of {name} is in use by another process: end that process, "
                        "or make the federation on other ports with `snowdrop deploy init DIR "
                        "--force --port FIRST`"
                    ) from error
                raise SnowdropError(
                    f"{name} cannot listen on {host}:{port} ({error.strerror}): give `snowdrop "
                    "deploy init` an address of this machine"
                ) from error


def down(folder: Path) -> bool:
    """End the federation and everything that it started.

    Returns
    -------
    bool
        Whether anything was running.

    Raises
    ------
    SnowdropError
        If a process does not end.
    """
    ran = bool(supervisor.family(folder))
    pid = supervisor.supervisor_pid(folder)
    if pid is not None:
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + _DOWN_SECONDS
        while supervisor.supervisor_pid(folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        if supervisor.supervisor_pid(folder) == pid:
            _signal(pid, signal.SIGKILL)
    supervisor.end_all(folder)
    if left := supervisor.family(folder):
        raise SnowdropError(f"these processes do not end: {[p.pid for p in left]}")
    for path in (folder / "run").glob("*.json"):
        path.unlink()
    return ran or pid is not None


def register(folder: Path, federation: Federation) -> list[str]:
    """Register every node key that the SuperLink does not know yet.

    Returns
    -------
    list[str]
        Names of the nodes whose keys were registered.

    Raises
    ------
    SnowdropError
        If the SuperLink cannot be reached, or refuses a key.
    """
    flower = connection(folder, federation)
    known = registered(folder)
    new = []
    for name in federation.node_names():
        key = folder / "server" / "node-keys" / f"{name}.pub"
        if known.get(name, {}).get("key") == (text := key.read_text().strip()):
            continue
        if name in known:  # its key was replaced
            unregister(folder, federation, name)
            del known[name]
        known[name] = {"id": _node_id(flower, key, name, known), "key": text}
        _remember(folder, known)
        new.append(name)
    return new


def _node_id(flower: Flower, key: Path, name: str, known: Mapping[str, Mapping[str, str]]) -> str:
    """Id of a node whose key is registered now, or was before without being written down.

    A command that was interrupted may have ended between the two. The SuperLink then lists one
    node of which nobody here knows.
    """
    try:
        answer = flower.json("supernode", "register", str(key), flower.connection, "--name", name)
    except SnowdropError as error:
        if _IN_USE not in str(error):
            raise
        listed = flower.json("supernode", "list", flower.connection)["nodes"]
        ours = {node["id"] for node in known.values()}
        unknown = [node["node-id"] for node in listed if node["node-id"] not in ours]
        if len(unknown) != 1:
            raise
        return str(unknown[0])
    return str(answer["node-id"])


def unregister(folder: Path, federation: Federation, name: str) -> None:
    """Shut a node out: the SuperLink refuses its key from now on."""
    known = registered(folder)
    if name in known:
        flower = connection(folder, federation)
        flower.json("supernode", "unregister", known.pop(name)["id"], flower.connection)
        _remember(folder, known)


def registered(folder: Path) -> dict[str, dict[str, str]]:
    """Id and public key of every registered node, by its name."""
    try:
        known: dict[str, dict[str, str]] = json.loads(_registry(folder).read_text())
    except FileNotFoundError:
        return {}
    return known


def online(folder: Path, federation: Federation, within: float = math.inf) -> set[str]:
    """Names of the nodes that the SuperLink lists as online, and that came in the last seconds.

    A SuperLink that was killed, or restored from a back-up, takes nodes for online that were so
    before, until their heartbeat is overdue.
    """
    flower = connection(folder, federation)
    answer = flower.json("supernode", "list", flower.connection)
    here = {
        node["node-id"]
        for node in answer["nodes"]
        if node["status"] == "online" and node["online-elapsed"] <= within
    }
    return {name for name, node in registered(folder).items() if node["id"] in here}


def _registry(folder: Path) -> Path:
    return folder / "server" / "registered.json"


def _remember(folder: Path, known: dict[str, dict[str, str]]) -> None:
    write_atomic(_registry(folder), json.dumps(known, indent=2).encode())


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended meanwhile
        os.kill(pid, number)


def _start_supervisor(folder: Path) -> None:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "deploy.supervisor", str(folder)]
    deadline = time.monotonic() + _START_SECONDS
    try:
        with (logs / "supervisor.log").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while supervisor.supervisor_pid(folder) != process.pid:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SnowdropError(
                    f"the supervisor did not start; {logs / 'supervisor.log'} says why"
                )
            time.sleep(0.05)
    except BaseException:  # Ctrl-C may come before Popen has returned
        end_family(_children(command))
        raise


def _children(command: list[str]) -> list[psutil.Process]:
    """The processes that this one has started with a command."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.cmdline() == command:
                found.append(child)
    return found


def _wait(ready: Callable[[], bool], folder: Path, name: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            log = supervisor.log_path(folder, name)
            raise SnowdropError(f"{name} did not start; {log} says why")
        time.sleep(0.2)
