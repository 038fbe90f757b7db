import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from common.errors import SnowdropError
from common.settings import RunSettings
from server_app import kernels
from server_app.features import FeatureTransform
from server_app.kernels import (
    half_whitened,
    latent_words,
    ridge_weights,
    side_by_side,
    tfidf_weights,
    word_features,
)

WARM = np.array([0, 2, 3, 5, 6, 7, 9])


def random_features(seed: int = 0, items: int = 10, columns: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = np.arange(1, columns + 1)
    return (rng.normal(size=(items, columns)) * spread + 3).astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def random_units(seed: int, items: int, columns: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(items, columns))).astype(np.float32)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dim", [1, 3, 4])
def test_half_whitened_rows_are_those_of_the_item_table(dim: int, whitening: float) -> None:
    features = random_features()
    settings = RunSettings(dim=dim, whitening=whitening, condition_dim=0, table_start="features")
    transform = FeatureTransform.fit(features[WARM], settings)
    expected = transform.embeddings(torch.from_numpy(features)).numpy()
    made = half_whitened(features, WARM, dim, whitening)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made @ made.T, expected @ expected.T, atol=1e-5)


def test_whitened_components_in_closed_form() -> None:
    warm = np.array([[3, 0], [-3, 0], [0, 1], [0, -1]], np.float32)
    features = np.concatenate([warm, [[3, 1]]]).astype(np.float32)
    # Standard deviations √6 and √(2/3), whose ratio is 3: half whitening divides by √3 more.
    made = half_whitened(features, np.arange(4), 2, 0.5)
    expected = unit(np.array([[3 / math.sqrt(3), 1.0]]))[0]
    np.testing.assert_allclose(np.abs(made[4]), expected, atol=1e-6)


def test_components_are_fitted_on_warm_items_alone() -> None:
    features = random_features()
    other = features.copy()
    other[1] += 100
    before, after = half_whitened(features, WARM, 3, 0.5), half_whitened(other, WARM, 3, 0.5)
    np.testing.assert_array_equal(before[WARM], after[WARM])
    assert not np.allclose(before[1], after[1])


@pytest.mark.parametrize("warm", [np.array([4]), np.array([1, 4])])
def test_warm_items_that_do_not_differ_give_zeros(warm: np.ndarray) -> None:
    features = random_features()
    features[warm] = features[4]
    made = half_whitened(features, warm, 3, 0.5)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, np.zeros((10, 1)))


@pytest.mark.parametrize(("warm", "kept"), [(3, 2), (9, 4)])
def test_no_more_components_than_warm_items_and_columns_allow(warm: int, kept: int) -> None:
    assert half_whitened(random_features(), np.arange(warm), 50, 0.0).shape == (10, kept)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_which_components_are_left_out_does_not_hang_on_the_features_scale(scale: float) -> None:
    features = random_features() * np.float32(scale)
    features[:, 0] *= np.float32(1e-3)
    assert half_whitened(features, WARM, 4, 0.5).shape == (10, 4)


def test_a_direction_in_which_warm_items_do_not_differ_is_left_out() -> None:
    features = random_features()
    features[:, 1] = 2
    features[1, 1] = 50  # a cold item; divided by a spread of nothing it would be all that counts
    assert half_whitened(features, WARM, 4, 1.0).shape == (10, 3)


TEXTS = [
    "blue pen",
    "A pen, a PEN",
    "blue ink pen",
    "red ink",
    "a blue pen",
    "pen pen, pen blue",
    "?!",
]


def plain_tfidf(pairs: bool, warm: list[int]) -> tuple[list[str], np.ndarray]:
    words = [t.lower().replace(",", "").split() if t != "?!" else [] for t in TEXTS]
    terms = [w + ([f"{a} {b}" for a, b in pairwise(w)] if pairs else []) for w in words]
    count = {t: sum(t in terms[k] for k in warm) for k in warm for t in terms[k]}
    known = sorted(t for t, n in count.items() if n >= 2)
    rows = np.zeros((len(TEXTS), len(known)))
    for k, own in enumerate(terms):
        for at, term in enumerate(known):
            if times := own.count(term):
                rarity = math.log((1 + len(warm)) / (1 + count[term])) + 1
                rows[k, at] = (1 + math.log(times)) * rarity
    return known, unit(rows)


@pytest.mark.parametrize(
    ("pairs", "terms"),
    [(True, ["a", "blue", "blue pen", "ink", "pen"]), (False, ["a", "blue", "ink", "pen"])],
)
def test_word_features_in_plain_loops(pairs: bool, terms: list[str]) -> None:
    warm = [0, 1, 2, 3, 4]
    known, expected = plain_tfidf(pairs, warm)
    assert known == terms
    made = word_features(TEXTS, np.array(warm), pairs, stop_words=None)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made.toarray(), expected, atol=1e-6)


def test_no_more_than_two_words_make_a_term() -> None:
    assert word_features(["blue ink pen", "blue ink pen"], np.arange(2)).shape == (2, 5)


def test_stop_words_are_left_out_before_pairs_are_formed() -> None:
    texts = ["pen of the ink", "the pen ink", "pen ink", "ink"]
    words = word_features(texts, np.arange(4))
    assert words.shape == (4, 3)  # ink, pen, pen ink
    np.testing.assert_allclose(words[[0]].toarray(), words[[2]].toarray())
    assert word_features(texts, np.arange(4), stop_words=None).shape == (4, 4)  # the


def test_an_item_without_a_known_word_has_zeros() -> None:
    warm, cold = np.array([0, 1, 2]), np.array([3, 6])
    words = word_features(TEXTS, warm)
    assert words[cold].nnz == 0
    assert latent_words(words, warm, 2, 0.5)[cold].any(1).tolist() == [False, False]
    assert not tfidf_weights(words, warm, cold).any()


@pytest.mark.parametrize("texts", [["?!"] * 4, ["red", "blue", "green", "black"]])
def test_texts_without_a_shared_word_give_zeros_and_no_error(texts: list[str]) -> None:
    warm, cold = np.array([0, 1, 3]), np.array([2])
    words = word_features(texts, warm)
    assert words.shape == (4, 1)
    assert words.nnz == 0
    latent = latent_words(words, warm, 3, 0.5)
    assert words.dtype == latent.dtype == np.float32
    np.testing.assert_array_equal(latent, np.zeros((4, 1)))
    np.testing.assert_array_equal(tfidf_weights(words, warm, cold), np.zeros((1, 3)))


def test_a_single_warm_text_shares_no_word() -> None:
    words = word_features(["blue pen", "blue pen"], np.array([0]))
    assert words.nnz == 0


def test_equal_texts_are_all_alike() -> None:
    warm, cold = np.array([0, 1, 2]), np.array([3, 4])
    words = word_features(["blue pen"] * 5, warm)
    np.testing.assert_allclose(tfidf_weights(words, warm, cold), np.ones((2, 3)), atol=1e-6)
    latent = latent_words(words, warm, 3, 1.0)
    np.testing.assert_allclose(latent @ latent.T, np.ones((5, 5)), atol=1e-5)


@pytest.mark.parametrize("whitening", [0.0, 0.5])
def test_latent_words_are_whitened_singular_vectors(whitening: float) -> None:
    dense = np.abs(random_units(3, 12, 6))
    warm = np.arange(8)
    _, s, axes = np.linalg.svd(dense[warm], full_matrices=False)
    expected = unit(dense @ axes[:3].T / s[:3] ** whitening)
    made = latent_words(csr_array(dense), warm, 3, whitening)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made @ made.T, expected @ expected.T, atol=1e-4)


def test_the_same_texts_give_the_same_latent_words() -> None:
    words = csr_array(np.abs(random_units(3, 60, 40)))
    first, second = (latent_words(words, np.arange(50), 3, 0.5) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_latent_words_have_no_more_components_than_words_or_warm_items() -> None:
    dense = np.abs(random_units(3, 12, 6))
    assert latent_words(csr_array(dense), np.arange(8), 50, 0.5).shape == (12, 6)
    assert latent_words(csr_array(dense), np.arange(4), 50, 0.5).shape == (12, 4)


def test_cosines_side_by_side_are_weighted_means() -> None:
    one, two = random_units(1, 5, 3), random_units(2, 5, 4)
    joined = side_by_side([(1.0, one), (0.5, two)])
    np.testing.assert_allclose(
        joined @ joined.T, (one @ one.T + 0.25 * two @ two.T) / 1.25, atol=1e-6
    )
    alone = side_by_side([(2.0, one), (0.0, two)])
    np.testing.assert_allclose(alone, one, atol=1e-6)
    two[3] = 0
    np.testing.assert_allclose(side_by_side([(1.0, one), (0.5, two)])[3, :3], one[3], atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    warm=st.integers(1, 12),
    cold=st.integers(0, 5),
    columns=st.integers(1, 6),
    sharpness=st.floats(0.5, 8),
    ridge=st.floats(0.1, 100),
)
def test_ridge_weights_solve_the_kernel_system(
    warm: int, cold: int, columns: int, sharpness: float, ridge: float
) -> None:
    own, new = random_units(1, warm, columns), random_units(2, cold, columns)
    given_own, given_new = own.copy(), new.copy()
    made = ridge_weights(own, new, sharpness, ridge)
    assert made.dtype == np.float32
    assert made.shape == (cold, warm)
    kernel = np.zeros((warm, warm))
    for a in range(warm):
        for b in range(warm):
            cosine = sum(float(x) * float(y) for x, y in zip(own[a], own[b], strict=True))
            kernel[a, b] = math.exp(sharpness * (cosine - 1)) + (ridge if a == b else 0)
    for row in range(cold):
        across = np.exp(sharpness * (own.astype(np.float64) @ new[row] - 1))
        np.testing.assert_allclose(made[row], np.linalg.solve(kernel, across), atol=2e-4)
    np.testing.assert_array_equal(own, given_own)
    np.testing.assert_array_equal(new, given_new)


def test_the_weight_on_a_single_warm_item_in_closed_form() -> None:
    own, new = np.array([[1, 0]], np.float32), np.array([[0.6, 0.8]], np.float32)
    made = ridge_weights(own, new, sharpness=4, ridge=3)
    np.testing.assert_allclose(made, [[math.exp(4 * (0.6 - 1)) / (1 + 3)]], rtol=1e-6)


def test_a_kernel_that_cannot_be_factorised_is_told() -> None:
    own = np.ones((50, 1), np.float32)
    with pytest.raises(
        SnowdropError,
        match=r"^ridge = 1e-12 is too small for 50 warm items: "
        r"their kernel matrix cannot be factorised; choose it larger$",
    ):
        ridge_weights(own, own[:2], sharpness=4, ridge=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 1024])
def test_tfidf_weights_are_cosines(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_ROWS", rows)
    warm, cold = np.array([0, 1, 2, 4]), np.array([5, 6, 5])
    words = word_features(TEXTS, warm)
    made = tfidf_weights(words, warm, cold)
    assert made.dtype == np.float32
    dense = words.toarray()
    np.testing.assert_allclose(made, dense[cold] @ dense[warm].T, atol=1e-6)
    assert made.any(1).tolist() == [True, False, True]


def test_no_cold_item_has_no_weights_and_nothing_is_factorised() -> None:
    own = np.ones((50, 1), np.float32)
    assert ridge_weights(own, own[:0], sharpness=4, ridge=1e-12).shape == (0, 50)
    warm, none = np.array([0, 1, 2, 4]), np.array([], np.int64)
    words = word_features(TEXTS, warm)
    assert tfidf_weights(words, warm, none).shape == (0, 4)


def test_the_mean_of_tfidf_weights_ranks_as_the_cosine_to_the_mean_profile() -> None:
    dense = np.abs(random_units(3, 30, 6))
    warm, cold = np.arange(20), np.arange(20, 30)
    weights = tfidf_weights(csr_array(dense), warm, cold)
    history = [1, 4, 13]
    profile = dense[history].mean(0)
    cosine = dense[cold] @ profile / np.linalg.norm(profile)
    assert np.argsort(weights[:, history].mean(1)).tolist() == np.argsort(cosine).tolist()
