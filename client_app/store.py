"""The users' private state on the node's disk, by training and round.

``<state_dir>/trainings/<training>/round-000012.state`` holds the heads of all users after a
round. ``users-<digest>.json`` beside it holds the users' ids; it is written only when they change.
"""

import json
import logging
import re
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from client_app.interactions import CACHED_NODES, NodeInteractions, digest_of
from common.catalogue import ItemIndex
from common.durable import check_format, read_checked, write_checked
from common.errors import FormatError, SnowdropError
from common.users.heads import State
from common.users.personal import only, rearranged

log = logging.getLogger("snowdrop.node")

FORMAT = 2
"""Number of the format of the state files; format 1 is the same layout without this number."""

_OTHER_TRAININGS = 2
"""Other trainings that are kept, so that a trial run does not delete the users' heads."""


_OTHER_CATALOGUES = 1
"""Older catalogues that are kept, so that publishing does not disturb a training."""


class StateStore:
    """What one node keeps between messages: files with checksums, each replaced in one step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def secret(self, simulation_seed: int | None) -> bytes:
        """The key of all users' randomness: the simulation's, or this node's own.

        A deployed node draws it once from the operating system; it never leaves the node.
        """
        if simulation_seed is not None:
            return f"snowdrop simulation {simulation_seed}".encode()
        path = self.folder / "secret"
        if not path.exists():
            write_checked(path, secrets.token_bytes(32))
        return read_checked(path)

    def save_index(self, index: ItemIndex) -> None:
        """Keep the announced catalogue."""
        content = json.dumps({"ids": index.ids, "splits": index.splits})
        announced = self.folder / f"catalogue-{index.version}.json"
        write_checked(announced, content.encode())
        others = [path for path in self.folder.glob("catalogue-*.json") if path != announced]
        others.sort(key=lambda path: path.stat().st_mtime_ns)
        for path in others[:-_OTHER_CATALOGUES]:
            path.unlink(missing_ok=True)

    def load_index(self, version: str) -> ItemIndex | None:
        """The catalogue of that version, or None where this node does not have it.

        Within a process it is the same object each time, so that results can be cached by it.
        """
        path = self.folder / f"catalogue-{version}.json"
        if not path.exists():
            return None
        try:
            index = _read_index(path)
        except SnowdropError as error:
            log.warning("%s; asking for it again", error)
            return None
        return index if index.version == version else None

    def rounds(self, training: str) -> list[int]:
        """Rounds of which this node keeps the state, ascending."""
        names = (path.name for path in self._training(training).glob("round-*.state"))
        return sorted(int(match[1]) for n in names if (match := re.match(r"round-(\d+)\.state", n)))

    def load(
        self,
        training: str,
        at_most: int,
        data: NodeInteractions,
        fresh: State,
        or_newer: bool = False,
    ) -> tuple[int, State]:
        """The newest whole state of round ``at_most`` or before.

        Parameters
        ----------
        training : str
        at_most : int
        data : NodeInteractions
            Today's users; those that the state does not know start from ``fresh``.
        fresh : State
            Tensors float32 (users, …).
        or_newer : bool
            Whether a user that this state does not know, since it came later, starts from the
            newest state instead.

        Returns
        -------
        round : int
            0 where there is no state.
        state : State
        """
        later, start = 0, fresh
        kept = self.rounds(training)
        if or_newer and kept and kept[-1] > at_most:
            later, start = self.load(training, kept[-1], data, fresh)
        for number in reversed([r for r in kept if r <= at_most]):
            try:
                return number, self._read(training, number, data, start)
            except FormatError:
                raise
            except SnowdropError as error:
                log.warning("%s; going back to the state before it", error)
        return later, start

    def _read(self, training: str, number: int, data: NodeInteractions, fresh: State) -> State:
        folder = self._training(training)
        content = read_checked(self._path(training, number))
        _check_format(self._path(training, number), content[16:])
        digest, tensors = content[:16].decode(), load_tensors(content[16:])
        if {k: v.shape[1:] for k, v in tensors.items()} != {
            k: v.shape[1:] for k, v in fresh.items()
        }:
            raise SnowdropError(f"{self._path(training, number)} holds heads of another shape")
        if digest == data.users_digest:
            return tensors
        known = json.loads(read_checked(folder / f"users-{digest}.json"))
        row = {user: k for k, user in enumerate(known)}
        places = np.array([row.get(user, -1) for user in data.users], dtype=np.int64)
        return rearranged(tensors, fresh, places)

    def drop_from(self, training: str, number: int) -> None:
        """Delete this training's states of round ``number`` and later ones."""
        for kept in self.rounds(training):
            if kept >= number:
                self._path(training, kept).unlink()

    def save(self, training: str, number: int, data: NodeInteractions, state: State) -> None:
        """Keep the state after a round."""
        self._write(training, number, data.users, data.users_digest, state)

    def _write(
        self, training: str, number: int, users: Sequence[str], digest: str, state: State
    ) -> None:
        self._save_users(self._training(training) / f"users-{digest}.json", users)
        tensors = {name: tensor.contiguous() for name, tensor in state.items()}
        content = save_tensors(tensors, metadata={"format": str(FORMAT)})
        write_checked(self._path(training, number), digest.encode() + content)

    def _save_users(self, path: Path, users: Sequence[str]) -> None:
        if path.exists():
            with suppress(SnowdropError):
                read_checked(path)
                return
        write_checked(path, json.dumps(users).encode())

    def forget(self, user: str) -> bool:
        """Delete what is kept of one user in every training; whether there was anything.

        A state that is damaged is deleted as a whole, since the user may be in it.

        Raises
        ------
        FormatError
            If a later release wrote a state.
        """
        found = False
        for training in self._trainings():
            for number in self.rounds(training):
                found |= self._forget_in(training, number, user)
            self._drop_unused_users(training)
        return found

    def _forget_in(self, training: str, number: int, user: str) -> bool:
        path = self._path(training, number)
        try:
            content = read_checked(path)
            _check_format(path, content[16:])
            digest = content[:16].decode()
            known = json.loads(read_checked(self._training(training) / f"users-{digest}.json"))
        except FormatError:
            raise
        except SnowdropError:
            path.unlink()
            return False
        if user not in known:
            return False
        places = np.array([k for k, name in enumerate(known) if name != user], dtype=np.int64)
        staying = tuple(known[k] for k in places)
        if not staying:
            path.unlink()
            return True
        state = only(load_tensors(content[16:]), places)
        self._write(training, number, staying, digest_of(staying), state)
        return True

    def forget_all(self) -> None:
        """Delete all users' state, the catalogues and the secret."""
        shutil.rmtree(self.folder / "trainings", ignore_errors=True)
        for path in [self.folder / "secret", *self.folder.glob("catalogue-*.json")]:
            path.unlink(missing_ok=True)

    def _trainings(self) -> list[str]:
        folder = self.folder / "trainings"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def prune(self, training: str, keep: int, best: int) -> None:
        """Delete all but the last ``keep`` rounds and the best one, and trainings long unused.

        Where this node was not asked in the best round, its last state before that round is kept.
        """
        kept = self.rounds(training)
        of_best = max((number for number in kept if number <= best), default=0)
        for number in kept[:-keep]:
            if number != of_best:
                self._path(training, number).unlink()
        self._drop_unused_users(training)
        folder = self._training(training)
        others = [path for path in folder.parent.iterdir() if path.name != training]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for other in others[_OTHER_TRAININGS:]:
            shutil.rmtree(other, ignore_errors=True)

    def _drop_unused_users(self, training: str) -> None:
        used = {self._users_of(self._path(training, number)) for number in self.rounds(training)}
        for path in self._training(training).glob("users-*.json"):
            if path.stem not in used:
                path.unlink()

    def _users_of(self, path: Path) -> str:
        with path.open("rb") as file:
            return f"users-{file.read(16).decode(errors='replace')}"

    def _training(self, training: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{16,64}", training):
            raise SnowdropError("the training's id is malformed")
        return self.folder / "trainings" / training

    def _path(self, training: str, number: int) -> Path:
        return self._training(training) / f"round-{number:06d}.state"


def _check_format(path: Path, content: bytes) -> None:
    """Refuse a state that a later release wrote; a file without a format number has format 1."""
    length = int.from_bytes(content[:8], "little")
    told = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    check_format(path, int(told.get("format", 1)), FORMAT)


@lru_cache(maxsize=CACHED_NODES)
def _read_index(path: Path) -> ItemIndex:
    content = json.loads(read_checked(path))
    return _one_index(tuple(content["ids"]), tuple(content["splits"]))


@lru_cache(maxsize=8)
def _one_index(ids: tuple[str, ...], splits: tuple[str, ...]) -> ItemIndex:
    """The same object for all nodes of this process, which keeps what was computed from it."""
    return ItemIndex(ids, splits)
