"""The rules that keep the packages apart."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("server_app", "client_app", "common", "cli", "deploy")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")
}


def imports_of(module: str) -> set[str]:
    """Project modules that ``module`` imports anywhere, with the packages around them."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            named |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    around = {".".join(n.split(".")[:k]) for n in named for k in range(1, n.count(".") + 2)}
    return around & SOURCES.keys()


def reachable(start: set[str]) -> set[str]:
    seen: set[str] = set()
    todo = set(start)
    while todo:
        module = todo.pop()
        seen.add(module)
        todo |= imports_of(module) - seen
    return seen


def modules_under(package: str) -> set[str]:
    return {name for name in SOURCES if name.split(".")[0] == package}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("server_app", {"client_app", "cli", "deploy"}),
        ("client_app", {"server_app", "cli", "deploy"}),
        ("common", {"server_app", "client_app", "cli", "deploy"}),
        ("deploy", {"server_app", "cli"}),
    ],
)
def test_packages_do_not_import_each_other(package: str, forbidden: set[str]) -> None:
    assert modules_under(package)
    crossings = {
        (module, imported)
        for module in modules_under(package)
        for imported in imports_of(module)
        if imported.split(".")[0] in forbidden
    }
    assert crossings == set()


def test_the_server_cannot_reach_interactions() -> None:
    within_reach = reachable(modules_under("server_app"))
    assert "common.messages" in within_reach  # the walk does walk
    assert {m for m in within_reach if m.split(".")[0] == "client_app"} == set()
    assert {m for m in within_reach if "interactions.csv" in SOURCES[m].read_text()} == set()


def test_the_walk_follows_imports_through_modules() -> None:
    assert "client_app.interactions" in reachable({"cli.in_process"})


def test_a_node_imports_nothing_heavy() -> None:
    code = (
        "import sys, client_app.app\n"
        "heavy = ('transformers', 'diffusers', 'matplotlib', 'sklearn', 'server_app', 'cli')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_only_settings_reads_the_environment() -> None:
    readers = set()
    for package in ("server_app", "client_app", "common"):
        for module in modules_under(package):
            for node in ast.walk(ast.parse(SOURCES[module].read_text())):
                name = getattr(node, "attr", None) or getattr(node, "name", None)
                if name in ("environ", "environb", "getenv", "getenvb"):
                    readers.add(module)
    assert readers == {"common.settings"}
