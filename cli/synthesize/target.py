"""The folder that synthetic users go to: whose it is, how far it has come, when it is whole."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from scipy.sparse import csr_array

from cli.prepare.folder import carry_features
from cli.synthesize.source import Items
from client_app.synthesis.data import UserTable
from client_app.synthesis.folder import INTERACTIONS, SUMMARY, read_mark, write_synthetic
from common.demo import MARK
from common.durable import lock_folder, make_folder, write_atomic
from common.errors import OverflowedError, SnowdropError

TRAINING = "training"
"""Folder of a training that has not ended; gone once the synthetic users are there."""

REPORT = "report.html"

_REQUEST = "request.json"
_LOCK = "lock"
_DATA = ("items", "interactions", "train", "validation", "test")
_WRITTEN = "files"


class Target:
    """A folder of synthetic users that is being made; a context manager that holds its lock.

    Parameters
    ----------
    path : Path
    request : Mapping[str, Any]
        All that the synthetic users depend on. A training that was stopped goes on where it is
        the same.
    force : bool
        Replace synthetic users that are there, or a training for others.

    Raises
    ------
    SnowdropError
        If the folder holds something else, or another command is at work in it.
    """

    def __init__(self, path: Path, request: Mapping[str, Any], force: bool) -> None:
        self.path, self._force = path, force
        self._request = json.dumps(request, sort_keys=True)
        self.training = path / TRAINING
        self._there = path.exists()

    def __enter__(self) -> Self:
        self._check()
        make_folder(self.training)
        self._lock = lock_folder(self.training, "give another --out")
        self._check()  # once more, now that nobody else can change it
        if self._unfinished() != self._request:
            for old in self.training.iterdir():
                if old.name != _LOCK:
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
        self.goes_on = any(self.training.glob("*/*"))
        write_atomic(self.training / _REQUEST, self._request.encode())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        hopeless = kind is not None and issubclass(kind, OverflowedError)
        if hopeless or (kind is not None and not any(self.training.glob("*/*"))):
            self._tidy()  # nothing that could go on is lost, and the folder is what it was
        self._lock.close()

    def part(self, name: str) -> Path:
        """A folder in which one of the trainings keeps how far it is."""
        folder = self.training / name
        make_folder(folder)
        return folder

    def write(
        self,
        likes: csr_array,
        ids: Sequence[str],
        summary: Mapping[str, Any],
        page: str,
        items: Items | None,
        data: Path,
    ) -> None:
        """Put everything in its place; the summary, which says that all is there, comes last.

        Parameters
        ----------
        likes : csr_array, bool (users, items)
        ids : Sequence[str]
            Of the items.
        summary : Mapping[str, Any]
        page : str
            The report.
        items : Items, optional
        data : Path
            Where features and images of the items are taken from.
        """
        before = self._finished()
        (self.path / SUMMARY).unlink(missing_ok=True)
        for name in before.get(_WRITTEN, []) if before else []:
            old = self.path / str(name)
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
        files = [REPORT, INTERACTIONS]
        if items:
            files += [items.name, *(path.name for path in data.glob("*.features.*"))]
            files += [name for name in ("images", MARK) if (data / name).exists()]
            write_atomic(self.path / items.name, items.content)
            carry_features(data, self.path)
        write_atomic(self.path / REPORT, page.encode())
        write_synthetic(self.path, likes, ids, {**summary, _WRITTEN: files})
        self._tidy()

    def _check(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise SnowdropError(f"{self.path} is a file; give a folder")
        unfinished = self._unfinished()
        if unfinished == self._request:
            return
        if unfinished is not None:
            if not self._force:
                raise SnowdropError(
                    f"{self.path} holds a training for other synthetic users that was stopped; "
                    "give the same data and options to go on with it, --force to begin anew, or "
                    "another --out"
                )
        elif self._finished() is not None:
            if not self._force:
                raise SnowdropError(
                    f"{self.path} holds synthetic users; give --force to replace them, or another "
                    "--out"
                )
        elif taken := self._taken():
            raise SnowdropError(
                f"{self.path / taken[0]} is there and not of synthetic users; give another --out"
            )

    def _taken(self) -> list[str]:
        names = [SUMMARY, REPORT]
        names += [f"{name}.{kind}" for name in _DATA for kind in ("csv", "parquet")]
        taken = [name for name in names if (self.path / name).exists()]
        if self.training.exists() and any(old.name != _LOCK for old in self.training.iterdir()):
            taken.append(TRAINING)
        return taken

    def _unfinished(self) -> str | None:
        """The request of the training that is there; '' where it cannot be read."""
        path = self.training / _REQUEST
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return ""

    def _finished(self) -> dict[str, Any] | None:
        try:
            return read_mark(self.path)
        except SnowdropError:
            return None

    def _tidy(self) -> None:
        shutil.rmtree(self.training)
        if not self._there:
            with suppress(OSError):  # something is in it
                self.path.rmdir()


def digest_of(users: UserTable) -> str:
    """What users and their interactions are known by."""
    digest = hashlib.sha256()
    for ids in (users.users, users.items):
        digest.update(json.dumps(ids).encode())
    for matrix in (users.likes, users.rated):
        for part in (matrix.indptr, matrix.indices):
            digest.update(part.astype("<i8").tobytes())
    return digest.hexdigest()[:16]
