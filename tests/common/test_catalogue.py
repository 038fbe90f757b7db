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
        ("item_id,title\na,x\n,y\n", "items.csv, row 3: item_id is empty"),
        ("item_id,title\n\na,x\nb\0,y\n", "items.csv, row 4: item_id holds NUL or another control"),
        ('item_id,title\n"a\rb",y\n', "items.csv, row 2: item_id holds NUL or another control"),
        ("item_id,title\ra,x\rb,y\r", "the lines of .*items.csv end in CR alone; save it with LF"),
        ("item_id,item_id,title\na,b,x\n", "has more than one column 'item_id'"),
        ("item_id,title,split,split\na,x,warm,test\n", "has more than one column 'split'"),
        ('item_id,title\na,x\nb,"y\n', "the quotation marks of row 3 are not in pairs"),
        ("item_id,title\na,x\nb,y,z\n", "row 3 has 3 fields and the first row has 2"),
        ("item_id,title\na,x\n".encode("utf-16"), "is not UTF-8 text: it holds NUL bytes"),
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
    with pytest.raises(SnowdropError, match="row 4: item_id is empty"):
        read_catalogue(tmp_path, seed=0)


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "items.csv").mkdir()
    with pytest.raises(SnowdropError, match=r"items\.csv is a folder; expected a file"):
        read_catalogue(tmp_path, seed=0)


def test_blanks_in_the_header_and_the_split_and_blank_lines_are_ignored(tmp_path: Path) -> None:
    text = "\ufeffitem_id, title , split\r\n\r\n a ,Ant, warm\r\nb,Boat,test \r\n\r\n"
    catalogue = read_catalogue(write(tmp_path, text), seed=0)
    assert catalogue.ids == ("a", "b")
    assert catalogue.texts == ("Ant", "Boat")
    assert catalogue.splits == ("warm", "test")
    assert catalogue.split_given


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"item_id": [1.0, 2.0], "title": ["x", "y"]}, "'item_id' holds Float64; ids must be"),
        ({"item_id": [1, 2], "title": [["x"], ["y"]]}, r"'title' holds List\(String\); expected"),
    ],
)
def test_parquet_columns_of_wrong_types_are_told(
    tmp_path: Path, columns: dict[str, list[object]], sentence: str
) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(SnowdropError, match=sentence):
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


def test_images_are_no_text_and_rows_of_the_file_are_remembered(tmp_path: Path) -> None:
    content = "item_id,image,title\nb, b.png ,Boat\nc,,Cat\na,a.jpg,Ant\n"
    catalogue = read_catalogue(write(tmp_path, content), seed=0)
    assert catalogue.texts == ("Ant", "Boat", "Cat")
    assert catalogue.images == ("a.jpg", "b.png", "")
    assert catalogue.file_rows == (2, 0, 1)
    grown = catalogue.grown_from(catalogue.index()).with_warm(np.array([0]))
    assert (grown.images, grown.file_rows) == (catalogue.images, catalogue.file_rows)


def test_without_an_image_column_there_are_no_images(tmp_path: Path) -> None:
    assert read_catalogue(write(tmp_path, GOOD), seed=0).images == ()


@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        ("", ("Ant. small", "Boat", "Cat. furry")),
        ("title", ("Ant", "Boat", "Cat")),
        (" more , title", ("small. Ant", "Boat", "furry. Cat")),
    ],
)
def test_text_columns_are_chosen_by_name(
    tmp_path: Path, columns: str, texts: tuple[str, ...]
) -> None:
    assert read_catalogue(write(tmp_path, GOOD), seed=0, text_columns=columns).texts == texts


@pytest.mark.parametrize("name", ["plot", "split", "item_id"])
def test_an_unknown_text_column_is_told_in_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(SnowdropError, match=rf"'{name}'.* no such text column \(it has: title, mo"):
        read_catalogue(write(tmp_path, GOOD), seed=0, text_columns=f"title,{name}")
