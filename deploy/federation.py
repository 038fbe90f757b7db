"""The description of a deployed federation: its names, ports and nodes, and where its files are.

``DIR/federation.json`` holds it. ``DIR/server`` is all that the server's machine needs,
``DIR/nodes/NAME`` all that a node's machine needs; ``DIR/ca`` stays with whoever runs the
federation.
"""

import re
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from common.durable import write_atomic
from common.errors import SnowdropError
from common.settings import Answer, explain

FILE = "federation.json"
FIRST_PORT = 9092
_NODE_PORTS = 10  # the first node's ports come this much after the first port


def _plain(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name):
        raise ValueError("a name has letters, digits, '-' and '_' only, 63 at most")
    return name


def _host(name: str) -> str:
    try:
        ip_address(name)
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ValueError(
                "it must be a name in ASCII or an address, such as server.example, without a port"
            ) from None
    return name


Name = Annotated[str, AfterValidator(_plain)]
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=65535)]


class NodePlace(BaseModel):
    """One node: its name, and the loopback ports that it uses on its machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    runtime_port: Port
    health_port: Port
    answer: Answer = Field("updates", description="how it answers a training, its owner's choice")


class Federation(BaseModel):
    """One federation; all its commands, units and containers are made from this description."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="name of the connection: `flwr run . NAME`")
    root: PurePosixPath = Field(description="where DIR stands on the machines that run it")
    programs: str = Field(description="folder of Flower's programs; empty: found on PATH")
    hosts: tuple[Host, ...] = Field(
        description="names and addresses under which nodes reach the server"
    )
    fleet_host: Host = Field(description="address on which the SuperLink listens for nodes")
    control_host: Host = Field(description="address of the Control and Runtime APIs")
    health_host: Host = Field("127.0.0.1", description="address of the health services")
    fleet_port: Port
    control_port: Port
    superlink_health_port: Port
    executor_health_port: Port
    nodes: tuple[NodePlace, ...]

    @classmethod
    def new(
        cls,
        root: Path | PurePosixPath,
        name: str,
        nodes: int,
        hosts: tuple[str, ...],
        first_port: int = FIRST_PORT,
        programs: str = "",
        control_host: str = "127.0.0.1",
    ) -> Self:
        """A federation with consecutive ports, or with free ones where ``first_port`` is 0.

        Without ``hosts``, everything stays on this machine's loopback.
        """
        ports = [first_port + k for k in range(_NODE_PORTS)] if first_port else free_ports(4)
        try:
            federation = cls(
                name=name,
                root=PurePosixPath(root),
                programs=programs,
                hosts=hosts or ("127.0.0.1",),
                fleet_host="0.0.0.0" if hosts else "127.0.0.1",
                control_host=control_host,
                fleet_port=ports[0],
                control_port=ports[1],
                superlink_health_port=ports[2],
                executor_health_port=ports[3],
                nodes=(),
            )
            for number in range(nodes):
                federation = federation.with_node(f"node-{number}", free=not first_port)
        except ValidationError as error:
            raise SnowdropError(explain(error)) from error
        return federation

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The federation of a folder.

        Raises
        ------
        SnowdropError
            If the folder holds none, or is a file.
        """
        path = folder / FILE
        if folder.is_file():
            raise SnowdropError(f"{folder} is a file; give the folder of a federation")
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise SnowdropError(
                f"{folder} holds no federation; `snowdrop deploy init {folder}` makes one"
            ) from error
        except ValidationError as error:
            raise SnowdropError(f"{path}: {explain(error)}") from error

    def save(self, folder: Path) -> None:
        """Write it to its folder."""
        write_atomic(folder / FILE, self.model_dump_json(indent=2).encode())

    def with_node(self, name: str, free: bool = False) -> Self:
        """The same federation with one more node, on ports that no other process of it uses."""
        used = [
            self.fleet_port, self.control_port,
            self.superlink_health_port, self.executor_health_port,
            self.fleet_port + _NODE_PORTS - 1,
            *(port for node in self.nodes for port in (node.runtime_port, node.health_port)),
        ]  # fmt: skip
        ports = free_ports(2, used) if free else [max(used) + 1, max(used) + 2]
        try:
            place = NodePlace(name=name, runtime_port=ports[0], health_port=ports[1])
        except ValidationError as error:
            raise SnowdropError(explain(error)) from error
        if any(node.name == name for node in self.nodes):
            raise SnowdropError(f"there is a node '{name}' already; choose another name")
        return self.model_copy(update={"nodes": (*self.nodes, place)})

    def with_answer(self, name: str, answer: Answer) -> Self:
        """The same federation, in which a node answers otherwise."""
        self.known(name)
        nodes = (
            node.model_copy(update={"answer": answer}) if node.name == name else node
            for node in self.nodes
        )
        return self.model_copy(update={"nodes": tuple(nodes)})

    def known(self, name: str) -> str:
        """The name of a node, where there is one of that name.

        Raises
        ------
        SnowdropError
            If there is none.
        """
        if name not in self.node_names():
            raise SnowdropError(
                f"there is no node '{name}'; there are {', '.join(self.node_names())}"
            )
        return name

    def without_node(self, name: str) -> Self:
        """The same federation without one of its nodes."""
        self.known(name)
        nodes = tuple(node for node in self.nodes if node.name != name)
        return self.model_copy(update={"nodes": nodes})

    def node_names(self) -> list[str]:
        """Names of the nodes, in the order in which they share a data folder."""
        return [node.name for node in self.nodes]

    def listeners(self) -> list[tuple[str, str, int]]:
        """Who listens where: name of the process, host, port."""
        there = [
            ("superlink", self.fleet_host, self.fleet_port),
            ("superlink", self.control_host, self.control_port),
            ("superlink", self.health_host, self.superlink_health_port),
            ("executor", self.health_host, self.executor_health_port),
        ]
        for node in self.nodes:
            there.append((node.name, "127.0.0.1", node.runtime_port))
            there.append((node.name, self.health_host, node.health_port))
        return there

    @property
    def server(self) -> PurePosixPath:
        """The server's folder on its machine."""
        return self.root / "server"

    def node_folder(self, name: str) -> PurePosixPath:
        """A node's folder on its machine."""
        return self.root / "nodes" / name

    @property
    def fleet_address(self) -> str:
        """Address at which nodes reach the SuperLink."""
        return address(self.hosts[0], self.fleet_port)

    @property
    def control_address(self) -> str:
        """Address at which `flwr` and the executor reach the SuperLink."""
        host = self.hosts[0] if self.control_host in ("0.0.0.0", "::") else self.control_host
        return address(host, self.control_port)


def address(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free_ports(count: int, used: Sequence[int] = ()) -> list[int]:
    """Different loopback ports that are free now, without those that are in ``used``."""
    probes = [socket.socket() for _ in range(count + len(used))]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        free = [int(probe.getsockname()[1]) for probe in probes]
        return [port for port in free if port not in used][:count]
    finally:
        for probe in probes:
            probe.close()
