"""Pages of the site that are made from other files, so that nothing is written twice.

`mkdocs build` runs this script (plugin mkdocs-gen-files): the start page is the README, the pages
of contributing and changes are the files of the repository's root, the settings come from
`common.settings`, and one page per package names its modules for mkdocstrings.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mkdocs_gen_files

from common import settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
PACKAGES = {
    "api/common.md": "common",
    "api/server_app.md": "server_app",
    "api/client_app.md": "client_app",
    "api/bench.md": "cli/bench",
    "api/bench_synthetic.md": "cli/bench_synthetic",
}
OUTSIDE = ("LICENSE", "CITATION.cff")
"""Files that the README links to and the site does not hold."""


def on_the_site(text: str) -> str:
    """Markdown of the repository's root, with its links as the site needs them."""

    def target(match: re.Match[str]) -> str:
        label, path, anchor = match["label"], match["path"], match["anchor"] or ""
        if path in OUTSIDE:
            return label
        return f"[{label}]({PAGES.get(path, path.removeprefix('docs/'))}{anchor})"

    link = r"\[(?P<label>[^\]]+)\]\((?P<path>[\w./-]+)(?P<anchor>#[\w-]+)?\)"
    return re.sub(link, target, text)


def within_the_site(text: str) -> str:
    """Markdown of a page in `docs/`, with links to the root's files as the site needs them."""
    for source, page in PAGES.items():
        text = text.replace(f"](../{source}", f"]({page}")
    return text


def rows() -> Iterator[tuple[str, Any, str, str]]:
    """Name, default, roles and description of every setting."""
    for name, default, roles, description in settings.described():
        yield name, default, ", ".join(roles), description


def settings_page(found: Iterable[tuple[str, Any, str, str]]) -> str:
    """`docs/settings.md`, then the settings as tables: the shared ones first, then each group."""
    groups: dict[str, list[str]] = {}
    for name, default, roles, description in found:
        group, _, _ = name.rpartition(".")
        shown = "(empty)" if default == "" else f"`{default}`"
        cells = [f"`{name}`", shown, roles, description]
        line = " | ".join(str(cell).replace("|", r"\|") for cell in cells)
        groups.setdefault(group, []).append(f"| {line} |")
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    page = [within_the_site(text)]
    for group, lines in groups.items():
        page += [
            f"\n## {f'Settings of {group}' if group else 'Shared settings'}\n",
            "| setting | default | roles | meaning |",
            "| --- | --- | --- | --- |",
            *lines,
        ]
    return "\n".join(page) + "\n"


def modules(package: str) -> Iterator[str]:
    """Dotted names of a package's modules, the package itself first."""
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def write(page: str, text: str) -> None:
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(text)


for source, made in PAGES.items():
    write(made, on_the_site((ROOT / source).read_text(encoding="utf-8")))
for page in sorted((ROOT / "docs").glob("*.md")):
    text = page.read_text(encoding="utf-8")
    if (fitting := within_the_site(text)) != text:
        write(page.name, fitting)
write("settings.md", settings_page(rows()))
for made, package in PACKAGES.items():
    entries = "\n".join(f"::: {name}\n" for name in modules(package))
    write(made, f"# {package.replace('/', '.')}\n\n{entries}")
