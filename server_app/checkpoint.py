"""The server's state after a round: saved atomically, the last few and the best kept."""

import io
import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import torch

from common.durable import check_format, lock_folder, make_folder, read_checked, write_checked
from common.errors import FormatError, SnowdropError

log = logging.getLogger("snowdrop")

_FORMER = "former-"
"""Before the name of a checkpoint of the training in whose place another one begins."""

FORMAT = 2
"""Of checkpoints; 1 has the settings' former names and is read as well."""


class Checkpoints:
    """The checkpoints of one training, locked against a second run.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    exclusive : bool
        False for a run that only reads.

    Raises
    ------
    SnowdropError
        If another run holds the folder.
    """

    def __init__(self, folder: Path, exclusive: bool = True) -> None:
        self.folder = folder
        self._lock: IO[bytes] | None = None
        self._written = 0
        if exclusive:
            make_folder(folder)
            self._lock = lock_folder(folder, "give another run_dir")
            self._settle()

    def close(self) -> None:
        """Release the folder; what was set aside comes back if nothing took its place."""
        if self._lock is not None:
            self._settle()
            self._lock.close()

    def rounds(self) -> list[int]:
        """Rounds with a checkpoint, ascending."""
        return _rounds(self.folder)

    def save(self, number: int, state: dict[str, Any], keep: int, best: int) -> None:
        """Write the state after round ``number``; keep the last ``keep`` rounds and the best.

        Where the round before is not kept, the file has a copy, so that a damaged one loses
        nothing.
        """
        buffer = io.BytesIO()
        torch.save({**state, "format": FORMAT}, buffer)
        write_checked(self._path(number), buffer.getvalue())
        for old in self.rounds()[:-keep]:
            if old != best:
                self._path(old).unlink()
        copied = () if self._is_whole(number - 1) else (_copy(self._path(number)),)
        for path in copied:
            write_checked(path, buffer.getvalue())
        self._delete_copies(but=copied)
        self._written = number
        self._delete_former()

    def _is_whole(self, number: int) -> bool:
        """Whether the checkpoint of a round is there, and not damaged."""
        if number not in self.rounds():
            return False
        if number == self._written:
            return True
        try:
            read_checked(self._path(number))
        except SnowdropError:
            return False
        return True

    def load(self, number: int) -> dict[str, Any]:
        """The state after round ``number``, with all tensors on the CPU.

        Raises
        ------
        SnowdropError
            If it is missing or damaged.
        """
        return _load(self._path(number))

    def newest(self) -> dict[str, Any] | None:
        """The newest whole checkpoint; a damaged one is passed over with a warning."""
        return newest_state(self.folder)

    def best(self) -> dict[str, Any] | None:
        """The checkpoint of the best validated round, or else the newest whole one."""
        newest = self.newest()
        if newest is None or newest["best_round"] in (0, newest["round"]):
            return newest
        try:
            return self.load(newest["best_round"])
        except SnowdropError as error:
            log.warning("%s; taking the newest checkpoint in place of the best", error)
            return newest

    def clear(self) -> None:
        """Delete every checkpoint, for a new training to begin."""
        self.set_aside()
        self._delete_former()

    def set_aside(self) -> None:
        """Take every checkpoint away for a new training, until that one has its first one."""
        for path in self.folder.glob("round-*.ckpt*"):
            path.replace(path.with_name(f"{_FORMER}{path.name}"))

    def _settle(self) -> None:
        """Give checkpoints that were set aside their names again, or delete what is out of date."""
        if self.rounds():
            self._delete_former()
        for path in self.folder.glob(f"{_FORMER}round-*"):
            path.replace(path.with_name(path.name.removeprefix(_FORMER)))

    def _delete_former(self) -> None:
        for path in self.folder.glob(f"{_FORMER}round-*"):
            path.unlink()

    def _delete_copies(self, but: Collection[Path] = ()) -> None:
        for path in set(self.folder.glob("round-*.ckpt.copy")) - set(but):
            path.unlink()

    def _path(self, number: int) -> Path:
        return _path(self.folder, number)


def newest_state(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint of a folder, read without holding it: a run may be going on."""
    for number in reversed(_rounds(folder)):
        try:
            return _load(_path(folder, number))
        except FormatError:
            raise
        except SnowdropError as error:
            log.warning("%s; going back to the checkpoint before it", error)
    return None


def _rounds(folder: Path) -> list[int]:
    names = (path.name for path in folder.glob("round-*.ckpt"))
    return sorted(int(match[1]) for n in names if (match := re.match(r"round-(\d+)\.ckpt", n)))


def _load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(
        io.BytesIO(_content(path)), map_location="cpu", weights_only=True
    )
    number = state.get("format", 1)
    check_format(path, number, FORMAT, "go on with the release that wrote it, or upgrade")
    return state if number == FORMAT else _of_format_1(state)


def _content(path: Path) -> bytes:
    try:
        return read_checked(path)
    except SnowdropError as error:
        if not _copy(path).exists():
            raise
        content = read_checked(_copy(path))
        log.warning("%s; taking its copy", error)
        return content


def _of_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of before methods had settings of their own, as today's are."""
    from common.settings import RunSettings

    settings = RunSettings.read(state["settings"])
    if settings.card.parts:
        first = settings.group(settings.card.name).first
        state = {**state, "generator": {first: state["generator"]}}
    return {**state, "settings": settings.flat(), "format": FORMAT}


def _path(folder: Path, number: int) -> Path:
    return folder / f"round-{number:06d}.ckpt"


def _copy(checkpoint: Path) -> Path:
    return checkpoint.with_name(f"{checkpoint.name}.copy")
