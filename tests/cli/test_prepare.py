"""`snowdrop prepare`: every source becomes a data folder that loads."""

import gzip
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.prepare.folder import read
from client_app.interactions import interaction_files, read_interactions
from common.catalogue import Catalogue, read_catalogue
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
    write_lines(tmp_path / "p.csv", ["user_id,item_id,stars", "u,a,5", "u,b,good"])
    with pytest.raises(SnowdropError):
        prepare("csv", tmp_path / "p.csv", tmp_path / "i.csv", "--rating-column", "stars",
                "--out", tmp_path / "out")  # fmt: skip


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
