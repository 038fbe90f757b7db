"""MultiVAE: a variational autoencoder of users' likes with a multinomial likelihood.

Liang, Krishnan, Hoffman, Jebara: Variational Autoencoders for Collaborative Filtering
(arXiv 1802.05814), as SDRM's published code has it (arXiv 2311.03488): tanh layers, posterior
means as latents, early stopping on Recall@10.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from client_app.synthesis.rows import Rows


class SparseLinear(nn.Module):
    """A linear layer for sparse rows; its weights are (inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, rows: Rows, values: Tensor) -> Tensor:
        """Float32 (rows, outputs); ``values`` are those of the rows' ones, float32 (ones,)."""
        summed = F.embedding_bag(
            rows.columns, self.weight, rows.starts[:-1], mode="sum", per_sample_weights=values
        )
        return summed + self.bias


class MultiVAE(nn.Module):
    """Encoder and decoder.

    Parameters
    ----------
    items, hidden, latent : int
        Widths of the input, of the one hidden layer of either side, and of the latent.
    dropout : float
        Share of a user's likes that the encoder does not see in training.
    """

    def __init__(self, items: int, hidden: int, latent: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.encoder = SparseLinear(items, hidden)
        self.posterior = nn.Linear(hidden, 2 * latent)
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, items))
        for name, values in self.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(values)
            else:
                nn.init.normal_(values, std=0.001)

    def encode(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of users' posteriors, each float32 (users, latent)."""
        values = F.dropout(_normalised(rows), self.dropout, self.training)
        hidden = torch.tanh(self.encoder(rows, values))
        mean, log_variance = self.posterior(hidden).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latents: Tensor) -> Tensor:
        """Logits, float32 (users, items), of latents, float32 (users, latent)."""
        logits: Tensor = self.decoder(latents)
        return logits


def _normalised(rows: Rows) -> Tensor:
    """Values of the rows' ones, float32 (ones,), that give each row the L2 norm 1."""
    counts = rows.counts
    return counts.clamp(min=1).rsqrt().repeat_interleave(counts, output_size=len(rows.columns))


def losses(network: MultiVAE, rows: Rows, kl_weight: float) -> Tensor:
    """Loss of each user, float32 (users,): negative log-likelihood + a · KL to N(0, I)."""
    mean, log_variance = network.encode(rows)
    latents = mean
    if network.training:
        latents = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    return negative_log_likelihood(network.decode(latents), rows) + kl_weight * divergence(
        mean, log_variance
    )


def negative_log_likelihood(logits: Tensor, rows: Rows) -> Tensor:
    """−Σ log softmax(logits) over each user's likes, float32 (users,)."""
    row = rows.row_of
    chosen = torch.zeros(len(rows), device=logits.device).index_add(
        0, row, logits[row, rows.columns]
    )
    return rows.counts * logits.logsumexp(1) - chosen


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, I)) of each user, float32 (users,)."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)


def annealed(updates: int, cap: float, rise: float) -> float:
    """Weight of the KL term after some updates: min(cap, updates / rise)."""
    return min(cap, updates / rise)
