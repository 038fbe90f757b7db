"""One description: what it says is what Flower's programs take, and what every file says."""

import itertools
import os
import re
import shlex
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cli.commands import app
from common.settings import RunSettings
from deploy import compose
from deploy.federation import Federation, free_ports
from deploy.flower import ENVIRONMENT, tool
from deploy.processes import EXECUTOR, SUPERLINK, WARM, processes
from deploy.systemd import unit_name

ROOT = Path(__file__).parents[2]
Made = tuple[Path, Federation]


PLAIN = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}


@lru_cache
def help_of(*words: str) -> str:
    """What ``words --help`` prints."""
    program, *rest = words
    if program == "snowdrop":
        return CliRunner().invoke(app, [*rest, "--help"], env=PLAIN).output
    environment = os.environ | PLAIN | ENVIRONMENT
    done = subprocess.run(
        [tool(Path(program).name), *rest, "--help"],
        env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def check(command: list[str]) -> None:
    """Every option of a command, and every command before them, stands in its program's help."""
    if [Path(command[0]).name, *command[1 : len(WARM)]] == list(WARM):
        command = command[len(WARM) :]
    words: tuple[str, ...] = (command[0],)
    for word in command[1:]:
        if word.startswith(("-", "/")):
            break
        if words[0] in ("snowdrop", "flwr") and f" {word} " in help_of(*words):
            words = (*words, word)
    assert len(words) > 1 or words[0] not in ("snowdrop", "flwr")
    shown = help_of(*words)
    for option in (word.partition("=")[0] for word in command if word.startswith("--")):
        assert re.search(rf"{option}\b", shown), f"{' '.join(words)} knows no {option}"


def test_the_check_finds_what_a_program_does_not_take() -> None:
    for command in (
        ["flower-superlink", "--root-certificates"],
        ["snowdrop", "deploy", "up", "--x"],
    ):
        with pytest.raises(AssertionError, match="knows no"):
            check(command)


def test_flowers_programs_know_every_option(made: Made) -> None:
    for process in processes(made[1]):
        check(list(process.command))


def test_every_command_of_the_compose_file_is_one_that_its_program_takes() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for service in services.values():
        command = [*service.get("entrypoint", []), *service.get("command", [])]
        if command[:2] == ["sh", "-c"]:
            subprocess.run(["sh", "-n", "-c", command[2]], check=True)
            parts = re.findall(r"snowdrop [^;&]+", command[2])
            assert len(parts) == 2
            for part in parts:
                check(shlex.split(part))
        else:
            check(command)


def test_the_compose_file_is_what_the_description_says() -> None:
    assert (ROOT / "docker-compose.yml").read_text() == compose.text(), (
        "run `python -m deploy.compose > docker-compose.yml`"
    )


def test_the_containers_run_what_deploy_up_runs() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for process in processes(compose.federation()):
        service = services[process.name]
        assert service["command"] == list(process.command)
        assert service["environment"] == process.environment
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"] == ["CMD", *process.health_check()]


def test_each_container_sees_its_own_volume_and_network_only() -> None:
    demo = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = demo["services"]
    nodes = [name for name in services if name.startswith("node-")]
    assert len(nodes) == 3
    for name in nodes:
        assert services[name]["volumes"] == [f"{name}:/federation/nodes/{name}"]
        assert services[name]["networks"] == ["fleet"]
    assert services[SUPERLINK]["volumes"] == services[EXECUTOR]["volumes"]
    assert services[EXECUTOR]["networks"] == ["control"]
    assert demo["networks"]["control"]["internal"]
    holders = [n for n, s in services.items() if any(v.startswith("ca:") for v in s["volumes"])]
    assert holders == ["credentials"]
    assert not any("ports" in service for service in services.values())


def test_what_the_compose_file_speaks_of_is_there() -> None:
    demo = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for service in demo["services"].values():
        assert set(service.get("depends_on", {})) <= demo["services"].keys()
        assert set(service.get("networks", [])) <= demo["networks"].keys()
        assert {volume.split(":")[0] for volume in service["volumes"]} <= demo["volumes"].keys()
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    for volume in {v for s in demo["services"].values() for v in s["volumes"]}:
        assert volume.split(":")[1] in dockerfile  # the folder's owner becomes the volume's


def test_nodes_use_the_small_image_and_each_image_is_built_once() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    targets = {"server": "snowdrop:0.1.0", "node": "snowdrop-node:0.1.0"}
    built = [service for service in services.values() if "build" in service]
    assert {s["build"]["target"]: s["image"] for s in built} == targets
    assert len(built) == len(targets)
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert dockerfile.rpartition("FROM")[2].split("\n")[0].endswith("AS server")
    for name, service in services.items():
        assert service["image"] == targets["node" if name.startswith("node-") else "server"]
        assert "build" in service or service["pull_policy"] == "never"
    for service in built:
        arguments = set(service["build"]["args"])
        assert arguments == set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))


def test_no_container_can_write_to_its_image_or_take_all_memory() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for service in services.values():
        assert service["read_only"]
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"] == service["memswap_limit"]  # no swap beside it


def test_the_image_has_no_data_and_no_keys() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = {
        word.partition("/")[0]
        for line in dockerfile.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert re.findall("^USER .*", dockerfile, re.MULTILINE) == ["USER snowdrop"]


def test_only_the_executor_knows_the_servers_settings(made: Made) -> None:
    knowing = [p.name for p in processes(made[1]) if "SNOWDROP_SETTINGS" in p.environment]
    assert knowing == [EXECUTOR]


def test_the_control_api_is_on_loopback_unless_told_otherwise(made: Made) -> None:
    for description in (made[1], Federation.new(Path("/f"), "f", 1, ())):
        for process in processes(description):
            command = list(process.command)
            if "--host" in command:
                assert command[command.index("--host") + 1] == "127.0.0.1"
            assert process.health.startswith("127.0.0.1:")
    link = list(processes(Federation.new(Path("/f"), "f", 1, ()))[0].command)
    assert link[link.index("--fleet-api-address") + 1] == "127.0.0.1:9092"


def test_no_two_processes_share_a_port() -> None:
    for first in (9092, 0):
        description = Federation.new(Path("/f"), "f", 20, (), first).with_node(
            "late", free=not first
        )
        own = [v for k, v in description.model_dump().items() if k.endswith("_port")]
        ports = own + [p for n in description.nodes for p in (n.runtime_port, n.health_port)]
        assert len(set(ports)) == len(ports) == 4 + 2 * 21


def test_units_restart_for_ever_and_say_what_the_description_says(made: Made) -> None:
    description = made[1]
    for process in processes(description):
        text = (Path(process.folder) / unit_name(description, process)).read_text()
        assert "Restart=always\n" in text
        assert "StartLimitIntervalSec=0\n" in text
        start = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
        assert start
        assert shlex.split(start[1]) == list(process.command)


def test_start_scripts_and_environment_files_say_the_same(made: Made, tmp_path: Path) -> None:
    for process in processes(made[1]):
        script = Path(process.folder) / f"{process.name}.sh"
        assert os.access(script, os.X_OK)
        text = script.read_text().replace("\nexec ", "\nexec printf '%s\\0' ")
        shown = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True)
        assert shown.stdout.split("\0")[:-1] == list(process.command)
        env = text[: text.index("umask")] + "exec env -0"
        shown = subprocess.run(["sh", "-c", env], capture_output=True, text=True, check=True)
        assert set(process.environment.items()) <= {
            tuple(line.split("=", 1)) for line in shown.stdout.split("\0") if "=" in line
        }


def test_systemd_accepts_the_units(made: Made) -> None:
    try:
        subprocess.run(["systemd-analyze", "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no systemd here")
    units = sorted(made[0].rglob("*.service"))
    assert len(units) == 4
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if "snowdrop-" in line]
    assert [line for line in said if "snowdrop" in line and "Unknown" in line] == []


def test_the_servers_settings_are_settings(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNOWDROP_SETTINGS", str(made[0] / "server" / "settings.toml"))
    settings = RunSettings.of_run({"nodes": "", "rounds": 3}, run_id=1)
    assert (settings.nodes, settings.resume, settings.rounds) == (2, True, 3)
    assert (settings.baselines, settings.twin) == (True, False)
    assert RunSettings.of_run({"twin": True}, run_id=1).twin
    assert settings.data == str(made[0] / "server" / "data")
    assert Path(settings.run_dir).is_absolute()


@pytest.mark.parametrize(("nodes", "secure"), [(2, False), (3, True), (4, True)])
def test_sums_are_secure_where_there_are_enough_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int, secure: bool
) -> None:
    folder = tmp_path / "fed"
    CliRunner().invoke(app, ["deploy", "init", str(folder), "--nodes", str(nodes), "--port", "0"])
    monkeypatch.setenv("SNOWDROP_SETTINGS", str(folder / "server" / "settings.toml"))
    assert RunSettings.of_run({}, run_id=1).secure_sums is secure
    assert not RunSettings.of_run({"secure_sums": False}, run_id=1).secure_sums


class CountingSocket:
    """Gets the ports 1, 2, 3 … in the place of free ones."""

    numbers = itertools.count(1)

    def bind(self, address: tuple[str, int]) -> None:
        self.port = next(self.numbers)

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def close(self) -> None:
        pass


def test_a_free_port_is_none_that_is_used_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.federation.socket.socket", CountingSocket)
    assert free_ports(3, [1, 2, 4]) == [3, 5, 6]
