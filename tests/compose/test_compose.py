"""The compose file on a Docker engine: a federation lives, is hurt and upgraded, and goes.

The tests are steps of one story, in the order in which they stand. `make test-compose` runs them.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from tests.compose.engine import (
    ROOT,
    Engine,
    attempt,
    base_image,
    build,
    call,
    compose_program,
    engine,
    package_index,
    scratch,
    what_is_missing,
)

pytestmark = [pytest.mark.compose, pytest.mark.slow, pytest.mark.timeout(1500)]

NODES = ("node-0", "node-1", "node-2")
PROJECT = "snowdrop-test"
IMAGES = {"node": "snowdrop-node:0.1.0", "server": "snowdrop:0.1.0"}
LATER = "0.1.0.post1"
USERS = 60
ROUNDS = 'method="own-features" dim=16 evaluate_every=100 baselines=false round_timeout=120 top=500'


class Compose:
    """The federation of docker-compose.yml, on an engine."""

    def __init__(self, engine: Engine, file: Path) -> None:
        self.engine = engine
        self._program = [*compose_program(), "-p", PROJECT, "-f", str(file)]

    def call(self, *arguments: str, seconds: float = 120) -> str:
        """What a compose command prints."""
        return call([*self._program, *arguments], seconds, env=self.engine.environment)

    def attempt(self, *arguments: str, seconds: float = 120) -> tuple[int, str]:
        """Exit status and output of a compose command."""
        return attempt([*self._program, *arguments], seconds, env=self.engine.environment)

    def inside(self, service: str, *command: str, seconds: float = 120) -> str:
        """What a command prints in a service's container."""
        return self.call("exec", "-T", service, *command, seconds=seconds)

    def state(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        labels = {"project": PROJECT, "service": service, "oneoff": "False"}
        found = self.engine.docker(
            "ps", "-aq", *(f"--filter=label=com.docker.compose.{k}={v}" for k, v in labels.items())
        )
        state: dict[str, Any] = json.loads(self.engine.docker("inspect", *found.split()))[0]
        return state

    def is_well(self, service: str) -> bool:
        """Whether a service's container runs and takes part."""
        state = self.state(service)["State"]
        return state["Status"] == "running" and state["Health"]["Status"] == "healthy"

    def wait_until_well(self, seconds: float) -> None:
        """Wait until SuperLink, executor and all nodes take part."""
        for service in ("superlink", "executor", *NODES):
            wait_for(lambda service=service: self.is_well(service), seconds, f"{service} is well")

    def run(self, config: str, seconds: float) -> str:
        """The log of a run, from `docker compose run --rm submit` to its end."""
        return self.call("run", "--rm", "-T", "submit", "--run-config", config, seconds=seconds)

    def result(self, name: str) -> str:
        """A file of the training's results."""
        return self.inside("executor", "cat", f"/federation/server/run/{name}")

    def rounds(self) -> pl.DataFrame:
        return pl.read_csv(self.result("rounds.csv").encode())

    def recommended(self, node: str) -> list[str]:
        """Items that `snowdrop recommend` lists for the first user of a node."""
        place = f"/federation/nodes/{node}"
        user = self.inside(node, "sed", "-n", "2p", f"{place}/data/interactions.csv").split(",")[0]
        command = ("snowdrop", "recommend", f"{place}/state", "--user", user, "--top", "500")
        return re.findall(r"(?:item|new)-\d+", self.inside(node, *command))


def wait_for(what: Callable[[], bool], seconds: float, why: str) -> None:
    """Wait until ``what`` is true; fails with ``why`` where it is not in time."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {why}"
        time.sleep(1)


def for_an_older_compose(folder: Path) -> Path:
    """The compose file without what compose 1.29 does not read, and with fewer data."""
    content = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    del content["name"]
    for service in content["services"].values():
        service.pop("build", None)  # the images are there
        service.pop("pull_policy", None)
    command = content["services"]["data"]["command"]
    fewer = command[-1].replace("prepare demo", f"prepare demo --users {USERS} --items 100")
    assert fewer != command[-1]
    command[-1] = fewer
    path = folder / "compose.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def later_source(folder: Path) -> Path:
    """What the images are built from, with another version number."""
    source = folder / "later"
    names = (ROOT / ".dockerignore").read_text().splitlines()
    for name in (line[1:] for line in names if line.startswith("!")):
        origin, target = ROOT / name, source / name
        if origin.is_dir():
            shutil.copytree(origin, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, target)
    project = source / "pyproject.toml"
    text = project.read_text()
    project.write_text(text.replace('version = "0.1.0"', f'version = "{LATER}"', 1))
    assert project.read_text() != text
    return source


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder for all that this test makes."""
    if (why := what_is_missing()) is not None:
        pytest.skip(why)
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="module")
def images(place: Path) -> Path:
    """Both images, and both as they are after an upgrade (`later`), in an engine's folder."""
    with engine(place, alone=False) as builder:
        base = base_image(builder, place)
        with package_index(place) as index:
            for source, version in ((ROOT, "0.1.0"), (later_source(place), "later")):
                for target, image in IMAGES.items():
                    tag = f"{image.partition(':')[0]}:{version}"
                    build(builder, source, target, tag, BASE_IMAGE=base, PIP_INDEX_URL=index)
    shutil.rmtree(place / "wheels")
    return place


@pytest.fixture(scope="module")
def compose(images: Path, request: pytest.FixtureRequest) -> Iterator[Compose]:
    """The federation, up on an engine that reaches nothing outside."""
    with engine(images, alone=True) as alone:
        made = Compose(alone, for_an_older_compose(images))
        yield made
        if request.session.testsfailed:
            print(made.attempt("ps")[1], made.attempt("logs", "--no-color", "--tail", "60")[1])
        made.attempt("down", "-v")


def test_both_images_are_built_from_packages_of_an_index(images: Path) -> None:
    with engine(images, alone=True) as alone:
        sizes = {
            target: int(alone.docker("inspect", "--format", "{{.Size}}", image)) / 1e9
            for target, image in IMAGES.items()
        }
        print(f"sizes in GB: {sizes}")
        assert sizes["node"] < 1.7
        assert sizes["server"] < 2.2
        no_pip = "import importlib.util as u; print(u.find_spec('pip'), u.find_spec('pytest'))"
        for image in IMAGES.values():
            said = alone.docker("run", "--rm", "--network", "none", image, "python", "-c", no_pip)
            assert said.split() == ["None", "None"]


def test_all_containers_come_up(compose: Compose) -> None:
    compose.call("up", "-d", seconds=300)
    compose.wait_until_well(120)
    for service in ("credentials", "data", "register"):
        assert compose.state(service)["State"]["ExitCode"] == 0


def test_a_container_cannot_write_to_its_image_or_use_capabilities(compose: Compose) -> None:
    for service in ("superlink", "executor", *NODES):
        written = compose.attempt("exec", "-T", service, "touch", "/opt/snowdrop/x")
        assert written[0] != 0
        assert "Read-only file system" in written[1]
        status = compose.inside(service, "cat", "/proc/self/status")
        assert re.findall(r"Cap(?:Prm|Eff|Bnd):\s+(\w+)", status) == ["0" * 16] * 3


def test_a_memory_limit_holds(compose: Compose) -> None:
    takes = "import sys; bytearray(b'1') * (int(sys.argv[1]) << 20); print('held')"
    for megabytes, expected in (("600", (0, True)), ("1500", (137, False))):
        code, said = compose.attempt(
            "run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "node-0",
            "-c", takes, megabytes,
        )  # fmt: skip
        assert (code, "held" in said) == expected, said


def test_a_training_ends(compose: Compose) -> None:
    log = compose.run(f"{ROUNDS} rounds=3", seconds=400)
    rounds = compose.rounds()
    assert rounds["round"].to_list() == [1, 2, 3], log
    assert rounds["users"].to_list() == [USERS] * 3
    print(compose.engine.docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}"))


def test_new_items_are_published_and_each_node_recommends(compose: Compose) -> None:
    line = "new-1,A Brand-New Lamp,Tool. It has just come in."
    append = f"echo '{line}' >> /federation/server/data/items.csv"
    compose.inside("executor", "sh", "-c", append)
    log = compose.run(f'{ROUNDS} mode="publish"', seconds=300)
    published = json.loads(compose.result("published.json"))
    assert (published["users"], published["nodes"]) == (USERS, len(NODES)), log
    for node in NODES:
        assert "new-1" in compose.recommended(node)


def test_a_node_that_was_killed_comes_back(compose: Compose) -> None:
    before = compose.state("node-1")["RestartCount"]
    compose.attempt("exec", "-T", "node-1", "sh", "-c", "kill -9 -1")  # all that it runs
    wait_for(
        lambda: compose.state("node-1")["RestartCount"] > before and compose.is_well("node-1"),
        180,
        "node-1 is back",
    )


def test_an_upgrade_keeps_what_is_in_the_volumes(compose: Compose) -> None:
    keys = [compose.inside(node, "cat", f"/federation/nodes/{node}/key") for node in NODES]
    before = compose.rounds()
    for image in IMAGES.values():
        compose.engine.docker("tag", f"{image.partition(':')[0]}:later", image)
    compose.call("up", "-d", seconds=300)
    compose.wait_until_well(180)
    for service in ("executor", *NODES):
        assert compose.inside(service, "snowdrop", "--version").split() == ["snowdrop", LATER]
    assert keys == [compose.inside(n, "cat", f"/federation/nodes/{n}/key") for n in NODES]

    log = compose.run(f"{ROUNDS} rounds=4", seconds=300)
    after = compose.rounds()
    assert after["round"].to_list() == [1, 2, 3, 4], log
    assert after["users"].to_list() == [USERS] * 4
    assert after["loss"].to_list()[:3] == before["loss"].to_list()
    assert "recommended to" in compose.run(f'{ROUNDS} mode="publish"', seconds=300)
    for node in NODES:
        assert "new-1" in compose.recommended(node)


def test_down_takes_everything_away(compose: Compose) -> None:
    compose.call("down", "-v", seconds=180)
    label = ("--filter", f"label=com.docker.compose.project={PROJECT}", "-q")
    assert compose.engine.docker("ps", "-a", *label) == ""
    assert compose.engine.docker("volume", "ls", *label) == ""
    assert compose.engine.docker("network", "ls", *label) == ""
