"""TF-IDF profile: nodes get the cosines of items' words to those of warm items."""

from collections.abc import Sequence

from common.methods.tfidf_profile import TfidfProfileSettings
from server_app import kernels
from server_app.methods.base import Rule, Scoring


class TfidfProfile(Rule[TfidfProfileSettings]):
    """Needs no training; the vocabulary is that of the warm items."""

    def scoring(self, splits: Sequence[str]) -> Scoring:
        rows, texts = self.world.rows("warm"), self.world.catalogue.texts
        stop_words = None if self.own.stop_words == "none" else self.own.stop_words
        words = kernels.word_features(texts, rows, self.own.pairs, stop_words)
        weights = kernels.tfidf_weights(words, rows, self.world.rows(splits))
        return Scoring("weights", {"weights": weights})
