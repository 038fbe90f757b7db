"""CiteULike-a (Wang and Blei): https://github.com/js05212/citeulike-a

The item-wise cold-start split is IFedRec's: https://github.com/Zhangcx19/IFedRec
"""

from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import typer

from cli.prepare.output import Force, Out, checked, step, steps, write_folder
from common.catalogue import read_table, reading
from common.errors import SnowdropError

SPLIT_FILES = {"train": "warm", "vali": "validation", "validation": "validation", "test": "test"}


def citeulike(
    source: Annotated[Path, typer.Argument(help="folder with raw-data.csv and users.dat")],
    out: Out,
    text: Annotated[
        Literal["title", "abstract"], typer.Option(help="title alone, or title and abstract")
    ] = "title",
    split: Annotated[
        Path | None, typer.Option(help="folder with IFedRec's train.csv, vali.csv and test.csv")
    ] = None,
    force: Force = False,
) -> None:
    """Articles in a user's library are interactions; title (and abstract) are the text."""
    with steps("reading", 2) as progress:
        items = read_items(source / "raw-data.csv", ["title"] + ["abstract"] * (text == "abstract"))
        if split is None:
            interactions = read_users(source / "users.dat")
        else:
            interactions = read_split(split)
            splits = interactions.select("item_id", "split").unique("item_id", keep="first")
            items = items.join(splits, on="item_id", how="inner")
        step(progress, "writing")
        write_folder(out, items, interactions.select("user_id", "item_id"), force)


def read_items(path: Path, fields: list[str]) -> pl.DataFrame:
    """Articles by their place in the file, from 0, as users.dat counts them."""
    if not path.is_file():
        raise SnowdropError(f"{path} is missing")
    with reading(path):
        frame = pl.read_csv(path, infer_schema=False, encoding="utf8-lossy")
    columns = [f"raw.{f}" if f"raw.{f}" in frame.columns else f for f in fields]
    for column in columns:
        if column not in frame.columns:
            raise SnowdropError(f"{path} has no column '{column}'")
    texts = frame.select(pl.col(c).alias(f) for c, f in zip(columns, fields, strict=True))
    return texts.with_row_index("item_id").with_columns(pl.col("item_id").cast(pl.String))


def read_users(path: Path) -> pl.DataFrame:
    """Interactions of users.dat: one line per user, the number of items, then the items.

    Raises
    ------
    SnowdropError
        If the file is missing, or a line is of another form.
    """
    if not path.is_file():
        raise SnowdropError(f"{path} is missing")
    rows = []
    for user, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n")):
        count, *items = line.split() or ["0"]
        if not all(number.isdecimal() for number in (count, *items)) or int(count) != len(items):
            raise SnowdropError(
                f"{path}, row {user + 1}: expected whole numbers, first how many articles the "
                "user has and then each of them"
            )
        rows += [(str(user), item) for item in items]
    schema = {"user_id": pl.String, "item_id": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def read_split(folder: Path) -> pl.DataFrame:
    """Interactions of the split's files, user and item in the first two columns."""
    parts = []
    for name, split in SPLIT_FILES.items():
        path = folder / f"{name}.csv"
        if path.exists():
            frame = read_table(path, private=True)[:, :2]
            if frame.width < 2 or frame.columns[0].isdecimal():
                raise SnowdropError(
                    f"{path} seems to have no header line with two columns: expected users in "
                    "the first column and articles in the second"
                )
            frame.columns = ["user_id", "item_id"]
            frame = checked(frame, path, "user_id", "item_id")
            parts.append(frame.with_columns(pl.lit(split).alias("split")))
    if len(parts) != 3:
        raise SnowdropError(f"{folder} must hold train.csv, vali.csv and test.csv")
    return pl.concat(parts)
