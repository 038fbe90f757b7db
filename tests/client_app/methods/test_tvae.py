"""TVAE: its loss against the package's, and what it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client_app.methods.tvae import unlikelihood
from client_app.synthesis import loop, synthesizer_of
from client_app.synthesis.multivae import divergence
from client_app.synthesis.tabular import Table
from common.errors import OverflowedError, SnowdropError
from common.methods.tvae import TVAESettings
from tests.client_app.silos import (
    StoppedError,
    blocks,
    equal,
    kinds_of,
    share_of_one_block,
    silo_of,
    stop_at,
)

SMALL = TVAESettings(epochs=40, batch=20, latent=8, width=32, lr=5e-3)


def test_the_loss_is_the_packages() -> None:
    tvae = pytest.importorskip("ctgan.synthesizers.tvae")
    spans = pytest.importorskip("ctgan.data_transformer")
    table = Table.of(blocks(), torch.device("cpu"))
    real = table.encoded(torch.arange(12))
    made = torch.randn(real.shape)
    mean, log_variance = torch.randn(12, 4), torch.randn(12, 4)
    info = [[spans.SpanInfo(size, "softmax")] for size in table.sizes]
    losses = tvae._loss_function(made, real, None, mean, log_variance, info, 2.0)
    assert float(2 * unlikelihood(table, made, real).mean()) == pytest.approx(float(losses[0]))
    assert float(divergence(mean, log_variance).mean()) == pytest.approx(float(losses[1]))


def test_it_learns_two_kinds_of_users() -> None:
    silo = blocks()
    method = synthesizer_of("tvae", SMALL, 20)
    method.fit(silo, 1)
    sample = method.sample(50, 2)
    assert sample.likes.shape == sample.dislikes.shape == (50, 20)
    assert sample.likes.dtype == bool
    assert share_of_one_block(sample) > 0.9
    assert kinds_of(sample) == {True, False}
    assert not (sample.likes.toarray() & sample.dislikes.toarray()).any()


def test_same_seed_same_users() -> None:
    samples = []
    for training, sampling in ((1, 2), (1, 2), (1, 3), (4, 2)):
        method = synthesizer_of("tvae", SMALL.model_copy(update={"epochs": 10}), 20)
        method.fit(blocks(), training)
        torch.rand(training + sampling)  # what is drawn elsewhere changes nothing
        samples.append(method.sample(50, sampling))
    assert equal(samples[0], samples[1])
    assert not equal(samples[0], samples[2])
    assert not equal(samples[0], samples[3])
    assert equal(samples[3], method.sample(50, 2))


def test_a_stopped_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_SECONDS", 0.0)
    monkeypatch.setattr(loop, "_SHARE", 0)
    whole = synthesizer_of("tvae", SMALL, 20)
    whole.fit(blocks(), 1)
    with pytest.raises(StoppedError):
        synthesizer_of("tvae", SMALL, 20).fit(blocks(), 1, stop_at("table", 7), tmp_path)
    again = synthesizer_of("tvae", SMALL, 20)
    told: list[float] = []
    again.fit(blocks(), 1, lambda _, done, __: told.append(done), tmp_path)
    assert told[0] == 7
    assert equal(whole.sample(30, 0), again.sample(30, 0))


def test_bad_input_is_one_sentence() -> None:
    method = synthesizer_of("tvae", SMALL, 20)
    with pytest.raises(SnowdropError, match="tvae has not been fitted"):
        method.sample(3, 0)
    with pytest.raises(SnowdropError, match="the silo has 0 users"):
        method.fit(silo_of(np.zeros((0, 20), dtype=bool)), 0)
    with pytest.raises(SnowdropError, match=r"tvae would need about .* 20 items.* tvae.memory"):
        tight = SMALL.model_copy(update={"memory": 1e-5})
        synthesizer_of("tvae", tight, 20).fit(blocks(), 0)
    with pytest.raises(OverflowedError, match="lower the learning rate"):
        steep = SMALL.model_copy(update={"lr": 1e30})
        synthesizer_of("tvae", steep, 20).fit(blocks(), 0)
    method.fit(blocks(), 0)
    with pytest.raises(SnowdropError, match="0 synthetic users cannot be made"):
        method.sample(0, 0)


def test_one_item_is_enough() -> None:
    method = synthesizer_of("tvae", SMALL, 1)
    method.fit(silo_of(np.array([[True], [False], [True]])), 0)
    assert method.sample(5, 0).likes.shape == (5, 1)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ctgan", None)
    with pytest.raises(SnowdropError, match=r"tvae needs the extra 'synthetic': pip install"):
        synthesizer_of("tvae", SMALL, 20).fit(blocks(), 0)
