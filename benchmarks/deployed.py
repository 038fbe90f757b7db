"""Seconds of a deployed round, and where they go, as a Markdown table.

    python benchmarks/deployed.py --out runs/deployed [--rounds 10] [--nodes 2] [--test]
    python benchmarks/deployed.py --out runs/deployed --nodes 3 --ways warm secure

Brings up a federation of separate processes on generated data (d = 64), once as Flower does it,
with a process that is started anew for every message, and once with the warm process, and trains
some rounds; with three nodes or more also with secure sums. With ``--test``, also the seconds of
one more run, of one round and a whole test.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from client_app.policy import FILE
from deploy import local, supervisor
from deploy.federation import Federation
from deploy.flower import Flower
from server_app.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
SHORT = {"dim": 64, "evaluate_every": 1000, "baselines": False, "method": "own-features"}
FLOWERS_PAUSE = 3.0  # a SuperNode's sleep after it found no message
IDLE_SECONDS = 20.0
LOOK_SECONDS = 5.0
SECURE = "secure"
WAYS = {
    "cold": "a new process",
    "warm": "a fork of a warm process",
    SECURE: "a fork of a warm process, under secure sums",
}
HEADS = {
    "round": "seconds of a round, median",
    "above": "above Flower's pause of 3 s",
    "slowest": "slowest",
    "process": "seconds of a node's process for a message",
    "cpu": "CPU seconds of a node for a round",
    "idle": "CPU of an idle node, %",
    "memory": "memory of an idle node, MB",
    "test": "seconds of a run of one round and a whole test",
}
DIGITS = {"idle": 1, "memory": 0, "test": 0}


def snowdrop(*arguments: object, **environment: str) -> None:
    """A `snowdrop` command, run to its end."""
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | environment)


class Watch(threading.Thread):
    """Seconds that each ClientApp process of a node is there."""

    def __init__(self, folder: Path, node: str) -> None:
        super().__init__(daemon=True)
        family = supervisor.family(folder, node)
        starter = next(p for p in family if any("superexec" in part for part in p.cmdline()))
        self._children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children")
        self._ended = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        """Look every 20 ms until `end`."""
        began: dict[str, float] = {}
        while not self._ended.wait(0.02):
            now = time.monotonic()
            alive = {pid for pid in self._children.read_text().split() if _runs(pid)}
            for pid in alive - began.keys():
                began[pid] = now
            self.seconds += [now - began.pop(pid) for pid in began.keys() - alive]

    def end(self) -> list[float]:
        """The seconds, one for each message since the start."""
        self._ended.set()
        self.join()
        return self.seconds


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def cpu_seconds(folder: Path, nodes: list[str]) -> float:
    """CPU seconds of the nodes' processes so far, with those that have ended."""
    times = [p.cpu_times() for name in nodes for p in supervisor.family(folder, name)]
    return sum(t.user + t.system + t.children_user + t.children_system for t in times)


def memory_mb(folder: Path, node: str) -> float:
    """Memory of a node's processes, in MB; what they share is counted once."""
    return sum(p.memory_full_info().pss for p in supervisor.family(folder, node)) / 2**20


def run(flower: Flower, folder: Path, run_dir: Path, **settings: object) -> str:
    """Start a run; its id."""
    config = folder / "run.toml"
    values = {**SHORT, "run_dir": str(run_dir), "resume": False} | settings
    config.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()))
    answer = flower.json("run", str(ROOT), flower.connection, "--run-config", str(config))
    return str(answer["run-id"])


def measured(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """The numbers of one line of the table, of a federation that is up."""
    description = Federation.load(folder)
    flower, nodes = local.connection(folder, description), description.node_names()
    run_dir = folder / "server" / "measured"
    secure = folder.name == SECURE
    if not secure:
        allow_plain_sums(folder, nodes)
    shared = {"nodes": len(nodes), "secure_sums": secure}
    run_id = run(flower, folder, run_dir, rounds=options.rounds + 1, **shared)
    wait(flower, run_id, lambda: RunFolder(run_dir).rounds_done() >= 1)
    watch, before = Watch(folder, nodes[0]), cpu_seconds(folder, nodes)
    watch.start()
    wait(flower, run_id, lambda: RunFolder(run_dir).rounds_done() >= options.rounds)
    cpu, processes = cpu_seconds(folder, nodes) - before, watch.end()
    wait(flower, run_id)
    seconds = [row["train_seconds"] for row in RunFolder(run_dir).read_rounds()[1:]]
    time.sleep(5)
    began, idle = time.monotonic(), cpu_seconds(folder, nodes)
    time.sleep(IDLE_SECONDS)
    idle = (cpu_seconds(folder, nodes) - idle) / (time.monotonic() - began) / len(nodes)
    found = {
        "round": statistics.median(seconds),
        "above": statistics.median(seconds) - FLOWERS_PAUSE,
        "slowest": max(seconds),
        "process": statistics.median(processes),
        "cpu": cpu / (options.rounds - 1) / len(nodes),
        "idle": 100 * idle,
        "memory": memory_mb(folder, nodes[0]),
    }
    if options.test:
        began = time.monotonic()
        tested = folder / "server" / "tested"
        wait(flower, run(flower, folder, tested, rounds=1, baselines=True, **shared))
        found["test"] = time.monotonic() - began
    return found


def allow_plain_sums(folder: Path, nodes: list[str]) -> None:
    """Let nodes answer without secure sums, which those of three nodes or more refuse at first."""
    for name in nodes:
        policy = folder / "nodes" / name / FILE
        kept = [
            line
            for line in policy.read_text().splitlines(keepends=True)
            if not line.startswith(("secure_sums", "fewest_participants"))
        ]
        policy.write_text("".join(kept))


def wait(flower: Flower, run_id: str, until: Callable[[], bool] = lambda: False) -> None:
    """Wait for the end of a run, or until something is so.

    Raises
    ------
    RuntimeError
        If the run fails.
    """
    looked = -math.inf
    while not until():
        if time.monotonic() > looked + LOOK_SECONDS:
            looked, status = time.monotonic(), flower.status(run_id)
            if status.startswith("finished"):
                if not status.endswith("completed"):
                    raise RuntimeError(f"run {run_id} ended as {status}")
                return
        time.sleep(0.1)


def main() -> None:
    """Measure both ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--test", action="store_true", help="a run with a whole test too")
    parser.add_argument("--ways", nargs="*", default=["cold", "warm"], choices=list(WAYS))
    options = parser.parse_args()
    heads = [HEADS[name] for name in HEADS if name != "test" or options.test]
    print("| messages handled by | " + " | ".join(heads) + " |", flush=True)
    print("|" + " --- |" * (1 + len(heads)), flush=True)
    for way in options.ways:
        folder = (options.out / way).absolute()
        shutil.rmtree(folder, ignore_errors=True)
        snowdrop("deploy", "init", folder, "--nodes", options.nodes, "--port", 0)
        snowdrop("deploy", "up", folder, "--demo", SNOWDROP_WARM=str(int(way != "cold")))
        try:
            found = measured(folder, options)
        finally:
            snowdrop("deploy", "down", folder)
        cells = [f"{found[name]:.{DIGITS.get(name, 2)}f}" for name in HEADS if name in found]
        print("| " + " | ".join([WAYS[way], *cells]) + " |", flush=True)
    print(f"(load average {os.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores)")


if __name__ == "__main__":
    main()
