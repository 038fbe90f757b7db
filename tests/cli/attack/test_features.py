"""Inversion of embeddings whose relation to features is known."""

import numpy as np
import pytest
import torch

from cli.attack.features import inverted, leakage, parted, standardised


def world(items: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Features, and embeddings that are a linear map of them."""
    rng = np.random.default_rng(0)
    features = standardised(rng.normal(size=(items, 6)))
    return features, (features @ rng.normal(size=(6, 12))).astype(np.float32)


def test_an_invertible_map_is_inverted() -> None:
    features, embeddings = world()
    known, hidden = parted(len(features), 0.3, seed=0)
    found = leakage(features[hidden], inverted(embeddings, features, known, 0)[hidden])
    assert found.cosine > 0.9 and found.pearson > 0.9 and found.mse < 0.2
    assert found.structure < 0.15


def test_embeddings_of_noise_tell_nothing() -> None:
    features, _ = world()
    known, hidden = parted(len(features), 0.3, seed=0)
    noise = np.random.default_rng(1).normal(size=(len(features), 12)).astype(np.float32)
    found = leakage(features[hidden], inverted(noise, features, known, 0)[hidden])
    assert abs(found.cosine) < 0.15
    assert found.mse == pytest.approx(1, abs=0.2)


def test_hidden_features_are_not_read() -> None:
    features, embeddings = world(60)
    known, hidden = parted(60, 0.3, seed=0)
    spoilt = features.copy()
    spoilt[hidden] = np.nan
    torch.manual_seed(7)
    made = inverted(embeddings, spoilt, known, 0)
    assert np.array_equal(made, inverted(embeddings, features, known, 0))
    assert np.isfinite(made).all()


def test_leakage_is_that_of_the_formulas() -> None:
    true = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    made = np.array([[1.0, 1.0], [0.0, 1.0], [-1.0, -1.0]])
    found = leakage(true, made)
    gaps = [0, 1, 0, -1, -2, -2]
    assert found.mse == pytest.approx(np.mean(np.square(gaps)))
    assert found.mae == pytest.approx(np.mean(np.abs(gaps)))
    assert found.cosine == pytest.approx(np.mean([2**-0.5, 1, -1]))
    pearson = [0.0, 1.0, 0.0]  # rows that do not vary have none
    assert found.pearson == pytest.approx(np.mean(pearson))
    before, after = [0, 2**-0.5, 2**-0.5], [2**-0.5, -1, -(2**-0.5)]
    assert found.structure == pytest.approx(np.mean(np.abs(np.subtract(after, before))))


def test_known_and_hidden_items_are_all_items() -> None:
    known, hidden = parted(50, 0.2, seed=3)
    assert len(known) == 10
    assert sorted([*known, *hidden]) == list(range(50))
    assert not np.array_equal(known, parted(50, 0.2, seed=4)[0])
