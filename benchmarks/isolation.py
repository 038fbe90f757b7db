"""Namespaces of a command's own: what it mounts, starts and wires up is gone when it ends."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

SERVER = "10.77.0.1"
RATE = ("rate", "256kbit", "burst", "16kb", "latency", "400ms")
UPLINK = "uplink"  # what a node's end is called
_INSIDE = "SNOWDROP_ISOLATED"
_PR_SET_PDEATHSIG = 1
_TRIAL = (
    "ip link add name trial type bridge && ip link add name one type veth peer name other && "
    "tc qdisc add dev one root tbf rate 1mbit burst 16kb latency 1s && mount -t tmpfs tmpfs /mnt"
)


def isolate() -> str:
    """Go on in namespaces for the network, mounts and processes, or say why that cannot be.

    Returns
    -------
    str
        Empty where this process is in them.
    """
    if os.environ.get(_INSIDE):
        return ""
    if missing := [name for name in ("unshare", "nsenter", "ip", "tc") if not shutil.which(name)]:
        return f"this machine has no program {missing[0]}"
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid():
        command.append("--map-root-user")
    trial = subprocess.run([*command, "sh", "-c", _TRIAL], capture_output=True, text=True)
    if trial.returncode:
        return f"this account may not make namespaces ({trial.stderr.strip()})"
    os.environ[_INSIDE] = "1"
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # holds for `unshare`, too
    # The shell is the first process in there, and collects those whose parents are gone.
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    return os.execvp(command[0], [*command, *shell, sys.executable, *sys.argv])


def do(*command: object) -> None:
    """A command that must succeed."""
    subprocess.run([*map(str, command)], check=True)


class Network:
    """A bridge at `SERVER`, to which each node is joined from a network namespace of its own."""

    def __init__(self, nodes: list[str]) -> None:
        self._cuts: Counter[str] = Counter()
        self.address = {name: f"10.77.0.{2 + place}" for place, name in enumerate(nodes)}
        Path("/run/netns").mkdir(exist_ok=True)
        do("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        do("ip", "link", "set", "lo", "up")
        do("ip", "link", "add", "bridge", "type", "bridge")
        do("ip", "address", "add", f"{SERVER}/24", "dev", "bridge")
        do("ip", "link", "set", "bridge", "up")
        for name, address in self.address.items():
            do("ip", "netns", "add", name)
            do("ip", "link", "add", name, "type", "veth", "peer", "name", UPLINK, "netns", name)
            do("ip", "link", "set", name, "master", "bridge", "up")
            do("ip", "-n", name, "link", "set", "lo", "up")
            do("ip", "-n", name, "address", "add", f"{address}/24", "dev", UPLINK)
            do("ip", "-n", name, "link", "set", UPLINK, "up")

    def cut(self, nodes: list[str]) -> None:
        """Take these nodes' links down; what they send is lost without a word."""
        for name in nodes:
            self._cuts[name] += 1
            do("ip", "link", "set", name, "down")

    def join(self, nodes: list[str]) -> None:
        """Take one cut back; a link is up when no other cut is left."""
        for name in nodes:
            self._cuts[name] -= 1
            if not self._cuts[name]:
                do("ip", "link", "set", name, "up")

    def slow(self) -> None:
        """Let little through, both ways."""
        self._shape("tbf", *RATE)

    def fast(self) -> None:
        """Let everything through again."""
        self._shape("pfifo")

    def _shape(self, *discipline: str) -> None:
        for name in self.address:
            for namespace, device in (((), name), (("-n", name), UPLINK)):
                do("tc", *namespace, "qdisc", "replace", "dev", device, "root", *discipline)
