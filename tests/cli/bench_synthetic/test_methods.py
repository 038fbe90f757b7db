"""Rows as they are written, and where their settings come from."""

from pathlib import Path

import pytest

from cli.bench_synthetic.methods import (
    Row,
    choose,
    choose_recommenders,
    read_tuned,
    shared_settings,
)
from common.errors import SnowdropError
from common.methods import Card
from tests.synthesizers import DrawnSettings

pytestmark = pytest.mark.usefixtures("drawn")


def settings_of(text: str, tuned: Path | None = None, **shared: object) -> DrawnSettings:
    files = read_tuned([tuned]) if tuned else {}
    found = Row.parse(text).settings(files, shared, "beauty", "svd")
    assert isinstance(found, DrawnSettings)
    return found


def test_real_users_come_first_and_once() -> None:
    names = [row.name for row in choose("drawn:copying, original,drawn,drawn:copying")]
    assert names == ["original", "drawn:copying", "drawn"]
    assert choose("")[0].settings({}, {}, "", "") is None
    assert choose("")[0].title == "Original"


def test_forms_bring_their_settings() -> None:
    assert settings_of("drawn").epochs == 2
    assert settings_of("drawn:paper").epochs == 5
    assert settings_of("drawn:copying").copies == 0.5
    assert settings_of("drawn@drawn.epochs=9").epochs == 9
    assert Row.parse("drawn:tuned").name == "drawn"
    assert [Row.parse(name).published for name in ("drawn", "drawn:paper", "original")] == [
        False,
        True,
        False,
    ]


TUNED = """
[drawn]
"drawn.epochs" = 10
drawn.copies = 0.1
[svd.drawn]
drawn.epochs = 11
[beauty.drawn]
drawn.epochs = 12
[beauty.svd.drawn]
drawn.epochs = 13
[beauty.svd."drawn:paper"]
drawn.epochs = 14
[beauty.svd."drawn:copying"]
drawn.copies = 0.9
drawn.sampling = "multi"
[beauty.mlp.drawn]
drawn.epochs = 15
[music.svd.drawn]
drawn.epochs = 16
"""


def test_the_table_that_fits_best_counts(tmp_path: Path) -> None:
    file = tmp_path / "tuned.toml"
    file.write_text(TUNED)
    found = settings_of("drawn", file)
    assert (found.epochs, found.copies) == (13, 0.1)
    tuned = read_tuned([file])

    def epochs(data: str, recommender: str, text: str = "drawn") -> int:
        own = Row.parse(text).settings(tuned, {}, data, recommender)
        assert isinstance(own, DrawnSettings)
        return own.epochs

    assert epochs("beauty", "mlp") == 15
    assert epochs("beauty", "neumf") == 12
    assert epochs("music", "svd") == 16
    assert epochs("films", "svd") == 11
    assert epochs("films", "mlp") == 10
    assert epochs("beauty", "svd", "drawn:paper") == 14
    assert epochs("films", "svd", "drawn:paper") == 5
    variant = settings_of("drawn:copying", file)
    assert (variant.epochs, variant.sampling) == (13, "multi")
    assert variant.copies == 0.5  # what makes the variant is not tuned


def test_set_stands_over_files_and_the_name_over_both(tmp_path: Path) -> None:
    file = tmp_path / "tuned.toml"
    file.write_text(TUNED)
    assert settings_of("drawn", file, **{"drawn.epochs": 20, "other.epochs": 1}).epochs == 20
    name = "drawn@drawn.epochs=21"
    assert settings_of(name, file, **{"drawn.epochs": 20}).epochs == 21


def test_of_two_files_the_last_one_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text("[svd.drawn]\ndrawn.epochs = 7\ndrawn.copies = 0.2\n")
    second.write_text("[svd.drawn]\ndrawn.epochs = 8\n")
    found = Row.parse("drawn").settings(read_tuned([first, second]), {}, "", "svd")
    assert isinstance(found, DrawnSettings)
    assert (found.epochs, found.copies) == (8, 0.2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sdrn", "'sdrn' is unknown; choose from original, "),
        ("ridge", "ridge makes no synthetic users"),
        ("drawn:fast", "'fast' is no variant of drawn"),
        ("drawn@epochs", "after '@' comes key=value, not 'epochs'"),
        ("drawn@drawn.epochs=0", "drawn.epochs"),
        ("drawn@drawn.speed=1", "unknown setting 'drawn.speed'"),
        ("drawn@epochs=1", "none of the method drawn"),
        ("original@drawn.epochs=1", "original has no settings"),
    ],
)
def test_what_is_written_wrong_is_refused(text: str, told: str) -> None:
    with pytest.raises(SnowdropError, match=told):
        Row.parse(text)


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("epochs=3", "--set epochs is no setting of a synthesizer"),
        ("ridge.target=1", "no setting of a synthesizer"),
        ("drawn.speed=3", "unknown setting 'drawn.speed'"),
        ("drawn.epochs", "has no '='"),
    ],
)
def test_settings_for_all_are_settings_of_synthesizers(assignment: str, told: str) -> None:
    with pytest.raises(SnowdropError, match=told):
        shared_settings([assignment])
    assert shared_settings(["drawn.epochs=3"]) == {"drawn.epochs": 3}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("drawn = 3", "'drawn' stands outside a method's table"),
        ("[drawn]\ndrawn.epochs = -1", "table drawn: setting 'drawn.epochs' is -1"),
        ("[drawn]\nepochs = 1", "table drawn: setting 'epochs' is none of the method drawn"),
        ("[a.b.c]\nepochs = 1", "'a.b.c' is no table of a method"),
        ("[drawn", "cannot be read as TOML"),
        ('["drawn:fast"]\ndrawn.epochs = 1', "'fast' is no variant"),
    ],
)
def test_files_of_settings_are_checked(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "tuned.toml"
    file.write_text(content)
    with pytest.raises(SnowdropError, match=told):
        read_tuned([file])
    with pytest.raises(SnowdropError, match="cannot read"):
        read_tuned([tmp_path / "none.toml"])


def test_recommenders_are_chosen_by_name() -> None:
    assert choose_recommenders("neumf, svd,neumf") == ["neumf", "svd"]
    for wrong in ("", "knn", "popular"):
        with pytest.raises(SnowdropError, match="some of svd, mlp, neumf"):
            choose_recommenders(wrong)


def test_the_synthesizer_of_the_tests_is_there(drawn: Card) -> None:
    assert Row.parse("drawn").card is drawn
