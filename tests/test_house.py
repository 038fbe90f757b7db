"""The rules that keep the house: who may import, name, read and write what."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from common import methods
from common.methods import Card
from common.settings import DEFAULT_METHODS, MORE, described
from server_app import run_folder

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


def strings_of(source: str) -> Iterator[str]:
    """String constants of a module, without docstrings; the fixed parts of f-strings too."""
    tree = ast.parse(source)
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


BUILT_IN = {
    module.rpartition(".")[2]: own
    for module in sorted(modules_under("common"))
    if module.startswith("common.methods.")
    and isinstance(own := getattr(import_module(module), "CARD", None), Card)
}
"""Cards of the methods in this repository, by the name of their file."""

HELPERS = {"base", "table", "network", "denoiser", "backbone"}
"""Files among the halves that are no method's own."""


def test_the_cards_are_all_there() -> None:
    every = [*methods.names(), *methods.synthesizers()]
    assert sorted(own.name for own in BUILT_IN.values()) == sorted(every)


@pytest.mark.parametrize("file", BUILT_IN)
def test_a_method_is_files_of_one_name(file: str) -> None:
    own = BUILT_IN[file]
    assert own.name == file.replace("_", "-")
    for side, path in (("server_app", own.server), ("client_app", own.node)):
        half = f"{side}.methods.{file}"
        assert path.startswith(f"{half}:") if path else half not in SOURCES
    assert own.node if own.kind == "synthesizer" else own.server
    assert imports_of(f"common.methods.{file}") <= modules_under("common")


def test_every_half_is_of_a_method() -> None:
    for side in ("server_app", "client_app"):
        files = {name.split(".")[2] for name in SOURCES if name.startswith(f"{side}.methods.")}
        assert files - set(BUILT_IN) <= HELPERS


HOMES = ("common.methods", "server_app.methods", "client_app.methods", "common.renamed")
"""Where methods may be named: at home, and where former names are translated."""

OTHER_MEANINGS = {
    "common.settings": {"random"},
    "client_app.scorers": {"random"},
    "server_app.fusion": {"mixture"},
}
"""Words that are a method's name, and something else there: a start, a scorer, a module."""


def methods_named_in(module: str) -> set[str]:
    """Methods that a module names in a string: ``NAME``, ``NAME:VARIANT`` or ``NAME.setting``."""
    texts = strings_of(SOURCES[module].read_text())
    named = {re.split("[:@.]", text, maxsplit=1)[0] for text in texts}
    return named & {own.name for own in BUILT_IN.values()}


def test_nothing_outside_its_home_names_a_method() -> None:
    found = {}
    for module in sorted(SOURCES):
        if not module.startswith(HOMES):
            named = methods_named_in(module) - OTHER_MEANINGS.get(module, set())
            if module == "common.settings":
                named -= set(DEFAULT_METHODS.values())
            if named:
                found[module] = named
    assert found == {}
    assert methods_named_in("common.methods.mixture") >= {"mdifffr", "similar-items"}


FILES = {
    value for name, value in vars(run_folder).items() if name.isupper() and isinstance(value, str)
}
"""Files of a run folder."""


OTHER_FOLDERS = {"client_app.synthesis.folder"}
"""Who writes and reads folders that are no runs, with files of the same names."""


def test_only_the_run_folder_names_its_files() -> None:
    assert {"settings.json", "rounds.csv", "summary.json"} <= FILES
    found = {
        (module, text)
        for module in sorted(SOURCES)
        if module not in {"server_app.run_folder", *OTHER_FOLDERS}
        for text in strings_of(SOURCES[module].read_text())
        if text.removeprefix("/") in FILES
    }
    assert found == set()


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


FLOWERS = {"client-resources-num-cpus"}
"""Settings of Flower's own that the documents name."""


def settings_written_in(page: str) -> set[str]:
    """Keys of ``key=value`` in a page's blocks of code, and in code within its sentences."""
    keys: set[str] = set()
    for block in re.findall(r"^```\w*\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        keys |= set(re.findall(r"(?:^|[\s'\"@])([a-z][\w.-]*)=[^=\s]", block, re.MULTILINE))
    told = "\n".join(line for line in page.splitlines() if "CHANGELOG" not in line)
    return keys | set(re.findall(r"`(?:--set )?@?([a-z][\w.-]*)=[^`\s]+`", told))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_the_documents_are_settings(page: Path) -> None:
    known = {name for name, *_ in described()} | {MORE} | FLOWERS
    place = ROOT / "tests" / "outside_method" / "nearest_own" / "card.py"
    spec = spec_from_file_location("outside_card", place)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    known |= {f"{module.CARD.name}.{name}" for name in module.CARD.settings.model_fields}
    assert settings_written_in(page.read_text()) - known == set()


def test_settings_are_found_in_documents() -> None:
    page = "`a=1`, `--set b=2` and `c = 3`\n```\nx --set d=4 --methods e@f.g=5 'h=\"6\"'\n```\n"
    assert settings_written_in(page) == {"a", "b", "d", "f.g", "h"}
    assert "rounds" in settings_written_in((ROOT / "README.md").read_text())


def links_in(page: Path) -> Iterator[str]:
    """Files that a page links to, as it names them."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            yield target


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    """They work where the repository is read; `mkdocs build --strict` holds it for the site."""
    assert [target for target in links_in(page) if not (page.parent / target).exists()] == []


def test_links_are_found() -> None:
    assert "settings.md" in links_in(ROOT / "docs" / "methods.md")


def test_documents_include_files_that_are_there() -> None:
    """A formatter of code in documents breaks the marks, and the page then shows no code."""
    marks = re.compile(r"^--8.*$", re.MULTILINE)
    for document in (ROOT / "docs").glob("*.md"):
        for mark in marks.findall(document.read_text()):
            found = re.fullmatch(r'--8<-- "(.+)"', mark)
            assert found, f"{document.name}: {mark}"
            assert (ROOT / found[1]).is_file(), f"{document.name}: {mark}"
