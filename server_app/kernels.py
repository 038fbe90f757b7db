"""What a server makes of item texts alone, for rankings that need no federation.

A node ranks cold items by its users' own histories (`client_app.history`). For that it needs
either unit features of warm and cold items, or the weights of each cold item on the warm ones.
Everything here is fitted on warm items and reads no interaction.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse import csr_array
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from common.errors import SnowdropError

_LEAST_SPREAD = 1e-5
"""Components that spread less than this share of the widest one are float32 noise."""
_ROWS = 1024


def half_whitened(
    features: np.ndarray, warm_rows: np.ndarray, dim: int, whitening: float
) -> np.ndarray:
    """Principal components of item features, partly whitened, as unit rows.

    Each component is divided by its standard deviation over warm items to the power of
    ``whitening``: 0 is plain PCA, 1 gives every component the same variance, and 0.5 is half
    whitening. Where all components vary, rows equal those of
    `server_app.features.FeatureTransform.embeddings`.

    Parameters
    ----------
    features : ndarray, float32 (items, c)
        Modality features of all items.
    warm_rows : ndarray, int64 (warm,)
        Rows of the warm items: mean and components are fitted on them.
    dim : int
        Components to keep, at least 1.
    whitening : float

    Returns
    -------
    ndarray, float32 (items, k)
        k ≤ ``dim`` components: those in which warm items differ. Where they do not differ at all,
        as with a single warm item, there is one column of zeros.
    """
    warm = features[warm_rows].astype(np.float64)
    kept = min(dim, len(warm) - 1, warm.shape[1])
    if kept < 1:
        return np.zeros((len(features), 1), np.float32)
    with np.errstate(invalid="ignore"):  # shares of no variance, which are not read
        pca = PCA(kept, svd_solver="covariance_eigh").fit(warm)
    spread = np.sqrt(pca.explained_variance_.clip(min=0))
    scores = (features - pca.mean_) @ pca.components_.T
    return _whitened(scores, spread, whitening)


def word_features(
    texts: Sequence[str],
    warm_rows: np.ndarray,
    pairs: bool = True,
    stop_words: str | None = "english",
) -> csr_array:
    """TF-IDF of the words of item texts, as sparse unit rows.

    The vocabulary holds the words, and with ``pairs`` also the pairs of neighbouring words, that
    stand in at least two warm texts. Stop words are taken out before pairs are formed. A term that
    occurs n times in a text counts 1 + log n, times its inverse document frequency among warm texts
    (Salton and Buckley, "Term-weighting approaches in automatic text retrieval", 1988;
    scikit-learn's ``TfidfVectorizer``).

    Parameters
    ----------
    texts : Sequence[str]
        Texts of all items.
    warm_rows : ndarray, int64 (warm,)
    pairs : bool
    stop_words : str or None
        'english' leaves out scikit-learn's list of English function words, which say little of an
        item and make texts alike that are not; None keeps every word.

    Returns
    -------
    csr_array, float32 (items, terms)
        An item without a known term has a row of zeros. Where no two warm texts share a word,
        there is no term, and one column of zeros.
    """
    vectorizer = TfidfVectorizer(
        sublinear_tf=True,
        ngram_range=(1, 2 if pairs else 1),
        min_df=2,
        stop_words=stop_words,
        token_pattern=r"(?u)\b\w+\b",
        dtype=np.float32,
    )
    try:
        vectorizer.fit([texts[row] for row in warm_rows])
    except ValueError:  # what scikit-learn says of an empty vocabulary, and only of that
        return csr_array((len(texts), 1), dtype=np.float32)
    return csr_array(vectorizer.transform(texts))


def latent_words(words: csr_array, warm_rows: np.ndarray, dim: int, whitening: float) -> np.ndarray:
    """Latent semantic analysis of word features, partly whitened, as unit rows.

    A truncated singular value decomposition of the warm items' word features (Deerwester et al.,
    "Indexing by latent semantic analysis", 1990). Each component is divided by its singular value
    to the power of ``whitening``.

    Parameters
    ----------
    words : csr_array, float32 (items, terms)
        From `word_features`.
    warm_rows : ndarray, int64 (warm,)
    dim : int
        Components to keep, at least 1.
    whitening : float

    Returns
    -------
    ndarray, float32 (items, k)
        k ≤ ``dim``. An item without a known term has a row of zeros.
    """
    warm = words[warm_rows]
    kept = min(dim, *warm.shape)
    if not warm.nnz:
        return np.zeros((words.shape[0], 1), np.float32)
    with np.errstate(invalid="ignore"):  # shares of no variance, which are not read
        # A fixed seed: the same texts give the same features in every run.
        svd = TruncatedSVD(kept, n_iter=4, random_state=0).fit(warm)
    return _whitened(svd.transform(words), svd.singular_values_, whitening)


def side_by_side(parts: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    """Several kinds of features of the same items as one unit row for each item.

    The cosine of two items is then the weighted mean of their cosines in each kind, with the
    squares of the weights as weights (where neither has a row of zeros).

    Parameters
    ----------
    parts : Sequence[tuple[float, ndarray]]
        A weight, and unit rows float32 (items, k) or rows of zeros.

    Returns
    -------
    ndarray, float32 (items, Σ k)
    """
    joined = np.concatenate([weight * rows for weight, rows in parts if weight], axis=1)
    return normalize(joined.astype(np.float32, copy=False), copy=False)


def ridge_weights(warm: np.ndarray, cold: np.ndarray, sharpness: float, ridge: float) -> np.ndarray:
    """Each cold item as a weighted sum of warm ones, by kernel ridge regression on features.

    C = ((K + λ I)⁻¹ k)ᵀ, where K holds the kernel exp(sharpness · (cos − 1)) between warm items and
    k that between warm and cold items. A user whose history is x, a 0/1 row over warm items, scores
    cold items by x Cᵀ: the prediction of kernel ridge regression that is fitted to x itself
    (Saunders, Gammerman and Vovk, "Ridge regression learning algorithm in dual variables", 1998).

    The kernel is made and factorised in place, in float32: 4 · warm² bytes, and 4 · warm · cold for
    the weights.

    Parameters
    ----------
    warm : ndarray, float32 (warm, k)
        Unit rows.
    cold : ndarray, float32 (cold, k)
        Unit rows.
    sharpness : float
        Above 0; the larger it is, the less a warm item says of others than its nearest ones.
    ridge : float
        λ, above 0.

    Returns
    -------
    ndarray, float32 (cold, warm)

    Raises
    ------
    SnowdropError
        If ``ridge`` is so small that the kernel matrix cannot be factorised in float32.
    """
    if not len(cold):
        return np.zeros((0, len(warm)), np.float32)
    # Transposed views are in the order that LAPACK wants, so that it works in place.
    own = text_kernel(warm, warm, sharpness).T
    own[np.diag_indices(len(warm))] += np.float32(ridge)
    across = text_kernel(cold, warm, sharpness).T
    try:
        factor = cho_factor(own, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError as error:
        raise SnowdropError(
            f"ridge = {ridge:g} is too small for {len(warm)} warm items: "
            "their kernel matrix cannot be factorised; choose it larger"
        ) from error
    return cho_solve(factor, across, overwrite_b=True, check_finite=False).T


def tfidf_weights(words: csr_array, warm_rows: np.ndarray, cold_rows: np.ndarray) -> np.ndarray:
    """Cosine similarities of cold items to warm ones in word features.

    Their mean over a user's history ranks cold items as the cosine to the mean of the history's
    word features does: the two differ by that mean's length, which is the same for all items.

    Parameters
    ----------
    words : csr_array, float32 (items, terms)
        Unit rows, from `word_features`.
    warm_rows, cold_rows : ndarray, int64 (warm,), (cold,)

    Returns
    -------
    ndarray, float32 (cold, warm)
        Zeros for an item without a known term.
    """
    weights = np.zeros((len(cold_rows), len(warm_rows)), np.float32)
    warm = words[warm_rows].T.tocsr()
    for begin in range(0, len(cold_rows), _ROWS):
        part = words[cold_rows[begin : begin + _ROWS]]
        weights[begin : begin + _ROWS] = (part @ warm).toarray()
    return weights


def text_kernel(left: np.ndarray, right: np.ndarray, sharpness: float) -> np.ndarray:
    """exp(sharpness · (cos − 1)), made with no second copy.

    Parameters
    ----------
    left, right : ndarray, float32 (left, k), (right, k)
        Unit rows.
    sharpness : float

    Returns
    -------
    ndarray, float32 (left, right)
    """
    made = left.astype(np.float32, copy=False) @ right.T.astype(np.float32, copy=False)
    made -= np.float32(1)
    made *= np.float32(sharpness)
    return np.exp(made, out=made)


def _whitened(scores: np.ndarray, spread: np.ndarray, whitening: float) -> np.ndarray:
    """Components (items, k) divided by ``spread`` (k,) to a power, as float32 unit rows."""
    kept = spread > _LEAST_SPREAD * spread.max()
    if not kept.any():
        return np.zeros((len(scores), 1), np.float32)
    return normalize(scores[:, kept] / spread[kept] ** whitening).astype(np.float32)
