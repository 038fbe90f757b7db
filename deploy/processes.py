"""The processes of a federation: the one description from which everything else is made.

`snowdrop deploy up`, the start scripts, the systemd units and docker-compose.yml all take their
commands and environments from here.
"""

import os
import shlex
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from deploy.federation import Federation, NodePlace, address
from deploy.flower import ENVIRONMENT

SUPERLINK = "superlink"
EXECUTOR = "executor"
SECRET = "server/executor.secret"
"""What the executor shows the SuperLink, within the federation's folder."""
WARM = ("python", "-P", "-m", "deploy.warm")
"""What starts a SuperNode, so that a warm process handles its messages."""

SYNTHETIC = "synthetic"
"""Folder of a node's synthetic users, in its own."""
POLICY = "policy.toml"
"""What a node agrees to, in its own folder; as `client_app.policy` reads it."""
SETTINGS = "settings.toml"
"""The server's settings of every run, in its own folder."""


@dataclass(frozen=True)
class Process:
    """One process: how it is started, and where its health can be asked for."""

    name: str
    describes: str
    folder: PurePosixPath  # all its files
    command: tuple[str, ...]
    health: str  # address of its gRPC health service
    superlink: str = ""  # address of the SuperLink that a node must be connected to
    environment: dict[str, str] = field(default_factory=dict)

    def health_check(self) -> tuple[str, ...]:
        """The command that tells, on the process's machine, whether it takes part."""
        asked = (self.health, self.superlink) if self.superlink else (self.health,)
        return ("python", "-m", "deploy.health", *asked)

    def shell(self) -> str:
        """The command as a line for a shell."""
        return shlex.join(self.command)


def processes(federation: Federation) -> tuple[Process, ...]:
    """All processes, the server's first."""
    nodes = (node(federation, place) for place in federation.nodes)
    return (superlink(federation), executor(federation), *nodes)


def superlink(federation: Federation) -> Process:
    """The SuperLink: TLS everywhere, only registered node keys, state on disk."""
    server = federation.server
    health = address(federation.health_host, federation.superlink_health_port)
    return Process(
        name=SUPERLINK,
        describes="what nodes and the ServerApp talk through",
        folder=server,
        command=(
            _program(federation, "flower-superlink"),
            "--ssl-ca-certfile", str(server / "ca.crt"),
            "--ssl-certfile", str(server / "server.crt"),
            "--ssl-keyfile", str(server / "server.key"),
            "--enable-supernode-auth",
            "--database", str(server / "superlink.db"),
            "--isolation", "process",
            "--superexec-auth-secret-file", str(federation.root / SECRET),
            "--host", federation.control_host,
            "--port", str(federation.control_port),
            "--fleet-api-address", address(federation.fleet_host, federation.fleet_port),
            "--health-server-address", health,
        ),
        health=health,
        # At this level gRPC logs who fails the TLS handshake; Flower's default keeps it silent.
        environment=_environment(federation, server) | {"GRPC_VERBOSITY": "INFO"},
    )  # fmt: skip


def executor(federation: Federation) -> Process:
    """The executor, which starts a ServerApp for every run; only it has the server's settings."""
    server = federation.server
    health = address(federation.health_host, federation.executor_health_port)
    return Process(
        name=EXECUTOR,
        describes="what runs the ServerApp",
        folder=server,
        command=(
            _program(federation, "flower-superexec"),
            "--runtime-api-address", federation.control_address,
            "--root-certificates", str(server / "ca.crt"),
            "--superexec-auth-secret-file", str(federation.root / SECRET),
            "--health-server-address", health,
        ),
        health=health,
        environment=_environment(federation, server)
        | {"SNOWDROP_SETTINGS": str(server / SETTINGS)},
    )  # fmt: skip


def node(federation: Federation, place: NodePlace) -> Process:
    """One SuperNode with its key, its interactions and its state folder."""
    folder = federation.node_folder(place.name)
    health = address(federation.health_host, place.health_port)
    data = (
        f'interactions="{folder / "data" / "interactions.csv"}" state-dir="{folder / "state"}" '
        f'policy="{folder / POLICY}"'
    )
    if place.answer != "updates":
        data += f' answer="{place.answer}" synthetic="{folder / SYNTHETIC}"'
    return Process(
        name=place.name,
        describes="a node: its users' interactions and state",
        folder=folder,
        command=(
            _program(federation, WARM[0]),
            *WARM[1:],
            _program(federation, "flower-supernode"),
            "--root-certificates", str(folder / "ca.crt"),
            "--auth-supernode-private-key", str(folder / "key"),
            "--superlink", federation.fleet_address,
            "--node-config", data,
            "--host", "127.0.0.1",
            "--port", str(place.runtime_port),
            "--health-server-address", health,
        ),
        health=health,
        superlink=federation.fleet_address,
        environment=_environment(federation, folder),
    )  # fmt: skip


def _program(federation: Federation, name: str) -> str:
    return str(PurePosixPath(federation.programs) / name) if federation.programs else name


def _environment(federation: Federation, folder: PurePosixPath) -> dict[str, str]:
    environment = {
        **ENVIRONMENT,
        "FLWR_HOME": str(folder / "flower-home"),
    }
    if federation.programs:  # Flower starts programs of its own by name
        environment["PATH"] = os.pathsep.join(
            [federation.programs, "/usr/local/bin", "/usr/bin", "/bin"]
        )
    return environment
