"""The MultiVAE against dense calculations."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch.nn import functional as F  # noqa: N812

from client_app.synthesis.multivae import (
    MultiVAE,
    annealed,
    divergence,
    losses,
    negative_log_likelihood,
)
from client_app.synthesis.rows import Rows

LIKES = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)


@pytest.fixture
def rows() -> Rows:
    return Rows.of(csr_array(LIKES))


@pytest.fixture
def network() -> MultiVAE:
    torch.manual_seed(2)
    return MultiVAE(items=4, hidden=5, latent=3, dropout=0.5)


def test_the_encoder_is_that_of_normalised_dense_rows(network: MultiVAE, rows: Rows) -> None:
    network.eval()
    dense = F.normalize(torch.from_numpy(LIKES).float())
    hidden = torch.tanh(dense @ network.encoder.weight + network.encoder.bias)
    whole = hidden @ network.posterior.weight.T + network.posterior.bias
    mean, log_variance = network.encode(rows)
    assert torch.allclose(mean, whole[:, :3], atol=1e-6)
    assert torch.allclose(log_variance, whole[:, 3:], atol=1e-6)


def test_in_training_half_of_the_likes_are_dropped(network: MultiVAE, rows: Rows) -> None:
    torch.manual_seed(0)
    network.train()
    first = rows.take(torch.zeros(4000, dtype=torch.int64))
    with torch.no_grad():
        network.encoder.weight.copy_(torch.eye(4, 5))
        network.encoder.bias.zero_()
    seen: list[torch.Tensor] = []
    network.encoder.register_forward_hook(lambda *parts: seen.append(parts[2]))
    network.encode(first)
    dropped = (seen[0][:, [0, 2, 3]] == 0).float().mean()
    assert abs(float(dropped) - 0.5) < 0.03
    assert float(seen[0][:, 0].max().detach()) == pytest.approx(2 / 3**0.5)


def test_the_loss_by_hand(network: MultiVAE, rows: Rows) -> None:
    network.eval()
    mean, log_variance = (part.detach().double().numpy() for part in network.encode(rows))
    logits = network.decode(torch.from_numpy(mean).float()).detach().double().numpy()
    found = losses(network, rows, 0.3).detach().numpy()
    for user in range(3):
        likelihood = np.exp(logits[user]) / np.exp(logits[user]).sum()
        negative = -sum(np.log(likelihood[item]) for item in range(4) if LIKES[user, item])
        variance = np.exp(log_variance[user])
        kl = 0.5 * (variance + mean[user] ** 2 - 1 - np.log(variance)).sum()
        assert found[user] == pytest.approx(negative + 0.3 * kl, rel=1e-5, abs=1e-6)


def test_the_divergence_is_that_of_torch() -> None:
    mean, log_variance = torch.randn(2, 5, 3)
    own = torch.distributions.Normal(mean, (log_variance / 2).exp())
    exact = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence(mean, log_variance), exact, atol=1e-5)


def test_the_likelihood_of_a_dense_matrix(rows: Rows) -> None:
    logits = torch.randn(3, 4)
    dense = -(F.log_softmax(logits, 1) * torch.from_numpy(LIKES)).sum(1)
    assert torch.allclose(negative_log_likelihood(logits, rows), dense, atol=1e-6)


def test_latents_are_drawn_in_training(network: MultiVAE, rows: Rows) -> None:
    network.train()
    assert not torch.equal(losses(network, rows, 0.1), losses(network, rows, 0.1))
    network.eval()
    assert torch.equal(losses(network, rows, 0.1), losses(network, rows, 0.1))


def test_weights_begin_as_published(network: MultiVAE) -> None:
    wide = MultiVAE(items=400, hidden=300, latent=50, dropout=0.5)
    bound = (6 / 700) ** 0.5
    assert 0.99 * bound < float(wide.encoder.weight.detach().abs().max()) <= bound
    assert float(wide.decoder[2].bias.detach().std()) == pytest.approx(0.001, rel=0.2)


def test_the_weight_of_the_divergence_rises_to_its_cap() -> None:
    assert [annealed(n, 0.2, 20_000) for n in (0, 1000, 4000, 9999)] == [0, 0.05, 0.2, 0.2]
