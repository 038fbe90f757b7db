"""The generated demo data, at any size: for a first look, and for load tests."""

import json
from typing import Annotated

import polars as pl
import typer

from cli.prepare.output import Force, Out, step, steps, write_folder
from client_app.demo import demo_interactions
from common import demo
from common.durable import write_atomic


def generated(
    out: Out,
    users: Annotated[int, typer.Option(min=1, help="number of users")] = demo.USERS,
    items: Annotated[int, typer.Option(min=50, help="number of items")] = demo.ITEMS,
    interactions_per_user: Annotated[
        int, typer.Option(min=5, help="mean interactions of a user")
    ] = demo.INTERACTIONS_PER_USER,
    shared_taste: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="share of users whose themes go together, which no text tells"
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="seed of all of it")] = 0,
    force: Force = False,
) -> None:
    """Generate items with readable texts, and users whose tastes show in what texts mean."""
    with steps("writing texts", 3) as progress:
        texts = demo.demo_texts(items, seed)
        table = pl.DataFrame(texts, schema=["title", "description"], orient="row").select(
            pl.Series("item_id", demo.item_ids(items)), "title", "description"
        )
        step(progress, "drawing interactions")
        interactions = demo_interactions(users, items, interactions_per_user, seed, shared_taste)
        step(progress, "writing")
        write_folder(out, table, interactions, force)
        made = {
            "users": users, "items": items, "interactions_per_user": interactions_per_user,
            "shared_taste": shared_taste, "seed": seed,
        }  # fmt: skip
        write_atomic(out / demo.MARK, json.dumps(made).encode())
    typer.echo("this data is generated: numbers on it say nothing about real users")
