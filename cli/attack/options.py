"""Options and arguments that the attacks share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.assignments import parse_assignments
from common.errors import SnowdropError

if TYPE_CHECKING:
    from server_app.methods.base import World

Data = Annotated[str, typer.Argument(help="data folder, or 'demo' for generated demo data")]
Out = Annotated[
    Path | None,
    typer.Option(help="folder for attack.json and report.html (default: runs/attack-NAME-DATA)"),
]
ROUNDS = 12
"""Rounds that are listened to where the method does not fix their number."""

Rounds = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="training rounds that are listened to "
        f"(default: {ROUNDS}, or as many as the method has by itself)",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="a setting; `snowdrop settings` lists all"),
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="policy.toml of all nodes: what they answer")
]

GIVEN = {
    "rounds": "give --rounds",
    "evaluate_every": "nothing is validated here",
    "data": "give the data folder as the argument",
    "nodes": "nodes follow from the users",
    "policy": "give --policy",
    "run_dir": "give --out",
}
"""Settings that the command gives itself, and what to do in their place."""


def folder_of(out: Path | None, attack: str, data: str) -> Path:
    """Where results go.

    Raises
    ------
    SnowdropError
        If it is a file.
    """
    folder = out or Path("runs") / f"attack-{attack}-{Path(data).name}"
    if folder.exists() and not folder.is_dir():
        raise SnowdropError(f"{folder} is a file; give --out a folder")
    return folder


def sizes_of(text: str, users: int) -> list[int]:
    """Users of a node, from a list with commas.

    Raises
    ------
    SnowdropError
    """
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise SnowdropError(
            f"--users-per-node {text!r} is no list of numbers of 1 and more, such as 1,10,100"
        )
    if max(sizes) > users:
        raise SnowdropError(
            f"--users-per-node has {max(sizes)}, but --users is {users}: give as many users"
        )
    return sizes


def settings_given(assignments: list[str] | None) -> dict[str, Any]:
    """The settings of ``--set``.

    Raises
    ------
    SnowdropError
        If one is what the command itself gives.
    """
    values = parse_assignments(assignments or [])
    for name in values.keys() & GIVEN.keys():
        raise SnowdropError(f"--set {name}: {GIVEN[name]}")
    return values


def world_for(
    values: dict[str, Any], rounds: int | None, policy: Path | None, scratch: Path
) -> "tuple[World, int]":
    """The server's items under the settings of a short training, checked and encoded.

    The training ends a round before the last, so that no generator is fitted for nothing; but for a
    method that has a number of rounds by itself, and no generator.

    Parameters
    ----------
    values : dict[str, Any]
        Settings, with ``data``.
    rounds : int, optional
    policy : Path, optional
    scratch : Path
        A folder for what is made of the data.

    Returns
    -------
    world : World
    rounds : int
        To be listened to.

    Raises
    ------
    SnowdropError
    """
    from cli.simulate import check_data, checked_policy
    from common.device import pick_device
    from common.settings import RunSettings
    from server_app.items import load_catalogue, world_of

    values = {
        **values,
        "run_dir": str(scratch / "run"),
        "nodes": 3,  # each federation has its own number
    }
    if policy is not None:
        values |= checked_policy({"policy": str(policy)})
    fixed = RunSettings.parse(values).card.fixed
    listened = rounds or fixed.get("rounds", ROUNDS)
    last = listened + ("rounds" not in fixed)
    settings = RunSettings.parse({**values, "rounds": last, "evaluate_every": last})
    settings = settings.model_copy(update={"data": check_data(settings)})
    world = world_of(settings, load_catalogue(settings), pick_device(settings.server_device))
    return world, listened


def noted(settings: Any) -> list[tuple[str, str]]:
    """Settings that differ from their defaults, as a page shows them."""
    return [(name, str(value)) for name, value in settings.unusual().items() if name not in GIVEN]
