"""TF-IDF profile: cosine of a cold item's words to the mean of the user's items' words."""

from typing import Literal

from common.methods.card import Card, MethodSettings
from common.methods.search import OneOf
from common.roles import setting


class TfidfProfileSettings(MethodSettings):
    """The words that are counted."""

    pairs: bool = setting(True, "count pairs of neighbouring words beside single words")
    stop_words: Literal["english", "none"] = setting(
        "english", "language whose most frequent words are left out"
    )


CARD = Card(
    name="tfidf-profile",
    title="TF-IDF profile",
    kind="rule",
    server="server_app.methods.tfidf_profile:TfidfProfile",
    settings=TfidfProfileSettings,
    # The defaults were chosen on validation items of amazon-office, movielens and citeulike
    # together: 38.55, 18.39 and 41.63 % Recall@20.
    search={
        "tfidf-profile.pairs": OneOf([True, False]),
        "tfidf-profile.stop_words": OneOf(["english", "none"]),
    },
    order=220,
)
