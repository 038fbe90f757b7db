"""Neural matrix factorisation: a product and a network over embeddings of a user and an item."""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cli.bench_synthetic.protocol import Material, Rows
from cli.bench_synthetic.recommenders.base import Recommender
from client_app.synthesis.base import Watch, unwatched
from common.errors import OverflowedError, SnowdropError

FACTORS = 8
LAYERS = 3
DROPOUT = 0.5
RATE = 1e-3
BATCH = 256
FRESH_BATCH = 1024
"""With drawn pairs, of which there are more: as good, and twice as quick."""
EPOCHS = 20
VALIDATION = 0.2
PATIENCE = 10
NEGATIVES = 4
_PAIRS_AT_ONCE = 1 << 17
_REDRAWS = 20


class NeuMF(Recommender):
    """He, Liao, Zhang, Nie, Hu and Chua, "Neural Collaborative Filtering", arXiv 1708.05031.

    Likes are to be told from other pairs of a user and an item, with binary cross-entropy and
    Adam; at most 20 epochs, of which the one with the smallest loss on a fifth of the pairs is
    taken. The reported users' likes are those that are folded in.

    ``published`` is as the published code has it (arXiv 2311.03488). Other pairs are dislikes, and
    as many of them drawn again as there are likes. Of the reported users' low ratings, one half is
    trained on. The weights of the *first* epoch are tested, since the best one is kept in a
    variable that is never read. Items that no row to train on has cannot be recommended, and are
    not counted as missed. NDCG's ideal list is full of hits, since it counts all items. A filter
    that shall take test pairs out of the training compares rows by their place, and drops about
    half of as many rows as there are test pairs. (The code also loses the reported users' low
    ratings after the first of several runs. That is not repeated here.)

    Otherwise other pairs are four for each like, drawn in each epoch from all that a user does not
    like. The fifth is drawn once, and held out of the training.
    """

    title = "NeuMF"
    effort = 12.0

    def counts(self) -> Literal["rated", "likes"]:
        return "likes"

    @property
    def whole_ideal(self) -> bool:
        return self.published

    @property
    def drops_unknown(self) -> bool:
        return self.published

    def fit(self, material: Material, seed: int, watch: Watch = unwatched) -> None:
        self._first, self._reported = material.real.users, material.reported.users
        self._items = material.items
        users = self._first + self._reported + material.synthetic.users
        draws = np.random.default_rng([seed, 3])
        source = RatedPairs(material, draws) if self.published else LikedPairs(material, draws)
        epochs = 1 if self.published else EPOCHS
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            network = NeuMFNetwork(users, self._items).to(self.device)
            self._network = self._train(network, source, epochs, watch)
        self._candidates, self._refused = source.candidates, source.refused

    def _train(
        self, network: "NeuMFNetwork", source: "RatedPairs | LikedPairs", epochs: int, watch: Watch
    ) -> "NeuMFNetwork":
        optimizer = torch.optim.Adam(network.parameters(), RATE, fused=True)
        size = BATCH if self.published else FRESH_BATCH
        best, best_state, since = math.inf, network.state_dict(), 0
        for epoch in range(epochs):
            watch("training NeuMF", epoch, epochs)
            trained, checked = (pairs.to(self.device) for pairs in source.epoch())
            network.train()
            for start in range(0, len(trained.label), size):
                batch = slice(start, start + size)
                optimizer.zero_grad()
                logits = network(trained.user[batch], trained.item[batch])
                loss = binary_cross_entropy_with_logits(logits, trained.label[batch])
                loss.backward()
                optimizer.step()
            error = self._loss(network, checked)
            if not math.isfinite(error):
                raise OverflowedError(f"the numbers of NeuMF overflowed in epoch {epoch + 1}")
            if error < best:
                best, best_state, since = error, copy.deepcopy(network.state_dict()), 0
            elif (since := since + 1) == PATIENCE:
                break
        network.load_state_dict(best_state)
        return network.eval()

    @staticmethod
    @torch.no_grad()
    def _loss(network: "NeuMFNetwork", pairs: "Pairs") -> float:
        network.eval()
        logits = torch.cat(
            [
                network(pairs.user[at : at + _PAIRS_AT_ONCE], pairs.item[at : at + _PAIRS_AT_ONCE])
                for at in range(0, len(pairs.label), _PAIRS_AT_ONCE)
            ]
        )
        return float(binary_cross_entropy_with_logits(logits, pairs.label))

    @torch.no_grad()
    def scores(self, rows: slice) -> Tensor:
        users = self._first + torch.arange(self._reported)[rows]
        found = self._network.table(users.to(self.device)).cpu()
        found[:, ~self._candidates] = -math.inf
        return found.masked_fill(torch.from_numpy(self._refused[rows].toarray()), -math.inf)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a user and an item, int64 (pairs,), with label 0 or 1, float32 (pairs,)."""

    user: Tensor
    item: Tensor
    label: Tensor

    @classmethod
    def of(cls, pairs: np.ndarray) -> "Pairs":
        """From user, item and label of each pair, int64 (pairs, 3)."""
        user, item, label = torch.from_numpy(pairs.T.copy())
        return cls(user, item, label.float())

    def to(self, device: torch.device) -> "Pairs":
        """On a device."""
        return Pairs(self.user.to(device), self.item.to(device), self.label.to(device))


class RatedPairs:
    """Pairs of the published code: likes, dislikes, and as many dislikes again as there are likes.

    Parameters
    ----------
    material : Material
    draws : Generator

    Raises
    ------
    SnowdropError
        If there is no dislike among them.
    """

    def __init__(self, material: Material, draws: np.random.Generator) -> None:
        self._draws = draws
        low = coo_array(material.reported.dislikes)
        known = draws.permutation(low.nnz)[: low.nnz // 2]
        shape = material.reported.dislikes.shape
        ones = np.ones(len(known), dtype=bool)
        disliked = csr_array((ones, (low.row[known], low.col[known])), shape=shape)
        reported = Rows(material.reported.likes, disliked)
        first, shown = material.real.users, material.reported.users
        real = np.concatenate([_rated(material.real, 0), _rated(reported, first)])
        if first:
            real = self._filtered(real, material.held_out, low.nnz - len(known))
        made = _rated(material.synthetic, first + shown)
        self._pairs = np.concatenate([real, made])
        if self._pairs[:, 2].all():
            raise SnowdropError(
                "the published form of NeuMF needs low ratings or dislikes, and there are none"
            )
        had = np.zeros(material.items, dtype=bool)
        had[self._pairs[:, 1]] = True
        self.candidates = torch.from_numpy(had)
        self.refused = disliked

    def _filtered(self, pairs: np.ndarray, held_out: int, low: int) -> np.ndarray:
        """Without the pairs whose label is that of the test pair which has the same place."""
        pairs = self._draws.permutation(pairs)
        labels = self._draws.permutation(np.repeat([1, 0], [held_out, low]))[: len(pairs)]
        kept = np.ones(len(pairs), dtype=bool)
        kept[: len(labels)] = pairs[: len(labels), 2] != labels
        return pairs[kept]

    def epoch(self) -> tuple[Pairs, Pairs]:
        """Pairs to train on in one epoch, and pairs to validate on."""
        order = self._draws.permutation(len(self._pairs))
        cut = len(order) - math.ceil(VALIDATION * len(order))
        trained = self._pairs[order[:cut]]
        disliked = trained[trained[:, 2] == 0]
        if len(disliked):
            likes = int(trained[:, 2].sum())
            again = disliked[self._draws.integers(0, len(disliked), likes)]
            trained = np.concatenate([trained, again])
        trained = self._draws.permutation(trained)
        return Pairs.of(trained), Pairs.of(self._pairs[order[cut:]])


class LikedPairs:
    """Likes, and for each of them pairs that are none, drawn anew in each epoch.

    Parameters
    ----------
    material : Material
    draws : Generator
    """

    def __init__(self, material: Material, draws: np.random.Generator) -> None:
        self._draws, self._items = draws, material.items
        first, shown = material.real.users, material.reported.users
        others = np.concatenate(
            [_liked(material.real.likes, 0), _liked(material.synthetic.likes, first + shown)]
        )
        known = _liked(material.reported.likes, first)
        self._keys = np.sort(np.concatenate([others, known]))
        others = draws.permutation(others)
        cut = math.ceil(VALIDATION * len(others))
        self._checked = self._with_others(others[:cut])
        self._likes = np.concatenate([others[cut:], known])
        self.candidates = torch.ones(material.items, dtype=torch.bool)
        self.refused = csr_array(material.reported.likes.shape, dtype=bool)
        if not len(self._likes) or not cut:
            raise SnowdropError("there are too few likes for a fifth of them to be held out")

    def _with_others(self, likes: np.ndarray) -> np.ndarray:
        """Likes, and drawn pairs of the same users that are none, int64 (pairs, 3)."""
        users = np.repeat(likes // self._items, NEGATIVES)
        drawn = users * self._items + self._draws.integers(0, self._items, len(users))
        liked = self._is_like(drawn)
        for _ in range(_REDRAWS):
            if not liked.any():
                break
            again = np.flatnonzero(liked)
            drawn[again] += (
                self._draws.integers(0, self._items, len(again)) - drawn[again] % self._items
            )
            liked[again] = self._is_like(drawn[again])
        keys = np.concatenate([likes, drawn[~liked]])
        labels = np.arange(len(keys)) < len(likes)
        return np.stack([keys // self._items, keys % self._items, labels], 1)

    def _is_like(self, keys: np.ndarray) -> np.ndarray:
        places = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return self._keys[places] == keys

    def epoch(self) -> tuple[Pairs, Pairs]:
        """Pairs to train on in one epoch, and pairs to validate on."""
        trained = self._draws.permutation(self._with_others(self._likes))
        return Pairs.of(trained), Pairs.of(self._checked)


def _liked(likes: csr_array, first: int) -> np.ndarray:
    """User · items + item of each like, int64 (likes,); users are counted from ``first``."""
    cells = coo_array(likes)
    return (cells.row.astype(np.int64) + first) * likes.shape[1] + cells.col


def _rated(rows: Rows, first: int) -> np.ndarray:
    """User, item and label of each like and dislike, int64 (pairs, 3)."""
    keys = [_liked(part, first) for part in (rows.likes, rows.dislikes)]
    labels = np.repeat([1, 0], [len(each) for each in keys])
    whole, items = np.concatenate(keys), rows.likes.shape[1]
    return np.stack([whole // items, whole % items, labels], 1)


class NeuMFNetwork(nn.Module):
    """Product of embeddings ⊕ network over other embeddings → a logit, initialised as published.

    Parameters
    ----------
    users, items : int
    """

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        wide = FACTORS * 2 ** (LAYERS - 1)
        self.user_product, self.item_product = (nn.Embedding(n, FACTORS) for n in (users, items))
        self.user_network, self.item_network = (nn.Embedding(n, wide) for n in (users, items))
        layers: list[nn.Module] = []
        for depth in range(LAYERS):
            width = 2 * wide // 2**depth
            layers += [nn.Dropout(DROPOUT), nn.Linear(width, width // 2), nn.ReLU()]
        self.network = nn.Sequential(*layers)
        self.last = nn.Linear(2 * FACTORS, 1)
        for part in self.modules():
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight, std=0.01)
            elif isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)
        nn.init.kaiming_uniform_(self.last.weight, a=1, nonlinearity="sigmoid")

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """Logits of pairs, float32 (pairs,); users and items are int64 (pairs,)."""
        product = self.user_product(user) * self.item_product(item)
        both = torch.cat([self.user_network(user), self.item_network(item)], 1)
        return self.last(torch.cat([product, self.network(both)], 1)).squeeze(1)

    def table(self, users: Tensor) -> Tensor:
        """Logits of all items for users, int64 (users,) → float32 (users, items)."""
        items = torch.arange(self.item_product.num_embeddings, device=users.device)
        step = max(1, _PAIRS_AT_ONCE // len(items))
        found = [
            self(part.repeat_interleave(len(items)), items.repeat(len(part)))
            for part in users.split(step)
        ]
        return torch.cat([*found, items.new_empty(0, dtype=torch.float32)]).view(-1, len(items))
