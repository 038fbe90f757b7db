"""Images of items for a data folder, from a folder or a zip file, named by the items' ids."""

import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated

import typer

from common.durable import make_folder
from common.errors import SnowdropError
from server_app.modality.image import FOLDER, SUFFIXES

ImagesFrom = Annotated[
    Path | None,
    typer.Option(
        "--images", "--posters", help="folder or zip file with images named by item id: 42.jpg"
    ),
]


@dataclass(frozen=True)
class Images:
    """The images in a folder or a zip file, by the id of their item."""

    source: Path | zipfile.ZipFile
    members: dict[str, str]
    """Path within the source by item id."""
    strange: int
    """Images that are named like no item."""

    def names(self) -> dict[str, str]:
        """Path within a data folder by item id."""
        return {
            item: f"{FOLDER}/{item}{PurePath(member).suffix.lower()}"
            for item, member in self.members.items()
        }

    def write(self, out: Path, items: Iterable[str]) -> None:
        """Write the images of some items into a data folder.

        Raises
        ------
        SnowdropError
            If an image cannot be unpacked, or the folder cannot be written to.
        """
        make_folder(out / FOLDER)
        names = self.names()
        for item in items:
            if item not in self.members:
                continue
            content = self._read(self.members[item])
            try:
                (out / names[item]).write_bytes(content)
            except OSError as error:
                raise SnowdropError(f"cannot write to {out}: {error.strerror}") from error

    def _read(self, member: str) -> bytes:
        if isinstance(self.source, Path):
            try:
                return (self.source / member).read_bytes()
            except OSError as error:
                raise SnowdropError(
                    f"{self.source / member} cannot be read: {error.strerror}"
                ) from error
        with _unpacking(Path(self.source.filename or "")):
            return self.source.read(member)


@contextmanager
def images_of(source: Path | None, items: Collection[str]) -> Iterator[Images | None]:
    """The images in a folder or a zip file, in any folder within, that are named by an item.

    Parameters
    ----------
    source : Path or None
        None: there are none.
    items : Collection[str]
        Ids of items.

    Raises
    ------
    SnowdropError
        If the source is missing or no zip file, or holds no image of an item.
    """
    if source is None:
        yield None
    elif source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.is_file())
        yield _named(source, [str(path.relative_to(source)) for path in files], items, source)
    elif not source.is_file():
        raise SnowdropError(f"{source} is missing: expected a folder or a zip file with images")
    elif not zipfile.is_zipfile(source):
        raise SnowdropError(f"{source} is no zip file: expected a folder or a zip file with images")
    else:
        with _unpacking(source):
            archive = zipfile.ZipFile(source)
        with archive:
            names = [name for name in sorted(archive.namelist()) if not name.endswith("/")]
            yield _named(archive, names, items, source)


def _named(
    source: Path | zipfile.ZipFile, files: Iterable[str], items: Collection[str], told: Path
) -> Images:
    """Of several images of an item, the one whose ending comes first in `SUFFIXES`."""
    known, members, strange = set(items), dict[str, str](), 0
    endings = {suffix: place for place, suffix in enumerate(SUFFIXES)}
    images = [file for file in files if PurePath(file).suffix.lower() in endings]
    for file in sorted(images, key=lambda file: endings[PurePath(file).suffix.lower()]):
        item = PurePath(file).stem
        if item in known:
            members.setdefault(item, file)
        else:
            strange += 1
    if not members:
        raise SnowdropError(
            f"{told} holds no image of an item: name each by its item's id, such as "
            f"{next(iter(items), 'ID')}{SUFFIXES[0]}"
        )
    return Images(source, members, strange)


@contextmanager
def _unpacking(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise SnowdropError(f"{path} is a damaged or encrypted zip file: {error}") from error
