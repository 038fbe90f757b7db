"""PCA and standardisation of modality features."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.features import FeatureTransform


@pytest.fixture
def warm() -> np.ndarray:
    """float32 (40, 12), of unequal variance and off the origin."""
    rng = np.random.default_rng(0)
    scales = np.linspace(3, 0.2, 12)
    return (rng.normal(size=(40, 12)) * scales + 1.5).astype(np.float32)


def test_embeddings_are_unit_rows_of_pca_scores(warm: np.ndarray) -> None:
    transform = FeatureTransform.fit(warm, RunSettings(dim=5, whitening=0))
    cold = np.random.default_rng(1).normal(size=(7, 12)).astype(np.float32)
    pca = PCA(5).fit(warm.astype(np.float64))
    for features in (warm, cold):
        scores = pca.transform(features.astype(np.float64))
        scores /= np.linalg.norm(scores, axis=1, keepdims=True)
        made = transform.embeddings(torch.from_numpy(features)).numpy()
        signs = np.sign((made * scores).sum(0))
        np.testing.assert_allclose(made * signs, scores, atol=1e-4)


def test_full_whitening_gives_every_dimension_the_same_variance(
    warm: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server_app.features.normalize", lambda scores: scores)
    spreads = {}
    for whitening in (0.0, 0.5, 1.0):
        transform = FeatureTransform.fit(warm, RunSettings(dim=5, whitening=whitening))
        spreads[whitening] = transform.embeddings(torch.from_numpy(warm)).std(0)
    torch.testing.assert_close(spreads[1.0], torch.ones(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(spreads[0.5], spreads[0.0].sqrt(), atol=1e-4, rtol=0)


def test_conditions_are_standardised_by_one_mean_and_scale(warm: np.ndarray) -> None:
    transform = FeatureTransform.fit(warm, RunSettings(dim=5))
    conditions = transform.conditions(torch.from_numpy(warm)).numpy()
    np.testing.assert_allclose(conditions, (warm - warm.mean(0)) / warm.std(), atol=1e-5)
    assert transform.condition_size == 12


def test_conditions_can_be_principal_components(warm: np.ndarray) -> None:
    transform = FeatureTransform.fit(warm, RunSettings(dim=2, condition_dim=6))
    conditions = transform.conditions(torch.from_numpy(warm)).numpy()
    scores = PCA(6).fit_transform(warm.astype(np.float64)) / warm.std()
    signs = np.sign((conditions * scores).sum(0))
    np.testing.assert_allclose(conditions * signs, scores, atol=1e-4)
    assert transform.condition_size == 6


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (RunSettings(dim=13), "dim = 13 exceeds the 12 features of an item's text"),
        (RunSettings(dim=4, condition_dim=20), "condition_dim = 20 exceeds the 12"),
    ],
)
def test_more_dimensions_than_features_are_refused(
    warm: np.ndarray, settings: RunSettings, sentence: str
) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        FeatureTransform.fit(warm, settings)


def test_few_warm_items_leave_dimensions_zero(
    warm: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    few = warm[:5]
    transform = FeatureTransform.fit(few, RunSettings(dim=7, condition_dim=6))
    small = FeatureTransform.fit(few, RunSettings(dim=4, condition_dim=4))
    features = torch.from_numpy(warm)
    for made, kept, columns in (
        (transform.embeddings(features), small.embeddings(features), 7),
        (transform.conditions(features), small.conditions(features), 6),
    ):
        assert made.shape == (len(warm), columns)
        assert torch.equal(made[:, :4], kept)
        assert not made[:, 4:].any()
    assert transform.condition_size == 6
    assert "dim = 7, but 5 warm items have no more than 4 principal components" in caplog.text


def test_a_random_table_may_be_wider_than_the_features(warm: np.ndarray) -> None:
    transform = FeatureTransform.fit(warm, RunSettings(dim=32, table_start="random"))
    assert transform.components.shape == (12, 12)


def test_state_round_trip(warm: np.ndarray) -> None:
    transform = FeatureTransform.fit(warm, RunSettings(dim=5, condition_dim=4, whitening=0.3))
    again = FeatureTransform(**transform.state())
    features = torch.from_numpy(warm)
    assert torch.equal(again.embeddings(features), transform.embeddings(features))
    assert torch.equal(again.conditions(features), transform.conditions(features))
