"""CODIGEM: a chain of autoencoders, each of which takes one step of noise from users' rows.

Walker, Zhong, Zhang, Gao, Zhou: Recommendation via Collaborative Diffusion Generative Model
(KSEM 2022), after its published code, whose paper has no arXiv id. As a synthesizer it gets N(0, I)
in place of a user's noised row.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from client_app.synthesis.denoising import DenoisingSynthesizer
from client_app.synthesis.multivae import negative_log_likelihood
from client_app.synthesis.rows import Rows
from common.methods.codigem import CODIGEMSettings

START = 1e-4
"""Standard deviation of the weights of an autoencoder's first layer before training."""

LEAST_VARIANCE = 1e-6


class Chain(nn.Module):
    """T − 1 autoencoders and a decoder."""

    def __init__(self, items: int, own: CODIGEMSettings) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_perceptron(items, own, 2 * items) for _ in range(own.steps - 1))
        self.decoder = _perceptron(items, own, items)
        if own.likelihood == "gaussian":
            self.decoder.append(nn.Tanh())
        for step in self.steps:
            first = step.get_submodule("0")
            for values in first.parameters():
                nn.init.normal_(values, std=START)

    def before(self, step: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of rows one step earlier, each float32 (rows, items).

        Parameters
        ----------
        step : int
            Of the row, 2 … T.
        rows : Tensor, float32 (rows, items)
        """
        mean, log_variance = self.steps[step - 2](rows).chunk(2, dim=1)
        return mean, log_variance


def _perceptron(items: int, own: CODIGEMSettings, outputs: int) -> nn.Sequential:
    widths = [items, *[own.width] * own.layers]
    layers: list[nn.Module] = []
    for narrow, wide in pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.PReLU()]
    return nn.Sequential(*layers, nn.Linear(own.width, outputs))


class CODIGEMSynthesizer(DenoisingSynthesizer[CODIGEMSettings, Chain]):
    """Takes N(0, I) through the chain, and decodes it."""

    def _network(self) -> Chain:
        return Chain(self.items, self.own)

    def _optimizer(self, network: Chain) -> torch.optim.Optimizer:
        return torch.optim.Adamax(network.parameters(), lr=self.own.lr)

    def _losses(self, network: Chain, users: Rows) -> Tensor:
        own, clean = self.own, users.dense()
        noised = [self._noised(clean)]
        for _ in range(own.steps - 1):
            noised.append(self._noised(noised[-1]))
        made = network.decoder(noised[0])
        if own.likelihood == "gaussian":
            losses = (made - clean).square().sum(1) / 2
        else:
            losses = negative_log_likelihood(made, users)
        for step in range(2, own.steps + 1):
            target = step - 1 if own.pairs == "steps" else own.steps + 1 - step
            mean, log_variance = network.before(step, noised[step - 1])
            losses = losses + unlikelihood(noised[target - 1], mean, log_variance)
        return losses

    def _recovered(self, network: Chain, users: Tensor) -> Tensor:
        made: Tensor = network.decoder(self._noised(users))
        return made

    def _denoised(self, network: Chain, noise: Tensor) -> Tensor:
        state = noise
        for step in range(self.own.steps, 1, -1):
            mean, log_variance = network.before(step, state)
            state = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        made: Tensor = network.decoder(state)
        return made

    def _noised(self, rows: Tensor) -> Tensor:
        """√(1 − β) x + √β ε."""
        beta = self.own.beta
        return (1 - beta) ** 0.5 * rows + beta**0.5 * torch.randn_like(rows)


def unlikelihood(rows: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """−log N(rows; mean, variance) of each row without its constant, float32 (rows,)."""
    return F.gaussian_nll_loss(
        mean, rows, log_variance.exp(), eps=LEAST_VARIANCE, reduction="none"
    ).sum(1)
