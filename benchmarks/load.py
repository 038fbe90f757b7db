"""Seconds and memory with many nodes of one user each, as a Markdown table.

    python benchmarks/load.py --out runs/load [--nodes 100 300 1000] [--rounds 20] [--ways light]
        [--round-timeout 60]

``simulation`` is `snowdrop simulate`. ``light`` is a SuperLink of its own with Flower's database on
disk, to which light nodes connect over gRPC: each has a key, a heartbeat, interactions and a state
folder of its own and polls every three seconds, as a SuperNode does, but all of them are threads of
one process that has imported torch once. Neither TLS nor the start of processes is in it.
``in-memory`` is the same without the disk.
"""

import argparse
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil
from deployed import FLOWERS_PAUSE, snowdrop

from deploy.flower import ENVIRONMENT, Flower, end, tool, wait_for_port
from server_app.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
SETTINGS = {"dim": 64, "method": "own-features", "evaluate_every": 1000, "baselines": False}
ITEMS, INTERACTIONS = 2_000, 20
WORKERS = 4  # threads that serve the light nodes
CONTROL, FLEET = 39_391, 39_392
PARTS = {
    "flower-superlink": "SuperLink",
    "flwr-serverapp": "ServerApp",
    "flwr-simulation": "ServerApp",  # which hands messages to the nodes, too
}
HEADS = (
    "nodes", "seconds of a round, median", "slowest", "seconds of the run", "SuperLink, MB",
    "ServerApp, MB", "all processes, MB",
)  # fmt: skip


def made_data(folder: Path, users: int) -> Path:
    """Generated data with that many users."""
    shutil.rmtree(folder, ignore_errors=True)
    command = ["prepare", "demo", "--out", folder, "--users", users, "--items", ITEMS]
    snowdrop(*command, "--interactions-per-user", INTERACTIONS)
    return folder


class Memory(threading.Thread):
    """The most memory that processes have, those that they share pages with counted once."""

    def __init__(self, *roots: int) -> None:
        super().__init__(daemon=True)
        self.most = dict.fromkeys((*PARTS.values(), "all"), 0.0)
        self._roots, self._ended = roots, threading.Event()

    def run(self) -> None:
        """Look every second until `end`."""
        while not self._ended.wait(1.0):
            now = dict.fromkeys(self.most, 0.0)
            for process in self._family():
                with suppress(psutil.Error):
                    used, line = process.memory_full_info().pss / 2**20, process.cmdline()
                    now["all"] += used
                    for program, part in PARTS.items():
                        now[part] += used * any(Path(word).name == program for word in line[:3])
            self.most = {part: max(self.most[part], now[part]) for part in now}

    def _family(self) -> Iterator[psutil.Process]:
        for root in self._roots:
            with suppress(psutil.NoSuchProcess):
                yield psutil.Process(root)
                yield from psutil.Process(root).children(recursive=True)

    def end(self) -> dict[str, float]:
        """The most that was seen, in MB."""
        self._ended.set()
        self.join()
        return self.most


def measured(way: str, data: Path, out: Path, nodes: int, shared: dict[str, object]) -> list[str]:
    """The cells of one line of the table."""
    shutil.rmtree(out, ignore_errors=True)
    values = {**shared, "nodes": nodes, "data": str(data.absolute())}
    began = time.monotonic()
    run_dir = out / "run"
    if way == "simulation":
        memory = Memory(os.getpid())
        memory.start()
        given = [f"--set={k}={json.dumps(v)}".replace('"', "") for k, v in values.items()
                 if k not in ("data", "nodes")]  # fmt: skip
        snowdrop("simulate", data, "--run-dir", run_dir, "--nodes", nodes, *given)
    else:
        database = ":flwr-in-memory:" if way == "in-memory" else str(out / "superlink.db")
        memory = light_run(data, out, database, values | {"run_dir": str(run_dir.absolute())})
    seconds = time.monotonic() - began
    trained = [row["train_seconds"] for row in RunFolder(run_dir).read_rounds()[1:]]
    most = memory.end()
    return [
        f"{nodes:,}", f"{statistics.median(trained):.2f}", f"{max(trained):.2f}", f"{seconds:.0f}",
        *(f"{most[part]:.0f}" for part in most),
    ]  # fmt: skip


def light_run(data: Path, out: Path, database: str, values: dict[str, object]) -> Memory:
    """Train with light nodes; the memory of SuperLink and ServerApp."""
    out.mkdir(parents=True)
    home = out / "flower-home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink.load]\naddress = "127.0.0.1:{CONTROL}"\ninsecure = true\n'
    )
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | ENVIRONMENT | {"FLWR_HOME": str(home.absolute()), "PATH": programs}
    command = [
        tool("flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port", str(CONTROL),
        "--fleet-api-address", f"127.0.0.1:{FLEET}", "--database", database,
    ]  # fmt: skip
    with (out / "superlink.log").open("wb") as log:
        superlink = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        crowd = None
        try:
            wait_for_port(CONTROL, superlink, out / "superlink.log")
            wait_for_port(FLEET, superlink, out / "superlink.log")
            memory = Memory(superlink.pid)
            memory.start()
            crowd = subprocess.Popen(
                [sys.executable, __file__, "--crowd", str(values["nodes"]), "--out", str(out),
                 "--data", str(data)], env=environment, stdout=log, stderr=log,
            )  # fmt: skip
            flower = Flower(environment, "load")
            config = out / "run.toml"
            config.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()))
            answer = flower.json("run", str(ROOT), "load", "--run-config", str(config))
            run_id = str(answer["run-id"])
            flower.follow(run_id, verbose=False)
            if not (status := flower.status(run_id)).endswith("completed"):
                raise RuntimeError(f"the run ended as {status}; {out / 'superlink.log'} says why")
            return memory
        finally:
            for process in (crowd, superlink):
                if process is not None:
                    end(process)


@dataclass(eq=False)
class LightNode:
    """One connection to the SuperLink, with interactions and a state folder of its own."""

    connection: tuple
    config: dict[str, str]
    contexts: dict[int, object]

    def serve(self) -> bool:
        """Answer one message, if there is one."""
        from flwr.app import Context, RecordDict
        from flwr.common.config import get_fused_config_from_fab
        from flwr.supercore.inflatable import inflatable_object, inflatable_utils

        from client_app.app import app

        node, receive, send, get_run, get_fab, pull, push, confirm = self.connection
        found = receive()
        if found is None:
            return False
        message, tree = found
        number, run_id = message.metadata.message_id, message.metadata.run_id
        names = [one.object_id for one in inflatable_utils.iterate_object_tree(tree)]
        contents = inflatable_utils.pull_objects(names, lambda name: pull(run_id, name))
        confirm(run_id, number)
        whole = inflatable_utils.inflate_object_from_contents(number, contents)
        whole.metadata.__dict__["_message_id"] = number
        if run_id not in self.contexts:
            run = get_run(run_id)
            config = get_fused_config_from_fab(get_fab(run.fab_hash, run_id).content, run)
            self.contexts[run_id] = Context(run_id, node, self.config, RecordDict(), config)
        began = time.monotonic()
        reply = app(whole, self.contexts[run_id])
        reply.metadata.__dict__["_message_id"] = reply.object_id
        objects = inflatable_object.get_all_nested_objects(reply)
        wanted, session = send(
            reply, inflatable_object.get_object_tree(reply), time.monotonic() - began
        )
        for name in wanted:
            push(run_id, session, name, objects[name].deflate())
        return True


@contextmanager
def connected(nodes: int, data: Path, out: Path) -> Iterator[list[LightNode]]:
    """Light nodes, each with one user."""
    from flwr.client.grpc_rere_client.connection import grpc_request_response
    from flwr.supernode.start_client_internal import _make_fleet_connection_retry_invoker

    table = pl.read_csv(data / "interactions.csv", schema_overrides={"user_id": pl.String})
    shares = table.partition_by("user_id", maintain_order=True)
    with ExitStack() as stack:
        light = []
        for place in range(nodes):
            folder = out / "nodes" / str(place)
            (folder / "state").mkdir(parents=True)
            shares[place].write_csv(folder / "interactions.csv")
            config = {"interactions": str((folder / "interactions.csv").absolute()),
                      "state-dir": str((folder / "state").absolute())}  # fmt: skip
            invoker = _make_fleet_connection_retry_invoker()
            connection = stack.enter_context(
                grpc_request_response(f"127.0.0.1:{FLEET}", True, invoker)
            )
            light.append(LightNode(connection, config, {}))
        yield light


def crowd(nodes: int, data: Path, out: Path) -> None:
    """Serve light nodes until the process is ended."""
    import torch
    from flwr.supercore.task_identity import TaskIdentity

    torch.set_num_threads(1)
    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
    waiting: queue.PriorityQueue[tuple[float, int, LightNode]] = queue.PriorityQueue()
    with connected(nodes, data, out) as light:
        for place, node in enumerate(light):
            waiting.put((time.monotonic(), place, node))

        def work() -> None:
            while True:
                due, place, node = waiting.get()
                time.sleep(max(0.0, due - time.monotonic()))
                pause = 0.0 if node.serve() else FLOWERS_PAUSE
                waiting.put((time.monotonic() + pause, place, node))

        threads = [threading.Thread(target=work, daemon=True) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def main() -> None:
    """Measure each number of nodes each way and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nodes", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--ways", nargs="*", default=["simulation", "light"])
    parser.add_argument("--round-timeout", type=float)
    parser.add_argument("--crowd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.crowd:
        crowd(options.crowd, options.data, options.out)
        return
    print("| way | " + " | ".join(HEADS) + " |")
    print("|" + " --- |" * (1 + len(HEADS)), flush=True)
    shared = {**SETTINGS, "rounds": options.rounds}
    if options.round_timeout is not None:
        shared["round_timeout"] = options.round_timeout
    for nodes in options.nodes:
        data = made_data(options.out / f"data-{nodes}", nodes)
        for way in options.ways:
            out = options.out / f"{way}-{nodes}"
            cells = measured(way, data, out, nodes, shared)
            print("| " + " | ".join([way, *cells]) + " |", flush=True)
    print(f"(load average {os.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores)")


if __name__ == "__main__":
    main()
