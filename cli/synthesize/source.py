"""The real users that synthetic ones are made from, and the items that these may have."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, hstack

from cli.prepare.folder import with_splits
from client_app.interactions import interaction_files, read_interactions
from client_app.synthesis.data import UserTable, read_users
from client_app.synthesis.measured import People
from client_app.synthesis.silo import Silo
from common.catalogue import Catalogue, find_table, read_catalogue, read_table
from common.counting import counted
from common.errors import SnowdropError


@dataclass(frozen=True)
class Items:
    """The items file that a folder of synthetic users gets.

    Parameters
    ----------
    name : str
    content : bytes
    """

    name: str
    content: bytes


@dataclass(frozen=True, eq=False)
class Source:
    """What synthetic users are made from.

    Parameters
    ----------
    users : UserTable
        Each has liked an item.
    items : Items, optional
        None where the data have no items file.
    warm_only : bool
        Whether cold items were left out.
    left_out : int
        Users without a like among the items that remain.
    """

    users: UserTable
    items: Items | None
    warm_only: bool
    left_out: int


def read_source(data: Path, warm_only: bool | None, seed: int, private: bool = False) -> Source:
    """Users of a data folder or of an interactions file.

    Parameters
    ----------
    data : Path
    warm_only : bool, optional
        Whether to leave cold items out (default: where the data say which items are cold).
    seed : int
        Of the split that `snowdrop simulate` draws, where ``warm_only`` is asked for and the data
        do not say it.
    private : bool
        Whether the items must be those of an items file, touched or not: with differential
        privacy, that somebody has touched an item must not show.

    Raises
    ------
    SnowdropError
        If something cannot be read, nothing is left to learn from, or there is no items file where
        one is needed.
    """
    users = read_users(data)
    by_items = data.is_dir() and _files_cut_items(data)
    path = find_table(data, "items") if data.is_dir() else None
    path = path if path is not None and path.exists() else None
    if private and path is None:
        raise SnowdropError(
            f"{data} has no items file: with an ε, synthetic users need the list of all items, "
            "since which items somebody has touched is private; give a data folder with items.csv"
        )
    if warm_only is None:
        warm_only = by_items or (path is not None and "split" in read_table(path).columns)
    items = Items(path.name, path.read_bytes()) if path else None
    if warm_only:
        if path:
            catalogue, items = _catalogue(data, seed)
            warm = catalogue.ids_of("warm")
        elif by_items:
            warm = _item_ids(find_table(data, "train"))
        else:
            raise SnowdropError(
                f"--warm-only: {data} does not say which items are cold; it needs an items file, "
                "or train, validation and test files that cut the items"
            )
        users = _with_items(users, warm if private else _touched(users, warm))
    elif private:
        users = _with_items(users, read_catalogue(data, seed).ids)
    told = users.likes.shape[0]
    users = _who_like(users)
    if not users.users:
        what = "has a warm item" if warm_only else "has liked an item"
        raise SnowdropError(f"{data}: no user {what}, so there is nothing to learn from")
    if len(users.items) < 2:
        raise SnowdropError(
            f"{data} has one item{' that is warm' if warm_only else ''}: all users would be the "
            "same; synthetic users need two or more items"
        )
    return Source(users, items, bool(warm_only), told - len(users.users))


def part_users(users: UserTable, share: float, seed: int) -> tuple[Silo, People]:
    """Users to train on, and those that no training sees, drawn at random.

    Parameters
    ----------
    users : UserTable
    share : float
        Of the users that are held out; at least one of them, unless it is 0.
    seed : int

    Raises
    ------
    SnowdropError
        If nobody is left to train on.
    """
    many = len(users.users)
    held = min(many, max(1, round(share * many))) if share else 0
    if held == many:
        raise SnowdropError(
            f"{counted(many, 'user')} with --hold-out {share:g}: nobody is left to "
            "train on; give more users, or --hold-out 0"
        )
    order = np.random.default_rng(seed).permutation(many)
    trained, held_out = np.sort(order[held:]), np.sort(order[:held])
    return (
        Silo(users.likes[trained], users.rated[trained]),
        People(users.likes[trained], users.likes[held_out]),
    )


def _files_cut_items(data: Path) -> bool:
    """Whether train, validation and test files are there, and no item is in two of them."""
    files = interaction_files(data)
    if len(files) == 1:
        return False
    sets = [set(_item_ids(path)) for path in files]
    return len(set().union(*sets)) == sum(map(len, sets))


def _item_ids(path: Path) -> list[str]:
    ids: list[str] = read_interactions([path])["item_id"].unique().cast(str).to_list()
    return ids


def _catalogue(data: Path, seed: int) -> tuple[Catalogue, Items]:
    """Items with the split that the data say, or the one that the seed draws."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            place = with_splits(data, Path(scratch))
            path = find_table(place, "items")
            return read_catalogue(place, seed), Items(path.name, path.read_bytes())
        except SnowdropError as error:
            raise SnowdropError(str(error).replace(scratch, str(data))) from error


def _with_items(users: UserTable, items: Sequence[str]) -> UserTable:
    """The users with these items as columns, whether somebody has touched them or not."""
    place = {item: column for column, item in enumerate(users.items)}
    columns = np.array([place.get(item, len(place)) for item in items], int)
    untouched = csr_array((len(users.users), 1), dtype=bool)

    def taken(matrix: csr_array) -> csr_array:
        return csr_array(hstack([matrix, untouched], format="csr"))[:, columns]

    return replace(users, items=tuple(items), likes=taken(users.likes), rated=taken(users.rated))


def _touched(users: UserTable, items: Sequence[str]) -> list[str]:
    """Those of the items that somebody has touched, in the order of the users' items."""
    wanted = set(items)
    return [item for item in users.items if item in wanted]


def _who_like(users: UserTable) -> UserTable:
    kept = np.flatnonzero(np.diff(users.likes.indptr))
    return replace(
        users,
        users=tuple(users.users[row] for row in kept),
        likes=users.likes[kept],
        rated=users.rated[kept],
    )
