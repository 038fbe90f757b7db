"""Any CSV or Parquet files, with the names of their columns as options."""

from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from cli.prepare.images import ImagesFrom, images_of
from cli.prepare.output import Force, Out, checked, write_folder
from common.catalogue import read_table, require_columns
from common.task import ORDERS

Interactions = Annotated[Path, typer.Argument(help="table of interactions, .csv or .parquet")]
Items = Annotated[Path, typer.Argument(help="table of items, .csv or .parquet")]
UserColumn = Annotated[str, typer.Option(help="column of the user's id")]
ItemColumn = Annotated[str, typer.Option(help="column of the item's id, in both tables")]
TextColumn = Annotated[
    list[str] | None, typer.Option(help="text column, repeatable (default: all but the id)")
]
RatingColumn = Annotated[str, typer.Option(help="column of ratings; empty: every row counts")]
MinRating = Annotated[float, typer.Option(help="least rating of an interaction")]
TimeColumn = Annotated[
    str, typer.Option(help="column of numbers that tell the order (default: timestamp or position)")
]


def tables(
    interactions: Interactions,
    items: Items,
    out: Out,
    user_column: UserColumn = "user_id",
    item_column: ItemColumn = "item_id",
    text_column: TextColumn = None,
    rating_column: RatingColumn = "",
    min_rating: MinRating = 4.0,
    time_column: TimeColumn = "",
    images: ImagesFrom = None,
    force: Force = False,
) -> None:
    """Tables of interactions and items, whatever their columns are called."""
    ids = (user_column, item_column)
    pairs = read_table(interactions, private=True, ids=ids)
    catalogue = read_table(items, ids=(item_column,))
    more = [column for column in (rating_column, time_column) if column]
    require_columns(pairs.columns, interactions, *ids, *more, private=True)
    require_columns(catalogue.columns, items, item_column, *(text_column or []))
    pairs = checked(pairs, interactions, *ids, rating=rating_column, least=min_rating)
    catalogue = checked(catalogue, items, item_column)
    if not rating_column and "rating" in pairs.columns:
        typer.echo("every row counts, whatever its rating; --rating-column rating takes 4 and more")
    texts = text_column or [c for c in catalogue.columns if c not in (item_column, "split")]
    splits = ["split"] if "split" in catalogue.columns else []
    catalogue = catalogue.select(pl.col(item_column).alias("item_id"), *texts, *splits)
    times = (
        [pl.col(time_column).alias("timestamp")]
        if time_column
        else [pl.col(name) for name in ORDERS if name in pairs.columns]
    )
    pairs = pairs.select(
        pl.col(user_column).alias("user_id"), pl.col(item_column).alias("item_id"), *times
    )
    with images_of(images, catalogue["item_id"].to_list()) as found:
        write_folder(out, catalogue, pairs, force, images=found)
