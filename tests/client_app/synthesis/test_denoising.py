"""What synthesizers that denoise whole rows do alike: stop, go on, and answer bad input."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client_app.synthesis import loop, synthesizer_of
from client_app.synthesis.base import Synthesizer
from client_app.synthesis.silo import Silo
from common.errors import OverflowedError, SnowdropError
from common.methods.codigem import CODIGEMSettings
from common.methods.denoising import DenoisingSettings
from common.methods.diffrec import DiffRecSettings
from tests.client_app.silos import (
    StoppedError,
    blocks,
    equal,
    kinds_of,
    share_of_one_block,
    silo_of,
    stop_at,
)

SMALL: dict[str, DenoisingSettings] = {
    "diffrec": DiffRecSettings(
        epochs=30, batch=20, hidden=16, steps=3, held_out=0, noise_scale=1, noise_max=0.5, lr=1e-2
    ),
    "codigem": CODIGEMSettings(
        epochs=30, batch=20, width=16, layers=1, beta=0.3, held_out=0, lr=1e-2
    ),
}


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(name: str, items: int = 20, **changes: object) -> Synthesizer:
    return synthesizer_of(name, SMALL[name].model_copy(update=changes), items)


def test_it_learns_two_kinds_of_users(name: str) -> None:
    silo = blocks()
    method = made(name, epochs=60)
    method.fit(silo, 1)
    sample = method.sample(60, 2)
    assert sample.likes.shape == sample.dislikes.shape == (60, 20)
    assert sample.likes.nnz == pytest.approx(silo.likes.nnz, rel=0.01)
    assert share_of_one_block(sample) > 0.8
    assert kinds_of(sample) == {True, False}
    assert not (sample.likes.toarray() & sample.dislikes.toarray()).any()


def test_cells_are_filled_as_ratings_are_where_that_is_asked_for(name: str) -> None:
    silo = blocks()
    method = made(name, fill="rated")
    method.fit(silo, 1)
    assert method.sample(60, 2).likes.nnz == pytest.approx(silo.rated.nnz, rel=0.01)


def test_same_seed_same_users(name: str) -> None:
    samples = []
    for training, sampling in ((1, 2), (1, 2), (1, 3), (4, 2)):
        method = made(name, epochs=5)
        method.fit(blocks(), training)
        torch.rand(training + sampling)  # what is drawn elsewhere changes nothing
        samples.append(method.sample(50, sampling))
    assert equal(samples[0], samples[1])
    assert not equal(samples[0], samples[2])
    assert not equal(samples[0], samples[3])
    assert equal(samples[3], method.sample(50, 2))


def test_a_stopped_training_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SECONDS", 0.0)
    monkeypatch.setattr(loop, "_SHARE", 0)
    whole = made(name, held_out=0.2)
    whole.fit(blocks(), 1)
    with pytest.raises(StoppedError):
        made(name, held_out=0.2).fit(blocks(), 1, stop_at("denoiser", 7), tmp_path)
    again = made(name, held_out=0.2)
    told: list[float] = []
    again.fit(blocks(), 1, lambda _, done, __: told.append(done), tmp_path)
    assert told[0] == 7
    assert equal(whole.sample(30, 0), again.sample(30, 0))


def test_it_stops_when_watched_users_gain_nothing(name: str) -> None:
    silo = blocks()
    others = blocks(users=10, seed=5).likes
    told: list[float] = []
    method = made(name, stop_on="watched", patience=2, epochs=400)
    method.fit(Silo(silo.likes, silo.rated, others), 1, lambda _, done, __: told.append(done))
    assert max(told[:-1]) < 300
    told.clear()
    method = made(name, stop_on="watched", patience=2, epochs=40)
    method.fit(silo, 1, lambda _, done, __: told.append(done))  # nobody to watch, nobody held out
    assert told == [*range(40), 40]


def test_bad_input_is_one_sentence(name: str) -> None:
    with pytest.raises(SnowdropError, match=f"{name} has not been fitted"):
        made(name).sample(3, 0)
    with pytest.raises(SnowdropError, match="the silo has 0 users"):
        made(name).fit(silo_of(np.zeros((0, 20), dtype=bool)), 0)
    with pytest.raises(OverflowedError, match="lower the learning rate"):
        made(name, lr=1e30).fit(blocks(), 0)
    method = made(name, epochs=1)
    method.fit(blocks(), 0)
    with pytest.raises(SnowdropError, match="0 synthetic users cannot be made"):
        method.sample(0, 0)


def test_one_item_is_enough(name: str) -> None:
    method = made(name, items=1)
    method.fit(silo_of(np.array([[True], [False], [True]])), 0)
    assert method.sample(6, 0).likes.shape == (6, 1)
