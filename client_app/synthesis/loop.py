"""Trainings in epochs that can be stopped at any time, and go on as if they had not been."""

import copy
import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from client_app.synthesis.base import Watch
from client_app.synthesis.silo import Silo
from common.durable import read_checked, write_checked
from common.errors import OverflowedError, SnowdropError
from common.methods import MethodSettings
from common.roles import Role, fields_with

FORMAT = 1
"""Of the file that a training keeps."""

FILE = "training.state"

_SECONDS = 5.0
"""Least time between two writes of the file."""

_SHARE = 20
"""Writing takes at most one of so many parts of the time."""


def check_silo(silo: Silo) -> None:
    """Raise a SnowdropError where a silo has nothing to learn from."""
    users, items = silo.likes.shape
    if not users or not items or not silo.likes.nnz:
        raise SnowdropError(
            f"the silo has {users} users, {items} items and {silo.likes.nnz} likes: there is "
            "nothing to make synthetic users from"
        )


Losses = Callable[[Tensor, int], Tensor]
"""Losses of some users, float32 (users,), or their mean, from the users' rows, int64 (users,), and
the number of updates before."""


def epoch(
    users: int, batch: int, number: int, losses: Losses, optimizer: torch.optim.Optimizer
) -> float:
    """One pass over users in random order, in batches; returns the mean loss.

    Parameters
    ----------
    users, batch : int
    number : int
        Passes before this one.
    losses : Losses
    optimizer : torch.optim.Optimizer
    """
    device = optimizer.param_groups[0]["params"][0].device
    batches = math.ceil(users / batch)
    total = torch.zeros((), device=device)
    for at, chosen in enumerate(torch.randperm(users, device=device).split(batch)):
        loss = losses(chosen, number * batches + at).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(chosen)
    return float(total) / users


@contextmanager
def seeded(seed: int, purpose: str, device: torch.device) -> Iterator[None]:
    """All of torch's randomness within comes from the seed and the purpose.

    What was drawn outside goes on afterwards as if nothing had been drawn within.
    """
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:8], "little"))
        yield


def digest_of(name: str, settings: MethodSettings, silo: Silo, seed: int) -> str:
    """What a training is known by: its method, identifying settings, silo and seed."""
    values = settings.model_dump(mode="json")
    told = {key: values[key] for key in fields_with(type(settings), Role.IDENTITY)}
    digest = hashlib.sha256(json.dumps([name, told, seed], sort_keys=True).encode())
    for matrix in (silo.likes, silo.rated, silo.watched):
        for part in _parts(matrix):
            digest.update(part.tobytes())
    return digest.hexdigest()


def _parts(matrix: csr_array | None) -> list[np.ndarray]:
    if matrix is None:
        return [np.zeros(1, dtype=np.int64)]
    return [np.asarray(part, np.int64) for part in (matrix.shape, matrix.indptr, matrix.indices)]


class Keeper:
    """Keeps on disk how far a training is, in a folder; without one it keeps nothing.

    Parameters
    ----------
    folder : Path, optional
        What another training left there is not read, and replaced.
    digest : str
        Of `digest_of`.

    Raises
    ------
    SnowdropError
        If the file that is there is damaged, or a later release wrote it.
    """

    def __init__(self, folder: Path | None, digest: str) -> None:
        self._path = folder / FILE if folder else None
        self._digest = digest
        self._due = time.monotonic() + _SECONDS
        self._stages: dict[str, Any] = self._read()

    def _read(self) -> dict[str, Any]:
        if self._path is None or not self._path.exists():
            return {}
        state = torch.load(io.BytesIO(read_checked(self._path)), weights_only=True)
        if state["format"] > FORMAT:
            raise SnowdropError(f"{self._path} is of a later release; update Snowdrop to go on")
        same = state["digest"] == self._digest and state["format"] == FORMAT
        return dict(state["stages"]) if same else {}

    def stage(self, name: str) -> dict[str, Any] | None:
        """What was kept of a stage of the training."""
        return self._stages.get(name)

    @property
    def due(self) -> bool:
        """Whether it is time to keep a state."""
        return self._path is not None and time.monotonic() >= self._due

    def keep(self, name: str, state: dict[str, Any]) -> None:
        """Keep the state of a stage of the training."""
        if self._path is None:
            return
        begin = time.monotonic()
        self._stages[name] = state
        content = io.BytesIO()
        torch.save({"format": FORMAT, "digest": self._digest, "stages": self._stages}, content)
        write_checked(self._path, content.getvalue())
        took = time.monotonic() - begin
        self._due = time.monotonic() + max(_SECONDS, _SHARE * took)


@dataclass(eq=False)
class Stage:
    """One network's training.

    Parameters
    ----------
    name : str
        What is being done, as a `Watch` is told.
    network : nn.Module
    optimizer : torch.optim.Optimizer
    epochs : int
        Most passes.
    epoch : Callable[[int], float]
        One pass over the users, by its number from 0; returns its mean loss. All of its randomness
        is torch's.
    score : Callable[[], float], optional
        How good the network is, after each epoch; the larger the better. The best network is kept.
    patience : int
        Epochs without a better score after which it ends.
    """

    name: str
    network: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: int
    epoch: Callable[[int], float]
    score: Callable[[], float] | None = None
    patience: int = 0


@dataclass
class _Best:
    """The best network so far."""

    score: float = -math.inf
    epoch: int = -1
    weights: dict[str, Tensor] | None = None


def run(stage: Stage, keeper: Keeper, seed: int, device: torch.device, watch: Watch) -> None:
    """Train a network, from where it was kept or from the start; it is left in ``eval`` mode.

    Raises
    ------
    SnowdropError
        If its loss overflows, or its state cannot be kept.
    """
    kept = keeper.stage(stage.name)
    network, best, done = stage.network, _Best(), 0
    with seeded(seed, stage.name, device), torch.enable_grad():
        if kept is not None:
            network.load_state_dict(kept["network"])
            if kept["finished"]:
                network.eval()
                return
            stage.optimizer.load_state_dict(kept["optimizer"])
            best, done = _Best(**kept["best"]), kept["done"]
            _set_random_state(kept["random_state"], device)
        while done < stage.epochs:
            watch(stage.name, done, stage.epochs)
            network.train()
            if not math.isfinite(stage.epoch(done)):
                raise OverflowedError(
                    f"the loss overflows ({stage.name}, pass {done + 1}): lower the learning rate"
                )
            done += 1
            if stage.score is not None:
                network.eval()
                score = stage.score()
                if score > best.score:
                    best = _Best(score, done, copy.deepcopy(network.state_dict()))
                elif done - best.epoch >= stage.patience:
                    break
            if keeper.due:
                keeper.keep(stage.name, _state(stage, best, done, device))
        if best.weights is not None:
            network.load_state_dict(best.weights)
        network.eval()
        keeper.keep(stage.name, {"finished": True, "network": network.state_dict()})
    watch(stage.name, stage.epochs, stage.epochs)


def _state(stage: Stage, best: _Best, done: int, device: torch.device) -> dict[str, Any]:
    return {
        "finished": False,
        "network": stage.network.state_dict(),
        "optimizer": stage.optimizer.state_dict(),
        "best": vars(best),
        "done": done,
        "random_state": _random_state(device),
    }


def _random_state(device: torch.device) -> list[Tensor]:
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]


def _set_random_state(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
