from pathlib import Path

import numpy as np
import polars as pl
import pytest

from common.catalogue import Catalogue, ItemIndex, random_split, read_catalogue
from common.errors import SnowdropError

GOOD = "item_id,title,more,split\nb,Boat,,test\na,Ant, small ,warm\nc,Cat,furry,validation\n"


def write(folder: Path, text: str | bytes) -> Path:
    content = text.encode() if isinstance(text, str) else text
    (folder / "items.csv").write_bytes(content)
    return folder


def test_items_are_sorted_texts_joined_and_splits_honoured(tmp_path: Path) -> None:
    catalogue = read_catalogue(write(tmp_path, GOOD), seed=0)
    assert catalogue.ids == ("a", "b", "c")
    assert catalogue.texts == ("Ant. small", "Boat", "Cat. furry")
    assert catalogue.splits == ("warm", "test", "validation")


def test_parquet_equals_csv(tmp_path: Path) -> None:
    from_csv = read_catalogue(write(tmp_path, GOOD), seed=0)
    other = tmp_path / "parquet"
    other.mkdir()
    pl.read_csv(tmp_path / "items.csv").write_parquet(other / "items.parquet")
    from_parquet = read_catalogue(other, seed=0)
    assert (from_parquet.ids, from_parquet.texts) == (from_csv.ids, from_csv.texts)
    assert from_parquet.version == from_csv.version


def test_numeric_ids_in_parquet_become_strings(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": [2, 10], "title": ["x", "y"], "split": ["warm", "test"]})
    frame.write_parquet(tmp_path / "items.parquet")
    assert read_catalogue(tmp_path, seed=0).ids == ("10", "2")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "items.csv is missing"),
        ("", "is empty: expected a header line and rows"),
        ("id,title\na,x\n", r"has no column 'item_id' \(it has: id, title\)"),
        ("item_id,split\na,warm\n", "has no text column beside item_id"),
        ("item_id,title\na,x\n,y\n", "has 1 rows without an item_id"),
        ("item_id,title\na,x\nb,y\na ,z\n", "has item_id 'a' more than once"),
        ("item_id,title\na,x\nb,\nc, \n", "has 2 items without any text, the first is 'b'"),
        ("item_id,title,split\na,x,warm\nb,y,hot\n", "item 'b' has split 'hot'; it must be one of"),
        ("item_id,title,split\na,x,warm\nb,y,\n", "item 'b' has split ''; it must be one of"),
        ("item_id,title,split\na,x,test\n", "leaves no warm item"),
        ("item_id,title\n", "leaves no warm item"),
        (b"item_id,title\na,caf\xe9\n", "is not UTF-8 text: byte 19 cannot be decoded"),
    ],
)
def test_bad_input_is_told_in_one_sentence(
    tmp_path: Path, content: str | bytes | None, sentence: str
) -> None:
    if content is not None:
        write(tmp_path, content)
    with pytest.raises(SnowdropError, match=sentence) as caught:
        read_catalogue(tmp_path, seed=0)
    assert str(tmp_path / "items.csv") in str(caught.value)


@pytest.mark.parametrize("blank", ["  ", '""'])
def test_a_blank_item_id_is_refused(tmp_path: Path, blank: str) -> None:
    write(tmp_path, f"item_id,title,split\na,x,warm\nb,y,test\n{blank},z,test\n")
    with pytest.raises(SnowdropError, match="rows without an item_id"):
        read_catalogue(tmp_path, seed=0)


def test_a_train_file_needs_a_split_column(tmp_path: Path) -> None:
    write(tmp_path, "item_id,title\na,x\n")
    (tmp_path / "train.csv").write_text("user_id,item_id\n")
    with pytest.raises(SnowdropError, match="has no column 'split'"):
        read_catalogue(tmp_path, seed=0)


def test_a_damaged_parquet_file_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "items.parquet").write_bytes(b"PAR1\xff\xfe damaged")
    with pytest.raises(SnowdropError, match="cannot be read as a table"):
        read_catalogue(tmp_path, seed=0)


def test_the_random_split_is_seeded_and_six_one_three() -> None:
    split = random_split(1000, seed=4)
    names, counts = np.unique(split, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {
        "warm": 600,
        "validation": 100,
        "test": 300,
    }
    assert split == random_split(1000, seed=4)
    assert split != random_split(1000, seed=5)


def test_the_random_split_depends_on_the_ids_alone(tmp_path: Path) -> None:
    ids = [f"i{k:02d}" for k in range(20)]
    one = "".join(f"{k},text {k}\n" for k in ids)
    other = "".join(f"{k},another text {k},more\n" for k in reversed(ids))
    first = read_catalogue(write(tmp_path, "item_id,title\n" + one), seed=3)
    second = read_catalogue(write(tmp_path, "item_id,title,more\n" + other), seed=3)
    assert first.version == second.version
    assert first.texts != second.texts


@pytest.mark.parametrize(
    ("ids", "splits"),
    [
        (("a", "x"), ("warm", "test")),
        (("a", "b"), ("warm", "validation")),
        (("b", "a"), ("test", "warm")),
        (("a", "b", "c"), ("warm", "test", "test")),
        (("aw", "b"), ("arm", "test")),
    ],
)
def test_version_changes_with_ids_splits_and_order(
    ids: tuple[str, ...], splits: tuple[str, ...]
) -> None:
    reference = ItemIndex(("a", "b"), ("warm", "test"))
    assert ItemIndex(("a", "b"), ("warm", "test")).version == reference.version
    assert ItemIndex(ids, splits).version != reference.version


def test_rows_count_within_each_split() -> None:
    index = ItemIndex(("a", "b", "c", "d"), ("warm", "test", "warm", "test"))
    assert index.rows("test").tolist() == [1, 3]
    assert index.ids_of("warm") == ["a", "c"]
    assert index.rows("validation").tolist() == []
    assert index.frame().rows() == [
        ("a", "warm", 0),
        ("b", "test", 0),
        ("c", "warm", 1),
        ("d", "test", 1),
    ]


FORMER = ItemIndex(("a", "b", "c", "d", "gone"), ("warm", "validation", "test", "test", "warm"))


def catalogue(split_given: bool, **splits: str) -> Catalogue:
    ids = tuple(splits)
    return Catalogue(ids, tuple(splits.values()), tuple(f"text {i}" for i in ids), split_given)


def test_a_grown_catalogue_takes_the_operators_split_but_what_was_warm_stays_warm() -> None:
    today = catalogue(True, a="test", aa="warm", b="test", c="warm", d="test", e="validation")
    assert today.grown_from(FORMER).splits == (
        "warm", "warm", "test", "warm", "test", "validation"
    )  # fmt: skip


def test_a_grown_catalogue_without_a_split_keeps_that_of_before_and_new_items_are_cold() -> None:
    today = catalogue(False, a="test", aa="warm", b="warm", c="warm", d="validation")
    assert today.grown_from(FORMER).splits == ("warm", "test", "validation", "test", "test")


def test_only_training_turns_items_warm() -> None:
    today = catalogue(True, a="test", aa="warm", b="warm", c="validation", d="warm")
    grown = today.grown_from(FORMER, training=False)
    assert grown.splits == ("warm", "test", "validation", "validation", "test")


def test_an_unchanged_catalogue_does_not_grow() -> None:
    for given in (True, False):
        today = catalogue(given, a="warm", b="validation", c="test")
        assert today.grown_from(today.index()).version == today.version


def test_items_that_turn_warm_make_another_version() -> None:
    today = catalogue(True, a="warm", b="test", c="test")
    warmer = today.with_warm(today.rows("test")[np.array([False, True])])
    assert warmer.splits == ("warm", "test", "warm")
    assert warmer.texts == today.texts
    assert warmer.version != today.version
    assert today.with_warm(np.array([], np.int64)).version == today.version
