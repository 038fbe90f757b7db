"""Amazon Reviews 2018 and 2023 (McAuley lab): https://amazon-reviews-2023.github.io"""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from cli.prepare.output import Force, Out, k_core, write_folder
from cli.progress import Progress
from common.errors import SnowdropError

_LINES_A_LOOK = 1000


def amazon(
    reviews: Annotated[Path, typer.Argument(help="reviews, .jsonl, .json or .gz")],
    meta: Annotated[Path, typer.Argument(help="metadata of the same category")],
    out: Out,
    min_rating: Annotated[float, typer.Option(help="least rating of an interaction")] = 4.0,
    core: Annotated[int, typer.Option(min=1, help="least interactions of a user and item")] = 5,
    force: Force = False,
) -> None:
    """Reviews are interactions; title, categories and description are the text."""
    rows = []
    for number, review in read_lines(reviews):
        where = f"{reviews}, line {number}"
        user = _id(review, where, "user_id", "reviewerID")
        item = _id(review, where, "parent_asin", "asin")
        if _rating(review, where) >= min_rating:
            when = review.get("timestamp") or review.get("unixReviewTime")
            rows.append((user, item, plain(when)))
    columns = ["user_id", "item_id", "timestamp"]
    interactions = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    interactions = k_core(interactions.unique(["user_id", "item_id"], maintain_order=True), core)
    wanted = set(interactions["item_id"].to_list())
    texts: dict[str, tuple[str, str, str]] = {}
    for _, record in read_lines(meta):
        name = str(record.get("parent_asin") or record.get("asin") or "").strip()
        if name in wanted and name not in texts:
            categories = record.get("categories") or record.get("category")
            texts[name] = (
                plain(record.get("title")), plain(categories, ", "),
                plain(record.get("description")),
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
    # An escape such as "\\ud83d" alone is half a character, which no file can hold.
    return str(value).encode("utf-8", "replace").decode("utf-8")


_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters and halves of characters."""


def _id(review: dict[str, Any], where: str, *keys: str) -> str:
    """The first id under one of ``keys``."""
    value = next((review[key] for key in keys if review.get(key) not in (None, "")), None)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise SnowdropError(f"{where}: {' or '.join(keys)} is missing, empty or no string")
    name = str(value).strip()
    if _UNFIT.search(name):
        raise SnowdropError(f"{where}: {' or '.join(keys)} holds NUL or another control character")
    return name


def _rating(review: dict[str, Any], where: str) -> float:
    """The rating, or 0 where there is none."""
    try:
        return float(review.get("rating") or review.get("overall") or 0)
    except (TypeError, ValueError):
        raise SnowdropError(f"{where}: the rating is no number") from None


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON-lines file, plain or gzipped, with a progress bar.

    Blank lines are left out.

    Yields
    ------
    number : int
        Of the line, from 1.
    record : dict

    Raises
    ------
    SnowdropError
        If the file is missing or damaged, or a line is no JSON object.
    """
    if not path.is_file():
        raise SnowdropError(f"{path} is missing")
    size = path.stat().st_size / 1e6
    with path.open("rb") as raw, Progress("MB", size, each=False) as progress:
        lines = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        for number, line in enumerate(_unpacked(lines, path), 1):
            if number % _LINES_A_LOOK == 1:
                progress.update(raw.tell() / 1e6, f"reading {path.name}")
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                # The error remembers the line, which a traceback would show.
                raise SnowdropError(f"{path}, line {number}: no JSON object ({error})") from None
            if not isinstance(record, dict):
                raise SnowdropError(f"{path}, line {number}: no JSON object")
            yield number, record
        progress.update(size, f"reading {path.name}")


def _unpacked(lines: Iterable[bytes], path: Path) -> Iterator[bytes]:
    try:
        yield from lines
    except (EOFError, OSError, zlib.error) as error:
        raise SnowdropError(f"{path} cannot be unpacked: {error}; fetch it again") from error
