"""Features files of the data folder, good and bad."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from common.catalogue import read_catalogue
from common.errors import SnowdropError
from server_app.modality.file import features_file, read_features
from tests.server_app.modality.conftest import write_items

IDS = ["c", "a", "e", "b", "d"]  # as in the items file
NUMBERS = np.arange(15, dtype=np.float64).reshape(5, 3)
SORTED = NUMBERS[[1, 3, 0, 4, 2]]


def read(data: Path, name: str = "audio") -> np.ndarray:
    path = features_file(data, name)
    assert path is not None
    return read_features(path, read_catalogue(data, 0))


def frame(**changed: object) -> pl.DataFrame:
    return pl.DataFrame({"item_id": IDS, "x": NUMBERS[:, 0], "y": NUMBERS[:, 1], **changed})


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int32, np.uint8])
def test_rows_of_a_matrix_are_those_of_the_items_file(data: Path, kind: type) -> None:
    np.save(data / "audio.features.npy", NUMBERS.astype(kind))
    features = read(data)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, SORTED)


def test_ids_are_compared_without_the_blanks_around_them(data: Path) -> None:
    write_items(data, "item_id,title,split\nb,Bee,warm\n a ,Ant,warm\n")
    np.save(data / "audio.features.npy", NUMBERS[:2])
    np.testing.assert_array_equal(read(data), NUMBERS[[1, 0]])
    frame(item_id=["b ", "a", "x", "y", "z"]).write_parquet(data / "ids.features.parquet")
    np.testing.assert_array_equal(read(data, "ids"), NUMBERS[[1, 0], :2])


def test_a_table_is_matched_by_item(data: Path) -> None:
    more = pl.concat([frame(), pl.DataFrame({"item_id": ["z"], "x": [9.0], "y": [9.0]})])
    more.reverse().write_parquet(data / "audio.features.parquet")
    features = read(data)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, SORTED[:, :2])


def test_ids_of_a_table_may_be_numbers(data: Path) -> None:
    write_items(data, "item_id,title,split\n10,Ten,warm\n9,Nine,warm\n")
    table = pl.DataFrame({"x": [1, 2], "item_id": [9, 10]})
    table.write_parquet(data / "audio.features.parquet")
    np.testing.assert_array_equal(read(data), [[2], [1]])


def test_there_is_no_file_of_another_name(data: Path) -> None:
    np.save(data / "audio.features.npy", NUMBERS)
    assert features_file(data, "video") is None
    assert features_file(None, "audio") is None


def test_two_files_of_one_modality_are_refused(data: Path) -> None:
    np.save(data / "audio.features.npy", NUMBERS)
    frame().write_parquet(data / "audio.features.parquet")
    with pytest.raises(SnowdropError, match="keep one of them"):
        features_file(data, "audio")


def with_entry(value: float) -> np.ndarray:
    changed = NUMBERS.copy()
    changed[4, 1] = value  # item d
    changed[2, 0] = value  # item e
    return changed


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (NUMBERS[:4], "has 4 rows and the items file 5; expected one row per item"),
        (NUMBERS[0], r"has the shape \(3,\); expected a matrix"),
        (NUMBERS[:, :0], r"has the shape \(5, 0\); expected a matrix"),
        (NUMBERS.astype(str), "expected numbers, for example float32"),
        (NUMBERS.astype(complex), "holds complex128; expected numbers"),
        (NUMBERS.astype(object), "cannot be read: expected a matrix of numbers"),
        (b"no matrix", "cannot be read: expected a matrix of numbers"),
        (b"", "cannot be read: expected a matrix of numbers"),
        (with_entry(np.nan), "has 2 items with NaN, infinite or missing numbers, the first is 'd'"),
        (with_entry(np.inf), "has 2 items with NaN, infinite"),
        (with_entry(1e300), "has 2 items with NaN, infinite"),
    ],
)
def test_a_bad_matrix_is_told_in_one_sentence(
    data: Path, content: np.ndarray | bytes, sentence: str
) -> None:
    path = data / "audio.features.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    refused(data, path, sentence)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (frame().drop("item_id"), "has no column 'item_id'"),
        (frame().select("item_id"), "has no column of numbers beside item_id"),
        (frame(y=list("vwxyz")), "column 'y' holds String; expected one number per item"),
        (frame(y=[[1.0]] * 5), r"column 'y' holds List\(Float64\); expected one number per item"),
        (frame(item_id=["a", "b", "c", "d", "d"]), "has item_id 'd' more than once"),
        (frame(item_id=["a", "b", "c", None, "e"]), "has 1 rows without an item_id"),
        (frame(item_id=["a", "b", " ", "", "e"]), "has 2 rows without an item_id"),
        (frame()[1:3], "has no row for 3 items of the catalogue, the first is 'b'"),
        (frame(y=[1, None, 2, 3, 4]), "has 1 items with NaN, .* the first is 'a'"),
        (frame(y=[1.0, 2.0, 3.0, 4.0, np.nan]), "has 1 items with NaN, .* the first is 'd'"),
        (b"PAR1 damaged", "cannot be read as a Parquet file"),
    ],
)
def test_a_bad_table_is_told_in_one_sentence(
    data: Path, content: pl.DataFrame | bytes, sentence: str
) -> None:
    path = data / "audio.features.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.write_parquet(path)
    refused(data, path, sentence)


def refused(data: Path, path: Path, sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence) as refusal:
        read(data)
    assert str(refusal.value).startswith(str(path))
    assert "\n" not in str(refusal.value)
