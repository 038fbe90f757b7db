"""CTGAN: its activation and loss against the package's, and what it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from client_app.methods.ctgan import condition_loss, numpy_seeded
from client_app.synthesis import loop, synthesizer_of
from client_app.synthesis.tabular import Table
from common.errors import OverflowedError, SnowdropError
from common.methods.ctgan import CTGANSettings
from tests.client_app.silos import (
    StoppedError,
    blocks,
    equal,
    kinds_of,
    share_of_one_block,
    silo_of,
    stop_at,
)

SMALL = CTGANSettings(
    epochs=3, batch=40, latent=8, generator_width=16, discriminator_width=16, pac=4
)
LEARNING = SMALL.model_copy(
    update={"epochs": 150, "generator_lr": 5e-3, "discriminator_lr": 5e-3,
            "generator_width": 32, "discriminator_width": 32}
)  # fmt: skip


def test_the_conditional_loss_is_the_packages() -> None:
    package = pytest.importorskip("ctgan")
    spans = pytest.importorskip("ctgan.data_transformer")
    table = Table.of(blocks(), torch.device("cpu"))
    columns = np.random.default_rng(0).integers(0, len(table.sizes), 9)
    starts = np.cumsum([0, *table.sizes[:-1]])
    wanted, mask = torch.zeros(9, table.categories), torch.zeros(9, len(table.sizes))
    for row, column in enumerate(columns):
        wanted[row, starts[column] + row % table.sizes[column]] = 1
        mask[row, column] = 1
    logits = torch.randn(9, table.categories)
    model = package.CTGAN()
    model._transformer = spans.DataTransformer()
    model._transformer.output_info_list = [
        [spans.SpanInfo(size, "softmax")] for size in table.sizes
    ]
    expected = model._cond_loss(logits, wanted, mask)
    assert float(condition_loss(table, logits, wanted)) == pytest.approx(float(expected))


def test_it_learns_two_kinds_of_users() -> None:
    method = synthesizer_of("ctgan", LEARNING, 20)
    method.fit(blocks(), 1)
    sample = method.sample(100, 2)
    assert sample.likes.shape == sample.dislikes.shape == (100, 20)
    assert share_of_one_block(sample) > 0.75
    assert kinds_of(sample) == {True, False}
    assert not (sample.likes.toarray() & sample.dislikes.toarray()).any()


def test_same_seed_same_users() -> None:
    samples = []
    for training, sampling in ((1, 2), (1, 2), (1, 3), (4, 2)):
        method = synthesizer_of("ctgan", SMALL, 20)
        method.fit(blocks(), training)
        np.random.random(training + sampling)  # what is drawn elsewhere changes nothing
        torch.rand(training + sampling)
        samples.append(method.sample(50, sampling))
    assert equal(samples[0], samples[1])
    assert not equal(samples[0], samples[2])
    assert not equal(samples[0], samples[3])
    assert equal(samples[3], method.sample(50, 2))


def test_numpys_randomness_elsewhere_goes_on_undisturbed() -> None:
    np.random.seed(5)
    expected = np.random.random(4).tolist()
    np.random.seed(5)
    found = np.random.random(2).tolist()
    method = synthesizer_of("ctgan", SMALL, 20)
    method.fit(blocks(), 1)
    method.sample(4, 1)
    assert [*found, *np.random.random(2)] == expected
    torch.manual_seed(3)
    with numpy_seeded():
        one = np.random.random()
    torch.manual_seed(3)
    with numpy_seeded():
        assert np.random.random() == one
    with numpy_seeded():
        assert np.random.random() != one


def test_a_stopped_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_SECONDS", 0.0)
    monkeypatch.setattr(loop, "_SHARE", 0)
    whole = synthesizer_of("ctgan", SMALL, 20)
    whole.fit(blocks(), 1)
    with pytest.raises(StoppedError):
        synthesizer_of("ctgan", SMALL, 20).fit(blocks(), 1, stop_at("table", 2), tmp_path)
    again = synthesizer_of("ctgan", SMALL, 20)
    told: list[float] = []
    again.fit(blocks(), 1, lambda _, done, __: told.append(done), tmp_path)
    assert told[0] == 2
    assert equal(whole.sample(30, 0), again.sample(30, 0))


def test_more_users_than_a_batch_come_in_batches() -> None:
    method = synthesizer_of("ctgan", SMALL, 20)
    method.fit(blocks(), 1)
    told: list[tuple[str, float, float]] = []
    sample = method.sample(100, 3, lambda *now: told.append(now))
    assert told == [("rows", at, 100) for at in (0, 40, 80, 100)]
    assert np.array_equal(sample.likes.toarray()[:40], method.sample(40, 3).likes.toarray())


def test_wide_tables_are_refused_before_they_fill_the_memory() -> None:
    """The generator's last layer alone has as many weights as categories squared."""
    users, items = 6, 8582
    likes = np.random.default_rng(0).random((users, items)) < 0.5
    with pytest.raises(SnowdropError, match=r"ctgan would need about \d+\.\d GB for 8582 items"):
        synthesizer_of("ctgan", CTGANSettings(), items).fit(silo_of(likes), 0)


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(ValidationError, match=r"must be a multiple of ctgan\.pac = 10"):
        CTGANSettings(batch=105)
    with pytest.raises(ValidationError, match="must be 2 or more"):
        CTGANSettings(batch=1, pac=1)
    with pytest.raises(SnowdropError, match="the silo has 3 users, 20 items and 0 likes"):
        synthesizer_of("ctgan", SMALL, 20).fit(silo_of(np.zeros((3, 20), dtype=bool)), 0)
    with pytest.raises(OverflowedError, match="lower the learning rate"):
        steep = SMALL.model_copy(update={"generator_lr": 1e30, "epochs": 9})
        synthesizer_of("ctgan", steep, 20).fit(blocks(), 0)
