"""Synthesizers as they are written, with their settings."""

from typing import Any

import pytest

from client_app.synthesis import synthesizer_of
from client_app.synthesis.chosen import Chosen
from common.errors import SnowdropError
from tests.synthesizers import Drawn, DrawnSettings

pytestmark = pytest.mark.usefixtures("drawn")


@pytest.mark.parametrize(
    ("text", "changes", "epochs", "copies"),
    [
        ("drawn", None, 2, 0.0),
        ("drawn:tuned", {}, 2, 0.0),
        ("drawn:paper", {}, 5, 0.0),
        ("drawn:copying:paper", {"drawn.sampling": "multi"}, 5, 0.5),
        ("drawn:copying", {"drawn.epochs": 7, "drawn.copies": 0.25}, 7, 0.25),
    ],
)
def test_settings_are_the_form_the_variant_and_what_is_given(
    text: str, changes: dict[str, Any] | None, epochs: int, copies: float
) -> None:
    chosen = Chosen.of(text, changes)
    assert isinstance(chosen.settings, DrawnSettings)
    assert (chosen.settings.epochs, chosen.settings.copies) == (epochs, copies)
    made = synthesizer_of(chosen.named.card.name, chosen.settings, 3)
    assert isinstance(made, Drawn)


@pytest.mark.parametrize(
    ("text", "changes", "sentence"),
    [
        ("ridge", {}, "the method 'ridge' makes no synthetic users; choose from .*drawn"),
        ("", {}, "the method '' makes no synthetic users; choose from .*drawn"),
        ("drown:paper", {}, "the method 'drown' makes no synthetic users; choose from .*drawn"),
        ("drawn", {"drawn.ages": 3}, "unknown setting 'drawn.ages'"),
        ("drawn", {"drawn.epochs": 0}, "setting 'drawn.epochs' is 0"),
        ("drawn", {"rounds": 3}, "setting 'rounds' is none of the method drawn: .* drawn.NAME"),
        ("drawn:other", {}, "'other' is no variant of drawn"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    text: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        Chosen.of(text, changes)
