"""`snowdrop prepare`: every source becomes a data folder that loads."""

import gzip
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from traceback import format_exception
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from cli.commands import app
from cli.prepare.folder import carry_features, read, with_splits
from cli.prepare.output import write_folder
from client_app.interactions import interaction_files, read_interactions
from common.catalogue import Catalogue, read_catalogue
from common.demo import MARK, is_generated
from common.errors import SnowdropError

Pairs = set[tuple[str, str]]


def prepare(*arguments: object) -> str:
    """What `snowdrop prepare` prints; its error is raised on."""
    result = CliRunner().invoke(app, ["prepare", *map(str, arguments)])
    if isinstance(result.exception, SnowdropError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def loaded(out: Path) -> tuple[dict[str, str], Pairs]:
    """Texts by item and interactions of a data folder."""
    catalogue: Catalogue = read_catalogue(out, seed=0)
    pairs = read_interactions(interaction_files(out)).rows()
    assert len(pairs) == len(set(pairs))
    return dict(zip(catalogue.ids, catalogue.texts, strict=True)), set(pairs)


def write_lines(path: Path, lines: Iterable[str], encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))


# Movie, title, genres; films 1 to 5 are liked by someone, 6 is rated 3 only, 7 not at all.
FILMS = [
    ("1", "Café, The (1999)", ["Comedy", "Drama"]),
    ("2", "Night (2001)", ["Drama"]),
    ("3", "Day (1990)", ["Comedy"]),
    ("4", "Sea (1970)", ["Drama"]),
    ("5", "Moon (1960)", ["Comedy"]),
    ("6", "Dull (2000)", ["Drama"]),
    ("7", "Unseen (1950)", ["Comedy"]),
]
RATINGS = [("u1", "1", "5"), ("u1", "2", "4"), ("u1", "6", "3"), ("u2", "3", "4"),
           ("u2", "4", "5"), ("u2", "5", "4"), ("u2", "1", "3")]  # fmt: skip
LIKED = {("u1", "1"), ("u1", "2"), ("u2", "3"), ("u2", "4"), ("u2", "5")}


def movielens_folder(folder: Path, layout: str) -> Path:
    if layout == "latest":
        rows = [f'{i},"{title}",{"|".join(genres)}' for i, title, genres in FILMS]
        write_lines(folder / "movies.csv", ["movieId,title,genres", *rows])
        ratings = [f"{u},{i},{float(r)},100" for u, i, r in RATINGS]
        write_lines(folder / "ratings.csv", ["userId,movieId,rating,timestamp", *ratings])
    elif layout == "100k":
        names = ["Comedy", "Drama"]
        write_lines(folder / "u.genre", ["Comedy|0", "Drama|1", ""])
        rows = [
            "|".join([i, title, "01-Jan-1999", "", "url", *("01"[n in genres] for n in names)])
            for i, title, genres in FILMS
        ]
        write_lines(folder / "u.item", rows, "latin-1")
        write_lines(folder / "u.data", ["\t".join([*rating, "100"]) for rating in RATINGS])
    else:
        rows = ["::".join([i, title, "|".join(genres)]) for i, title, genres in FILMS]
        write_lines(folder / "movies.dat", rows, "latin-1")
        write_lines(folder / "ratings.dat", ["::".join([*rating, "100"]) for rating in RATINGS])
    return folder


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("layout", ["latest", "100k", "1m"])
def test_movielens(tmp_path: Path, layout: str, zipped: bool) -> None:
    source = movielens_folder(tmp_path / "ml", layout)
    if zipped:
        source = tmp_path / "ml.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted((tmp_path / "ml").iterdir()):
                archive.write(path, f"ml/{path.name}")
    shown = prepare("movielens", source, "--out", tmp_path / "out")
    texts, pairs = loaded(tmp_path / "out")
    assert pairs == LIKED
    assert set(texts) == {"1", "2", "3", "4", "5"}
    assert texts["1"] == "Café, The (1999). Comedy, Drama"
    assert "left out: 2 items that nobody interacted with" in shown


def test_a_film_without_genres_has_its_title_as_text(tmp_path: Path) -> None:
    source = movielens_folder(tmp_path / "ml", "latest")
    path = source / "movies.csv"
    path.write_text(path.read_text().replace(",Comedy|Drama", ",(no genres listed)"))
    prepare("movielens", source, "--out", tmp_path / "out")
    assert loaded(tmp_path / "out")[0]["1"] == "Café, The (1999)"


@pytest.mark.parametrize("source", ["nothing-like-it", "folder", "file"])
def test_movielens_refuses_what_it_does_not_know(tmp_path: Path, source: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("no zip")
    given = source if source.startswith("nothing") else tmp_path / source
    with pytest.raises(SnowdropError, match=r"none of ml-latest|holds neither|no zip file"):
        prepare("movielens", given, "--out", tmp_path / "out")


def write_json_lines(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def test_amazon_2018(tmp_path: Path) -> None:
    reviews = write_json_lines(
        tmp_path / "reviews.json",
        [
            {"reviewerID": u, "asin": i, "overall": r, "unixReviewTime": 7}
            for u, i, r in [("u", "a", 5), ("u", "b", 4), ("v", "c", 5), ("v", "a", 3),
                            ("v", "d", 5), ("u", "a", 5)]
        ],
    )  # fmt: skip
    meta = write_json_lines(
        tmp_path / "meta.json",
        [
            {"asin": "a", "title": "Pen", "category": ["Office", "Pens"],
             "description": ["Writes.", "", "Blue."]},
            {"asin": "b", "title": "Ink", "category": [], "description": []},
            {"asin": "c", "title": "Cup"},
            {"asin": "a", "title": "Pen again"},
        ],
    )  # fmt: skip
    shown = prepare("amazon", reviews, meta, "--core", 1, "--out", tmp_path / "out")
    texts, pairs = loaded(tmp_path / "out")
    assert texts == {"a": "Pen. Office, Pens. Writes. Blue.", "b": "Ink", "c": "Cup"}
    assert pairs == {("u", "a"), ("u", "b"), ("v", "c")}
    assert "left out: 1 interactions with items that have no text" in shown


def test_amazon_2023_gzipped_with_a_core(tmp_path: Path) -> None:
    rated = [(u, i, 5.0) for u in "uvw" for i in "abc"] + [("x", "a", 5.0), ("u", "rare", 5.0)]
    reviews = write_json_lines(
        tmp_path / "Office.jsonl.gz",
        [
            {"user_id": u, "parent_asin": i, "asin": "variant", "rating": r, "timestamp": 8}
            for u, i, r in rated
        ],
    )
    meta = write_json_lines(
        tmp_path / "meta.jsonl.gz",
        [{"parent_asin": i, "title": f"Thing {i}", "categories": ["Office"], "description": []}
         for i in ("a", "b", "c", "rare")],
    )  # fmt: skip
    prepare("amazon", reviews, meta, "--core", 3, "--out", tmp_path / "out")
    texts, pairs = loaded(tmp_path / "out")
    assert texts["a"] == "Thing a. Office"
    assert pairs == {(u, i) for u in "uvw" for i in "abc"}


@pytest.mark.parametrize("line", ['{"user_id": "u", ', "[1, 2]", "text"])
def test_a_broken_line_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    good = '{"user_id": "u", "parent_asin": "a", "rating": 5.0}'
    write_lines(tmp_path / "reviews.jsonl", [good, good, line, good])
    with pytest.raises(SnowdropError, match=r"reviews\.jsonl, line 3: no JSON object"):
        prepare("amazon", tmp_path / "reviews.jsonl", tmp_path / "x", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("header", [False, True])
def test_ninerec(tmp_path: Path, header: bool) -> None:
    pairs = [f"u{k % 2},v{k},100{k}" for k in range(6)]
    items = [f'v{k},标题{k},"Title, {k}"' for k in range(7)]
    heads = ["user_id,item_id,timestamp"], ["item_id,title_chinese,title_english"]
    write_lines(tmp_path / "in" / "KU_pair.csv", heads[0] * header + pairs)
    write_lines(tmp_path / "in" / "KU_item.csv", heads[1] * header + items)
    prepare("ninerec", tmp_path / "in", "--out", tmp_path / "out")
    texts, kept = loaded(tmp_path / "out")
    assert texts == {f"v{k}": f"Title, {k}" for k in range(6)}
    assert kept == {(f"u{k % 2}", f"v{k}") for k in range(6)}
    prepare("ninerec", tmp_path / "in", "--out", tmp_path / "both", "--language", "both")
    assert loaded(tmp_path / "both")[0]["v0"] == "标题0. Title, 0"


def test_ninerec_needs_one_file_of_each_kind(tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match=r"one file X_pair\.csv; it holds 0"):
        prepare("ninerec", tmp_path, "--out", tmp_path / "out")


@pytest.fixture
def citeulike(tmp_path: Path) -> Path:
    """Six articles, counted from 0, of which the last is in no library."""
    rows = [f'{k + 1},"clean {k}",{k}00,"Title {k}","Abstract, {k}"' for k in range(6)]
    head = '"doc.id","title","citeulike.id","raw.title","raw.abstract"'
    write_lines(tmp_path / "in" / "raw-data.csv", [head, *rows])
    write_lines(tmp_path / "in" / "users.dat", ["3 0 1 2", "2 3 4", "1 0"])
    return tmp_path / "in"


def test_citeulike(tmp_path: Path, citeulike: Path) -> None:
    prepare("citeulike", citeulike, "--out", tmp_path / "out")
    texts, pairs = loaded(tmp_path / "out")
    assert texts == {str(k): f"Title {k}" for k in range(5)}
    assert pairs == {("0", "0"), ("0", "1"), ("0", "2"), ("1", "3"), ("1", "4"), ("2", "0")}
    prepare("citeulike", citeulike, "--text", "abstract", "--out", tmp_path / "long")
    assert loaded(tmp_path / "long")[0]["3"] == "Title 3. Abstract, 3"


def test_citeulike_with_the_published_split(tmp_path: Path, citeulike: Path) -> None:
    split = tmp_path / "split"
    write_lines(split / "train.csv", ["uid,iid", "0,0", "0,1", "2,0"])
    write_lines(split / "vali.csv", ["uid,iid", "1,3"])
    write_lines(split / "test.csv", ["uid,iid", "1,4"])
    prepare("citeulike", citeulike, "--split", split, "--out", tmp_path / "out")
    catalogue = read_catalogue(tmp_path / "out", seed=0)
    assert dict(zip(catalogue.ids, catalogue.splits, strict=True)) == {
        "0": "warm",
        "1": "warm",
        "3": "validation",
        "4": "test",
    }
    (split / "vali.csv").unlink()
    with pytest.raises(SnowdropError, match=r"must hold train\.csv, vali\.csv and test\.csv"):
        prepare("citeulike", citeulike, "--split", split, "--out", tmp_path / "other")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_with_columns_of_other_names(tmp_path: Path, kind: str) -> None:
    items = pl.DataFrame({"sku": [1, 2, 3], "name": ["Pen", "Ink", "Cup"], "shelf": ["x"] * 3})
    bought = pl.DataFrame(
        {"who": ["u", "u", "v", "v"], "sku": [1, 2, 3, 1], "stars": [5.0, 3.5, 3.0, 1.0]}
    )
    for frame, name in ((items, "items"), (bought, "bought")):
        path = tmp_path / f"{name}.{kind}"
        frame.write_csv(path) if kind == "csv" else frame.write_parquet(path)
    tables = [kind, tmp_path / f"bought.{kind}", tmp_path / f"items.{kind}"]
    columns = ["--user-column", "who", "--item-column", "sku"]
    prepare(*tables, *columns, "--text-column", "name", "--out", tmp_path / "all")
    texts, pairs = loaded(tmp_path / "all")
    assert texts == {"1": "Pen", "2": "Ink", "3": "Cup"}
    assert len(pairs) == 4
    stars = ["--rating-column", "stars", "--min-rating", "3"]
    prepare(*tables, *columns, *stars, "--out", tmp_path / "liked")
    texts, pairs = loaded(tmp_path / "liked")
    assert texts["1"] == "Pen. x"
    assert pairs == {("u", "1"), ("u", "2"), ("v", "3")}
    with pytest.raises(SnowdropError, match="has no column 'customer'"):
        prepare(*tables, "--user-column", "customer", "--out", tmp_path / "x")


def test_ratings_that_are_no_numbers_are_one_sentence(tmp_path: Path) -> None:
    write_lines(tmp_path / "i.csv", ["item_id,title", "a,Pen", "b,Ink"])
    arguments = ["csv", tmp_path / "p.csv", tmp_path / "i.csv", "--rating-column", "stars"]
    for bad in ("good", "nan", "inf", ""):
        lines = ["user_id,item_id,stars", "", "u,a, 5 ", f"u,b,{bad}", "u,a,4"]
        write_lines(tmp_path / "p.csv", lines)
        with pytest.raises(SnowdropError, match=r"p\.csv, row 4: the rating in .* is no number$"):
            prepare(*arguments, "--out", tmp_path / "out")


def split_folder(folder: Path) -> Path:
    write_lines(folder / "items.csv", ["item_id,title", *(f"{i},Thing {i}" for i in "abcd")])
    for name, item in (("train", "a"), ("validation", "b"), ("test", "c")):
        write_lines(folder / f"{name}.csv", ["user_id,item_id", f"u,{item}", f"v,{item}"])
    return folder


def test_a_folder_with_split_files(tmp_path: Path) -> None:
    prepare("folder", split_folder(tmp_path / "in"), "--out", tmp_path / "out")
    catalogue = read_catalogue(tmp_path / "out", seed=0)
    assert catalogue.ids == ("a", "b", "c")
    assert catalogue.splits == ("warm", "validation", "test")
    assert loaded(tmp_path / "out")[1] == {(u, i) for u in "uv" for i in "abc"}


def test_items_of_split_files_stay_in_their_order(tmp_path: Path) -> None:
    ids = [f"item-{k}" for k in range(3000)]
    write_lines(tmp_path / "items.csv", ["item_id,title", *(f"{i},A {i}" for i in ids)])
    for k, name in enumerate(("train", "validation", "test")):
        write_lines(tmp_path / f"{name}.csv", ["user_id,item_id", *(f"u,{i}" for i in ids[k::3])])
    assert read(tmp_path)[0]["item_id"].to_list() == ids


def test_force_leaves_no_old_interactions_behind(tmp_path: Path) -> None:
    out = split_folder(tmp_path / "out")
    write_lines(tmp_path / "i.csv", ["item_id,title,split", "x,Pen,warm", "y,Ink,test"])
    write_lines(tmp_path / "p.csv", ["user_id,item_id", "w,x", "w,y"])
    prepare("csv", tmp_path / "p.csv", tmp_path / "i.csv", "--force", "--out", out)
    assert loaded(out)[1] == {("w", "x"), ("w", "y")}


def demo_bytes(out: Path, seed: int) -> bytes:
    prepare("demo", "--users", 30, "--items", 60, "--seed", seed, "--out", out)
    return (out / "items.csv").read_bytes() + (out / "interactions.csv").read_bytes()


def test_demo_data_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first = demo_bytes(tmp_path / "a", 1)
    assert demo_bytes(tmp_path / "b", 1) == first
    assert demo_bytes(tmp_path / "c", 2) != first
    texts, pairs = loaded(tmp_path / "a")
    assert len(texts) <= 60
    assert len({user for user, _ in pairs}) == 30


def test_generated_data_are_known_as_such_until_others_replace_them(tmp_path: Path) -> None:
    made, copied, real = tmp_path / "made", tmp_path / "copied", tmp_path / "real"
    demo_bytes(made, 1)
    assert json.loads((made / MARK).read_text()) == {
        "users": 30, "items": 60, "interactions_per_user": 20, "shared_taste": 0.0, "seed": 1,
    }  # fmt: skip
    prepare("folder", made, "--out", copied)
    write_lines(real / "items.csv", ["item_id,title", "a,Pen", "b,Ink"])
    write_lines(real / "interactions.csv", ["user_id,item_id", "u,a", "u,b"])
    known = [is_generated(str(folder)) for folder in (made, copied, real, "demo")]
    assert known == [True, True, False, True]
    prepare("folder", real, "--out", copied, "--force")
    assert not is_generated(str(copied))
    carry_features(made, copied)
    assert is_generated(str(copied))
    carry_features(real, copied)
    assert not is_generated(str(copied))


def test_generated_users_may_share_a_taste(tmp_path: Path) -> None:
    demo_bytes(tmp_path / "a", 1)
    for name, shared in (("b", 0), ("c", 1)):
        size = ("--users", 30, "--items", 60, "--seed", 1)
        prepare("demo", *size, "--shared-taste", shared, "--out", tmp_path / name)
    assert loaded(tmp_path / "a") == loaded(tmp_path / "b")
    assert loaded(tmp_path / "c")[1] != loaded(tmp_path / "b")[1]


def test_a_folder_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    first = demo_bytes(tmp_path, 1)
    arguments = ["demo", "--users", 30, "--items", 60, "--seed", 2, "--out", tmp_path]
    with pytest.raises(SnowdropError, match=r"items\.csv exists; give --force"):
        prepare(*arguments)
    assert (tmp_path / "items.csv").read_bytes() == first[: (tmp_path / "items.csv").stat().st_size]
    prepare(*arguments, "--force")
    assert (tmp_path / "interactions.csv").read_bytes() not in first


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    items = ["item_id,title", "a,Pen", "b,  Much   space ", "c,", "d,Unwanted"]
    write_lines(tmp_path / "i.csv", items)
    write_lines(tmp_path / "p.csv", ["user_id,item_id", "u,a", "u,a", "u,b", "u,c", "u,z"])
    arguments = ["csv", tmp_path / "p.csv", tmp_path / "i.csv", "--out", tmp_path / "out"]
    shown = prepare(*arguments)
    assert loaded(tmp_path / "out") == ({"a": "Pen", "b": "Much space"}, {("u", "a"), ("u", "b")})
    assert "2 items, 1 users, 2 interactions" in shown
    assert "left out: 1 items without a text" in shown
    assert "left out: 1 items that nobody interacted with" in shown
    assert "left out: 2 interactions with items that have no text" in shown


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "i.csv", ["item_id,title", "a,Pen"])
    write_lines(tmp_path / "p.csv", ["user_id,item_id", "u,z"])
    with pytest.raises(SnowdropError, match="no item is left"):
        prepare("csv", tmp_path / "p.csv", tmp_path / "i.csv", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def written(source: str, folder: Path, pairs: Sequence[tuple[str, str]]) -> list[object]:
    """A source with five items, and the arguments that prepare it."""
    items = [str(k) for k in range(1, 6)]
    if source == "csv":
        write_lines(folder / "i.csv", ["item_id,title", *(f"{i},Thing {i}" for i in items)])
        write_lines(folder / "p.csv", ["user_id,item_id", *(f"{u},{i}" for u, i in pairs)])
        return ["csv", folder / "p.csv", folder / "i.csv"]
    if source == "parquet":
        pl.DataFrame({"item_id": items, "title": items}).write_parquet(folder / "i.parquet")
        columns = dict(zip(("user_id", "item_id"), zip(*pairs, strict=True), strict=True))
        pl.DataFrame(columns).write_parquet(folder / "p.parquet")
        return ["parquet", folder / "p.parquet", folder / "i.parquet"]
    if source == "folder":
        write_lines(folder / "items.csv", ["item_id,title", *(f"{i},Thing {i}" for i in items)])
        write_lines(folder / "train.csv", ["user_id,item_id", *(f"{u},{i}" for u, i in pairs)])
        for name in ("validation", "test"):
            write_lines(folder / f"{name}.csv", ["user_id,item_id", "u,5"])
        return ["folder", folder]
    if source == "amazon":
        reviews = [{"user_id": u, "parent_asin": i, "rating": 5} for u, i in pairs]
        write_json_lines(folder / "r.jsonl", reviews)
        write_json_lines(folder / "m.jsonl", [{"parent_asin": i, "title": i} for i in items])
        return ["amazon", folder / "r.jsonl", folder / "m.jsonl", "--core", "1"]
    if source in LAYOUTS:
        movielens_folder(folder, source)
        name, separator = LAYOUTS[source]
        head = ["userId,movieId,rating,timestamp"] if source == "latest" else []
        write_lines(folder / name, head + [separator.join((*pair, "5", "100")) for pair in pairs])
        return ["movielens", folder]
    if source == "ninerec":
        write_lines(folder / "KU_pair.csv", [f"{u},{i},100" for u, i in pairs])
        write_lines(folder / "KU_item.csv", [f"{i},T{i},Title {i}" for i in items])
        return ["ninerec", folder]
    assert source == "citeulike split"
    rows = [f'{k},"Title {k}","Abstract, {k}"' for k in range(7)]
    write_lines(folder / "raw-data.csv", ["doc.id,raw.title,raw.abstract", *rows])
    write_lines(folder / "train.csv", ["uid,iid", *(f"{u},{i}" for u, i in pairs)])
    for name in ("vali", "test"):
        write_lines(folder / f"{name}.csv", ["uid,iid", "u,5"])
    return ["citeulike", folder, "--split", folder]


LAYOUTS = {"latest": ("ratings.csv", ","), "100k": ("u.data", "\t"), "1m": ("ratings.dat", "::")}
NO_HEADER = {"amazon", "100k", "1m", "ninerec"}
SOURCES = ["csv", "parquet", "folder", "amazon", *LAYOUTS, "ninerec", "citeulike split"]


@pytest.mark.parametrize("pair", [("", "2"), ("zoe", ""), (" ", "2"), ("z\0oe", "2"),
                                  ("zoe", "2\0"), ("z\x1boe", "2"), ("zoe", "\x7f2")])  # fmt: skip
@pytest.mark.parametrize("source", SOURCES)
def test_a_row_without_a_user_or_an_item_or_with_control_characters_is_refused(
    tmp_path: Path, source: str, pair: tuple[str, str]
) -> None:
    pairs = [("u", "1"), ("v", "2"), pair, ("v", "3")]
    arguments = written(source, tmp_path, pairs)
    row = 3 if source in NO_HEADER else 4
    what = "empty" if not all(part.strip() for part in pair) else "control character"
    with pytest.raises(SnowdropError, match=rf"(row|line) {row}: .*{what}") as caught:
        prepare(*arguments, "--out", tmp_path / "out")
    assert "oe" not in str(caught.value).removeprefix(str(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", SOURCES)
def test_blanks_around_ids_are_taken_off(tmp_path: Path, source: str) -> None:
    arguments = written(source, tmp_path, [(" u", "1"), ("v ", " 2"), ("u", "1 "), ("v", "3")])
    prepare(*arguments, "--out", tmp_path / "out")
    assert loaded(tmp_path / "out")[1] - {("u", "5")} == {("u", "1"), ("v", "2"), ("v", "3")}


@pytest.mark.parametrize("source", [s for s in SOURCES if s not in ("parquet", "amazon")])
def test_windows_line_ends_and_blank_lines_are_read_alike(tmp_path: Path, source: str) -> None:
    arguments = written(source, tmp_path, [("u", "1"), ("v", "2")])
    for path in tmp_path.iterdir():
        lines = path.read_bytes().replace(b"\n", b"\r\n")
        path.write_bytes(lines + b"\r\n" if path.name != "raw-data.csv" else lines)
    prepare(*arguments, "--out", tmp_path / "out")
    assert loaded(tmp_path / "out")[1] - {("u", "5")} == {("u", "1"), ("v", "2")}


@pytest.mark.parametrize(
    "content",
    [
        b"zoe,1\nbob,2\n",
        b"user_id,item_id\rzoe,1\r",
        b'user_id,item_id\n"zoe,1\n',
        "user_id,item_id\nzoe,1\n".encode("utf-16"),
        b"",
    ],
)
def test_interactions_of_a_wrong_shape_are_told_without_a_cell(
    tmp_path: Path, content: bytes
) -> None:
    arguments = written("csv", tmp_path, [("u", "1")])
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(SnowdropError, match=r"p\.csv") as caught:
        prepare(*arguments, "--out", tmp_path / "out")
    assert "zoe" not in "".join(format_exception(caught.value))


ID = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=6).filter(
    lambda value: value == value.strip()
)


@given(st.lists(st.tuples(ID, ID), min_size=1, unique=True))
@settings(max_examples=50)
def test_what_is_prepared_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    out = tmp_path_factory.getbasetemp() / "read-back"
    ids = sorted({item for _, item in pairs})
    items = {"item_id": ids, "title": [f"a {k}" for k in range(len(ids))], "split": "warm"}
    interactions = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    write_folder(out, pl.DataFrame(items), interactions, force=True, summary=False)
    texts, kept = loaded(out)
    assert kept == set(pairs)
    assert texts == dict(zip(ids, items["title"], strict=True))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"user_id": None}, "user_id or reviewerID is missing, empty or no string"),
        ({"user_id": ["u"]}, "user_id or reviewerID is missing, empty or no string"),
        ({"user_id": True}, "user_id or reviewerID is missing, empty or no string"),
        ({"user_id": "u\ud83d"}, "user_id or reviewerID holds NUL or another control"),
        ({"parent_asin": 1.5}, "parent_asin or asin is missing, empty or no string"),
        ({"rating": "good"}, "the rating is no number"),
        ({"rating": [5]}, "the rating is no number"),
    ],
)
def test_amazon_reviews_that_are_not_whole_are_told(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    good = {"user_id": "u", "parent_asin": "a", "rating": 5}
    reviews = write_json_lines(tmp_path / "r.jsonl", [good, good | change])
    with pytest.raises(SnowdropError, match=rf"r\.jsonl, line 2: {sentence}"):
        prepare("amazon", reviews, tmp_path / "m", "--core", 1, "--out", tmp_path / "out")


def test_amazon_numbers_are_ids_and_half_characters_no_text(tmp_path: Path) -> None:
    good = {"user_id": 0, "parent_asin": "", "asin": 7, "rating": 5}
    reviews = write_json_lines(tmp_path / "r.jsonl", [good, good | {"asin": "b"}])
    reviews.write_bytes(reviews.read_bytes() + b"\n  \n")
    titles = [{"asin": 7, "title": "Pen \ud83d"}, {"asin": "b", "title": "Ink"}]
    meta = write_json_lines(tmp_path / "m.jsonl", titles)
    prepare("amazon", reviews, meta, "--core", 1, "--out", tmp_path / "out")
    assert loaded(tmp_path / "out") == ({"7": "Pen ?", "b": "Ink"}, {("0", "7"), ("0", "b")})


def test_a_damaged_gzip_file_is_one_sentence(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "r.jsonl.gz", [{"user_id": "u", "asin": "a", "rating": 5}])
    whole = path.read_bytes()
    for content in (b"no gzip file", whole[:-12], whole[:20] + b"\0\0\0\0" + whole[24:]):
        path.write_bytes(content)
        with pytest.raises(SnowdropError, match=r"r\.jsonl\.gz cannot be unpacked"):
            prepare("amazon", path, tmp_path / "m", "--out", tmp_path / "out")


def test_a_damaged_zip_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml/movies.csv", "movieId,title,genres\n" + "1,Night,Drama\n" * 99)
    content = bytearray(path.read_bytes())
    content[50] ^= 255
    path.write_bytes(content)
    with pytest.raises(SnowdropError, match=r"ml\.zip is a damaged or encrypted zip file"):
        prepare("movielens", path, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("layout", "name", "content", "sentence"),
    [
        ("latest", "ratings.csv", "zoe,1,5,100\n", "has no column 'userId' or .* no header line"),
        ("latest", "ratings.csv", None, r"ratings\.csv is missing"),
        ("latest", "movies.csv", "movieId,name\n1,Day\n", "has no column 'title'"),
        ("100k", "u.data", "u\t1\t5\t1\nzoe\t1\n", r"u\.data, row 2: it has 2 fields, expected 4"),
        ("100k", "u.item", "1|Day\n", r"u\.item, row 1: it has 2 fields, expected 5"),
        ("1m", "movies.dat", "1::Day\n", r"movies\.dat, row 1: it has 2 fields, expected 3"),
        ("1m", "ratings.dat", "u::1::5::1\nzoe::1::x::1\n", r"ratings\.dat, row 2: the rating"),
    ],
)
def test_movielens_files_of_a_wrong_shape_are_told(
    tmp_path: Path, layout: str, name: str, content: str | None, sentence: str
) -> None:
    source = movielens_folder(tmp_path / "ml", layout)
    (source / name).unlink() if content is None else (source / name).write_text(content)
    with pytest.raises(SnowdropError, match=sentence) as caught:
        prepare("movielens", source, "--out", tmp_path / "out")
    assert "zoe" not in str(caught.value)


def test_a_title_in_latin_1_holds_no_line_end(tmp_path: Path) -> None:
    source = movielens_folder(tmp_path / "ml", "1m")
    content = (source / "movies.dat").read_bytes().replace(b"Night", b"Ni\x85ght")
    (source / "movies.dat").write_bytes(content)
    prepare("movielens", source, "--out", tmp_path / "out")
    assert loaded(tmp_path / "out")[0].keys() == {"1", "2", "3", "4", "5"}


@pytest.mark.parametrize("line", ["3 0 1", "1 0 1", "x 0", "1 zoe", "1 0\0", "1 \xe9", "-1"])
def test_lines_of_users_dat_of_another_form_are_told(
    tmp_path: Path, citeulike: Path, line: str
) -> None:
    write_lines(citeulike / "users.dat", ["3 0 1 2", "", line], "latin-1")
    with pytest.raises(SnowdropError, match=r"users\.dat, row 3: expected whole numbers") as caught:
        prepare("citeulike", citeulike, "--out", tmp_path / "out")
    assert "zoe" not in str(caught.value)


def test_users_dat_counts_blank_lines_as_users(tmp_path: Path, citeulike: Path) -> None:
    write_lines(citeulike / "users.dat", ["1 0", "", "0", "1 1\r", ""])
    prepare("citeulike", citeulike, "--out", tmp_path / "out")
    assert loaded(tmp_path / "out")[1] == {("0", "0"), ("3", "1")}


def test_a_split_without_a_header_is_refused(tmp_path: Path) -> None:
    arguments = written("citeulike split", tmp_path, [("0", "1"), ("0", "2")])
    (tmp_path / "train.csv").write_text("0,1\n0,2\n")
    with pytest.raises(SnowdropError, match=r"train\.csv seems to have no header line"):
        prepare(*arguments, "--out", tmp_path / "out")


@pytest.mark.parametrize("item", ["", "\0x", "x\x1b"])
def test_items_without_an_id_or_with_control_characters_are_refused(
    tmp_path: Path, item: str
) -> None:
    lines = ["item_id,title", "1,Pen", f"{item},Ink"]
    for source in ("csv", "folder"):
        arguments = written(source, tmp_path, [("u", "1")])
        for name in ("i.csv", "items.csv"):
            write_lines(tmp_path / name, lines)
        with pytest.raises(SnowdropError, match="row 3: item_id "):
            prepare(*arguments, "--out", tmp_path / "out")


def test_a_users_id_that_is_a_columns_name_is_kept(tmp_path: Path) -> None:
    arguments = written("ninerec", tmp_path, [("u", "1"), ("id", "2")])
    prepare(*arguments, "--out", tmp_path / "out")
    assert loaded(tmp_path / "out")[1] == {("u", "1"), ("id", "2")}


def test_features_and_images_follow_the_items(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    (source / "images" / "b.png").write_bytes(b"png")
    (source / "items.csv").write_text("item_id,title\nb,Blue\nx,Nobody\na,Amber\nc,Cyan\n")
    for name, pairs in {"train": "u,a\nu,b\n", "validation": "u,c\n", "test": ""}.items():
        (source / f"{name}.csv").write_text(f"user_id,item_id\n{pairs}")
    np.save(source / "text.features.npy", np.arange(8, dtype=np.float32).reshape(4, 2))
    out = with_splits(source, tmp_path / "out")
    ids = pl.read_csv(out / "items.csv")["item_id"].to_list()
    rows = dict(zip(ids, np.load(out / "text.features.npy").tolist(), strict=True))
    assert rows == {"b": [0, 1], "a": [4, 5], "c": [6, 7]}
    assert (out / "images" / "b.png").read_bytes() == b"png"
    np.save(source / "text.features.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(SnowdropError, match=r"has 3 rows and the items file 4; give one row"):
        with_splits(source, tmp_path / "again")


def poster(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 6), colour).save(buffer, "png")
    return buffer.getvalue()


def posters(folder: Path, names: Sequence[str], kind: str) -> Path:
    """A folder or a zip file with an image under each name, each of its own bytes."""
    if kind == "zip":
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
            for name in names:
                archive.writestr(name, poster() + name.encode())
        return folder.with_suffix(".zip")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(poster() + name.encode())
    return folder


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_posters_are_copied_and_named(tmp_path: Path, kind: str) -> None:
    names = ["1.jpg", "deep/2.PNG", "deep/1.png", "99.jpg", "notes.txt", "7.webp"]
    source = posters(tmp_path / "posters", names, kind)
    films = movielens_folder(tmp_path / "ml", "latest")
    shown = prepare("movielens", films, "--posters", source, "--out", tmp_path / "out")
    assert "images: 2 of 5 items have one" in shown
    assert "left out: 1 images that are named like no item" in shown
    catalogue = read_catalogue(tmp_path / "out", seed=0)
    assert dict(zip(catalogue.ids, catalogue.images, strict=True)) == {
        "1": "images/1.jpg", "2": "images/2.png", "3": "", "4": "", "5": "",
    }  # fmt: skip
    kept = {p.name: p.read_bytes() for p in (tmp_path / "out" / "images").iterdir()}
    assert kept == {"1.jpg": poster() + b"1.jpg", "2.png": poster() + b"deep/2.PNG"}
    assert dict(zip(catalogue.ids, catalogue.texts, strict=True))["2"] == "Night (2001). Drama"


def test_posters_that_are_none_are_one_sentence(tmp_path: Path) -> None:
    films = movielens_folder(tmp_path / "ml", "latest")
    (tmp_path / "file").write_bytes(b"no zip")
    strange = posters(tmp_path / "strange", ["a.jpg"], "zip")
    broken = posters(tmp_path / "broken", ["1.jpg"], "zip")
    content = bytearray(broken.read_bytes())
    content[45] ^= 255  # within the image, which then misses its checksum
    broken.write_bytes(content)
    for path, sentence in (
        (tmp_path / "nothing", "is missing: expected a folder or a zip file"),
        (tmp_path / "file", "is no zip file"),
        (strange, "holds no image of an item: name each by its item's id, such as 1.jpg"),
        (broken, "is a damaged or encrypted zip file"),
    ):
        with pytest.raises(SnowdropError, match=sentence):
            prepare("movielens", films, "--posters", path, "--out", tmp_path / "out")
        assert not (tmp_path / "out" / "items.csv").exists()


def test_every_rating_may_count(tmp_path: Path) -> None:
    for layout in ("latest", "100k", "1m"):
        source = movielens_folder(tmp_path / layout, layout)
        prepare("movielens", source, "--min-rating", 0, "--out", tmp_path / f"{layout}-out")
        assert loaded(tmp_path / f"{layout}-out")[1] == {(u, i) for u, i, _ in RATINGS}


def test_movielens_knows_what_reads_a_data_folder(tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match=r"nor movies\.dat; `snowdrop prepare folder` reads"):
        prepare("movielens", split_folder(tmp_path / "in"), "--out", tmp_path / "out")


def rated_folder(folder: Path) -> Path:
    write_lines(
        folder / "items.csv", ["item_id,title,has_image", *(f"{i},Film {i},1" for i in "abc")]
    )
    rows = ["u,a,5,30", "u,b,2,10", "v,a,4,20", "v,c,3,5", "u,a,5,7"]
    write_lines(folder / "interactions.csv", ["user_id,item_id,rating,timestamp", *rows])
    return folder


def test_a_folder_with_ratings_times_and_images(tmp_path: Path) -> None:
    source = rated_folder(tmp_path / "in")
    images = posters(tmp_path / "p", ["a.jpg", "b.jpg"], "zip")
    prepare("folder", source, "--images", images, "--min-rating", 3, "--out", tmp_path / "out")
    texts, pairs = loaded(tmp_path / "out")
    assert texts == {"a": "Film a", "c": "Film c"}  # b is liked by nobody
    assert pairs == {("u", "a"), ("v", "a"), ("v", "c")}
    table = pl.read_csv(tmp_path / "out" / "interactions.csv")
    assert table.columns == ["user_id", "item_id", "timestamp"]
    assert table.rows() == [("v", "a", 20), ("v", "c", 5), ("u", "a", 7)]  # its first time
    assert read_catalogue(tmp_path / "out", 0).images == ("images/a.jpg", "")
    prepare("folder", source, "--out", tmp_path / "all")
    assert len(loaded(tmp_path / "all")[1]) == 4
    lines = (source / "interactions.csv").read_text().replace("v,c,3", "v,c,good")
    (source / "interactions.csv").write_text(lines)
    with pytest.raises(SnowdropError, match=r"row 5: the rating in column 'rating' is no number"):
        prepare("folder", source, "--min-rating", 3, "--out", tmp_path / "x")
    with pytest.raises(SnowdropError, match="has no column 'rating'"):
        prepare("folder", split_folder(tmp_path / "s"), "--min-rating", 3, "--out", tmp_path / "x")


def test_a_prepared_folder_keeps_what_its_image_column_names(tmp_path: Path) -> None:
    source = split_folder(tmp_path / "in")
    rows = ["item_id,title,image", "a,A,art/x.png", "b,B,../out.png", "c,C,gone.png"]
    write_lines(source / "items.csv", rows)
    posters(source, ["art/x.png"], "folder")
    posters(tmp_path, ["out.png"], "folder")
    prepare("folder", source, "--out", tmp_path / "out" / "deep")
    assert (tmp_path / "out" / "deep" / "art" / "x.png").read_bytes() == poster() + b"art/x.png"
    assert not (tmp_path / "out" / "out.png").exists()


def test_tables_keep_the_order_of_interactions(tmp_path: Path) -> None:
    write_lines(tmp_path / "i.csv", ["item_id,title", "a,Pen", "b,Ink"])
    write_lines(tmp_path / "p.csv", ["user_id,item_id,when,position", "u,a,3,1", "u,b,2,2"])
    tables = ["csv", tmp_path / "p.csv", tmp_path / "i.csv"]
    prepare(*tables, "--out", tmp_path / "place")
    assert pl.read_csv(tmp_path / "place" / "interactions.csv").rows() == [
        ("u", "a", 1),
        ("u", "b", 2),
    ]
    prepare(*tables, "--time-column", "when", "--out", tmp_path / "time")
    table = pl.read_csv(tmp_path / "time" / "interactions.csv")
    assert table.columns == ["user_id", "item_id", "timestamp"]
    assert table["timestamp"].to_list() == [3, 2]
    with pytest.raises(SnowdropError, match="has no column 'since'"):
        prepare(*tables, "--time-column", "since", "--out", tmp_path / "x")


@pytest.mark.parametrize("broken", ["text", "flat"])
def test_a_features_file_that_is_none_is_one_sentence(tmp_path: Path, broken: str) -> None:
    source = split_folder(tmp_path / "in")
    path = source / "audio.features.npy"
    path.write_text("no matrix") if broken == "text" else np.save(path, np.zeros(4))
    with pytest.raises(SnowdropError, match=r"audio\.features\.npy (cannot be read|has the shape)"):
        prepare("folder", source, "--out", tmp_path / "out")
