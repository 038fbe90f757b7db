"""The generated texts."""

import re

from common.demo import demo_texts


def test_articles_go_with_their_nouns() -> None:
    texts = " ".join(text for pair in demo_texts(2000, 0) for text in pair)
    assert not re.search(r"\ba [aeiou]|\ban (?!hour)[^aeiou]", texts)
    assert re.search(r"\ban (outlaw|elephant|orchestra)\b", texts)
