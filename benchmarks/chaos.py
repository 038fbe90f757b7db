"""Faults at random times on a federation of real processes, and whether anything was lost.

    python benchmarks/chaos.py --out runs/chaos --seeds 1 2 3 [--at-once 3] [--minutes 5]

For each seed it brings up two nodes on generated data and trains them while processes are killed,
ended or frozen, files damaged, disks full, clocks wrong and the network cut. A run that ends is
followed by one that resumes it. Afterwards everything is healed, the training takes three more
rounds, and these must hold:

- the training ends, and every round was trained once;
- the item table equals that of an undisturbed training in this process, in which the same nodes
  take part in each round (where every node came back in time: in which all do);
- each user of each node has a whole list of recommendations.

Prints a Markdown table with a line for each seed, and one of the kinds of faults; its exit status
is 1 unless all of it holds. The seed decides which faults come, and when; what they meet there
depends on the machine. `OUT/seed-N.log` tells what happened when.

Each seed runs in network, mount and process namespaces of its own, so that several can run side by
side and nothing is left of any, even if it is killed. Each node has a network namespace that a
virtual cable joins to the server's. A clock that jumps needs the package `libfaketime` (Debian's
libfaketime 0.9.10 breaks the sleep of Python 3.11). Faults that this machine cannot have are left
out, and the reason is printed.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import torch
from deployed import run as start_run
from deployed import snowdrop
from flwr.app import Error, Message
from isolation import SERVER, Network, do, isolate

from cli.in_process import InProcessGrid
from client_app.lists import FILE as LISTS
from common import messages
from common.errors import SnowdropError
from common.settings import RunSettings
from deploy import local, supervisor
from deploy.federation import Federation
from deploy.health import healthy
from deploy.processes import processes
from server_app.checkpoint import Checkpoints
from server_app.run import run as run_here
from server_app.run_folder import RunFolder

USERS, ITEMS, TOP = 81, 120, 5  # an odd number: two nodes never have as many
SETTINGS = {
    "method": "own-features",
    "dim": 16,
    "evaluate_every": 100_000,
    "baselines": False,
    "round_timeout": 30,
    "round_retries": 20,
    "keep_rounds": 100_000,
    "top": TOP,
    "nodes": 2,
}
MANY_ROUNDS = 10_000
FROZEN_SECONDS = 70.0  # longer than the 60 s after which a SuperLink takes a node for offline
STALLED_SECONDS = 150.0
START_SECONDS = 20.0  # until the ServerApp of a run is there
SMALL_DISK = "24m"
END_SECONDS = 90.0  # that a seed has to bring its federation down
RESULT = "result.json"
HEADS = (
    "seed", "minutes", "faults", "runs", "rounds", "rounds without a node",
    "largest difference of the item table", "stalls", "what was wrong",
)  # fmt: skip
Heal = Callable[[], None]


class World:
    """The federation, and all that may happen to it."""

    def __init__(self, folder: Path, seed: int, not_isolated: str) -> None:
        self.folder = folder
        self._not_isolated = not_isolated
        self._faketime = None if not_isolated else faketime()
        self.rng = random.Random(seed)
        self._bits = random.Random(seed)  # apart, since a file may not be there
        self.run_dir = folder / "server" / "run"
        self.begun = time.monotonic()
        self.faults: Counter[str] = Counter()
        self.runs = self.stalls = 0
        self._heals: list[tuple[float, str, Heal]] = []
        self._mounts: list[Path] = []
        self._expected_until = 0.0
        self._starter: threading.Thread | None = None
        self.run_id = ""
        self._progress = (-1, 0.0)

    def make(self) -> None:
        """Make it, with programs that give each node a clock and a network of its own."""
        data, programs = self.folder.parent / "data", self.folder.parent / "programs"
        snowdrop("prepare", "demo", "--out", data, "--users", USERS, "--items", ITEMS)
        split = pl.Series("split", ["warm"] * (ITEMS - ITEMS // 5) + ["test"] * (ITEMS // 5))
        pl.read_csv(data / "items.csv").with_columns(split).write_csv(data / "items.csv")
        host = () if self._not_isolated else ("--host", SERVER)
        init = ("deploy", "init", self.folder, "--nodes", 2, "--port", 0, "--programs", programs)
        snowdrop(*init, *host)
        snowdrop("deploy", "share", self.folder, "--data", data)
        self.federation = Federation.load(self.folder)
        self.nodes = self.federation.node_names()
        _write_programs(programs, bool(host), self._faketime)
        for name in self.nodes:
            self._set_clock(name, "+0")
        self.run_dir.mkdir(exist_ok=True)
        if not self._not_isolated:
            self._network = Network(self.nodes)
            do("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")  # libfaketime leaves files there
            for place in (self.run_dir, self._state(self.nodes[0])):
                do("mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", place)
                self._mounts.append(place)

    def up(self) -> None:
        """Bring it up."""
        with mock.patch.object(local, "healthy", self._healthy):
            local.up(self.folder, self.say)
        self.flower = local.connection(self.folder, self.federation)

    def _healthy(self, address: str) -> bool:
        """Whether a process is, wherever its loopback is."""
        port = address.rpartition(":")[2]
        for node in self.federation.nodes:
            if node.health_port == int(port) and not self._not_isolated:
                return healthy(f"{self._network.address[node.name]}:{port}")
        return healthy(address)

    def end(self) -> None:
        """Heal and end everything."""
        self.heal(everything=True)
        local.down(self.folder)
        for place in self._mounts:
            copy = place.with_name(f"{place.name}.copy")
            shutil.copytree(place, copy, dirs_exist_ok=True)
            do("umount", place)
            shutil.copytree(copy, place, dirs_exist_ok=True)
            shutil.rmtree(copy)

    def say(self, what: str) -> None:
        """A line about what happens, with the second at which it does."""
        print(f"{time.monotonic() - self.begun:6.1f} s  {what}", file=sys.stderr, flush=True)

    # What may happen.

    def menu(self) -> dict[str, Callable[[], None]]:
        """All faults, by name."""
        every: dict[str, Callable[[], None]] = {
            "kill a node": lambda: self._signal(self._node(), signal.SIGKILL),
            "end a node": lambda: self._signal(self._node(), signal.SIGTERM),
            "freeze a node": self._freeze,
            "kill the SuperLink": lambda: self._signal("superlink", signal.SIGKILL),
            "end the SuperLink": lambda: self._signal("superlink", signal.SIGTERM),
            "kill the executor": lambda: self._signal("executor", signal.SIGKILL),
            "kill the ServerApp": self._kill_serverapp,
            "kill a node's work": self._kill_work,
            "damage a checkpoint": self._damage_checkpoint,
            "damage a node's state": self._damage_state,
        }
        if not self._not_isolated:
            every |= {
                "cut a node off": lambda: self._cut([self._node()], FROZEN_SECONDS),
                "cut the network": lambda: self._cut(self.nodes, self.rng.uniform(3, 15)),
                "slow the network": self._slow,
                "fill the server's disk": lambda: self._fill(self._mounts[0]),
                "fill a node's disk": lambda: self._fill(self._mounts[1]),
            }
        if self._faketime:
            every["let a node's clock jump"] = self._jump
        return every

    def left_out(self) -> Iterator[str]:
        """Which faults this machine cannot have, and why."""
        if self._not_isolated:
            yield (
                "no cut or slow network, no full disk and no clock that jumps: "
                f"{self._not_isolated}"
            )
        elif not self._faketime:
            yield "no clock that jumps: the package `libfaketime` is not there"

    def strike(self) -> None:
        """One fault, drawn at random; each kind comes before any comes twice."""
        menu = self.menu()
        least = min(self.faults[name] for name in menu)
        name = self.rng.choice([name for name in menu if self.faults[name] == least])
        self.faults[name] += 1
        self.say(name)
        menu[name]()

    def heal(self, everything: bool = False) -> None:
        """Undo what has lasted long enough."""
        now = time.monotonic()
        for entry in [one for one in self._heals if everything or one[0] <= now]:
            self._heals.remove(entry)
            self.say(f"healed: {entry[1]}")
            entry[2]()

    def _later(self, seconds: float, what: str, heal: Heal) -> None:
        self._heals.append((time.monotonic() + seconds, what, heal))

    def _node(self) -> str:
        return self.rng.choice(self.nodes)

    def _state(self, node: str) -> Path:
        return self.folder / "nodes" / node / "state"

    def _signal(self, name: str, number: signal.Signals) -> None:
        report = supervisor.report(self.folder, name)
        if report is not None and report.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(report.pid, number)

    def _freeze(self) -> None:
        family = supervisor.family(self.folder, self._node())
        for process in family:
            with suppress(Exception):
                process.suspend()

        def resume() -> None:
            for process in family:
                with suppress(Exception):
                    process.resume()

        self._later(FROZEN_SECONDS, "a frozen node", resume)

    def _kill_serverapp(self) -> None:
        for process in supervisor.serverapps(self.folder):
            with suppress(Exception):
                process.kill()

    def _kill_work(self) -> None:
        """What handles a message now, or would handle the next one."""
        for process in supervisor.family(self.folder, self._node()):
            with suppress(Exception):
                if "deploy/warm/server.py" in " ".join(process.cmdline()):
                    process.kill()

    def _damage_checkpoint(self) -> None:
        found = sorted((self.run_dir / "checkpoint").glob("round-*.ckpt"))
        if found:
            self._flip(found[-1])
        self._kill_serverapp()  # else nobody reads it

    def _damage_state(self) -> None:
        found = sorted(self._state(self._node()).glob("trainings/*/round-*.state"))
        if found:
            self._flip(found[-1])

    def _flip(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[self._bits.randrange(len(content))] ^= 1 << self._bits.randrange(8)
        path.write_bytes(content)

    def _cut(self, nodes: list[str], seconds: float) -> None:
        self._network.cut(nodes)
        what = f"the network of {', '.join(nodes)} was cut"
        self._later(seconds, what, lambda: self._network.join(nodes))

    def _slow(self) -> None:
        self._network.slow()
        self._later(self.rng.uniform(5, 20), "the network was slow", self._network.fast)

    def _fill(self, place: Path) -> None:
        filler = place / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        self._later(self.rng.uniform(5, 12), "a full disk", lambda: filler.unlink(missing_ok=True))

    def _jump(self) -> None:
        node = self._node()
        self._set_clock(node, self.rng.choice(["+1h", "-1h", "+72h"]))
        self._later(self.rng.uniform(5, 15), "a wrong clock", lambda: self._set_clock(node, "+0"))

    def _set_clock(self, node: str, offset: str) -> None:
        home = self.folder / "nodes" / node / "flower-home"
        home.mkdir(exist_ok=True)
        (home / "clock").write_text(offset)

    # The training, which goes on all the while.

    def tend_run(self, rounds: int) -> None:
        """Start a run that resumes the training where none is under way."""
        if supervisor.serverapps(self.folder):
            self._expected_until = 0.0
            self._watch_progress()
            return
        superlink = processes(self.federation)[0]
        waiting = self._starter is not None and self._starter.is_alive()
        if waiting or time.monotonic() < self._expected_until or not healthy(superlink.health):
            return
        self._starter = threading.Thread(target=self._start_run, args=(rounds,), daemon=True)
        self._starter.start()

    def _start_run(self, rounds: int) -> None:
        settings = {**SETTINGS, "rounds": rounds, "resume": True}
        with suppress(SnowdropError):  # the SuperLink may be gone by now
            self.run_id = start_run(self.flower, self.folder, self.run_dir, **settings)
            self.runs += 1
            self.say(f"run {self.runs} begins")
            self._progress = (-1, time.monotonic())
            self._expected_until = time.monotonic() + START_SECONDS

    def finish(self, seconds: float) -> int:
        """Heal everything, and train three more rounds; the last round."""
        self.heal(everything=True)
        if self._starter is not None:
            self._starter.join()
        if self.run_id:
            self.flower.call("stop", self.run_id, self.flower.connection)
        self._kill_serverapp()
        rounds = RunFolder(self.run_dir).rounds_done() + 3
        self.say(f"no more faults; the training shall end with round {rounds}")
        self._expected_until, deadline = 0.0, time.monotonic() + seconds
        while not self.is_done(rounds) and time.monotonic() < deadline:
            if (done := RunFolder(self.run_dir).rounds_done()) > rounds:
                self._kill_serverapp()
                rounds, deadline = done + 3, time.monotonic() + seconds
                self.say(f"a run of before went on; the training shall end with round {rounds}")
            self.tend_run(rounds)
            time.sleep(0.5)
        return rounds

    def is_done(self, rounds: int) -> bool:
        """Whether the training has ended with its last round and its lists."""
        summary = RunFolder(self.run_dir)
        return summary.rounds_done() >= rounds and (self.run_dir / "summary.json").exists()

    def _watch_progress(self) -> None:
        done = RunFolder(self.run_dir).rounds_done()
        if done != self._progress[0]:
            self._progress = (done, time.monotonic())
        elif time.monotonic() - self._progress[1] > STALLED_SECONDS:
            self.stalls += 1
            self.say(f"no round for {STALLED_SECONDS:g} s: the ServerApp is ended")
            self._kill_serverapp()
            self._progress = (done, time.monotonic())


def faketime() -> Path | None:
    """The library of the package `libfaketime`, where that is installed."""
    spec = importlib.util.find_spec("libfaketime")
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () for path in Path(folder).rglob("libfaketime*.so*")]
    return found[0] if found else None


def _write_programs(folder: Path, isolated: bool, clock: Path | None) -> None:
    """Flower's programs, and a Python that gives a node its network and its clock."""
    folder.mkdir(exist_ok=True)
    beside = Path(sys.executable).parent
    for program in [*beside.glob("flwr*"), *beside.glob("flower-*")]:
        (folder / program.name).symlink_to(program)
    python, enter = folder / "python", ""
    if isolated:  # a node's health is asked for from outside
        enter = (
            'for part do\n  shift\n  case "$part" in\n'
            '    127.0.0.1:*) part=0.0.0.0:${part#*:};;\n  esac\n  set -- "$@" "$part"\ndone\n'
            'set -- nsenter "--net=/run/netns/$SNOWDROP_PROCESS" "$@"\n'
        )
    if clock:
        enter += (
            f"export LD_PRELOAD={clock} FAKETIME_TIMESTAMP_FILE=$FLWR_HOME/clock\n"
            "export FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n"
        )
    python.write_text(f'#!/bin/sh\nset -- {sys.executable} "$@"\n{enter}exec "$@"\n')
    python.chmod(0o755)


class Replay(InProcessGrid):
    """The same nodes in this process, of which those take part that did: whom nothing disturbs.

    Parameters
    ----------
    values : dict
        Of the run.
    world : World
    place : Path
        For the nodes' states.
    """

    def __init__(self, values: dict[str, Any], world: World, place: Path) -> None:
        configs = []
        for name in world.nodes:
            (place / name).mkdir(parents=True)
            shutil.copy(world.folder / "nodes" / name / "state" / "secret", place / name)
            data = world.folder / "nodes" / name / "data" / "interactions.csv"
            configs.append({"interactions": str(data), "state-dir": str(place / name)})
        super().__init__(2, values, configs)
        self._place, self._world = place, world
        rows = RunFolder(world.run_dir).read_rounds()
        self.used = {row["round"]: _who(row["users"], world) for row in rows}
        self.trained = {name: _states(world, name) for name in world.nodes}
        self.damaged = {name: _damaged(world.folder, name) for name in world.nodes}

    def deliver(self, message: Message) -> Message | None:
        if message.metadata.message_type != messages.TRAIN:
            return super().deliver(message)
        number = messages.TrainRequest.from_record(message.content).round
        name = self._world.nodes[message.metadata.dst_node_id - 2]
        refusal = Message(Error(code=messages.REFUSED, reason="it was away"), reply_to=message)
        if number not in self.trained[name]:
            return refusal
        if number - 1 in self.damaged[name]:
            for path in (self._place / name).glob(f"trainings/*/round-{number - 1:06d}.state"):
                path.unlink()
        reply = super().deliver(message)
        return reply if name in self.used[number] else refusal


def _who(users: int, world: World) -> tuple[str, ...]:
    """Which nodes' users a round has: their numbers tell."""
    counts = {name: len(users_of(world, name)) for name in world.nodes}
    one, other = world.nodes
    subsets = ((one, other), (one,), (other,))
    found = [names for names in subsets if sum(counts[name] for name in names) == users]
    if len(found) != 1:
        raise RuntimeError(f"a round has {users} users, of nodes with {counts}")
    return found[0]


def _states(world: World, node: str) -> set[int]:
    """Rounds that a node has trained."""
    state = world.folder / "nodes" / node / "state"
    return {int(path.stem.split("-")[1]) for path in state.glob("trainings/*/round-*.state")}


def _damaged(folder: Path, name: str) -> set[int]:
    """Rounds whose state a node found to be damaged."""
    text = supervisor.log_path(folder, name).read_text(errors="replace")
    parts = text.split(".state is damaged")[:-1]
    return {int(part.rpartition("round-")[2]) for part in parts}


def users_of(world: World, node: str) -> list[str]:
    """Users with interactions on a node."""
    path = world.folder / "nodes" / node / "data" / "interactions.csv"
    users: list[str] = pl.read_csv(path)["user_id"].unique().sort().to_list()
    return users


def table_of(run_dir: Path) -> tuple[int, torch.Tensor]:
    """Round and item table of the newest checkpoint."""
    state = Checkpoints(run_dir / "checkpoint", exclusive=False).newest()
    assert state is not None
    return state["round"], state["table"]


def check(world: World, rounds: int) -> tuple[list[str], dict[str, float]]:
    """What does not hold, and numbers of the comparison."""
    wrong = []
    numbers = [row["round"] for row in RunFolder(world.run_dir).read_rounds()]
    if numbers != list(range(1, rounds + 1)):
        wrong.append(f"the rounds are {numbers}")
    place = world.folder.parent / "replay"
    values = {
        **SETTINGS, "rounds": rounds, "run_dir": str(place / "run"),
        "data": str(world.folder / "server" / "data"),
        "encode_cache": str(world.folder / "server" / "cache"),
    }  # fmt: skip
    replay = Replay(values, world, place / "nodes")
    run_here(replay, RunSettings.parse(values), plots=False)
    (reached, table), (there, undisturbed) = table_of(world.run_dir), table_of(place / "run")
    difference = float((table - undisturbed).abs().max())
    if reached != there or difference > 1e-5:
        wrong.append(f"the item table differs by {difference:g} (rounds {reached} and {there})")
    for node in world.nodes:
        wrong += _lists(world, node)
    missing = sum(len(names) < 2 for names in replay.used.values())
    return wrong, {"missing": missing, "difference": difference}


def _lists(world: World, node: str) -> Iterator[str]:
    """What is wrong with a node's recommendations."""
    lists = pl.read_parquet(world.folder / "nodes" / node / "state" / LISTS)
    seen = pl.read_csv(world.folder / "nodes" / node / "data" / "interactions.csv")
    if sorted(lists["user_id"].unique()) != users_of(world, node):
        yield f"{node} has not served all its users"
    ranks = lists.sort("rank").group_by("user_id").agg("rank", pl.col("item_id").n_unique())
    if not all(row["rank"] == list(range(1, TOP + 1)) for row in ranks.iter_rows(named=True)):
        yield f"{node} has lists that are not whole"
    if (ranks["item_id"] != TOP).any():
        yield f"{node} has lists with an item twice"
    if lists.join(seen, on=["user_id", "item_id"], how="semi").height:
        yield f"{node} recommends what its users know"


def interruptible(can: bool) -> None:
    """Whether Ctrl-C and SIGTERM interrupt what this process does; not while it cleans up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if can else signal.SIG_IGN)


@contextmanager
def running(world: World) -> Iterator[None]:
    """A federation that is up, and surely down afterwards."""
    try:
        world.make()
        world.up()
        yield
    finally:
        interruptible(False)
        world.end()


def one_seed(options: argparse.Namespace, seed: int, place: Path) -> dict[str, Any]:
    """Let it happen, and check."""
    world = World(place / "fed", seed, isolate())
    with running(world):
        begun = world.begun = time.monotonic()
        strike_at = begun + 30  # the first run begins meanwhile
        while time.monotonic() < begun + 60 * options.minutes:
            world.tend_run(MANY_ROUNDS)
            world.heal()
            if time.monotonic() >= strike_at:
                world.strike()
                strike_at += world.rng.expovariate(1 / options.pause)
            time.sleep(0.5)
        rounds = world.finish(240)
        world.say("checking")
        wrong, found = check(world, rounds)
    if left := supervisor.family(world.folder):
        wrong.append(f"{len(left)} processes are left")
    return {
        "faults": world.faults, "left out": list(world.left_out()), "wrong": wrong,
        "cells": [
            seed, f"{options.minutes:g}", world.faults.total(), world.runs, rounds,
            found["missing"], f"{found['difference']:.1e}", world.stalls,
        ],
    }  # fmt: skip


def start(options: argparse.Namespace, seed: int) -> subprocess.Popen[bytes]:
    """This command for one seed, in a session of its own."""
    place = options.out / f"seed-{seed}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    command = [sys.executable, __file__, "--out", options.out, "--seeds", seed, "--inside"]
    command += ["--minutes", options.minutes, "--pause", options.pause]
    with (options.out / f"seed-{seed}.log").open("wb") as log:
        return subprocess.Popen(
            [*map(str, command)], stdout=log, stderr=log, start_new_session=True
        )


def end(child: subprocess.Popen[bytes]) -> None:
    """End a seed, with all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT)
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def results(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Of each seed, as soon as it is done; some seeds at a time."""
    waiting, going = list(options.seeds), dict[int, subprocess.Popen[bytes]]()
    try:
        while waiting or going:
            while waiting and len(going) < options.at_once:
                seed = waiting.pop(0)
                going[seed] = start(options, seed)
            for seed in [seed for seed, child in going.items() if child.poll() is not None]:
                del going[seed]
                yield result_of(options.out, seed)
            time.sleep(0.5)
    finally:
        interruptible(False)
        for child in going.values():
            end(child)


def result_of(out: Path, seed: int) -> dict[str, Any]:
    """What a seed found; that it failed, where it wrote nothing."""
    with suppress(FileNotFoundError):
        found: dict[str, Any] = json.loads((out / f"seed-{seed}" / RESULT).read_text())
        return found
    wrong = [f"it did not come to its end: {out / f'seed-{seed}.log'} says why"]
    cells = [seed, *"–" * (len(HEADS) - 2)]
    return {"faults": {}, "left out": [], "wrong": wrong, "cells": cells}


def main() -> int:
    """Run every seed, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--at-once", type=int, default=1, help="seeds side by side")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults come")
    parser.add_argument("--pause", type=float, default=6.0, help="mean seconds between two faults")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.absolute()
    interruptible(True)
    if options.inside:
        place = options.out / f"seed-{options.seeds[0]}"
        result = one_seed(options, options.seeds[0], place)
        (place / RESULT).write_text(json.dumps(result))
        return 0
    print("| " + " | ".join(HEADS) + " |\n|" + " --- |" * len(HEADS), flush=True)
    faults, left_out, whole = Counter[str](), set[str](), True
    for result in results(options):
        cells = [*result["cells"], "; ".join(result["wrong"]) or "nothing"]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        faults.update(result["faults"])
        left_out |= set(result["left out"])
        whole = whole and not result["wrong"]
    print(f"\n| kind of fault | {faults.total()} in all |\n| --- | --- |")
    for name, count in sorted(faults.items()):
        print(f"| {name} | {count} |")
    for reason in sorted(left_out):
        print(f"left out: {reason}")
    print(f"(load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
