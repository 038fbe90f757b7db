"""A real federation for tests: TLS, keys, a supervisor, and surely nothing left afterwards."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from typer.testing import CliRunner

from cli.commands import app
from common.errors import SnowdropError
from deploy import local, supervisor
from deploy.federation import Federation as Description
from deploy.federation import free_ports
from deploy.flower import ENVIRONMENT, Flower, end_family, tool

ROOT = Path(__file__).parents[2]

SMALL = {
    "dim": 16,
    "rounds": 2,
    "evaluate_every": 100,
    "baselines": False,
    "method": "own-features",
    "round_timeout": 120,
    "resume": False,
    "top": 5,
}
"""Settings of a run that is over soon: nothing is validated before the end."""


def snowdrop(*arguments: object, fails: bool = False) -> str:
    """What a `snowdrop` command prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert (result.exit_code != 0) == fails, f"{result.output}{result.exception!r}"
    return result.output


def wait_for(what: Callable[[], Any], seconds: float, why: str) -> Any:
    """The first true answer of ``what``; fails with ``why`` where none comes in time."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {why}"
        time.sleep(0.2)
    return answer


class Run:
    """One run of the app, as it goes on."""

    def __init__(self, federation: "Federation", run_id: str, folder: Path) -> None:
        self.id, self.folder = run_id, folder
        self._federation = federation

    def rounds(self) -> pl.DataFrame:
        """``rounds.csv`` as far as it goes; no rows before the first round is done."""
        try:
            return pl.read_csv(self.folder / "rounds.csv")
        except (FileNotFoundError, pl.exceptions.NoDataError):
            return pl.DataFrame({"round": [], "users": []})

    def users(self) -> list[int]:
        """Users that took part, round by round."""
        users: list[int] = self.rounds()["users"].to_list()
        return users

    def wait_for_round(self, number: int, seconds: float = 120) -> None:
        """Wait until a round is done."""
        why = f"round {number} of run {self.id}"
        wait_for(lambda: self.rounds().filter(pl.col("round") >= number).height, seconds, why)

    def status(self) -> str:
        """Such as ``running`` or ``finished:completed``."""
        flower = self._federation.flower
        answer = flower.json("ls", flower.connection, "--run-id", self.id)
        return str(answer["runs"][0]["status"])

    def wait(self) -> str:
        """The final status."""
        flower = self._federation.flower
        while True:
            flower.call("log", self.id, flower.connection, "--stream")  # ends with the run
            if (status := self.status()).startswith("finished"):
                return status

    def stop(self) -> None:
        """End the run as an operator would."""
        self._federation.flower.call("stop", self.id, self._federation.flower.connection)

    def log(self) -> str:
        """What the ServerApp has said so far."""
        flower = self._federation.flower
        return flower.call("log", self.id, flower.connection, "--show").stdout

    def summary(self) -> dict[str, Any]:
        """``summary.json``."""
        summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return summary


class Federation:
    """A federation on free loopback ports, made by `snowdrop deploy init` and `up`."""

    def __init__(self, folder: Path, nodes: int, users: int, items: int) -> None:
        self.folder = folder
        self.data = folder.parent / f"{folder.name}-data"
        self._runs = 0
        snowdrop("prepare", "demo", "--out", self.data, "--users", users, "--items", items)
        path = self.data / "items.csv"
        split = pl.Series("split", ["warm"] * (items - items // 5) + ["test"] * (items // 5))
        pl.read_csv(path).with_columns(split).write_csv(path)
        snowdrop("deploy", "init", folder, "--nodes", nodes, "--port", 0)

    def moved_to(self, folder: Path) -> "Federation":
        """The same federation in another folder."""
        moved = copy.copy(self)
        moved.folder = folder
        return moved

    @property
    def description(self) -> Description:
        return Description.load(self.folder)

    @property
    def flower(self) -> Flower:
        return local.connection(self.folder, self.description)

    def up(self) -> str:
        """Bring it up; what was printed."""
        return snowdrop("deploy", "up", self.folder, "--data", self.data)

    def down(self) -> None:
        """Take it down; nothing of it may be left."""
        local.down(self.folder)
        assert not supervisor.family(self.folder)

    def run(self, run_dir: Path | None = None, app: Path = ROOT, **settings: object) -> Run:
        """Start a run of an app, in a run directory of its own unless one is given."""
        self._runs += 1
        folder = run_dir or self.folder / "server" / f"run-{self._runs}"
        values = {**SMALL, "nodes": len(self.description.nodes), "run_dir": str(folder)} | settings
        config = self.folder / f"run-{self._runs}.toml"
        config.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()))
        name = self.flower.connection
        answer = self.flower.json("run", str(app), name, "--run-config", str(config))
        return Run(self, str(answer["run-id"]), folder)

    def all_online(self) -> bool:
        """Whether the SuperLink is there and takes all nodes for online."""
        try:
            here = local.online(self.folder, self.description)
        except SnowdropError:
            return False
        return here == set(self.description.node_names())

    def log(self, name: str) -> str:
        """Log of a process so far."""
        path = supervisor.log_path(self.folder, name)
        return path.read_text(errors="replace") if path.exists() else ""

    def pid(self, name: str) -> int:
        """Of a running process."""

        def running() -> int | None:
            report = supervisor.report(self.folder, name)
            return report.pid if report else None

        return int(wait_for(running, 30, f"{name} runs"))

    def kill(self, name: str) -> None:
        """SIGKILL to a process, such as ``superlink`` or ``node-0``."""
        os.kill(self.pid(name), signal.SIGKILL)

    def kill_serverapp(self) -> None:
        """SIGKILL to the process that runs the ServerApp now."""

        for process in wait_for(lambda: supervisor.serverapps(self.folder), 30, "a ServerApp runs"):
            process.kill()

    def stop(self, name: str) -> None:
        """SIGTERM to a process, which then stays away."""
        snowdrop("deploy", "stop", self.folder, name)

    def start(self, name: str) -> None:
        """Start a stopped process."""
        snowdrop("deploy", "start", self.folder, name)

    def state(self, node: str) -> Path:
        """A node's state folder."""
        return self.folder / "nodes" / node / "state"

    def users_of(self, node: str) -> list[str]:
        """Users that have interactions on a node, in order."""
        path = self.folder / "nodes" / node / "data" / "interactions.csv"
        users: list[str] = pl.read_csv(path)["user_id"].unique().sort().to_list()
        return users

    def node_with(self, key: Path, seconds: float = 150) -> tuple[int, str]:
        """Status and output of a SuperNode with some key, run until it gives up."""
        place = self.description
        command = [
            tool("flower-supernode"), "--superlink", place.fleet_address,
            "--root-certificates", str(self.folder / "ca" / "ca.crt"),
            "--auth-supernode-private-key", str(key), "--port", str(free_ports(1)[0]),
        ]  # fmt: skip
        marks = {supervisor.MARK: str(self.folder), supervisor.NAME_MARK: "stranger"}
        marks["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        said = key.parent / "said.log"
        with said.open("w") as output:
            process = subprocess.Popen(
                command,
                env=os.environ | ENVIRONMENT | marks | {"FLWR_HOME": str(key.parent)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            return process.wait(seconds), said.read_text()
        finally:
            end_family(supervisor.family(self.folder, "stranger"))  # Flower leaves its child
            process.wait()


@contextmanager
def federation(
    folder: Path, nodes: int = 2, users: int = 80, items: int = 120
) -> Iterator[Federation]:
    """A federation that is up, and surely down afterwards."""
    made = Federation(folder, nodes, users, items)
    try:
        made.up()
        yield made
    finally:
        made.down()
