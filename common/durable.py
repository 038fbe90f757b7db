"""Files that are either whole or absent: written aside, checksummed, and moved into place."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from common.errors import FormatError, SnowdropError

_DIGEST_BYTES = 32


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises
    ------
    SnowdropError
        If something else is there, or it may not be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise SnowdropError(f"{path} is a file; give a folder") from error
    except OSError as error:
        raise SnowdropError(f"cannot make the folder {path}: {error.strerror}") from error


def lock_folder(folder: Path, otherwise: str) -> IO[bytes]:
    """A lock on a folder that is there: its file `lock`, held until it is closed.

    Raises
    ------
    SnowdropError
        If another command holds it, who may do ``otherwise``; or the file cannot be made.
    """
    try:
        file = (folder / "lock").open("ab")
    except OSError as error:
        raise SnowdropError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise SnowdropError(
            f"another run is using {folder}; wait for it, or {otherwise}"
        ) from error
    return file


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """Wait until no other process is within such a block for the same lock file."""
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_atomic(path: Path, content: bytes, lasting: bool = True) -> None:
    """Replace ``path`` by ``content`` in one step; a crash leaves the old file or the new one.

    Parameters
    ----------
    path : Path
    content : bytes
    lasting : bool
        Whether to wait until the disk has it, so that it is there after a loss of power, too.

    Raises
    ------
    SnowdropError
        If the folder cannot be written to; the file at ``path`` is then what it was.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
        if lasting:
            _sync_folder(path.parent)
    except OSError as error:
        raise SnowdropError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def remove(path: Path, lasting: bool = True) -> None:
    """Delete a file; with ``lasting`` it does not come back after a loss of power.

    Raises
    ------
    SnowdropError
        If it cannot be deleted.
    """
    try:
        path.unlink()
        if lasting:
            _sync_folder(path.parent)
    except OSError as error:
        raise SnowdropError(f"cannot delete {path}: {error.strerror or error}") from error


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_checked(path: Path, content: bytes, lasting: bool = True) -> None:
    """`write_atomic`, with a SHA-256 digest at the end that `read_checked` verifies."""
    write_atomic(path, content + hashlib.sha256(content).digest(), lasting)


def read_checked(path: Path) -> bytes:
    """The content that `write_checked` wrote.

    Raises
    ------
    SnowdropError
        If the file cannot be read, or is truncated or damaged.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SnowdropError(f"cannot read {path}: {error.strerror or error}") from error
    content, digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise SnowdropError(f"{path} is damaged: its checksum does not match its content")
    return content


def check_format(
    what: object, number: int, latest: int, otherwise: str = "upgrade this node"
) -> None:
    """Refuse what a later release wrote.

    Parameters
    ----------
    what : object
        The file, for the error.
    number, latest : int
        Its format, and the newest one that this release reads.
    otherwise : str
        What may be done.

    Raises
    ------
    FormatError
        If the number is above the latest one.
    """
    if number > latest:
        raise FormatError(
            f"{what} has format {number}, this release reads up to {latest}; {otherwise}"
        )
