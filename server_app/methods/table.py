"""Methods that train a shared item table in a federation, and a generator for cold items.

A round is that of algorithm 1 of MDiffFR: E ← E + η_s · Σ_u (E_u − E) / users. Each method brings
its generator; everything else is the same for all of them.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import methods
from common.catalogue import COLD_SPLITS, ItemIndex
from common.errors import OverflowedError, SnowdropError
from common.settings import RunSettings
from common.users.heads import HEADS, State
from common.users.mechanism import without_mechanism
from common.users.synthetic import SyntheticUsers
from common.users.training import train_round
from server_app.aggregation import Expected, Summed
from server_app.features import Blocks, FeatureTransform
from server_app.methods.base import Generator, Scoring, Trained, World

log = logging.getLogger("snowdrop")

SNAPSHOT_ITEMS = 1_000
"""Items of each kind whose embeddings are kept for the plots."""


class ItemTable(Trained):
    """The item table E, and the generator of a method.

    Parameters
    ----------
    maker : type[Generator]
        The method's generator.
    name : str
        Of the method's card.
    world : World
    """

    trains_synthetic = True

    def __init__(self, maker: type[Generator[Any]], name: str, world: World) -> None:
        self.world, self.settings, self.name = world, world.settings, name
        self.blocks = world.blocks()
        self.features = self.blocks.beside(world.features)
        self.transform = self._own_transform()
        self.generator = self.make_generator(maker, name)
        self.table = self._own_start()  # float32 (warm, d)
        self.round = 0
        self._fitted_round = 0

    @property
    def fitted_round(self) -> int:
        return self._fitted_round

    def make_generator(self, maker: type[Generator[Any]], name: str) -> Generator[Any]:
        """A generator for embeddings and conditions of this table's sizes."""
        size = self.transform.condition_size
        return maker(name, self.settings.dim, size, self.settings, self.world.device)

    def control(self, name: str) -> Generator[Any]:
        """The generator of another method, fitted to this table."""
        generator = self.make_generator(methods.load(methods.card(name).server), name)
        self.fit(generator)
        return generator

    def _own_transform(self) -> FeatureTransform:
        return first_transform(self.world, self.features)

    def _own_start(self) -> Tensor:
        """The item table before anybody has trained it, float32 (warm, d)."""
        if self.settings.table_start == "features":
            return self.own_embeddings("warm")
        draw = torch.Generator().manual_seed(self.settings.seed)
        return torch.randn(len(self.world.rows("warm")), self.settings.dim, generator=draw)

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {"table": self.table.numpy()}
        if (mapping := self.generator.mapping) is not None:
            arrays["mapped"] = self.cold_table("warm", mapping).numpy()
        return arrays

    def expected(self) -> dict[str, Expected]:
        return expected_change(self.table, self.settings)

    def train_synthetic(
        self, made: SyntheticUsers, keys: np.ndarray, state: State | None, number: int
    ) -> tuple[State, Summed]:
        settings = without_mechanism(self.settings)
        mapping, pull = self.generator.mapping, None
        if mapping is not None:
            pull = self.generator.pull(self.table, self.cold_table("warm", mapping))
        heads = HEADS[settings.head].fresh(keys, settings) if state is None else state
        after, result = train_round(self.table, heads, made.histories, keys, number, settings, pull)
        sums: dict[str, np.ndarray] = {"change": result.change.numpy().astype(np.float64)}
        if settings.average == "touches":
            sums["touches"] = result.touches.numpy()
        return after, Summed(result.users, result.loss_sum, sums)

    def step(self, summed: Summed) -> None:
        """E ← E + η_s · Σ_u (E_u − E) / users, or per row over the users that touched it."""
        if not summed.users:
            self.round += 1
            return
        self.table = stepped(self.table, summed, self.settings)
        self.round += 1
        if not torch.isfinite(self.table).all():
            raise overflowed(self.round)

    def prepare(self, number: int, validating: bool) -> dict[str, Any]:
        if not self._due(number, validating, bool(self._fitted_round)):
            if validating:
                self.refresh()
            return {}
        loss, seconds = self.fit(self.generator)
        self._fitted_round = number
        return {"generator_loss": loss, "generator_seconds": seconds}

    def fits_in(self, coming: Sequence[tuple[int, bool]]) -> int:
        fits = 0
        for number, validating in coming:
            fits += self._due(number, validating, bool(self._fitted_round or fits))
        return fits

    def _due(self, number: int, validating: bool, fitted: bool) -> bool:
        if not len(self.world.rows(COLD_SPLITS)) and self.generator.mapping is None:
            return False  # there is nothing to generate
        if fitted and self.settings.server_lr == 0 and not self.generator.goes_on:
            return False  # the table has not moved: a training from scratch would be the same
        last = number == self.settings.rounds
        every = self.generator.fit_every
        if last or (every and number % every == 0):
            return True
        return validating and (self.generator.instant or not fitted)

    def ensure_fitted(self) -> None:
        if not self._fitted_round and len(self.world.rows(COLD_SPLITS)):
            self.fit(self.generator)

    def fit(self, generator: Generator[Any]) -> tuple[float, float]:
        """Train a generator on today's item table; its loss and the seconds it took."""
        start = time.perf_counter()
        losses = [
            one.fit(self._target(one), self.conditions("warm"), self._seed())
            for one in generator.parts or (generator,)
        ]
        return losses[0], time.perf_counter() - start

    def refresh(self, known: Tensor | slice = slice(None)) -> None:
        """Fit what takes next to no time, to the rows of the item table that are ``known``."""
        for one in self.generator.parts or (self.generator,):
            if one.instant:
                one.fit(self._target(one)[known], self.conditions("warm")[known], self._seed())

    def _target(self, generator: Generator[Any]) -> Tensor:
        if generator.learns_change:
            return self.table - self.own_embeddings("warm")
        return self.table

    def cold_table(
        self, splits: str | Sequence[str], generator: Generator[Any] | None = None
    ) -> Tensor:
        """Embeddings that a generator makes of the items of some splits, float32 (cold, d)."""
        maker = generator or self.generator
        named = [splits] if isinstance(splits, str) else splits
        return torch.cat([self._made(maker, split) for split in named])

    def _made(self, maker: Generator[Any], split: str) -> Tensor:
        if maker.parts:
            return maker.combine([self._made(part, split) for part in maker.parts])
        made = maker.generate(self.conditions(split), self._seed())
        return made + self.own_embeddings(split) if maker.learns_change else made

    def scoring(self, splits: Sequence[str], generator: Generator[Any] | None = None) -> Scoring:
        """Users' heads on generated embeddings, or on the item table for warm items."""
        if list(splits) == ["warm"]:
            return Scoring("head", {"items": self.table.numpy()}, self.name)
        return Scoring("head", {"items": self.cold_table(splits, generator).numpy()}, self.name)

    def conditions(self, split: str) -> Tensor:
        """Conditions of the items of a split, float32 (items, c)."""
        return self.transform.conditions(self.features[self.world.rows(split)])

    def own_embeddings(self, split: str) -> Tensor:
        """Items' own features as embeddings, float32 (items, d)."""
        return self.transform.embeddings(self.features[self.world.rows(split)])

    def state(self) -> dict[str, Any]:
        return {
            "table": self.table,
            "fitted_round": self._fitted_round,
            "blocks": self.blocks.state(),
            "transform": self.transform.state(),
            "generator": self.generator.state_dict(),
        }

    def restore(self, state: Mapping[str, Any], former: ItemIndex) -> None:
        """Take over a checkpoint.

        An item that has become warm since starts from the embedding that the generator makes of
        it.
        """
        if "blocks" in state:  # an older release read the text alone, as it is
            self.blocks = Blocks(**state["blocks"])
            self.features = self.blocks.beside(self.world.features)
        self.transform = FeatureTransform(**state["transform"])
        self.generator.load_state_dict(state["generator"])
        self.table, self._fitted_round = state["table"], state["fitted_round"]
        self.round = state["round"]
        today = self.world.catalogue
        if former.version != today.version:
            self._grow(former)
        elif self._fitted_round:
            self.refresh()

    def move(self, world: World) -> None:
        former, self.world, self.settings = self.world.catalogue, world, world.settings
        self.features = self.blocks.beside(world.features)
        if world.catalogue.version != former.version:
            self._grow(former)

    def _grow(self, former: ItemIndex) -> None:
        rows = former_rows(former, self.world.catalogue)
        known = rows >= 0
        table = self._own_start()
        table[known] = self.table[rows[known]]
        self.table = table
        if self._fitted_round:
            self.refresh(known)
            self.table[~known] = self.cold_table("warm")[~known]
            self.refresh()
        log.info(
            "the catalogue has changed: %d items have become warm, %d are cold",
            int((~known).sum()),
            len(self.world.catalogue.ids) - len(rows),
        )

    def snapshot(self) -> dict[str, Tensor]:
        if not self._fitted_round:
            return {}
        return {"warm": _some(self.table), "cold": _some(self.cold_table("test"))}

    def _seed(self) -> int:
        return self.settings.seed * 1_000_003 + self.round


def first_transform(world: World, features: Tensor) -> FeatureTransform:
    """What makes embeddings of items' own features, fitted on the warm ones.

    Parameters
    ----------
    world : World
    features : Tensor, float32 (items, c)
    """
    s, warm = world.settings, features[world.rows("warm")].numpy()
    key = "transform", s.modality, s.dim, s.condition_dim, s.whitening, s.table_start
    return world.once(key, lambda: FeatureTransform.fit(warm, s))


def expected_change(table: Tensor, settings: RunSettings) -> dict[str, Expected]:
    """The sums from which `stepped` makes a step."""
    rows, columns = table.shape
    expected = {"change": Expected((rows, columns), bounded=True, whole=settings.whole_sums)}
    if settings.average == "touches":
        expected["touches"] = Expected((rows,), counts="change")
    return expected


def stepped(table: Tensor, summed: Summed, settings: RunSettings) -> Tensor:
    """E + η_s · Σ_u (E_u − E) / users, or per row over the users that touched it, (warm, d)."""
    divisor: Any = summed.users
    if settings.average == "touches":
        divisor = np.maximum(summed.sums["touches"], 1)[:, None]
    change = torch.from_numpy((summed.sums["change"] / divisor).astype(np.float32))
    return table + settings.server_lr * change


def overflowed(number: int) -> OverflowedError:
    """What to say where the item table overflows in round ``number``."""
    return OverflowedError(f"the item table overflowed in round {number}; lower item_lr or head_lr")


def former_rows(former: ItemIndex, today: ItemIndex) -> Tensor:
    """The row that each warm item of today had in the item table, int64 (warm,); −1: none.

    Raises
    ------
    SnowdropError
        If most of the items are gone.
    """
    row_of = {item: row for row, item in enumerate(former.ids_of("warm"))}
    rows = torch.tensor([row_of.get(item, -1) for item in today.ids_of("warm")], dtype=torch.int64)
    known = int((rows >= 0).sum())
    if 2 * known < len(row_of):
        raise SnowdropError(
            f"of the {len(row_of)} warm items of the checkpoint, the catalogue has only {known} as "
            "warm: it is another one; give the same data, or another run_dir"
        )
    return rows


def _some(rows: Tensor) -> Tensor:
    step = max(1, len(rows) // SNAPSHOT_ITEMS)
    return rows[::step].clone()
