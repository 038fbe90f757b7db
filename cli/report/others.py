"""Folders that are neither a run nor a comparison of methods: what they hold, and what to do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client_app.synthesis.folder import read_mark
from common.catalogue import find_table
from common.errors import SnowdropError


@dataclass(frozen=True)
class Other:
    """What a folder holds, in words, and how one comes from it to a report."""

    holds: str
    instead: str


def other_folder(folder: Path) -> Other | None:
    """What a folder holds that has no results of methods; None where that cannot be told."""
    return next((other for is_one, other in _OTHERS if is_one(folder)), None)


def resembles_results(folder: Path) -> bool:
    """Whether it has files with the names that results of methods have, and holds none."""
    return _is_synthetic(folder) or _compares_synthesizers(folder)


def _is_synthetic(folder: Path) -> bool:
    try:
        return bool(read_mark(folder))
    except SnowdropError:
        return False


def _compares_synthesizers(folder: Path) -> bool:
    path = folder / "results.csv"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"recommender" in file.readline().split(b",")


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all((folder / name).exists() for name in names)


_OTHERS: tuple[tuple[Callable[[Path], bool], Other], ...] = (
    (
        _is_synthetic,
        Other("synthetic users", "`snowdrop synthesize` writes their page"),
    ),
    (
        _compares_synthesizers,
        Other("a comparison of synthetic users", "`snowdrop bench-synthetic` writes its page"),
    ),
    (_has("attack.json"), Other("an attack", "`snowdrop attack` writes its page")),
    (
        _has("journal.log"),
        Other(
            "a search of settings",
            "give the best ones, which are in its TOML file, to `--tuned` of `snowdrop bench` or "
            "`bench-synthetic`, which write a report",
        ),
    ),
    (_has("federation.json"), Other("a deployed federation", "give {folder}/server/run")),
    (
        lambda folder: find_table(folder, "items").exists(),
        Other("a data set", "run `snowdrop simulate` or `snowdrop bench` on it first"),
    ),
)
