import os
from pathlib import Path
from traceback import format_exception
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_app.interactions import (
    arrange,
    interaction_files,
    load_interactions,
    read_interactions,
    shard_of,
)
from common import demo
from common.catalogue import ItemIndex
from common.errors import SnowdropError
from common.settings import NodeSettings, RunSettings
from common.users.ragged import Ragged, merged

INDEX = ItemIndex(
    ("a", "b", "c", "d", "e"), ("warm", "test", "warm", "validation", "warm")
)  # rows: a 0, b 0, c 1, d 0, e 2


NO_HEADER = "seems to have no header line; expected a first line with the columns' names, .*"
HOLDS_CONTROL = "user_id or item_id holds NUL or another control character"


def frame(*pairs: str) -> pl.DataFrame:
    return pl.DataFrame(
        [tuple(pair.split()) for pair in pairs],
        schema={"user_id": pl.String, "item_id": pl.String},
        orient="row",
    )


def test_interactions_are_laid_out_user_by_user() -> None:
    data = arrange(frame("zoe e", "ann c", "ann a", "zoe b", "ann d", "ann b"), INDEX)
    assert data.users == ("ann", "zoe")
    assert [data.warm.of(user).tolist() for user in (0, 1)] == [[0, 1], [2]]
    assert [data.by_split["test"].of(user).tolist() for user in (0, 1)] == [[0], [0]]
    assert [data.by_split["validation"].of(user).tolist() for user in (0, 1)] == [[0], []]
    assert (data.users_without_warm, data.unknown) == (0, 0)


def test_duplicates_count_once() -> None:
    data = arrange(frame("ann a", "ann a", "bob a", "ann b", "ann b"), INDEX)
    assert data.warm.items.tolist() == [0, 0]
    assert data.by_split["test"].counts.tolist() == [1, 0]


def test_unknown_items_are_counted_and_left_out() -> None:
    data = arrange(frame("ann a", "ann x", "bob y", "bob c"), INDEX)
    assert data.unknown == 2
    assert data.warm.items.tolist() == [0, 1]


def test_users_without_warm_interactions_are_counted_and_left_out() -> None:
    data = arrange(frame("ann a", "bob b", "cem x", "ann d"), INDEX)
    assert data.users == ("ann",)
    assert data.users_without_warm == 2
    assert data.by_split["test"].items.tolist() == []


def test_nobody_is_no_error() -> None:
    data = arrange(frame(), INDEX)
    assert data.users == ()
    assert data.warm.counts.tolist() == []


def test_the_digest_names_the_set_of_users() -> None:
    one = arrange(frame("ann a", "bob a"), INDEX)
    assert one.users_digest == arrange(frame("bob c", "ann e", "bob b"), INDEX).users_digest
    assert one.users_digest != arrange(frame("ann a", "cem a"), INDEX).users_digest


@given(data=st.data(), lists=st.lists(st.lists(st.integers(0, 9), unique=True), min_size=1))
def test_take_equals_plain_indexing(data: st.DataObject, lists: list[list[int]]) -> None:
    offsets = np.cumsum([0, *map(len, lists)])
    ragged = Ragged(offsets, np.array([i for own in lists for i in own], dtype=np.int64))
    users = data.draw(st.lists(st.integers(0, len(lists) - 1)))
    taken = ragged.take(np.array(users, dtype=np.int64))
    assert taken.counts.tolist() == [len(lists[user]) for user in users]
    assert [taken.of(k).tolist() for k in range(len(users))] == [lists[user] for user in users]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "f.csv is missing"),
        ("", "f.csv is empty"),
        ("\n\n", "f.csv is empty"),
        ("\ufeff", "f.csv is empty"),
        ("user_id,item\nzoe,a\n", "has no column 'item_id'; expected user_id, item_id"),
        ("user,item_id\nzoe,a\n", "has no column 'user_id'; expected user_id, item_id"),
        ("zoe,a\nbob,b\n", f"{NO_HEADER}: user_id,item_id"),
        ("zoe\nbob\n", NO_HEADER),
        ("zoe,zoe\n", NO_HEADER),
        ("user_id;item_id\nzoe;a\n", NO_HEADER),
        ("user_id,item_id\rzoe,a\rbob,b\r", "the lines of .*f.csv end in CR alone"),
        ("zoe,a\rbob,b\r", "the lines of .*f.csv end in CR alone"),
        ("user_id,item_id\r\nzoe,a\rbob,b\r\n", "a line ends in CR alone"),
        ("user_id,item_id,user_id\nzoe,a,bob\n", "has more than one column 'user_id'"),
        ("user_id, user_id,item_id\nzoe,bob,a\n", "has more than one column 'user_id'"),
        ("user_id,item_id\nzoe\0,a\n", f"f.csv, row 2: {HOLDS_CONTROL}"),
        ("user_id,item_id\n\nbob,b\nzoe,\x1ba\n", f"f.csv, row 4: {HOLDS_CONTROL}"),
        ('user_id,item_id\nbob,b\n"zoe\nzoe",a\n', f"f.csv, row 3: {HOLDS_CONTROL}"),
        ("user_id,item_id\nzoe\x85zoe,a\n", f"f.csv, row 2: {HOLDS_CONTROL}"),
        ("user_id,item_id\n\nzoe,a\n\nzoe,\n", "f.csv, row 5: user_id or item_id is empty"),
        ('user_id,item_id\nbob,b\n"zoe,a\nann,b\n', "quotation marks of row 3 are not in pairs"),
        ("user_id,item_id\nzoe,a\n,b\n", "f.csv, row 3: user_id or item_id is empty"),
        ("user_id,item_id\nzoe,a\nbob,b\n  ,b\n,c\n", "f.csv, row 4: user_id or item_id is empty"),
        ("user_id,item_id\nzoe,\n", "f.csv, row 2: user_id or item_id is empty"),
        ("user_id,item_id\nzoe,a,b,c\n", "row 2 has 4 fields and the first row has 2"),
    ],
)
def test_bad_files_are_told_in_one_sentence(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / "f.csv").write_bytes(content.encode())
    with pytest.raises(SnowdropError, match=sentence) as caught:
        read_interactions([tmp_path / "f.csv"])
    assert "zoe" not in "".join(format_exception(caught.value))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("user_id,item_id\nzoe,a\n".encode("utf-16"), "is not UTF-8 text: it holds NUL bytes"),
        (bytes(range(256)), "is not UTF-8 text: it holds NUL bytes"),
        (b"user_id,item\xe9\nzoe,a\n", "is not UTF-8 text: byte 12 cannot be decoded"),
        (b"user_id,item_id\nzo\xe9,zoe\n", "is not UTF-8 text: byte 18 cannot be decoded"),
    ],
)
def test_files_that_are_no_text_are_told_in_one_sentence(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "f.csv").write_bytes(content)
    with pytest.raises(SnowdropError, match=sentence) as caught:
        read_interactions([tmp_path / "f.csv"])
    assert "zoe" not in "".join(format_exception(caught.value))


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(SnowdropError, match=r"f\.csv is a folder; expected a file"):
        read_interactions([tmp_path / "f.csv"])


ANYTHING = st.text(st.sampled_from('zoe;,"\n\r\t \0\ufeff'), max_size=30)


@given(head=st.sampled_from(["", "user_id,item_id\n", "user_id,item_id\r\n"]), rest=ANYTHING)
def test_no_error_on_a_file_holds_a_cell_of_it(
    tmp_path_factory: pytest.TempPathFactory, head: str, rest: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes((head + rest.replace("o", "zoe")).encode())
    try:
        read_interactions([path])
    except SnowdropError as error:
        assert "zoe" not in "".join(format_exception(error))


PARQUET: dict[str, tuple[dict[str, Any], str]] = {
    "floats": ({"user_id": [1.0, None], "item_id": [1, 2]}, "column 'user_id' holds Float64"),
    "lists": ({"user_id": ["a"], "item_id": [["zoe"]]}, r"column 'item_id' holds List"),
    "structs": ({"user_id": [{"u": "zoe"}], "item_id": [1]}, "column 'user_id' holds Struct"),
    "no text": ({"user_id": [b"zoe\xff"], "item_id": [1]}, "cannot be read as a table"),
    "names": ({"zoe": [1], "bob": [2]}, "has no column 'user_id'; expected user_id, item_id"),
    "control": ({"user_id": ["u", "zoe\0"], "item_id": [1, 2]}, f"row 3: {HOLDS_CONTROL}"),
    "nothing": ({"user_id": ["zoe", None], "item_id": [1, 2]}, "row 3: .* is empty"),
}


@pytest.mark.parametrize("kind", PARQUET)
def test_bad_parquet_files_are_told_in_one_sentence(tmp_path: Path, kind: str) -> None:
    columns, sentence = PARQUET[kind]
    pl.DataFrame(columns).write_parquet(tmp_path / "f.parquet")
    with pytest.raises(SnowdropError, match=sentence) as caught:
        read_interactions([tmp_path / "f.parquet"])
    assert "zoe" not in "".join(format_exception(caught.value))


def test_a_damaged_parquet_file_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "f.parquet").write_bytes(b"user_id,item_id\nzoe,a\n")
    with pytest.raises(SnowdropError, match=r"f\.parquet cannot be read as a table"):
        read_interactions([tmp_path / "f.parquet"])


def test_parquet_ids_of_other_types_become_strings(tmp_path: Path) -> None:
    columns = {"user_id": [7, 12], "item_id": pl.Series(["a", "b"], dtype=pl.Categorical)}
    pl.DataFrame(columns).write_parquet(tmp_path / "f.parquet")
    assert read_interactions([tmp_path / "f.parquet"]).rows() == [("7", "a"), ("12", "b")]
    pl.DataFrame({"user_id": [b"u"], "item_id": ["a"]}).write_parquet(tmp_path / "f.parquet")
    assert read_interactions([tmp_path / "f.parquet"]).rows() == [("u", "a")]
    pl.DataFrame({"user_id": [], "item_id": []}).write_parquet(tmp_path / "f.parquet")
    assert read_interactions([tmp_path / "f.parquet"]).is_empty()


@pytest.mark.parametrize(
    "content",
    [
        "user_id,item_id\r\nann,a\r\n\r\nbob,b\r\n",
        "\ufeffuser_id,item_id\nann,a\nbob,b\n",
        '\ufeff"user_id","item_id"\n"ann","a"\n"bob","b"',
        " user_id , item_id \nann ,\ta\nbob,b\n\n\n",
    ],
)
def test_files_of_other_programs_are_read_alike(tmp_path: Path, content: str) -> None:
    (tmp_path / "f.csv").write_bytes(content.encode())
    assert read_interactions([tmp_path / "f.csv"]).rows() == [("ann", "a"), ("bob", "b")]


IDS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).filter(
    lambda value: value == value.strip()
)


@given(pairs=st.lists(st.tuples(IDS, IDS)), kind=st.sampled_from(["csv", "parquet"]))
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"back.{kind}"
    schema = {"user_id": pl.String, "item_id": pl.String}
    table = pl.DataFrame(pairs, schema=schema, orient="row")
    table.write_csv(path) if kind == "csv" else table.write_parquet(path)
    assert read_interactions([path]).rows() == pairs


def test_blanks_around_ids_and_further_columns_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("when,item_id,user_id\n3, a ,ann \n")
    assert read_interactions([tmp_path / "f.csv"]).rows() == [("ann", "a")]


def test_both_layouts_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nann,a\n")
    assert interaction_files(tmp_path) == [tmp_path / "interactions.csv"]
    for name, item in [("train", "a"), ("validation", "d"), ("test", "b")]:
        (tmp_path / f"{name}.csv").write_text(f"user_id,item_id\nann,{item}\n")
    files = interaction_files(tmp_path)
    assert [path.name for path in files] == ["train.csv", "validation.csv", "test.csv"]
    node = NodeSettings(state_dir=tmp_path / "state")
    data = load_interactions(node, str(tmp_path), 0, INDEX)
    assert {split: len(own.items) for split, own in data.by_split.items()} == {
        "warm": 1,
        "validation": 1,
        "test": 1,
    }


def test_parquet_equals_csv(tmp_path: Path) -> None:
    pairs = frame("ann a", "bob c", "bob b")
    pairs.write_csv(tmp_path / "one.csv")
    pairs.write_parquet(tmp_path / "two.parquet")
    one, two = (read_interactions([tmp_path / name]) for name in ("one.csv", "two.parquet"))
    assert one.equals(two)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("user_id,item_id\nann,a\n")
    node = NodeSettings(interactions=path, state_dir=tmp_path)
    first = load_interactions(node, "demo", 0, INDEX)
    assert load_interactions(node, "demo", 0, INDEX) is first
    path.write_text("user_id,item_id\nbob,a\n")
    os.utime(path, ns=(1, 1))
    assert load_interactions(node, "demo", 0, INDEX).users == ("bob",)


def test_shards_partition_all_users(tmp_path: Path) -> None:
    users = [f"u{k}" for k in range(40)]
    frame(*(f"{user} a" for user in users)).write_csv(tmp_path / "interactions.csv")
    shards = [
        load_interactions(
            NodeSettings(state_dir=tmp_path, partition=k, partitions=3), str(tmp_path), 0, INDEX
        ).users
        for k in range(3)
    ]
    assert all(shards)
    assert sorted(user for shard in shards for user in shard) == sorted(users)


def test_a_users_shard_is_stable() -> None:
    users = ["ann", "bob", "zoë"]
    assert shard_of(users, 1).tolist() == [0, 0, 0]
    assert shard_of(users, 1000).tolist() == [int(shard_of([u], 1000)[0]) for u in users]
    # Other numbers here would move the users of every kept simulation to other nodes.
    assert shard_of(users, 1000).tolist() == [957, 812, 114]


def test_many_nodes_of_a_process_read_the_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"user-{k}" for k in range(40)]
    rows = [f"{user},{item}" for user in users for item in "abce"]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id,item_id", *rows]))
    reads = []

    def read(paths: list[Path], timed: bool) -> pl.DataFrame:
        reads.append(paths)
        return read_interactions(paths, timed)

    monkeypatch.setattr("client_app.interactions.read_interactions", read)
    configs = [{"partition-id": k, "num-partitions": 100} for k in range(100)]
    run = RunSettings.parse({"data": str(tmp_path), "run_dir": str(tmp_path / "run")})
    nodes = [NodeSettings.parse(config, run) for config in configs]
    for _ in range(2):
        held = [load_interactions(node, str(tmp_path), 0, INDEX) for node in nodes]
    assert len(reads) == 1
    homes = {user: place for place, data in enumerate(held) for user in data.users}
    assert homes == {user: int(shard_of([user], 100)[0]) for user in users}
    assert sum(len(data.warm.items) for data in held) == 3 * 40


def test_demo_interactions_know_the_demo_catalogue(tmp_path: Path) -> None:
    node = NodeSettings(state_dir=tmp_path)
    data = load_interactions(node, "demo", 3, demo.demo_catalogue(demo.ITEMS, 3).index())
    assert data.unknown == 0
    assert len(data.users) + data.users_without_warm == demo.USERS


def test_lists_of_the_same_users_are_merged_in_order() -> None:
    one = Ragged(np.array([0, 2, 2, 3]), np.array([1, 7, 4]))
    other = Ragged(np.array([0, 1, 2, 2]), np.array([3, 9]))
    both = merged([one, other])
    assert [both.of(user).tolist() for user in range(3)] == [[1, 3, 7], [9], [4]]
    nobody = Ragged(np.array([0]), np.array([], np.int64))
    assert merged([nobody, nobody]).items.tolist() == []


def timed(tmp_path: Path, text: str) -> pl.DataFrame:
    (tmp_path / "f.csv").write_text(text)
    return read_interactions([tmp_path / "f.csv"], timed=True)


@pytest.mark.parametrize(
    ("head", "order"),
    [
        ("user_id,item_id,timestamp,position", "timestamp"),
        ("user_id,item_id,place,position", "position"),
        ("user_id,item_id,when,place", "seeded"),
    ],
)
def test_the_order_comes_from_the_first_column_that_is_there(
    tmp_path: Path, head: str, order: str
) -> None:
    rows = timed(tmp_path, f"{head}\nann,e,3, 7.5\n\nann,a,20,1\n")
    data = arrange(rows, INDEX)
    assert data.order == order
    assert data.warm.of(0).tolist() == [0, 2]  # a, e
    if order == "seeded":
        assert data.times is None
    else:
        assert data.times is not None
        assert data.times.tolist() == ([20, 3] if order == "timestamp" else [1, 7.5])


def test_times_stand_beside_the_warm_items_of_each_user(tmp_path: Path) -> None:
    rows = timed(
        tmp_path,
        "user_id,item_id,timestamp\nzoe,e,5\nann,e,40\nann,b,1\nann,a,30\nann,e,2\nbob,b,9\n"
        "zoe,c,1e9\nann,x,4\n",
    )
    data = arrange(rows, INDEX)
    assert data.users == ("ann", "zoe")
    assert data.warm.items.tolist() == [0, 2, 1, 2]
    assert data.times is not None
    assert data.times.tolist() == [30, 2, 1e9, 5]  # a repeated interaction has its first time


def test_what_is_no_time_is_not_a_number(tmp_path: Path) -> None:
    text = "user_id,item_id,timestamp\nann,a,2020-01-01\nann,c,\nann,e,7\nann,e,soon\n"
    data = arrange(timed(tmp_path, text), INDEX)
    assert data.times is not None
    np.testing.assert_array_equal(data.times, [np.nan, np.nan, 7])


def test_all_files_of_a_folder_must_tell_the_order(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("user_id,item_id,timestamp,position\nann,a,1,9\n")
    (tmp_path / "test.csv").write_text("user_id,item_id,position\nann,c,8\n")
    files = [tmp_path / "train.csv", tmp_path / "test.csv"]
    assert read_interactions(files, timed=True).rows() == [("ann", "a", 9.0), ("ann", "c", 8.0)]
    assert read_interactions(files).rows() == [("ann", "a"), ("ann", "c")]
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "position": [3]}).write_parquet(
        tmp_path / "f.parquet"
    )
    assert read_interactions([tmp_path / "f.parquet"], timed=True).rows() == [("u", "a", 3.0)]


def test_a_share_of_the_data_has_its_own_times(tmp_path: Path) -> None:
    rows = [(f"u{k}", item, 100 * k + n) for k in range(20) for n, item in enumerate("ace")]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    table.sample(fraction=1, shuffle=True, seed=0).write_csv(tmp_path / "interactions.csv")
    for k in range(3):
        node = NodeSettings(state_dir=tmp_path, partition=k, partitions=3)
        data = load_interactions(node, str(tmp_path), 0, INDEX)
        assert data.order == "timestamp"
        assert data.times is not None
        expected = [100 * int(user[1:]) + n for user in data.users for n in range(3)]
        assert data.times.tolist() == expected
