"""Back-up of a federation's folder in one file, and its way back into an empty folder."""

import gzip
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path, PurePosixPath

from common.durable import make_folder
from common.errors import SnowdropError
from deploy import folder as federation_folder
from deploy.federation import Federation

DATABASE = PurePosixPath("server/superlink.db")
_LEFT_OUT = ("run", "logs", "demo-data", "server/cache")
"""Folders that are made anew: states of processes, logs, generated data, encoded texts."""
_ANYWHERE = ("flower-home", "lock")
"""Names that are left out wherever they are: Flower's own files, and locks."""


def back_up(folder: Path, archive: Path, authority: bool = True, force: bool = False) -> int:
    """Write all that a federation needs to come back into one file that only its owner can read.

    Every file is whole in it, while the federation runs too.

    Parameters
    ----------
    folder : Path
        Of the federation, or of the part of it that is on this machine.
    archive : Path
        A gzip-compressed tar file, written in one step.
    authority : bool
        Whether ``ca`` is in it.
    force : bool
        Replace a file that is there.

    Returns
    -------
    int
        Number of files.

    Raises
    ------
    SnowdropError
        If the folder holds no federation, or the file is there or cannot be written.
    """
    Federation.load(folder)
    if archive.resolve().is_relative_to(folder.resolve()):
        raise SnowdropError(f"{archive} is inside {folder}; give a file elsewhere")
    if archive.exists() and not force:
        raise SnowdropError(f"{archive} exists; give --force to replace it")
    make_folder(archive.parent)
    count, aside = 0, archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        with (
            os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            tarfile.open(fileobj=file, mode="w:gz") as tar,
        ):
            for name in _files(folder, authority):
                with suppress(FileNotFoundError):  # a checkpoint that was replaced meanwhile
                    _add(tar, folder, name)
                    count += 1
        aside.replace(archive)
    except OSError as error:
        raise SnowdropError(f"cannot write {archive}: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
    return count


def restore(archive: Path, folder: Path) -> Federation:
    """Bring a federation back into an empty folder, which may be another one than it was in.

    Returns
    -------
    Federation
        As it is now.

    Raises
    ------
    SnowdropError
        If the folder is not empty, or the file is missing, damaged or no back-up; nothing is left
        then.
    """
    if not archive.exists():
        raise SnowdropError(
            f"{archive} is missing; give a file that `snowdrop deploy backup` wrote"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SnowdropError(f"{folder} is not empty; give an empty or a new folder")
    make_folder(folder.parent)
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with gzip.open(archive) as whole:  # to its end, where its checksum is
            while whole.read(1 << 20):
                pass
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(aside, filter="data")
        federation = Federation.load(aside)
        federation = federation_folder.move(aside, federation, PurePosixPath(folder))
        aside.chmod(0o700)
        if folder.exists():
            folder.rmdir()
        aside.rename(folder)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise SnowdropError(
            f"{archive} cannot be restored ({error}): it is damaged, no back-up of a federation, "
            "or there is no room"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return federation


def _files(folder: Path, authority: bool) -> Iterator[PurePosixPath]:
    """Names of the files of a back-up, relative to the folder."""
    left_out = [PurePosixPath(name) for name in (*_LEFT_OUT, *(() if authority else ("ca",)))]
    for path in sorted(folder.rglob("*")):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        temporary = path.name.startswith(".") or name.name.startswith(f"{DATABASE.name}-")
        if temporary or set(name.parts) & set(_ANYWHERE) or not path.is_file():
            continue
        if not any(name.is_relative_to(other) for other in left_out):
            yield name


def _add(tar: tarfile.TarFile, folder: Path, name: PurePosixPath) -> None:
    """Add one file as it is at one moment: those of a federation are replaced, never changed."""
    with (folder / name).open("rb") as file:
        entry = tar.gettarinfo(fileobj=file, arcname=str(name))
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        if name != DATABASE:
            tar.addfile(entry, file)
            return
    content = _database(folder / name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _database(path: Path) -> bytes:
    """What the SuperLink's database holds at one moment."""
    with (
        tempfile.TemporaryDirectory() as place,
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(Path(place) / "copy")) as copy,
    ):
        source.backup(copy)
        copy.commit()
        return (Path(place) / "copy").read_bytes()
