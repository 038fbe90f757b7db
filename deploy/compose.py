"""The demo federation for Docker: `python -m deploy.compose > docker-compose.yml`.

Commands, environments and health checks come from the same description of the processes as
`snowdrop deploy up` and the systemd units.
"""

import sys
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from deploy.federation import Federation
from deploy.processes import EXECUTOR, SUPERLINK, Process, processes

NAME = "demo"
NODES = 3
ROOT = PurePosixPath("/federation")
_IMAGE, _NODE_IMAGE = "snowdrop:0.1.0", "snowdrop-node:0.1.0"
_BUILD_ARGUMENTS = (
    "BASE_IMAGE", "TORCH_INDEX",
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST",
)  # fmt: skip
"""Of the Dockerfile; taken from the environment of `docker compose`, where they are set there."""

_MEMORY = "1g"
_EXECUTOR_MEMORY = "${EXECUTOR_MEMORY:-4g}"  # a ServerApp encodes texts and trains the generator
_NODE_MEMORY = "${NODE_MEMORY:-1g}"
# The Control and Runtime APIs listen on a network that nodes are not on, hence fixed addresses.
_CONTROL_SUBNET, _CONTROL_ADDRESS = "172.31.93.0/28", "172.31.93.2"

HEADER = """\
# The demo federation: `docker compose up --build`, then, for a run:
#   docker compose run --rm submit
#   docker compose run --rm submit --run-config 'method="mdifffr" rounds=10'
# Made by `python -m deploy.compose > docker-compose.yml`; change deploy/compose.py, not this file.
"""


def federation() -> Federation:
    """The demo federation, as its containers see it."""
    return Federation.new(
        root=ROOT,
        name=NAME,
        nodes=NODES,
        hosts=("superlink",),
        control_host=_CONTROL_ADDRESS,
    )


def compose() -> dict[str, Any]:
    """The content of docker-compose.yml."""
    demo = federation()
    root = f"federation:{ROOT}"
    server, *nodes = dict.fromkeys(_volume(process) for process in processes(demo))
    done = {"condition": "service_completed_successfully"}
    well = {"condition": "service_healthy"}
    init = (
        "snowdrop", "deploy", "init", str(ROOT), "--keep", "--name", NAME, "--nodes", str(NODES),
        "--host", demo.hosts[0], "--programs", "", "--control-host", _CONTROL_ADDRESS,
    )  # fmt: skip
    shared = (
        f"test -e {ROOT}/server/data/items.csv || {{ snowdrop prepare demo --out /tmp/data && "
        f"snowdrop deploy share {ROOT} --data /tmp/data; }}"
    )
    services: dict[str, Any] = {
        "credentials": {
            **_service(init),
            "network_mode": "none",
            "volumes": [root, f"ca:{ROOT / 'ca'}", server, *nodes],
        },
        "data": {
            **_service(["sh", "-c", shared]),
            "depends_on": {"credentials": done},
            "network_mode": "none",
            "volumes": [root, server, *nodes],
        },
    }
    for process in processes(demo):
        is_node = process.name in demo.node_names()
        services[process.name] = {
            **_service(
                process.command,
                image=_NODE_IMAGE if is_node else _IMAGE,
                memory=_NODE_MEMORY if is_node else _MEMORY,
            ),
            "environment": dict(process.environment),
            "restart": "unless-stopped",
            "init": True,
            "stop_grace_period": "30s",
            "healthcheck": {
                "test": ["CMD", *process.health_check()],
                "interval": "10s",
                "timeout": "10s",
                "start_period": "60s",
                "retries": 3,
            },
            "volumes": [_volume(process)],
            "depends_on": {"register": done},
            "networks": ["fleet"],
        }
    services[SUPERLINK] |= {
        "depends_on": {"data": done},
        "networks": {"fleet": {}, "control": {"ipv4_address": _CONTROL_ADDRESS}},
    }
    services[EXECUTOR] |= {"depends_on": {SUPERLINK: well}, "networks": ["control"]}
    services[EXECUTOR] |= _memory(_EXECUTOR_MEMORY)
    services["register"] = {
        **_service(["snowdrop", "deploy", "register", str(ROOT)]),
        "depends_on": {SUPERLINK: well},
        "volumes": [root, server],
        "networks": ["control"],
    }
    services["submit"] = {
        **_service([]),
        "profiles": ["submit"],
        "entrypoint": ["flwr", "run", "/app", NAME, "--stream"],
        "environment": dict(processes(demo)[0].environment),
        "depends_on": dict.fromkeys((EXECUTOR, *demo.node_names()), well),
        "volumes": [server],
        "networks": ["control"],
    }
    _build(services["credentials"], "server")
    _build(services[demo.node_names()[0]], "node")
    volumes = ["federation", "ca", *(volume.partition(":")[0] for volume in (server, *nodes))]
    return {
        "name": f"snowdrop-{NAME}",
        "services": services,
        "networks": {
            "fleet": {},
            "control": {"internal": True, "ipam": {"config": [{"subnet": _CONTROL_SUBNET}]}},
        },
        "volumes": {name: {} for name in volumes},
    }


def text() -> str:
    """The file, as it is checked in."""
    body = yaml.dump(compose(), Dumper=_Plain, sort_keys=False, width=100)
    return HEADER + body


class _Plain(yaml.SafeDumper):
    """Writes values that occur again in full, where YAML would refer to an anchor."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _service(command: Sequence[str], image: str = _IMAGE, memory: str = _MEMORY) -> dict[str, Any]:
    return {
        "image": image,
        "pull_policy": "never",  # another service builds it
        "command": list(command),
        "read_only": True,
        "tmpfs": ["/tmp"],
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        **_memory(memory),
    }


def _memory(limit: str) -> dict[str, str]:
    return {"mem_limit": limit, "memswap_limit": limit}  # no swap besides


def _build(service: dict[str, Any], target: str) -> None:
    """Let a service build its image, for all services of the same image."""
    del service["pull_policy"]
    service["build"] = {
        "context": ".",
        "dockerfile": "deploy/Dockerfile",
        "target": target,
        "args": list(_BUILD_ARGUMENTS),
    }


def _volume(process: Process) -> str:
    name = process.name if process.name not in (SUPERLINK, EXECUTOR) else "server"
    return f"{name}:{process.folder}"


if __name__ == "__main__":
    sys.stdout.write(text())
