"""A Docker engine of a test's own, which leaves nothing behind, and images built with it."""

import functools
import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import torch

ROOT = Path(__file__).parents[2]
PYTHON = (3, 11)  # of the image's base
SUITE = "bookworm"  # the Debian with that Python
REGISTRY_BASE = "python:3.11-slim-bookworm"
DEBIAN_BASE = "snowdrop-test-base"
NEEDED_GB = 20
_TIMES_OUT = 124
# Hundreds of thousands of files are gone at once with the disk that they are on.
_START = """
mkdir -p "$0/data"
if [ -e "$0/disk" ] || { truncate -s 30G "$0/disk" && mkfs.ext4 -q -O ^has_journal "$0/disk"; }
then mount -o loop "$0/disk" "$0/data"
fi
if [ "$1" = alone ]; then ip link set lo up; fi
shift
exec dockerd "$@"
"""


def call(command: Sequence[str], seconds: float, **options: object) -> str:
    """What a command prints; fails where it fails, or takes longer than ``seconds``."""
    code, said = attempt(command, seconds, **options)
    assert code == 0, f"{' '.join(command[:6])} … ended with {code}:\n{said[-4000:]}"
    return said


def attempt(command: Sequence[str], seconds: float, **options: object) -> tuple[int, str]:
    """Exit status and output of a command; 124 where it takes longer than ``seconds``."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=seconds)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return _TIMES_OUT, f"{process.communicate()[0]}\nnot within {seconds:g} s"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def what_is_missing() -> str | None:
    """Why no engine can be started here; None where nothing is in the way."""
    if os.geteuid() != 0:
        return "starting a Docker engine needs root"
    for program in ("dockerd", "docker", "unshare", "ip"):
        if not shutil.which(program):
            return f"there is no {program} here; Debian's package docker.io has the engine"
    if not compose_program():
        return "there is no docker compose here; Debian's package docker-compose has one"
    if sys.version_info[:2] != PYTHON:
        return f"the wheels for the image need Python {PYTHON[0]}.{PYTHON[1]}, which is not here"
    if torch.version.cuda and not os.environ.get("TORCH_INDEX"):
        return "torch would come with CUDA; TORCH_INDEX can name an index with CPU builds of it"
    if (free := shutil.disk_usage(tempfile.gettempdir()).free / 1e9) < NEEDED_GB:
        return f"{tempfile.gettempdir()} has {free:.0f} GB free, and images need {NEEDED_GB}"
    return None


@functools.lru_cache
def compose_program() -> tuple[str, ...]:
    """The newer `docker compose`, or else the older `docker-compose`."""
    with suppress(OSError):
        if attempt(["docker", "compose", "version"], 60)[0] == 0:
            return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else ()


class Engine:
    """A running engine, and the `docker` command that talks to it."""

    def __init__(self, folder: Path) -> None:
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DOCKER_"))},
            "DOCKER_HOST": f"unix://{folder / 'socket'}",
            "DOCKER_CONFIG": str(folder / "client"),
            "DOCKER_BUILDKIT": "0",
        }

    def docker(self, *arguments: str, seconds: float = 60) -> str:
        """What a `docker` command prints."""
        return call(["docker", *arguments], seconds, env=self.environment)


@contextmanager
def engine(folder: Path, alone: bool) -> Iterator[Engine]:
    """An engine with all its files in ``folder``.

    Its mounts and processes are in namespaces of their own, which end with it. If it is ``alone``,
    so is its network, so that it reaches nothing outside; else it leaves the machine's network as
    it is, and can only build and pull.
    """
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    options = [
        "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"),
        "--pidfile", str(folder / "pid"), "--host", f"unix://{folder / 'socket'}",
        "--bridge", "none", "--exec-opt", "native.cgroupdriver=cgroupfs",
        "--cgroup-parent", f"/{folder.name}",
    ]  # fmt: skip
    if alone:
        namespaces.append("--net")
    else:
        options += ["--iptables=false", "--ip-forward=false", "--ip-masq=false"]
    command = ["sh", "-c", _START, str(folder), "alone" if alone else "", *options]
    strays = [path for path in (Path("/etc/docker"), Path("/run/docker")) if not path.exists()]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*namespaces, *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        running = Engine(folder)
        _wait_for_it(running, process, folder / "log")
        yield running
    finally:
        _end(process)
        _remove_cgroups(folder.name)
        for path in strays:
            shutil.rmtree(path, ignore_errors=True)


def _wait_for_it(running: Engine, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 90
    while attempt(["docker", "info"], 30, env=running.environment)[0] != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            last = (log.read_text(errors="replace").splitlines() or [""])[-1]
            pytest.skip(f"the Docker engine does not start here: {last[:300]}")
        time.sleep(0.5)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask the engine to end; then all that is in its namespace is killed."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children():
            child.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(60)


def _remove_cgroups(name: str) -> None:
    places = Path("/sys/fs/cgroup")
    for top in (places / name, *places.glob(f"*/{name}")):
        for path in (*sorted(top.rglob("*/"), reverse=True), top):
            with suppress(OSError):
                path.rmdir()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for an engine, with a short path: sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="snowdrop-engine-"))
    try:
        yield folder
    finally:
        call(["rm", "-rf", str(folder)], 300)


def base_image(builder: Engine, folder: Path) -> str:
    """The Dockerfile's base image, or one made of Debian's packages where it cannot be had."""
    if attempt(["docker", "pull", "--quiet", REGISTRY_BASE], 180, env=builder.environment)[0] == 0:
        return REGISTRY_BASE
    if not shutil.which("debootstrap"):
        pytest.skip(f"{REGISTRY_BASE} cannot be pulled, and there is no debootstrap to make one")
    root = folder / "base"
    packages = "--include=python3,python3-venv,ca-certificates"
    code, said = attempt(["debootstrap", "--variant=minbase", packages, SUITE, str(root)], 400)
    if code:
        pytest.skip(f"debootstrap cannot make a base image here: {said.splitlines()[-1:]}")
    for part in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(root / part, ignore_errors=True)
    packed = folder / "base.tar"
    call(["tar", "-C", str(root), "-cf", str(packed), "."], 120)
    builder.docker("import", str(packed), DEBIAN_BASE, seconds=120)
    packed.unlink()
    shutil.rmtree(root)
    return DEBIAN_BASE


@contextmanager
def package_index(folder: Path) -> Iterator[str]:
    """The address of an index on this machine with all packages of both images."""
    wheels, index = folder / "wheels", folder / "index"
    requirements = ["-r", str(ROOT / "deploy" / "server-requirements.txt")]
    pip = [
        sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels),
        "--find-links", str(wheels), "-c", str(ROOT / "constraints.txt"),
    ]  # fmt: skip
    wheels.mkdir()
    if torch_index := os.environ.get("TORCH_INDEX"):
        _again(3, [*pip, "--index-url", torch_index, "torch"], 300)
    _again(3, [*pip, *requirements], 300)
    for wheel in wheels.glob("*.whl"):
        project = index / re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower()
        project.mkdir(parents=True, exist_ok=True)
        (project / wheel.name).symlink_to(wheel)
    handler = functools.partial(_Silent, directory=str(index))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def _again(times: int, command: Sequence[str], seconds: float) -> None:
    """Call a command that needs the network, and again where it fails."""
    for number in range(1, times + 1):
        code, said = attempt(command, seconds)
        if code == 0:
            return
        time.sleep(5 * number)
    raise AssertionError(f"{' '.join(command[:4])} … failed {times} times:\n{said[-3000:]}")


def build(builder: Engine, source: Path, target: str, tag: str, **arguments: str) -> None:
    """Build one of the Dockerfile's images."""
    given = [word for name in arguments for word in ("--build-arg", f"{name}={arguments[name]}")]
    builder.docker(
        "build", "--network", "host", "--force-rm", *given, "--target", target, "--tag", tag,
        "--file", str(source / "deploy" / "Dockerfile"), str(source),
        seconds=720,
    )  # fmt: skip
