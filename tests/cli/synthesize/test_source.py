"""Which users and items synthetic ones are made from."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cli.synthesize.source import part_users, read_source
from client_app.synthesis.data import read_users
from common.catalogue import read_catalogue
from common.errors import SnowdropError

SPLITS = {"train": "warm", "validation": "validation", "test": "test"}


def cut_by_items(source: Path, out: Path, items: bool) -> list[str]:
    """A data folder whose train, validation and test files cut the items; the warm ones."""
    frame = pl.read_csv(source / "interactions.csv")
    part = frame["item_id"].str.slice(-1).cast(pl.Int64) % 3
    out.mkdir()
    for k, name in enumerate(SPLITS):
        frame.filter(part == k).write_csv(out / f"{name}.csv")
    if items:
        shutil.copy(source / "items.csv", out)
    return frame.filter(part == 0)["item_id"].unique().sort().to_list()


@pytest.mark.parametrize("items", [True, False])
def test_files_that_cut_items_say_which_are_cold(
    data_folder: Path, tmp_path: Path, items: bool
) -> None:
    warm = cut_by_items(data_folder, tmp_path / "cut", items)
    source = read_source(tmp_path / "cut", None, 0)
    assert source.warm_only
    assert sorted(source.users.items) == warm
    assert (source.items is not None) == items
    if source.items:
        (tmp_path / "items.csv").write_bytes(source.items.content)
        assert sorted(read_catalogue(tmp_path, 0).ids_of("warm")) == warm
    everything = read_source(tmp_path / "cut", False, 0)
    assert len(everything.users.items) > len(warm)


def test_files_that_cut_users_do_not(tmp_path: Path) -> None:
    for name, users in (("train", "abc"), ("validation", "de"), ("test", "fg")):
        rows = "".join(f"{u},x,1\n{u},y,0\n{u},z,1\n" for u in users)
        (tmp_path / f"{name}.csv").write_text("user_id,item_id,liked\n" + rows)
    source = read_source(tmp_path, None, 0)
    assert not source.warm_only
    assert source.users.users == tuple("abcdefg")
    assert source.users.items == ("x", "y", "z")


def test_the_split_that_a_simulation_draws_is_left_out_when_asked(data_folder: Path) -> None:
    assert not read_source(data_folder, None, 5).warm_only
    source = read_source(data_folder, True, 5)
    warm = set(read_catalogue(data_folder, 5).ids_of("warm"))
    assert set(source.users.items) == warm & set(read_users(data_folder).items)


def test_with_differential_privacy_untouched_items_are_there_too(
    data_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(data_folder, data)
    frame = pl.read_csv(data / "interactions.csv")
    unique = frame["item_id"].unique().sort()[0]
    alone = frame.filter(pl.col("item_id") != unique)
    alone.write_csv(data / "interactions.csv")
    every = pl.read_csv(data / "items.csv")["item_id"].to_list()
    for warm_only in (None, True):
        with_him = read_source(data_folder, warm_only, 5, private=True).users
        without = read_source(data, warm_only, 5, private=True).users
        assert with_him.items == without.items
    assert set(read_source(data, None, 5, private=True).users.items) == set(every)
    assert unique not in read_source(data, None, 5).users.items
    users = read_source(data, None, 5, private=True).users
    column = {item: place for place, item in enumerate(users.items)}
    row = {user: place for place, user in enumerate(users.users)}
    likes = users.likes.toarray()
    assert likes.sum() == alone.unique(["user_id", "item_id"]).height
    assert all(likes[row[str(u)], column[str(i)]] for u, i in alone["user_id", "item_id"].rows())


def test_with_differential_privacy_a_bare_interactions_file_is_refused(data_folder: Path) -> None:
    with pytest.raises(SnowdropError, match="has no items file: with an ε"):
        read_source(data_folder / "interactions.csv", None, 0, private=True)


def test_users_without_a_warm_item_are_left_out(data_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(data_folder, data)
    items = pl.read_csv(data / "items.csv").with_row_index()
    items = items.with_columns(split=pl.when(pl.col("index") < 2).then(pl.lit("warm"))
                               .otherwise(pl.lit("test"))).drop("index")  # fmt: skip
    items.write_csv(data / "items.csv")
    source = read_source(data, None, 0)
    warm = items.filter(pl.col("split") == "warm")["item_id"].to_list()
    users = pl.read_csv(data / "interactions.csv").filter(pl.col("item_id").is_in(warm))
    assert set(source.users.users) == set(users["user_id"])
    assert source.left_out == 60 - len(source.users.users) > 0


def test_a_fault_of_the_items_names_the_real_folder(data_folder: Path, tmp_path: Path) -> None:
    cut_by_items(data_folder, tmp_path / "cut", items=True)
    with (tmp_path / "cut" / "items.csv").open("a") as file:
        file.write((data_folder / "items.csv").read_text().partition("\n")[2])
    with pytest.raises(SnowdropError, match="more than once") as refused:
        read_source(tmp_path / "cut", None, 0)
    assert str(refused.value).startswith(str(tmp_path / "cut" / "items.csv"))


def test_users_are_parted_at_random_and_whole(data_folder: Path) -> None:
    users = read_users(data_folder)
    silo, people = part_users(users, 0.25, 3)
    assert people.held_out.shape[0] == 15
    assert silo.likes.toarray().tolist() == people.trained.toarray().tolist()
    rows = [*people.trained.toarray().tolist(), *people.held_out.toarray().tolist()]
    assert sorted(rows) == sorted(users.likes.toarray().tolist())
    again, other = (part_users(users, 0.25, seed)[1].held_out for seed in (3, 4))
    assert (again != people.held_out).nnz == 0
    assert (other != people.held_out).nnz > 0


def test_a_small_share_still_holds_somebody_out(data_folder: Path) -> None:
    users = read_users(data_folder)
    assert part_users(users, 0.001, 0)[1].held_out.shape[0] == 1
    silo, people = part_users(users, 0, 0)
    assert people.held_out.shape == (0, len(users.items))
    assert np.array_equal(silo.likes.toarray(), users.likes.toarray())
