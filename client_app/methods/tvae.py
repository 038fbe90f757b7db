"""TVAE: a variational autoencoder for tables, with items as columns.

Xu and others: Modeling Tabular Data using Conditional GAN (arXiv 1907.00503, section 4.4), as the
package ``ctgan`` has it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from client_app.synthesis.loop import epoch as one_epoch
from client_app.synthesis.multivae import divergence
from client_app.synthesis.tabular import Table, TabularSynthesizer
from common.methods.tvae import TVAESettings


class TVAESynthesizer(TabularSynthesizer[TVAESettings]):
    """Decodes N(0, I) to each item's most probable value."""

    def _network(self, categories: int) -> nn.ModuleDict:
        from ctgan.synthesizers.tvae import Decoder, Encoder

        own = self.own
        widths = (own.width, own.width)
        return nn.ModuleDict(
            {
                "encoder": Encoder(categories, widths, own.latent),
                "decoder": Decoder(own.latent, widths, categories),
            }
        )

    def _optimizer(self, network: nn.ModuleDict) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            network.parameters(), lr=self.own.lr, weight_decay=self.own.weight_decay
        )

    def _epoch(
        self, table: Table, network: nn.ModuleDict, optimizer: torch.optim.Optimizer
    ) -> Callable[[int], float]:
        def losses(chosen: Tensor, updates: int) -> Tensor:
            real = table.encoded(chosen)
            mean, deviation, log_variance = network["encoder"](real)
            made, _ = network["decoder"](mean + torch.randn_like(mean) * deviation)
            unlikely = self.own.loss_factor * unlikelihood(table, made, real)
            return unlikely + divergence(mean, log_variance)

        def epoch(number: int) -> float:
            return one_epoch(len(table), self.own.batch, number, losses, optimizer)

        return epoch

    def _made(self, table: Table, network: nn.ModuleDict) -> Tensor:
        noise = torch.randn(self.own.batch, self.own.latent, device=self.device)
        made: Tensor = network["decoder"](noise)[0]
        return made

    def _numbers(self, table: Table) -> int:
        return 6 * self.own.batch * table.categories


def unlikelihood(table: Table, made: Tensor, real: Tensor) -> Tensor:
    """−Σ log p of each item's value, float32 (users,).

    Parameters
    ----------
    made, real : Tensor, float32 (users, categories)
        Logits, and one-hot categories.
    """
    return -(real * table.by_item(lambda own: own.log_softmax(2), made)).sum(1)
