"""`snowdrop attack reconstruct`: histories from what nodes answer, by users on a node."""

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
    sizes_of,
    world_for,
)
from cli.attack.output import FORMAT, publish

if TYPE_CHECKING:
    from cli.attack.federation import Federation
    from cli.attack.verdict import Verdict


def reconstruct(
    data: Data,
    users_per_node: Annotated[
        str, typer.Option(help="users of a node, comma-separated: one federation for each number")
    ] = "1,10,30,100",
    users: Annotated[
        int, typer.Option(min=1, help="users who take part, drawn with the seed")
    ] = 100,
    rounds: Rounds = None,
    questions: Annotated[
        int,
        typer.Option(
            min=0, help="crafted questions that each attack may ask in a federation; 0: none"
        ),
    ] = 1000,
    differences: Annotated[
        int,
        typer.Option(
            min=0, help="sums over fewer users that the first round's are compared with; 0: none"
        ),
    ] = 3,
    set_: Set = None,
    policy: PolicyFile = None,
    out: Out = None,
) -> None:
    """Read users' histories out of what nodes answer, by number of users on a node."""
    sizes = sizes_of(users_per_node, users)
    folder = folder_of(out, "reconstruct", data)
    values = {**settings_given(set_), "data": data}

    from cli.attack.federation import Federation, users_of
    from cli.attack.reconstruct_page import HEAD, notes_of, page, rows_of
    from cli.progress import Progress

    with tempfile.TemporaryDirectory(prefix="snowdrop-attack-") as scratch:
        world, rounds = world_for(values, rounds, policy, Path(scratch))
        frame, drawn = users_of(world.settings, world, users)
        federations, sums = [], set[str]()
        with Progress("federations", len(sizes)) as progress:
            for done, size in enumerate(sizes):
                progress.update(done, f"{size} users on a node")
                place = Path(scratch) / f"of-{size}"
                federation = Federation(world, frame, drawn, size, place)
                federations.append(_attacked(federation, rounds, questions, differences))
                sums.update(name for seen in federation.seen for name in seen.sums)
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
        "sums": sorted(sums),
        "policy": policy is not None,
        "settings": dict(noted(world.settings)),
        "federations": federations,
    }
    made = f"{datetime.now():%-d %B %Y}"
    publish(folder, told, page(told, made), HEAD, rows_of(told), notes_of(told))


def _attacked(
    federation: "Federation", rounds: int, questions: int, differences: int
) -> dict[str, Any]:
    """What every attack read in a federation with some users on each node."""
    from cli.attack.differences import compared
    from cli.attack.received import by_another_node

    federation.train(rounds)
    federation.recommend()
    verdicts = listened(federation) + by_another_node(federation)
    if differences:
        verdicts += compared(federation, differences)
    if questions:
        verdicts += asked(federation, questions)
    return {
        "users_per_node": federation.size,
        "nodes": len(list(federation.grid.get_node_ids())),
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
