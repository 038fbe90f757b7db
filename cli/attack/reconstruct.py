"""`snowdrop attack reconstruct`: histories from what nodes answer, by users on a node."""

import json
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.attack.options import (
    Data,
    Out,
    PolicyFile,
    Rounds,
    Set,
    folder_of,
    noted,
    settings_given,
    shown,
    sizes_of,
    world_for,
)

if TYPE_CHECKING:
    from cli.attack.federation import Federation
    from cli.attack.verdict import Verdict
    from server_app.methods.base import World

FORMAT = 1


def reconstruct(
    data: Data,
    users_per_node: Annotated[
        str, typer.Option(help="users of a node, comma-separated: one federation for each number")
    ] = "1,10,30,100",
    users: Annotated[
        int, typer.Option(min=1, help="users who take part, drawn with the seed")
    ] = 100,
    rounds: Rounds = 12,
    questions: Annotated[
        int,
        typer.Option(
            min=0, help="crafted questions that each attack may ask in a federation; 0: none"
        ),
    ] = 1000,
    set_: Set = None,
    policy: PolicyFile = None,
    out: Out = None,
) -> None:
    """Read users' histories out of what nodes answer, by number of users on a node."""
    sizes = sizes_of(users_per_node, users)
    folder = folder_of(out, "reconstruct", data)
    values = {**settings_given(set_), "data": data}

    from rich.console import Console

    from cli.attack.reconstruct_page import HEAD, page, rows_of
    from cli.progress import Progress
    from common.durable import make_folder, write_atomic

    with tempfile.TemporaryDirectory(prefix="snowdrop-attack-") as scratch:
        world = world_for(values, rounds, policy, Path(scratch))
        federations = []
        with Progress("federations", len(sizes)) as progress:
            for done, size in enumerate(sizes):
                progress.update(done, f"{size} users on a node")
                place = Path(scratch) / f"of-{size}"
                federations.append(_attacked(world, users, size, rounds, questions, place))
            progress.update(len(sizes), "")
    told = {
        "format": FORMAT,
        "attack": "reconstruct",
        "data": Path(data).name,
        "seed": world.settings.seed,
        "method": world.settings.title(),
        "table_start": world.settings.table_start,
        "dim": world.settings.dim,
        "warm_items": len(world.rows("warm")),
        "rounds": rounds,
        "policy": policy is not None,
        "settings": dict(noted(world.settings)),
        "federations": federations,
    }
    make_folder(folder)
    write_atomic(folder / "attack.json", json.dumps(told, indent=1).encode())
    made = f"{datetime.now():%-d %B %Y}"
    write_atomic(folder / "report.html", page(told, made).encode())
    Console().print(shown(HEAD, rows_of(told)))
    typer.echo(f"what these numbers mean is in {folder / 'report.html'}")


def _attacked(
    world: "World", users: int, size: int, rounds: int, questions: int, folder: Path
) -> dict[str, Any]:
    """A federation with some users on each node, and what every attack read there."""
    from cli.attack.federation import Federation, users_of

    frame, drawn = users_of(world.settings, world, users)
    federation = Federation(world, frame, drawn, size, folder)
    federation.train(rounds)
    verdicts = listened(federation)
    if questions:
        verdicts += asked(federation, questions)
    return {
        "users_per_node": size,
        "nodes": users // size,
        "verdicts": [verdict.as_json() for verdict in verdicts],
    }


def listened(federation: "Federation") -> "list[Verdict]":
    """Verdicts on what the answers to training rounds give away."""
    from cli.attack.histories import DIRECTIONS, Known, Reading, read
    from cli.attack.verdict import judge

    warm = len(federation.training.index.rows("warm"))
    readings = read(federation.seen, Known.of(federation.settings, warm))
    if not readings:
        readings = [Reading(DIRECTIONS, told=federation.refused)]
    truth = federation.seen_truth()
    return [judge(reading, truth) for reading in readings]


def asked(federation: "Federation", questions: int) -> "list[Verdict]":
    """Verdicts on what crafted questions bring, of the nodes that ``questions`` reach."""
    from cli.attack import questions as crafted
    from cli.attack.federation import name_of
    from cli.attack.verdict import judge

    index, truth, grid = federation.training.index, federation.truth(), federation.grid
    verdicts = []
    for attack in (crafted.counts, crafted.descriptions, crafted.losses):
        budget = crafted.Budget(questions)
        nodes = [
            crafted.Asked(grid, node, name_of(node), len(truth[name_of(node)]), budget)
            for node in grid.get_node_ids()
        ]
        reading, reached = attack(nodes, index, federation.settings)
        verdicts.append(judge(reading, {name: truth[name] for name in reached}))
    return verdicts
