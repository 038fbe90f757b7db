"""What could carry the sum of `one-round` from warm items to new ones, as a Markdown table.

    python benchmarks/carriers.py DATA [DATA ...] [--seeds 0 1 2] [--set history=10]
        [--out FILE.csv]

The sum over users is A diag(s) A', with m warm items; f = s / (s + λ / m), and D makes popular
items of a history x count less. Scores stand beside those of the history by kernel ridge, x C', as
`one-round` has it, and are one of these:

    x D B E'    B: the item-item weights of EASE,  E: weights of texts (cold, warm)
    x D F G'    F = A √f: the r largest factors of the warm items,  G: those of the new ones

Weights E are those of kernel ridge, C(Z) = k (K + ρ I)⁻¹, on unit features Z of the items' texts:

- one kernel: E = C(U);
- one kernel or two, chosen: that, or the weights of the sum's own kernel: the default;
- canonical directions (CCA): Z = U R diag(c) L, with L diag(c) the largest of the singular value
  decomposition of R U' F Q, where R = (U' U + κ I)^(−½), Q = (F' F + κ I)^(−½), κ is a tenth of
  the largest eigenvalue of each, and U and F are centred on the warm items (F: 256, λ = 100);
- fitted projection: Z = what ridge regression from U predicts of F as unit rows (r = 64, λ = 100),
  centred. Its penalty is chosen by leave-one-out errors on warm items;
- mean: E = (C(Z) + C(U)) / 2.

Factors G are C(U) F ("by one kernel") or what ridge regression from U predicts of F ("by ridge").

λ, the share and, where there are several, the weights are chosen by the rule of `one-round` on one
half of the validation users, and measured on the other half, and the other way round. The weights
of texts are whole, where `one-round` sends nodes a short form.
"""

import argparse
import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.linalg import eigh, svd
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import normalize
from torch import Tensor
from upper_bound import METRICS, Whole, cell

from cli.assignments import parse_assignments
from client_app.carried import HistoryBeside, TextWeights, sums_of_rows
from client_app.methods.base import Local
from client_app.methods.one_round import HistoryAndSum
from client_app.ranking import user_chunks
from client_app.tasks import membership
from common.catalogue import COLD_SPLITS
from common.errors import SnowdropError
from common.methods.carried import SHARES
from common.methods.one_round import CARD, ITEM_RIDGES, OneRoundSettings
from common.metrics import metric_values, rank
from common.users.item_sums import item_sums
from common.users.ragged import Ragged
from server_app.aggregation import Summed
from server_app.carrier import WHOLE, Carrier
from server_app.compact import compact
from server_app.kernels import ridge_weights
from server_app.methods.one_round import OneRound
from server_app.shares import likely_form

VALIDATION = COLD_SPLITS[0]
WHOLE_WEIGHTS = {f"{CARD.name}.rank": 1, f"{CARD.name}.neighbours": 2**31}
"""With as many neighbours as there are warm items, a short form leaves nothing out."""
FITTED = 100.0
"""λ of the factors that features are fitted to."""
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
SHRINKAGE = 0.1
NOTHING = "nothing: kernel ridge on the history"
DEFAULT = "one kernel or two, chosen: the default"


class HistoryAndFactors(HistoryBeside):
    """What was learnt is x D F G'.

    Parameters
    ----------
    local : Local
    factors : Sequence[tuple[Tensor, Tensor]]
        Each D F and G that are tried, float32 (warm, r), (items, r).
    """

    def __init__(self, local: Local, factors: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__(local)
        self._factors = factors

    def learnt(self, own: Ragged) -> Iterator[Tensor]:
        for warm, new in self._factors:
            yield sums_of_rows(own, warm, None) @ new.T


class Split:
    """A data set with the split of a seed: what ranks the validation items, and how well."""

    def __init__(self, data: str, seed: int, more: Mapping[str, object]) -> None:
        self.whole = Whole.read(data, seed, {"method": CARD.name, **WHOLE_WEIGHTS, **more})
        self.world, self.ranking = self.whole.world, self.whole.rankings[VALIDATION]
        self.users = np.flatnonzero(self.ranking.truth.counts)
        method = OneRound(CARD.name, self.world)
        self.own: OneRoundSettings = method.own
        histories, basis = self.whole.histories, method.arrays().get("basis")
        sums = item_sums(histories, method.warm, basis)
        method.step(Summed(len(histories.counts), 0.0, sums))
        trial = method.trial([VALIDATION])
        shape = 2, len(ITEM_RIDGES)
        if not len(self.users) or trial is None or trial.forms != math.prod(shape) * len(SHARES):
            raise SnowdropError(
                f"{data}: needs users who have validation items, at most {WHOLE:,} warm items, and "
                f"nothing set that {CARD.name} is to choose"
            )
        self.arrays = trial.arrays
        self.default = self.measured(HistoryAndSum(self.local(self.arrays)), *shape)

    def local(self, arrays: Mapping[str, np.ndarray]) -> Local:
        """What nodes' scorers need, with these arrays in the message."""
        warm, items = len(self.world.rows("warm")), self.ranking.items
        whole = self.whole
        return Local(self.world.settings, whole.histories, whole.keys, arrays, warm, items, dict)

    def measured(self, scorer: HistoryBeside, *shape: int) -> np.ndarray:
        """`METRICS` of each user for all forms, float64 (*shape, shares, users, 2)."""
        parts = []
        for users in user_chunks(self.users, self.ranking.items):
            truth = membership(self.ranking.truth.take(users), self.ranking.items)
            forms = []
            for scores in scorer.forms(users):
                hits = truth.gather(1, rank(scores, self.ranking.order, 20))
                values = metric_values(hits, truth.sum(1), (20,))
                forms.append(np.stack([values[name].numpy() for name in METRICS], 1))
            parts.append(np.stack(forms))
        return np.concatenate(parts, 1).reshape(*shape, len(SHARES), len(self.users), len(METRICS))

    def factors(self, count: int, ridge: float) -> np.ndarray:
        """F for a λ, float32 (warm, r)."""
        gain = self.arrays["gains"][ITEM_RIDGES.index(ridge)]
        return (self.arrays["axes"] * np.sqrt(gain))[:, :count]

    @cached_property
    def texts(self) -> np.ndarray:
        """U of the warm items and then of the validation items, float32 (items, k)."""
        units = Carrier(self.world, self.own).units
        return units[np.concatenate([self.world.rows("warm"), self.world.rows([VALIDATION])])]

    def predicted(self, factors: np.ndarray) -> np.ndarray:
        """What ridge regression on texts makes of warm items' factors, float32 (items, r)."""
        texts = self.texts.astype(np.float64)
        model = RidgeCV(PENALTIES).fit(texts[: len(factors)], factors)
        return model.predict(texts).astype(np.float32)

    def canonical(self, count: int) -> np.ndarray:
        """The main canonical directions of texts and factors, float32 (items, r)."""
        factors = self.factors(self.own.directions, FITTED).astype(np.float64)
        texts = self.texts - self.texts[: len(factors)].mean(0, dtype=np.float64)
        warm, factors = texts[: len(factors)], factors - factors.mean(0)
        root = inverse_root(warm.T @ warm)
        across = root @ (warm.T @ factors) @ inverse_root(factors.T @ factors)
        left, sizes, _ = svd(across, full_matrices=False)
        return texts @ (root @ left[:, :count]) * sizes[:count]

    def weights(self, features: np.ndarray) -> np.ndarray:
        """C(Z), float32 (validation items, warm)."""
        units = normalize(features).astype(np.float32)
        warm = len(self.world.rows("warm"))
        return ridge_weights(units[:warm], units[warm:], self.own.sharpness, self.own.ridge)

    def by_weights(self, weights: np.ndarray) -> np.ndarray:
        """`measured`, with E."""
        short = compact(weights, self.own.rank, self.own.neighbours)
        arrays = {name: array for name, array in self.arrays.items() if name != "kernels"}
        arrays |= {f"sum_{name}": array for name, array in vars(short).items()}
        return self.measured(HistoryAndSum(self.local(arrays)), len(ITEM_RIDGES))

    def by_factors(self, count: int, by_ridge: bool) -> np.ndarray:
        """`measured`, with F and G."""
        local = self.local(self.arrays)
        rarity, own = local.table("rarity", 1, local.warm).T, TextWeights(local, "")
        tried = []
        for ridge in ITEM_RIDGES:
            warm = self.factors(count, ridge)
            rows = torch.from_numpy(np.ascontiguousarray(warm))
            new = own.carry(rows)
            if by_ridge:
                new = torch.from_numpy(self.predicted(warm)[len(warm) :])
            tried.append((rarity * rows, new))
        return self.measured(HistoryAndFactors(local, tried), len(ITEM_RIDGES))

    def rows(self) -> dict[str, np.ndarray]:
        """Metrics of each row of the table, (2,)."""
        units = normalize(self.factors(64, FITTED))
        projected = self.weights(self.predicted(units) - units.mean(0))
        mean = self.by_weights((projected + self.weights(self.texts)) / 2)
        tables = {
            "one kernel": [self.default[0]],
            DEFAULT: [*self.default],
            "64 factors, by one kernel": [self.by_factors(64, by_ridge=False)],
            "64 factors, by ridge": [self.by_factors(64, by_ridge=True)],
            "256 factors, by ridge": [self.by_factors(256, by_ridge=True)],
            "64 canonical directions": [self.by_weights(self.weights(self.canonical(64)))],
            "fitted projection": [self.by_weights(projected)],
            "mean of its weights and those of one kernel": [mean],
            "that mean as a third choice": [*self.default, mean],
        }
        history = self.default[0, 0, SHARES.index(0.0)].mean(0)
        return {NOTHING: history, **{row: by_halves(tried) for row, tried in tables.items()}}


def by_halves(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Mean metrics (2,) over users, with what the other half of them chose.

    Parameters
    ----------
    tables : Sequence[ndarray]
        Of `Split.measured`, (λ, shares, users, 2) for each carrier that may be chosen.
    """
    order = np.random.default_rng(7).permutation(tables[0].shape[2])
    halves = np.split(order, [len(order) // 2])
    found = np.zeros((len(order), len(METRICS)))
    for choosing, told in (halves, halves[::-1]):
        values = [table[:, :, choosing].mean(2).sum(-1) for table in tables]
        carrier, ridge, share = likely_form(values, SHARES, len(choosing))
        found[told] = tables[carrier][ridge, share, told]
    return found.mean(0)


def inverse_root(gram: np.ndarray) -> np.ndarray:
    """(G + κ I)^(−½), with κ a share `SHRINKAGE` of the largest eigenvalue."""
    values, vectors = eigh(gram)
    return vectors / np.sqrt(values.clip(0) + SHRINKAGE * values[-1]) @ vectors.T


def main() -> None:
    """Print the table, and write each number to the file that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="CSV file with a line for each row and seed")
    options = parser.parse_args()
    more = parse_assignments(options.settings)
    lines = []
    print("| data | what carries the sum | recall@20 | ndcg@20 | recall@20 − default |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for data in options.data:
        runs = []
        for seed in options.seeds:
            runs.append(Split(data, seed, more).rows())
            lines += [(Path(data).name, seed, row, *v) for row, v in runs[-1].items()]
            if options.out:
                with options.out.open("w", newline="") as file:
                    csv.writer(file).writerows([("data", "seed", "row", *METRICS), *lines])
        for row in runs[0]:
            level = [cell([run[row][k] for run in runs], 100, 2) for k in range(len(METRICS))]
            ahead = cell([run[row][0] - run[DEFAULT][0] for run in runs], 100, 2)
            print("| " + " | ".join([Path(data).name, row, *level, ahead]) + " |", flush=True)


if __name__ == "__main__":
    main()
