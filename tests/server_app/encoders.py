"""Text encoders that need no model, registered for the tests of the server."""

import hashlib
from collections.abc import Sequence

import numpy as np

from common import demo
from server_app.modality import register_text_encoder

THEMES, HASHED = "themes", "hashed"
"""Names of the two encoders."""

encoded: list[str] = []
"""Texts that `Hashed` was asked for, in order; tests clear it."""


class Themes:
    """A centre for each theme of the demo data, and a little noise, float32 (texts, 24)."""

    identity = ""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return theme_features(texts)


class Hashed:
    """Numbers that depend on the text alone, float32 (texts, 16); they are cached."""

    identity = HASHED

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        encoded.extend(texts)
        return hashed_features(texts)


def theme_features(texts: Sequence[str]) -> np.ndarray:
    """What the encoder `Themes` makes; the texts must be titles of `tests.conftest.data_folder`."""
    titles = [title for title, _ in demo.demo_texts(80, seed=0)]
    theme_of = dict(zip(titles, demo.item_themes(80, seed=0), strict=True))
    centres = np.random.default_rng(11).normal(size=(len(demo.THEMES), 24))
    noise = np.stack([_numbers(text, 24) for text in texts])
    return (centres[[theme_of[text] for text in texts]] + 0.3 * noise).astype(np.float32)


def hashed_features(texts: Sequence[str]) -> np.ndarray:
    """What the encoder `Hashed` makes."""
    return np.stack([_numbers(text, 16) for text in texts]).astype(np.float32)


def _numbers(text: str, count: int) -> np.ndarray:
    seed = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
    return np.random.default_rng(seed).normal(size=count)


register_text_encoder(THEMES, lambda settings, device: Themes())
register_text_encoder(HASHED, lambda settings, device: Hashed())
