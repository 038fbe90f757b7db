"""Amazon Reviews 2018 and 2023 (McAuley lab): https://amazon-reviews-2023.github.io"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from rich.progress import Progress

from cli.prepare.output import Force, Out, console, k_core, write_folder
from common.errors import SnowdropError


def amazon(
    reviews: Annotated[Path, typer.Argument(help="reviews, .jsonl, .json or .gz")],
    meta: Annotated[Path, typer.Argument(help="metadata of the same category")],
    out: Out,
    min_rating: Annotated[float, typer.Option(help="least rating of an interaction")] = 4.0,
    core: Annotated[int, typer.Option(min=1, help="least interactions of a user and item")] = 5,
    force: Force = False,
) -> None:
    """Reviews are interactions; title, categories and description are the text."""
    rows = [
        (str(user), str(item), _timestamp(review))
        for review in read_lines(reviews)
        if (user := review.get("user_id") or review.get("reviewerID"))
        and (item := review.get("parent_asin") or review.get("asin"))
        and float(review.get("rating") or review.get("overall") or 0) >= min_rating
    ]
    columns = ["user_id", "item_id", "timestamp"]
    interactions = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    interactions = k_core(interactions.unique(["user_id", "item_id"], maintain_order=True), core)
    wanted = set(interactions["item_id"].to_list())
    texts: dict[str, tuple[str, str, str]] = {}
    for item in read_lines(meta):
        name = str(item.get("parent_asin") or item.get("asin") or "")
        if name in wanted and name not in texts:
            categories = item.get("categories") or item.get("category")
            texts[name] = (
                plain(item.get("title")), plain(categories, ", "), plain(item.get("description"))
            )  # fmt: skip
    items = pl.DataFrame(
        [(name, *fields) for name, fields in texts.items()],
        schema=dict.fromkeys(["item_id", "title", "categories", "description"], pl.String),
        orient="row",
    )
    write_folder(out, items, interactions, force)


def plain(value: Any, separator: str = " ") -> str:
    """A text field, which older files give as a list, or as a list of lists."""
    if value is None:
        return ""
    if isinstance(value, list):
        return separator.join(part for v in value if (part := plain(v, separator)))
    return str(value)


def _timestamp(review: dict[str, Any]) -> str:
    return str(review.get("timestamp") or review.get("unixReviewTime") or "")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file, plain or gzipped, with a progress bar.

    Raises
    ------
    SnowdropError
        If the file is missing, or a line is no JSON object.
    """
    if not path.is_file():
        raise SnowdropError(f"{path} is missing")
    with (
        Progress(console=console) as progress,
        progress.open(path, "rb", description=path.name) as raw,
    ):
        lines = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise SnowdropError(f"{path}, line {number}: no JSON object ({error})") from error
            if not isinstance(record, dict):
                raise SnowdropError(f"{path}, line {number}: no JSON object")
            yield record
