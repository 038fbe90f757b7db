"""What the images hold: the packages that a node and a server use, and no more."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

from tests.test_house import PACKAGES, ROOT, SOURCES, modules_under, reachable

ON_THE_SERVER_ALONE = {"scikit-learn"}
"""Reached from a node's code, but used by the server alone, which groups users."""


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement)[0].lower().replace("_", "-")


def listed(*files: str) -> set[str]:
    lines = [line for file in files for line in (ROOT / "deploy" / file).read_text().splitlines()]
    return {name_of(line) for line in lines if line and line[0] not in "#-"}


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {name_of(requirement) for requirement in project["dependencies"]}


def imported(modules: set[str]) -> set[str]:
    """Declared dependencies that the modules, or what they import, import anywhere."""
    distributions = packages_distributions()
    names: set[str] = set()
    for module in reachable(modules):
        for node in ast.walk(ast.parse(SOURCES[module].read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
            elif isinstance(node, ast.Constant) and node.value in distributions:
                names.add(node.value)  # `find_spec` and `import_module` take names
    tops = {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, *PACKAGES}
    found = {name_of(d) for top in tops for d in distributions.get(top, [])}
    return found & declared()


def test_a_nodes_image_has_what_a_node_imports() -> None:
    modules = modules_under("client_app") | {"deploy.warm.__main__", "deploy.warm.server"}
    needed = imported(modules | {"deploy.health", "cli.commands", "cli.progress"})
    assert {"torch", "polars", "grpcio"} <= needed  # the walk does walk
    assert needed - ON_THE_SERVER_ALONE == listed("node-requirements.txt")


def test_the_servers_image_has_what_a_server_imports() -> None:
    modules = modules_under("server_app") | modules_under("deploy") - {"deploy.compose"}
    commands = {m for m in SOURCES if re.match(r"cli\.(deploy|report|recommend|privacy)", m)}
    needed = imported(modules | commands | {"cli.prepare.generated"})
    assert needed == listed("node-requirements.txt", "server-requirements.txt")


def test_no_address_of_an_index_is_written_down() -> None:
    deploy = ("Dockerfile", "compose.py", "lean-environment.sh")
    for path in (ROOT / "docker-compose.yml", *(ROOT / "deploy" / name for name in deploy)):
        assert "://" not in path.read_text(), path
