"""Trainings that stop, go on, and end early."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

from client_app.synthesis import loop
from client_app.synthesis.base import Watch, unwatched
from client_app.synthesis.loop import Keeper, Stage, check_silo, digest_of, run, seeded
from client_app.synthesis.silo import Silo
from common.errors import OverflowedError, SnowdropError
from common.methods import MethodSettings
from common.roles import Role, setting

CPU = torch.device("cpu")


class StoppedError(Exception):
    """What a watcher raises to stop a training."""


def stop_at(stage: str, done: float) -> Watch:
    def watch(name: str, at: float, total: float) -> None:
        if (name, at) == (stage, done):
            raise StoppedError

    return watch


def noisy(name: str = "fit", epochs: int = 8, scored: bool = False) -> Stage:
    """A network that takes random steps."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)

    def epoch(number: int) -> float:
        loss = (network(torch.randn(4, 3)) - number).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def score() -> float:
        return -float(torch.rand(())) - float(network.weight.detach().square().sum())

    return Stage(name, network, optimizer, epochs, epoch, score if scored else None, 3)


def weights(stage: Stage) -> list[float]:
    return torch.cat([v.detach().flatten() for v in stage.network.parameters()]).tolist()


@pytest.mark.parametrize("scored", [False, True])
def test_a_stopped_training_goes_on_as_if_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scored: bool
) -> None:
    monkeypatch.setattr(loop, "_SECONDS", 0.0)
    monkeypatch.setattr(loop, "_SHARE", 0)
    whole = noisy(scored=scored)
    run(whole, Keeper(None, "a"), 5, CPU, unwatched)
    with pytest.raises(StoppedError):
        run(noisy(scored=scored), Keeper(tmp_path, "a"), 5, CPU, stop_at("fit", 3))
    again = noisy(scored=scored)
    told: list[float] = []
    run(again, Keeper(tmp_path, "a"), 5, CPU, lambda _, done, __: told.append(done))
    assert told[0] == 3
    assert weights(again) == weights(whole)
    assert not again.network.training
    finished = noisy()
    run(finished, Keeper(tmp_path, "a"), 5, CPU, stop_at("fit", 0))
    assert weights(finished) == weights(whole)


def test_another_trainings_state_is_not_read(tmp_path: Path) -> None:
    run(noisy(), Keeper(tmp_path, "a"), 5, CPU, unwatched)
    assert Keeper(tmp_path, "a").stage("fit") is not None
    assert Keeper(tmp_path, "b").stage("fit") is None


def test_a_state_of_a_later_release_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "FORMAT", 2)
    run(noisy(), Keeper(tmp_path, "a"), 5, CPU, unwatched)
    monkeypatch.setattr(loop, "FORMAT", 1)
    with pytest.raises(SnowdropError, match=r"training\.state is of a later release; update"):
        Keeper(tmp_path, "a")


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    (tmp_path / "training.state").write_bytes(b"x" * 100)
    with pytest.raises(SnowdropError, match="is damaged"):
        Keeper(tmp_path, "a")


def test_the_best_network_is_kept_and_patience_ends() -> None:
    scores = iter([1.0, 3.0, 2.0, 3.0, 2.0, 9.0])
    stage = noisy()
    seen: list[list[float]] = []

    def score() -> float:
        seen.append(weights(stage))
        return next(scores)

    stage.score = score
    run(stage, Keeper(None, "a"), 5, CPU, unwatched)
    assert len(seen) == 5  # three passes without a better score than that of the second
    assert weights(stage) == seen[1]


def test_a_loss_that_overflows_is_told() -> None:
    stage = noisy()
    stage.epoch = lambda number: float("nan") if number == 2 else 0.0
    with pytest.raises(OverflowedError, match=r"the loss overflows \(fit, pass 3\): lower"):
        run(stage, Keeper(None, "a"), 5, CPU, unwatched)


def test_seeded_randomness_leaves_that_around_it_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(4, "a", CPU):
        first = torch.rand(2)
    assert torch.equal(torch.rand(3), expected)
    with seeded(4, "a", CPU):
        assert torch.equal(torch.rand(2), first)
    for seed, purpose in ((5, "a"), (4, "b")):
        with seeded(seed, purpose, CPU):
            assert not torch.equal(torch.rand(2), first)


class Some(MethodSettings):
    width: int = setting(1, "of the network", Role.IDENTITY)
    way: str = setting("full", "of sampling")


def test_a_training_is_known_by_what_makes_it() -> None:
    likes = csr_array(np.eye(3, dtype=bool))
    silo = Silo(likes, likes)
    own = digest_of("a", Some(), silo, 1)
    assert digest_of("a", Some(way="multi"), Silo(likes.copy(), likes), 1) == own
    wider = csr_array((likes.data, likes.indices, likes.indptr), shape=(3, 4))
    others = [
        digest_of("b", Some(), silo, 1),
        digest_of("a", Some(width=2), silo, 1),
        digest_of("a", Some(), silo, 2),
        digest_of("a", Some(), Silo(likes, likes, likes), 1),
        digest_of("a", Some(), Silo(likes, csr_array(np.ones((3, 3), dtype=bool))), 1),
        digest_of("a", Some(), Silo(wider, likes), 1),
    ]
    assert len({own, *others}) == 7


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 2)])
def test_a_silo_without_likes_is_told(shape: tuple[int, int]) -> None:
    none = csr_array(shape, dtype=bool)
    with pytest.raises(SnowdropError, match=f"the silo has {shape[0]} users, {shape[1]} items"):
        check_silo(Silo(none, none))
