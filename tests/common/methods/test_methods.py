"""How methods are named and found, those of other packages among them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from common import methods
from common.errors import SnowdropError
from common.methods import Card, Named, load


@pytest.mark.parametrize(
    ("text", "name", "variant", "form"),
    [
        ("mdifffr", "mdifffr", "", ""),
        (" mdifffr ", "mdifffr", "", ""),
        ("mdifffr:light", "mdifffr", "light", ""),
        ("mdifffr:paper", "mdifffr", "", "paper"),
        ("mdifffr:light:tuned", "mdifffr", "light", "tuned"),
        ("ridge:frozen:paper", "ridge", "frozen", "paper"),
        ("snowdrop", "mixture", "", ""),
        ("snowdrop:frozen", "mixture", "frozen", ""),
        ("light-mdifffr:paper", "mdifffr", "light", "paper"),
        ("no-guidance", "mdifffr", "no-guidance", ""),
    ],
)
def test_a_method_as_it_is_written(text: str, name: str, variant: str, form: str) -> None:
    named = Named.parse(text)
    assert (named.card.name, named.variant, named.form) == (name, variant, form)
    again = Named.parse(named.name)
    assert (again.card, again.variant) == (named.card, named.variant)
    assert again.form == ("paper" if form == "paper" else "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nobody", "method 'nobody' is unknown; choose from one-round, softmax-table"),
        ("one-rond", r"'one-rond' is unknown \(did you mean 'one-round'\?\); choose from"),
        ("", "method '' is unknown"),
        (":frozen", "method '' is unknown"),
        ("mdifffr:heavy", "'mdifffr:heavy': 'heavy' is no variant of mdifffr; after ':' comes one"),
        ("mdifffr:", "'' is no variant of mdifffr"),
        ("mdifffr:forzen", r"no variant of mdifffr \(did you mean 'frozen'\?\); after ':' comes"),
        ("mdifffr:light:frozen", "'frozen' is no variant of mdifffr; after"),
        ("mdifffr:paper:light", "'light' is no variant"),
        ("mdifffr:paper:tuned", "'tuned' is no variant"),
        ("light-mdifffr:frozen", "'frozen' is no variant"),
        ("content-profile:frozen", "'frozen' is no variant of content-profile; .* paper, tuned"),
        ("ridge:light", "'light' is no variant of ridge"),
    ],
)
def test_what_names_no_method_is_told_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence) as caught:
        Named.parse(text)
    assert "\n" not in str(caught.value)


@dataclass
class Point:
    """An entry point of another package."""

    name: str
    brought: Any
    value: str = "package.card:CARD"

    def load(self) -> Any:
        if isinstance(self.brought, Exception):
            raise self.brought
        return self.brought


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def brought(*points: Point) -> None:
        methods.cards.cache_clear()
        monkeypatch.setattr(
            methods, "entry_points", lambda group: points if group == "snowdrop.methods" else ()
        )

    yield brought
    monkeypatch.undo()
    methods.cards.cache_clear()


def outside(name: str = "outside", order: int = 100) -> Card:
    return Card(name, "Outside", "trained", "package.server:Half", order=order)


def test_a_method_of_another_package_is_one_like_all(bring: Any) -> None:
    first = outside("first", order=1)
    bring(Point("outside", outside()), Point("first", first))
    names = methods.names()
    assert names[0] == "first"
    assert names.index("own-features") < names.index("outside") < names.index("random")
    assert methods.card("first") is first
    assert Named.parse("outside:frozen").variant == "frozen"


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (
            [Point("ridge", outside("ridge"))],
            r"method 'ridge' of another package \(package.card:CARD\) has a name that is in use",
        ),
        ([Point("outside", outside()), Point("outside", outside())], "has a name that is in use"),
        ([Point("outside", outside("inside"))], "'outside' of snowdrop.methods must load to the"),
        ([Point("outside", 3)], "must load to the Card of a method of that name"),
        (
            [Point("outside", ImportError("no module"))],
            "the method 'outside' of another package cannot be loaded from package.card:CARD: no",
        ),
    ],
)
def test_a_method_that_cannot_be_had_is_told_in_one_sentence(
    bring: Any, points: list[Point], sentence: str
) -> None:
    bring(*points)
    with pytest.raises(SnowdropError, match=sentence) as caught:
        methods.cards()
    assert "\n" not in str(caught.value)


def test_halves_are_loaded_by_name() -> None:
    assert load("common.methods.card:Card") is Card
    for path in ("no.such.module:A", "common.methods.card:Nobody", "common.methods.card"):
        with pytest.raises(SnowdropError, match="cannot be imported"):
            load(path)
