"""One round's server half: EASE from one sum over users, and the way from warm to cold items.

EASE (Steck, "Embarrassingly shallow autoencoders for sparse data", arXiv 1905.03375) has a closed
form: with G the Gram matrix of the users' histories and P = (G + λ I)⁻¹, the item-item weights with
a zero diagonal are B = I − P · diag(1 / diag P) (equation 8). Here a user counts 1 / n, where n is
the length of its history, so that nobody moves the sum by more than a norm of 1. A user's history x
then scores the cold items by x B C', where C are the weights of texts of kernel ridge.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from common.catalogue import ItemIndex
from common.methods.carried import SHARES
from common.methods.one_round import ITEM_RIDGES, OneRoundSettings
from common.users.heads import State
from common.users.item_sums import item_sums, packed, unpacked
from common.users.synthetic import SyntheticUsers
from server_app.accountant import noise_in_sum
from server_app.aggregation import Expected, Summed
from server_app.carrier import WHOLE, Carrier
from server_app.item_weights import (
    directions_of_gram,
    directions_of_sketch,
    reliability,
    text_basis,
)
from server_app.methods.base import Scoring, Trained, World
from server_app.methods.table import former_rows
from server_app.shares import asked_of_some, likely_form

log = logging.getLogger("snowdrop")

_UNTRIED = 100.0, 0.3, 1
"""λ, share and kernels where nobody chose them and no validation items can."""
_NOISY_RIDGE, _NOISY_KERNELS = 30.0, 2
"""λ and kernels where the sum carries noise."""
_OF_RELIABLE, _POWER = 0.6, 0.75
"""Item-item weights of a noisy sum of reliability r have a share of 0.6 r^¾ in a score; chosen on
validation items of amazon-office, movielens and ml-1m at ε from 0.5 to 8."""
_SMOOTHING = 0.2
"""Added to the popularity of each item, in means over items."""


class OneRound(Trained):
    """The mean over users of their bounded parts, and what is made of it.

    Each round makes the sum anew, of the histories that nodes have by then.

    Parameters
    ----------
    name : str
        Of the method's card.
    world : World
    """

    trains_synthetic = True
    has_loss = False
    has_heads = False

    def __init__(self, name: str, world: World) -> None:
        self.name, self.world, self.settings = name, world, world.settings
        self.own: OneRoundSettings = world.settings.group(name)
        self.round = 0
        self.mean: np.ndarray | None = None  # float32, as `expected` has it, over users
        self.basis: np.ndarray | None = None  # float32 (warm, k), of the mean that is a sketch
        self.chosen: tuple[float, float, int] | None = None  # λ, share, kernels
        self.noise = 0.0  # standard deviation of the noise of each number of the mean
        self._users = 0  # of the last sum
        self._directions: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def fitted_round(self) -> int:
        return self.round if self.mean is not None else 0

    @property
    def warm(self) -> int:
        """Warm items m of today's catalogue."""
        return len(self.world.rows("warm"))

    def arrays(self) -> dict[str, np.ndarray]:
        basis = self._todays_basis()
        return {} if basis is None else {"basis": basis}

    @property
    def columns(self) -> int:
        """Columns of the next sum where it is a sketch, else 0."""
        return self.own.columns_for(self.warm, bool(self.settings.noise))

    def expected(self) -> dict[str, Expected]:
        columns = self.columns
        if self.settings.noise:
            bare = self.settings.noise_by == "server"
            whole = self.settings.whole_sums
            return {"sketch": Expected((self.warm, columns), norm=float(bare), whole=whole)}
        if columns:
            return {"sketch": Expected((self.warm, columns), norm=1.0)}
        return {"gram": Expected((self.warm * (self.warm + 1) // 2,), norm=1.0)}

    def train_synthetic(
        self, made: SyntheticUsers, keys: np.ndarray, state: State | None, number: int
    ) -> tuple[State, Summed]:
        sums = item_sums(made.histories, self.warm, self._todays_basis())
        return {}, Summed(made.users, 0.0, sums)

    def step(self, summed: Summed) -> None:
        self.round += 1
        if not summed.users:
            return
        self._users = summed.users
        (total,) = summed.sums.values()
        self.mean = (self.settings.server_lr * total / summed.users).astype(np.float32)
        noise = noise_in_sum(self.settings, summed.users)
        self.noise = self.settings.server_lr * noise / summed.users
        self.basis, self._directions = self._todays_basis(), None

    def prepare(self, number: int, validating: bool) -> dict[str, Any]:
        return {}

    def trial(self, splits: Sequence[str]) -> Scoring | None:
        if self.settings.noise:
            return None  # what validation tells would be outside ε: the noise says what to choose
        if self.mean is None or not self.mean.any():
            return None  # nothing was learnt: all forms are the same
        kernels, ridges, shares = self._tried()
        if len(kernels) * len(ridges) * len(shares) == 1:
            return None
        tried = self._scoring(splits, kernels, ridges, shares)
        return asked_of_some(tried, self._users, self.settings)

    def choose(self, tried: Sequence[Mapping[str, float]], users: int) -> None:
        """By `likely_form`: two kernels, which double what nodes are sent for an item, have to be
        ahead of one by more than one standard error."""
        kernels, ridges, shares = self._tried()
        values = np.array([form["recall@20"] + form["ndcg@20"] for form in tried])
        values = values.reshape(len(kernels), len(ridges), len(shares))
        kernel, row, column = likely_form(list(values), shares, users)
        self.chosen = ridges[row], shares[column], kernels[kernel]
        log.info("validation items chose λ = %g, a share of %g and kernels = %d", *self.chosen)

    def _tried(self) -> tuple[Sequence[int], Sequence[float], Sequence[float]]:
        """Kernels, λ and shares, among which validation items are to choose."""
        own = self.own
        shares = (own.share,) if own.share >= 0 else SHARES
        alone = self._one_kernel or self._large or not any(shares)
        return (
            (own.kernels or 1,) if own.kernels or alone else (1, 2),
            (own.item_ridge,) if own.item_ridge else ITEM_RIDGES,
            shares,
        )

    @property
    def _large(self) -> bool:
        """Whether a second kernel is not tried unless it is asked for.

        Its weights would take as long again, and gigabytes to every node.
        """
        return self.warm > WHOLE

    @property
    def _one_kernel(self) -> bool:
        """Whether the sum's own kernel is that of the history."""
        return self.own.kernel_of_sum() == self.own

    def scoring(self, splits: Sequence[str]) -> Scoring:
        own = self.own
        ridge, share, kernels = self.chosen or (
            self._by_noise() if self.settings.noise else _UNTRIED
        )
        share = own.share if own.share >= 0 else share
        kernels = own.kernels or (1 if self._large else kernels)
        kernels = kernels if share else 1
        return self._scoring(splits, (kernels,), (own.item_ridge or ridge,), (share,))

    def _by_noise(self) -> tuple[float, float, int]:
        """λ, share and kernels where the sum carries noise: what it leaves says the share."""
        share = 0.0
        if self.mean is not None and self.basis is not None:
            share = _OF_RELIABLE * reliability(self.mean, self.basis, self.noise) ** _POWER
            log.info("the noise leaves the sum a share of %.2g (0: no federation)", share)
        return _NOISY_RIDGE, share, _NOISY_KERNELS

    def _scoring(
        self,
        splits: Sequence[str],
        kernels: Sequence[int],
        ridges: Sequence[float],
        shares: Sequence[float],
    ) -> Scoring:
        """Nodes' scorer for each choice of kernels, each λ and each share."""
        arrays = Carrier(self.world, self.own).arrays(splits)
        if 2 in kernels and not self._one_kernel:
            arrays |= Carrier(self.world, self.own.kernel_of_sum()).arrays(splits, "sum_")
            if 1 in kernels:
                arrays["kernels"] = np.array([kernels], np.float32)
        axes, sizes = self._learnt_directions()
        gains = [sizes / (sizes + ridge / max(self.warm, 1)) for ridge in ridges]
        arrays |= {
            "axes": axes,
            "gains": np.stack(gains).astype(np.float32),
            "shares": np.array([shares], np.float32),
        }
        if self.own.rarity and not self.settings.noise and any(shares):
            arrays["rarity"] = self._rarity()[None]
        forms = len(kernels) * len(ridges) * len(shares)
        return Scoring("history-and-sum", arrays, self.name, forms=forms)

    def _rarity(self) -> np.ndarray:
        """Popularity of warm items to a negative power, float32 (warm,).

        With whole parts x x' / n the sum's rows add up to the number of users of each item.
        """
        axes, sizes = self._learnt_directions()
        popularity = np.maximum(axes @ (sizes * axes.sum(0)), 0)
        mean = popularity.mean() or 1.0
        rarity: np.ndarray = (popularity / mean + _SMOOTHING) ** -self.own.rarity
        return rarity.astype(np.float32)

    def _todays_basis(self) -> np.ndarray | None:
        """Q, orthonormal columns that span what warm items' texts have in common, (warm, k)."""
        columns = self.columns
        if not columns:
            return None
        carrier = Carrier(self.world, self.own)
        key = "basis", *carrier.features, columns
        return self.world.once(key, lambda: text_basis(carrier.warm, columns))

    def _learnt_directions(self) -> tuple[np.ndarray, np.ndarray]:
        """Orthonormal A, float32 (warm, r), and sizes s ≥ 0 (r,), with A diag(s) A' the mean of
        x x' / n over users, or nearly so."""
        if self._directions is None:
            if self.mean is None:
                self._directions = np.zeros((self.warm, 1), np.float32), np.zeros(1, np.float32)
            elif self.basis is None:
                gram = unpacked(self.mean, self.warm)
                self._directions = directions_of_gram(gram, self.own.directions)
            else:
                self._directions = directions_of_sketch(
                    self.mean, self.basis, self.own.directions, self.noise
                )
        return self._directions

    def state(self) -> dict[str, Any]:
        return {
            "mean": None if self.mean is None else torch.from_numpy(self.mean),
            "basis": None if self.basis is None else torch.from_numpy(self.basis),
            "noise": self.noise,
            "chosen": self.chosen,
            "form": {name: getattr(self.own, name) for name in self.own.FORMER},
        }

    def restore(self, state: Mapping[str, Any], former: ItemIndex) -> None:
        """Take over a checkpoint; of an item that has become warm since, nothing is known yet."""
        mean, basis = state["mean"], state["basis"]
        self.mean = None if mean is None else mean.numpy()
        self.basis = None if basis is None else basis.numpy()
        self.noise = state.get("noise", 0.0)
        self.chosen, self.round = state["chosen"], state["round"]
        if self.chosen and len(self.chosen) == 2:  # of a release that had one kernel
            self.chosen = *self.chosen, 1
        self.own = self.own.model_copy(update=state.get("form", self.own.FORMER))
        self._directions = None
        self._follow(former)

    def move(self, world: World) -> None:
        former, self.world, self.settings = self.world.catalogue, world, world.settings
        self._follow(former)

    def _follow(self, former: ItemIndex) -> None:
        """Give the items of today's catalogue their rows in the sum."""
        today = self.world.catalogue
        if today.version == former.version or self.mean is None:
            return
        rows = former_rows(former, today).numpy()
        if self.basis is None:
            gram = unpacked(self.mean, len(former.rows("warm")))
            self.mean = packed(_rearranged(_rearranged(gram, rows).T, rows))
        else:
            self.mean, self.basis = _rearranged(self.mean, rows), _rearranged(self.basis, rows)
        self._directions = None
        log.info("the catalogue has changed: %d items have become warm", int((rows < 0).sum()))


def _rearranged(known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Today's rows of a matrix that had other ones; zeros for items that it did not know."""
    today = np.zeros((len(rows), known.shape[1]), known.dtype)
    today[rows >= 0] = known[rows[rows >= 0]]
    return today
