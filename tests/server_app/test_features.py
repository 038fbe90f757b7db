"""PCA and standardisation of modality features."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from common.errors import SnowdropError
from common.settings import RunSettings
from server_app.features import Blocks, FeatureTransform


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
        (RunSettings(dim=13), "dim = 13 exceeds the 12 features of an item;"),
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


WARM_ROWS = np.array([0, 2, 3, 5, 6, 8])


def two_modalities() -> dict[str, torch.Tensor]:
    """Text and a wider image, of another scale and off the origin; items 3 and 9 have no image."""
    rng = np.random.default_rng(3)
    text, image = rng.normal(1, 2, size=(10, 4)), rng.normal(-3, 40, size=(10, 9))
    image[[3, 9]] = 0
    return {"text": torch.tensor(text).float(), "image": torch.tensor(image).float()}


def test_modalities_stand_side_by_side_with_one_variance() -> None:
    features = two_modalities()
    blocks = Blocks.fit(features, WARM_ROWS, {"image": 0.5, "text": 1.0})
    made = blocks.beside(features).numpy()
    assert made.shape == (10, 13)
    for name, columns, weight in (("image", slice(0, 9), 0.5), ("text", slice(9, 13), 1.0)):
        rows = features[name].numpy().astype(np.float64)
        there = [k for k in WARM_ROWS if rows[k].any()]
        centre = rows[there].mean(0)
        norm = np.sqrt(np.mean([((rows[k] - centre) ** 2).sum() for k in there]))
        for item in range(10):
            expected = weight * (rows[item] - centre) / norm if rows[item].any() else 0 * centre
            np.testing.assert_allclose(made[item, columns], expected, atol=1e-5)


def test_one_modality_is_left_as_it_is() -> None:
    features = two_modalities()
    text = Blocks.fit(features, WARM_ROWS, {"text": 1.0}).beside(features)
    assert text is features["text"]
    image = Blocks.fit(features, WARM_ROWS, {"image": 2.0}).beside(features)
    whole = [k for k in range(10) if k not in (3, 9)]
    assert torch.equal(image[whole], features["image"][whole])
    warm = features["image"][[k for k in WARM_ROWS if k != 3]].mean(0)
    torch.testing.assert_close(image[[3, 9]], warm.expand(2, -1))


def test_scales_stay_those_of_the_first_warm_items() -> None:
    features = two_modalities()
    blocks = Blocks.fit(features, WARM_ROWS, {"text": 1.0, "image": 1.0})
    again = Blocks(**blocks.state())
    grown = {name: torch.cat([rows, 7 * rows[:2]]) for name, rows in features.items()}
    torch.testing.assert_close(again.beside(grown)[:10], blocks.beside(features))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [(0.0, "no warm item has image features"), (2.5, "all warm items have the same image")],
)
def test_a_modality_that_tells_nothing_is_refused(rows: float, sentence: str) -> None:
    features = two_modalities() | {"image": torch.full((10, 3), rows)}
    with pytest.raises(SnowdropError, match=f"{sentence}.*: leave image out of modality"):
        Blocks.fit(features, WARM_ROWS, {"text": 1.0, "image": 1.0})
