"""CTGAN: a conditional generative adversarial network for tables, with items as columns.

Xu and others: Modeling Tabular Data using Conditional GAN (arXiv 1907.00503, sections 4.2 and
4.3), as the package ``ctgan`` has it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from client_app.synthesis.tabular import FLOAT, Table, TabularSynthesizer
from common.methods.ctgan import CTGANSettings

TEMPERATURE = 0.2
"""Of the Gumbel-softmax."""

ENCODED = 1024
"""Users whose categories are made at once."""


class CTGANSynthesizer(TabularSynthesizer[CTGANSettings]):
    """Makes users on the condition that one item of theirs has one value."""

    _conditions: Any = None
    """The package's sampler of conditions, and of users that fulfil them."""

    def _network(self, categories: int) -> nn.ModuleDict:
        from ctgan.synthesizers.ctgan import Discriminator, Generator

        own = self.own
        return nn.ModuleDict(
            {
                "generator": Generator(
                    own.latent + categories, (own.generator_width,) * 2, categories
                ),
                "discriminator": Discriminator(
                    2 * categories, (own.discriminator_width,) * 2, own.pac
                ),
            }
        )

    def _optimizer(self, network: nn.ModuleDict) -> torch.optim.Optimizer:
        # One optimiser for both, since a step leaves out what has no gradient.
        own = self.own
        parts = (("generator", own.generator_lr), ("discriminator", own.discriminator_lr))
        return torch.optim.Adam(
            [{"params": network.get_submodule(part).parameters(), "lr": lr} for part, lr in parts],
            betas=(0.5, 0.9),
            weight_decay=own.weight_decay,
        )

    def _epoch(
        self, table: Table, network: nn.ModuleDict, optimizer: torch.optim.Optimizer
    ) -> Callable[[int], float]:
        own, users = self.own, _everyone(table)
        self._conditions = conditions = _sampler(table, users)
        generator, discriminator = network["generator"], network["discriminator"]

        def judged() -> None:
            condition, _, item, category = conditions.sample_condvec(own.batch)
            order = np.random.permutation(own.batch)
            real = conditions.sample_data(users, own.batch, item[order], category[order])
            wanted = self._tensor(condition)
            with torch.no_grad():
                made = torch.cat([self._activated(table, generator, wanted)[1], wanted], dim=1)
            real = torch.cat([self._tensor(real), wanted[order]], dim=1)
            loss = discriminator(made).mean() - discriminator(real).mean()
            penalty: Any = discriminator.calc_gradient_penalty
            loss = loss + penalty(real, made.requires_grad_(), self.device, own.pac)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        def generated() -> float:
            wanted = self._tensor(conditions.sample_condvec(own.batch)[0])
            logits, made = self._activated(table, generator, wanted)
            optimizer.zero_grad(set_to_none=True)
            discriminator.requires_grad_(False)
            loss = (
                condition_loss(table, logits, wanted)
                - discriminator(torch.cat([made, wanted], dim=1)).mean()
            )
            loss.backward()
            discriminator.requires_grad_(True)
            optimizer.step()
            return float(loss.detach())

        def epoch(number: int) -> float:
            steps = max(len(table) // own.batch, 1)
            total = 0.0
            with numpy_seeded():
                for _ in range(steps):
                    for _ in range(own.discriminator_steps):
                        judged()
                    total += generated()
            return total / steps

        return epoch

    def _activated(
        self, table: Table, generator: nn.Module, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits, and categories drawn from them, each float32 (batch, categories)."""
        noise = torch.randn(self.own.batch, self.own.latent, device=self.device)
        logits = generator(torch.cat([noise, wanted], dim=1))
        return logits, table.by_item(lambda own: F.gumbel_softmax(own, TEMPERATURE), logits)

    def _made(self, table: Table, network: nn.ModuleDict) -> Tensor:
        with numpy_seeded():
            wanted = self._tensor(self._conditions.sample_original_condvec(self.own.batch))
        # As in the package: batch normalisation by the batch that is made.
        generator = network["generator"].train()
        made = self._activated(table, generator, wanted)[1]
        generator.eval()
        return made

    def _numbers(self, table: Table) -> int:
        # Categories of all users as bytes, and the users of each category, as the package's
        # sampler keeps them.
        per_user = (table.categories + 8 * len(table.sizes)) // FLOAT
        return 20 * self.own.batch * table.categories + len(table) * per_user

    def _tensor(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers.astype(np.float32)).to(self.device)


def _everyone(table: Table) -> np.ndarray:
    """Categories of all users, bool (users, categories)."""
    users = np.empty((len(table), table.categories), dtype=bool)
    for chosen in torch.arange(len(table), device=table.item.device).split(ENCODED):
        users[chosen.cpu().numpy()] = table.encoded(chosen).bool().cpu().numpy()
    return users


def _sampler(table: Table, users: np.ndarray) -> Any:
    from ctgan.data_sampler import DataSampler
    from ctgan.data_transformer import SpanInfo

    spans = [[SpanInfo(size, "softmax")] for size in table.sizes]
    return DataSampler(users, spans, log_frequency=True)


def condition_loss(table: Table, logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean cross-entropy of the values that were asked for.

    Parameters
    ----------
    logits, wanted : Tensor, float32 (users, categories)
        ``wanted`` has one 1 in each row.
    """
    return -(wanted * table.by_item(lambda own: own.log_softmax(2), logits)).sum(1).mean()


@contextmanager
def numpy_seeded() -> Iterator[None]:
    """NumPy's global randomness, which the package draws from, comes from torch's within."""
    before = np.random.get_state()
    np.random.seed(int(torch.randint(2**32, (), dtype=torch.int64)))
    try:
        yield
    finally:
        np.random.set_state(before)
