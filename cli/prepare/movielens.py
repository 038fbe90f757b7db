"""MovieLens (GroupLens): ml-latest-small, ml-100k, ml-1m. https://grouplens.org/datasets/movielens/"""

import hashlib
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated
from urllib.error import URLError

import polars as pl
import typer
from rich.progress import Progress

from cli.prepare.output import Force, Out, at_least, console, step, steps, write_folder
from common.errors import SnowdropError

URL = "https://files.grouplens.org/datasets/movielens"
NAMES = ("ml-latest-small", "ml-100k", "ml-1m")
LIKED = 4.0


def movielens(
    source: Annotated[
        str, typer.Argument(help=f"folder, zip file, or one of {', '.join(NAMES)} to download")
    ],
    out: Out,
    force: Force = False,
) -> None:
    """Ratings of 4 and more are interactions; title and genres are the text."""
    with tempfile.TemporaryDirectory() as scratch, steps("finding the files", 3) as progress:
        folder = _open(source, Path(scratch))
        step(progress, "reading")
        items, ratings = read(folder)
        liked = at_least(ratings, "rating", LIKED)
        step(progress, "writing")
        write_folder(out, items, liked.select("user_id", "item_id", "timestamp"), force)


def read(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Items (``item_id``, ``title``, ``genres``) and ratings of an unpacked data set.

    Raises
    ------
    SnowdropError
        If the folder holds none of the known layouts.
    """
    columns = ["user_id", "item_id", "rating", "timestamp"]
    if (folder / "movies.csv").exists():
        movies = pl.read_csv(folder / "movies.csv", infer_schema=False)
        ratings = pl.read_csv(folder / "ratings.csv", infer_schema=False)
        ratings.columns = columns
        movies.columns = ["item_id", "title", "genres"]
        no_genre = pl.col("genres") == "(no genres listed)"
        movies = movies.with_columns(pl.when(~no_genre).then("genres").alias("genres"))
        return movies.with_columns(
            pl.col("genres").str.replace_all("|", ", ", literal=True)
        ), ratings
    if (folder / "u.item").exists():
        genres = [line.split("|")[0] for line in _lines(folder / "u.genre") if line]
        rows = [line.split("|") for line in _lines(folder / "u.item")]
        movies = _movies(
            (r[0], r[1], ", ".join(g for g, has in zip(genres, r[5:], strict=False) if has == "1"))
            for r in rows
        )
        rows = [line.split("\t") for line in _lines(folder / "u.data")]
        return movies, pl.DataFrame(rows, schema=columns, orient="row")
    if (folder / "movies.dat").exists():
        movies = _movies(
            (i, title, genres.replace("|", ", "))
            for i, title, genres in (line.split("::") for line in _lines(folder / "movies.dat"))
        )
        rows = [line.split("::") for line in _lines(folder / "ratings.dat")]
        return movies, pl.DataFrame(rows, schema=columns, orient="row")
    raise SnowdropError(f"{folder} holds neither movies.csv (ml-latest), u.item nor movies.dat")


def _movies(rows: Iterable[tuple[str, str, str]]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=["item_id", "title", "genres"], orient="row")


def _lines(path: Path) -> list[str]:
    if not path.exists():
        raise SnowdropError(f"{path} is missing")
    return path.read_text(encoding="latin-1").splitlines()


def _open(source: str, scratch: Path) -> Path:
    path = Path(source)
    if path.is_dir():
        return path
    if not path.is_file():
        if source not in NAMES:
            raise SnowdropError(f"{source!r} is no folder, no file and none of {', '.join(NAMES)}")
        path = scratch / f"{source}.zip"
        download(f"{URL}/{source}.zip", path)
    if not zipfile.is_zipfile(path):
        raise SnowdropError(f"{path} is no zip file")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(scratch / "files")
    inner = [p for p in (scratch / "files").iterdir() if p.is_dir() and p.name != "__MACOSX"]
    return inner[0] if inner else scratch / "files"


def download(url: str, path: Path) -> None:
    """Fetch a file and compare it with the MD5 sum that GroupLens publishes beside it.

    Raises
    ------
    SnowdropError
        If it cannot be fetched, or the sums differ.
    """
    try:
        with urllib.request.urlopen(f"{url}.md5", timeout=30) as answer:
            published = answer.read().decode()
        with urllib.request.urlopen(url, timeout=30) as answer, Progress(console=console) as bar:
            task = bar.add_task(f"downloading {url}", total=answer.length)
            with path.open("wb") as file:
                while part := answer.read(1 << 16):
                    file.write(part)
                    bar.advance(task, len(part))
    except (URLError, TimeoutError, OSError) as error:
        raise SnowdropError(
            f"{url} cannot be downloaded ({error}); fetch it yourself and give the zip file"
        ) from error
    if hashlib.md5(path.read_bytes()).hexdigest() not in published:
        raise SnowdropError(f"{url} does not match its published MD5 sum; try again")
