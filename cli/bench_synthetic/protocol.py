"""How synthetic users are judged: what reported users show, what is held out, and the metrics.

Lilienthal, Mello, Eirinaki and Tiomkin, "Multi-Resolution Diffusion for Privacy-Sensitive
Recommender Systems", arXiv 2311.03488, section 5. Users are cut into parts, not items. A
recommender is trained on real users, synthetic users, or both, and on a part of the items of the
*reported* users; the rest of their items is to be found. The published code reports on the users
of the file ``validation.csv`` and trains on all others.

There are two protocols. ``published`` follows the published code: an item that a reported user has
rated low counts as one that is to be found, and each recommender has the slips that its docstring
names. ``likes`` knows likes alone, without these slips, and treats all methods alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.sparse import csr_array, vstack

from cli.bench_synthetic.names import KS, Protocol
from client_app.synthesis.data import UserTable, read_user_splits
from client_app.synthesis.silo import Silo
from common.errors import SnowdropError

if TYPE_CHECKING:
    from torch import Tensor

_HELD_OUT = 0.2
_SPLIT_SEED = 123
_BLOCK = 1 << 24
"""Scores that are held at once."""


@dataclass(frozen=True, eq=False)
class Split:
    """Items of the users who have two or more, in two parts.

    Parameters
    ----------
    users : ndarray, int64 (users,)
        Their rows in the matrix that was split.
    fold_in, held_out : csr_array, bool (users, items)
        What a recommender is shown, and what it shall find.
    """

    users: np.ndarray
    fold_in: csr_array
    held_out: csr_array


def split_items(matrix: csr_array, seed: int = _SPLIT_SEED) -> Split:
    """Hold out ⌈20 %⌉ of each user's items, drawn as the published code draws them.

    Parameters
    ----------
    matrix : csr_array, bool (users, items)
        Users with fewer than two items are left out.
    seed : int
    """
    matrix = csr_array(matrix)
    matrix.sort_indices()
    counts = np.diff(matrix.indptr)
    users = np.flatnonzero(counts >= 2)
    draws = np.random.RandomState(seed)
    held = np.zeros(matrix.nnz, dtype=bool)
    # One draw after the other: what a user gets depends on all draws before it.
    for start, count in zip(matrix.indptr[users], counts[users], strict=True):
        held[start + draws.choice(count, int(np.ceil(_HELD_OUT * count)), replace=False)] = True
    return Split(users, _kept(matrix, ~held)[users], _kept(matrix, held)[users])


def _kept(matrix: csr_array, entries: np.ndarray) -> csr_array:
    """The matrix with some of its entries, bool (entries,)."""
    before = np.concatenate(([0], np.cumsum(entries)))
    parts = (np.ones(int(entries.sum()), bool), matrix.indices[entries], before[matrix.indptr])
    return csr_array(parts, shape=matrix.shape)


@dataclass(frozen=True, eq=False)
class Rows:
    """Users as training data of a recommender.

    Parameters
    ----------
    likes, dislikes : csr_array, bool (users, items)
    """

    likes: csr_array
    dislikes: csr_array

    @classmethod
    def none(cls, items: int) -> "Rows":
        """No users."""
        return cls(csr_array((0, items), dtype=bool), csr_array((0, items), dtype=bool))

    @property
    def users(self) -> int:
        return int(self.likes.shape[0])


@dataclass(frozen=True, eq=False)
class Material:
    """What a recommender is trained on.

    Parameters
    ----------
    real, synthetic : Rows
        Users to learn from; one of them may be empty.
    reported : Rows
        What is known of the users who get recommendations.
    held_out : int
        Pairs of a reported user and an item that are to be found.
    by_search : bool
        Whether the published code scored these rows in its search (`common.methods.Card`).
    """

    real: Rows
    reported: Rows
    synthetic: Rows
    held_out: int = 0
    by_search: bool = False

    @property
    def items(self) -> int:
        return int(self.reported.likes.shape[1])


class World:
    """Real users: those to train on and those who are reported.

    Parameters
    ----------
    train, reported : UserTable
        With the same items.
    """

    def __init__(self, train: UserTable, reported: UserTable) -> None:
        self.train, self.reported = train, reported
        self.items = train.likes.shape[1]
        self.splits = {
            "rated": split_items(reported.rated),
            "likes": split_items(reported.likes),
        }
        if not len(self.splits["likes"].users):
            raise SnowdropError(
                "no reported user has liked two items or more: there is nothing to hold out"
            )

    @classmethod
    def read(cls, folder: Path) -> "World":
        """The users of a folder that cuts users into train, test and validation.

        Raises
        ------
        SnowdropError
            If a file is missing or wrong, there are fewer than two users or items to train on, or
            nothing can be held out.
        """
        train, test, reported = read_user_splits(folder)
        world = cls(joined(train, test), reported)
        if len(world.train.users) < 2 or world.items < 2:
            raise SnowdropError(
                f"{folder} has {len(world.train.users)} users and {world.items} items to train "
                "on; two of each are needed"
            )
        return world

    def split(self, counts: Literal["rated", "likes"]) -> Split:
        """The reported users' items in two parts, of what they rated or of what they liked."""
        return self.splits[counts]

    def silo(self, protocol: Protocol, published: bool) -> Silo:
        """What a synthesizer is trained on.

        Parameters
        ----------
        protocol : str
        published : bool
            Whether it is in its published form. The published code trains on what is folded in
            of the reported users, too, and stops on them. Every other form sees the users to train
            on alone.
        """
        if not published:
            return Silo(self.train.likes, self.train.rated)
        counts: Literal["rated", "likes"] = "rated" if protocol == "published" else "likes"
        watched = self.reported.rated if protocol == "published" else self.reported.likes
        likes = csr_array(vstack([self.train.likes, self.split(counts).fold_in], format="csr"))
        return Silo(likes, self.train.rated, watched)

    def real(self) -> Rows:
        """The users to train on."""
        return Rows(self.train.likes, without(self.train.rated, self.train.likes))

    def held_out_part(self, share: float, seed: int) -> "World":
        """A world of the users to train on alone: some of them take the place of the reported.

        Parameters
        ----------
        share : float
            Of the users to train on, who are reported in that world.
        seed : int
            Of the draw.
        """
        users = len(self.train.users)
        order = np.random.default_rng([seed, users]).permutation(users)
        cut = min(users - 2, max(2, round(share * users)))
        if cut < 1:
            raise SnowdropError(f"{users} users are too few to hold some of them out")
        return World(
            _taken(self.train, np.sort(order[cut:])), _taken(self.train, np.sort(order[:cut]))
        )


def joined(first: UserTable, second: UserTable) -> UserTable:
    """All users of two tables with the same items."""
    return UserTable(
        first.users + second.users,
        first.items,
        csr_array(vstack([first.likes, second.likes], format="csr")),
        csr_array(vstack([first.rated, second.rated], format="csr")),
    )


def without(matrix: csr_array, other: csr_array) -> csr_array:
    """Entries of a matrix that another one does not have, bool (users, items)."""
    rest = csr_array(matrix, dtype=np.int8) - csr_array(other, dtype=np.int8)
    rest.data = np.clip(rest.data, 0, None)
    rest.eliminate_zeros()
    return rest.astype(bool)


def _taken(table: UserTable, rows: np.ndarray) -> UserTable:
    users = tuple(np.asarray(table.users, dtype=object)[rows])
    return UserTable(users, table.items, table.likes[rows], table.rated[rows])


def blocks(users: int, items: int) -> Iterator[slice]:
    """Rows of users whose scores are held at once."""
    step = max(1, _BLOCK // max(1, items))
    for start in range(0, users, step):
        yield slice(start, min(users, start + step))


def user_metrics(
    scores: "Tensor", held_out: "Tensor", whole_ideal: bool = False, ks: Sequence[int] = KS
) -> dict[str, "Tensor"]:
    """Recall and NDCG of users at several lengths of a list, float64 (users,); NaN without items.

    Recall@k is hits over min(k, held-out items). NDCG@k has binary gains; its ideal list has
    min(k, held-out items) hits.

    Parameters
    ----------
    scores : Tensor, float32 (users, items)
        −∞ where an item is not to be recommended. Of equal scores, the earlier item comes first.
    held_out : Tensor, bool (users, items)
    whole_ideal : bool
        Whether the ideal list of NDCG has k hits, however few items are held out.
    ks : Sequence[int]
    """
    import torch

    from common.metrics import metric_values, rank

    users, items = scores.shape
    best = rank(scores, torch.arange(items, device=scores.device), max(ks))
    hits = torch.gather(held_out, 1, best)
    relevant = held_out.sum(1)
    values = metric_values(hits, relevant.clamp(min=1), ks)
    unknown = torch.where(relevant > 0, 0.0, torch.nan)
    whole = torch.full((users,), max(ks), dtype=torch.int64)
    whole_values = metric_values(hits, whole, ks) if whole_ideal else values
    found = {}
    for k in ks:
        most = relevant.clamp(min=1, max=k)
        found[f"recall@{k}"] = values[f"recall@{k}"] * relevant.clamp(min=1) / most + unknown
        found[f"ndcg@{k}"] = whole_values[f"ndcg@{k}"] + unknown
    return {f"{metric}@{k}": found[f"{metric}@{k}"] for metric in ("recall", "ndcg") for k in ks}
