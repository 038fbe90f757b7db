"""MovieLens (GroupLens): ml-latest-small, ml-100k, ml-1m. https://grouplens.org/datasets/movielens/"""

import hashlib
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated
from urllib.error import URLError

import polars as pl
import typer

from cli.prepare.images import ImagesFrom, images_of
from cli.prepare.output import Force, Out, checked, split_lines, step, steps, write_folder
from cli.progress import Progress
from common.catalogue import read_table, require_columns
from common.errors import SnowdropError

URL = "https://files.grouplens.org/datasets/movielens"
NAMES = ("ml-latest-small", "ml-100k", "ml-1m")
LIKED = 4.0


def movielens(
    source: Annotated[
        str, typer.Argument(help=f"folder, zip file, or one of {', '.join(NAMES)} to download")
    ],
    out: Out,
    min_rating: Annotated[
        float, typer.Option(help="least rating of an interaction; 0: every rating counts")
    ] = LIKED,
    images: ImagesFrom = None,
    force: Force = False,
) -> None:
    """Ratings of 4 and more are interactions; title and genres are the text."""
    with tempfile.TemporaryDirectory() as scratch, steps("finding the files", 3) as progress:
        folder = _open(source, Path(scratch))
        step(progress, "reading")
        items, liked = read(folder, min_rating)
        step(progress, "writing")
        with images_of(images, items["item_id"].to_list()) as found:
            pairs = liked.select("user_id", "item_id", "timestamp")
            write_folder(out, items, pairs, force, images=found)


def read(folder: Path, least: float = LIKED) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Items (``item_id``, ``title``, ``genres``) and liked ratings of an unpacked data set.

    Parameters
    ----------
    folder : Path
    least : float
        The least rating that counts.

    Raises
    ------
    SnowdropError
        If the folder holds none of the known layouts, or a row is not whole.
    """
    if (folder / "movies.csv").exists():
        return _latest(folder, least)
    if (folder / "u.item").exists():
        return _ml_100k(folder, least)
    if (folder / "movies.dat").exists():
        return _ml_1m(folder, least)
    hint = "; `snowdrop prepare folder` reads items.csv" if (folder / "items.csv").exists() else ""
    raise SnowdropError(
        f"{folder} holds neither movies.csv (ml-latest), u.item nor movies.dat{hint}"
    )


COLUMNS = ("user_id", "item_id", "rating", "timestamp")


def _liked(frame: pl.DataFrame, path: Path, first: int, least: float) -> pl.DataFrame:
    frame = frame[:, : len(COLUMNS)]
    frame.columns = COLUMNS
    return checked(frame, path, "user_id", "item_id", first=first, rating="rating", least=least)


def _latest(folder: Path, least: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    path = folder / "movies.csv"
    movies = read_table(path)
    require_columns(movies.columns, path, "movieId", "title", "genres")
    movies = movies.select(pl.col("movieId").alias("item_id"), "title", "genres")
    genres = pl.when(pl.col("genres") != "(no genres listed)").then("genres")
    movies = checked(movies, path, "item_id").with_columns(
        genres.str.replace_all("|", ", ", literal=True).alias("genres")
    )
    path, columns = folder / "ratings.csv", ("userId", "movieId", "rating", "timestamp")
    ratings = read_table(path, private=True)
    require_columns(ratings.columns, path, *columns, private=True)
    return movies, _liked(ratings.select(columns), path, 2, least)


def _ml_100k(folder: Path, least: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    names = [name for name in split_lines(folder / "u.genre", "|", 1)["column_0"] if name]
    path = folder / "u.item"
    rows = checked(split_lines(path, "|", 5), path, "column_0", first=1)
    movies = _movies(
        (
            movie,
            title,
            ", ".join(n for n, has in zip(names, flags.split("|"), strict=False) if has == "1"),
        )
        for movie, title, flags in rows.select("column_0", "column_1", "rest").iter_rows()
    )
    path = folder / "u.data"
    return movies, _liked(split_lines(path, "\t", len(COLUMNS)), path, 1, least)


def _ml_1m(folder: Path, least: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    path = folder / "movies.dat"
    rows = checked(split_lines(path, "::", 3), path, "column_0", first=1)
    movies = _movies(
        (movie, title, genres.replace("|", ", "))
        for movie, title, genres in rows.drop("rest").iter_rows()
    )
    path = folder / "ratings.dat"
    return movies, _liked(split_lines(path, "::", len(COLUMNS)), path, 1, least)


def _movies(rows: Iterable[tuple[str, str, str]]) -> pl.DataFrame:
    schema = dict.fromkeys(("item_id", "title", "genres"), pl.String)
    return pl.DataFrame(list(rows), schema=schema, orient="row")


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
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(scratch / "files")
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise SnowdropError(f"{path} is a damaged or encrypted zip file: {error}") from error
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
        with urllib.request.urlopen(url, timeout=30) as answer, path.open("wb") as file:
            size = None if answer.length is None else answer.length / 1e6
            with Progress("MB", size, each=False) as progress:
                while part := answer.read(1 << 16):
                    file.write(part)
                    progress.update(file.tell() / 1e6, f"downloading {url}")
    except (URLError, TimeoutError, OSError) as error:
        raise SnowdropError(
            f"{url} cannot be downloaded ({error}); fetch it yourself and give the zip file"
        ) from error
    if hashlib.md5(path.read_bytes()).hexdigest() not in published:
        raise SnowdropError(f"{url} does not match its published MD5 sum; try again")
