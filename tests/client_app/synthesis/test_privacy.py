"""Users' gradients are bounded and noised, and ε is what independent calculations say."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.sparse import csr_array
from torch import Tensor, nn

from client_app.synthesis import privacy
from client_app.synthesis.diffusion import Denoiser
from client_app.synthesis.multivae import MultiVAE, losses
from client_app.synthesis.privacy import (
    Budget,
    PrivateGradients,
    Training,
    noise_multiplier,
    noised_share,
    spent,
)
from client_app.synthesis.rows import Rows
from common.errors import SnowdropError

pytest.importorskip("opacus")

QUIET = Budget(noise=0.0, clip=0.5, secure=False)


def own_gradients(network: nn.Module, losses_of: list[Tensor]) -> Tensor:
    """Gradient of each user's loss in the linear layers, one by one, (users, numbers)."""
    values = [p for p in network.parameters() if p.requires_grad]
    rows = []
    for loss in losses_of:
        found = torch.autograd.grad(loss, values, retain_graph=True, allow_unused=True)
        rows.append(torch.cat([
            (torch.zeros_like(v) if g is None else g).flatten()
            for g, v in zip(found, values, strict=True)
        ]))  # fmt: skip
    return torch.stack(rows)


def written(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def autoencoder_losses(network: MultiVAE) -> Tensor:
    likes = np.random.default_rng(0).random((7, 12)) < 0.4
    likes[3] = False
    return losses(network, Rows.of(csr_array(likes)), 0.2)


def denoiser_losses(network: Denoiser) -> Tensor:
    latents = 3 * torch.randn(7, 4)
    steps = torch.randint(1, 6, (7,))
    return (network(latents, steps) - network(latents + 1, steps) - 2).square().mean(1)


CASES = {
    "autoencoder": (lambda: MultiVAE(12, 6, 4, 0.5), autoencoder_losses),
    "denoiser": (lambda: Denoiser(4, 5, 6, 2, False, 0.5, False), denoiser_losses),
    "shared layers": (lambda: Denoiser(4, 5, 6, 3, True, 0.5, True), denoiser_losses),
}


@pytest.mark.parametrize("case", CASES)
def test_the_sum_of_clipped_gradients_of_single_users(case: str) -> None:
    torch.manual_seed(1)
    make, losses_of = CASES[case]
    network = make()
    gradients = PrivateGradients(network, QUIET)
    each = losses_of(network)  # type: ignore[operator]
    own = own_gradients(network, list(each))
    norms = own.norm(dim=1)
    assert torch.allclose(gradients.norms(each), norms, rtol=1e-4, atol=1e-6)
    clipped = own * (0.5 / norms).clamp(max=1)[:, None]
    assert float(clipped.norm(dim=1).max()) <= 0.5 + 1e-5
    assert int((norms > 0.5).sum()) in range(1, 8)
    gradients.write(each, expected=5.0)
    assert torch.allclose(written(network), clipped.sum(0) / 5, rtol=1e-4, atol=1e-6)


def test_opacus_clips_the_same_users_alike() -> None:
    from opacus.grad_sample import GradSampleModule

    torch.manual_seed(1)
    plain = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    inputs = torch.randn(5, 4)
    gradients = PrivateGradients(plain, QUIET)
    norms = gradients.norms(plain(inputs).square().sum(1))
    theirs = GradSampleModule(plain, loss_reduction="sum")
    theirs(inputs).square().sum().backward()
    squares = [p.grad_sample.flatten(1).square().sum(1) for p in theirs.parameters()]
    assert torch.allclose(norms, torch.stack(squares).sum(0).sqrt(), rtol=1e-4)


@pytest.mark.parametrize("secure", [False, True])
def test_noise_has_the_deviation_of_multiplier_and_bound(secure: bool) -> None:
    network = nn.Linear(100, 100)
    gradients = PrivateGradients(network, Budget(noise=3.0, clip=0.5, secure=secure))
    torch.manual_seed(0)
    gradients.write(None, expected=10.0)
    drawn = written(network)
    assert float(drawn.std()) == pytest.approx(0.15, rel=0.05)
    assert stats.kstest(drawn.numpy() / 0.15, "norm").pvalue > 1e-4


def test_secure_noise_does_not_come_from_the_seed() -> None:
    network = nn.Linear(3, 3)
    found = []
    for secure in (False, False, True, True):
        torch.manual_seed(0)
        PrivateGradients(network, Budget(1.0, 1.0, secure)).write(None, 1.0)
        found.append(written(network).clone())
        network.zero_grad()
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[2], found[3])


@pytest.mark.parametrize("secure", [False, True])
def test_steps_take_each_user_independently(secure: bool) -> None:
    gradients = PrivateGradients(nn.Linear(1, 1), Budget(1.0, 1.0, secure))
    torch.manual_seed(0)
    drawn = [gradients.batch(1000, 0.1, torch.device("cpu")) for _ in range(50)]
    sizes = [len(chosen) for chosen in drawn]
    assert np.mean(sizes) == pytest.approx(100, abs=6)
    assert np.std(sizes) == pytest.approx(math.sqrt(90), rel=0.35)
    assert len(set(drawn[0].tolist())) == len(drawn[0])


def test_a_slope_that_is_no_linear_layer_stays_as_it_starts() -> None:
    network = Denoiser(4, 5, 6, 1, False, 0.0, False)
    gradients = PrivateGradients(network, Budget(1.0, 1.0, False))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    data = torch.randn(20, 4)

    def of_users(chosen: Tensor, updates: int) -> Tensor:
        return network(data[chosen], torch.ones_like(chosen)).square().mean(1)

    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    assert math.isfinite(gradients.epoch(20, 5, 0, of_users, optimizer))
    after = dict(network.named_parameters())
    assert torch.equal(before["first.1.weight"], after["first.1.weight"])
    assert not torch.equal(before["first.0.weight"], after["first.0.weight"])


def test_an_epoch_of_no_users_at_all_is_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Linear(2, 1)
    gradients = PrivateGradients(network, Budget(1.0, 1.0, False))
    none = torch.zeros(0, dtype=torch.int64)
    monkeypatch.setattr(gradients, "batch", lambda *_: none)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    before = network.weight.detach().clone()
    assert gradients.epoch(4, 2, 0, lambda *_: torch.zeros(1), optimizer) == 0
    assert not torch.equal(before, network.weight)


def test_epsilon_without_sampling_is_that_of_the_gaussian_mechanism() -> None:
    """With all users in each step, n steps are one Gaussian mechanism with deviation σ / √n, whose
    δ is known (Balle and Wang, arXiv 1805.06530, theorem 8). Rényi accounting is a bound on it."""
    noise, steps = 20.0, 25
    found = spent(noise, [Training(1.0, 10), Training(1.0, 15)], 1e-5)
    ratio = math.sqrt(steps) / noise

    def delta(epsilon: float) -> float:
        low, high = ratio / 2 - epsilon / ratio, -ratio / 2 - epsilon / ratio
        return float(stats.norm.cdf(low) - math.exp(epsilon) * stats.norm.cdf(high))

    assert delta(found) <= 1e-5
    assert delta(0.8 * found) > 1e-5


def test_the_noise_is_the_least_that_is_enough() -> None:
    trainings = [Training.of(1000, 100, 3), Training.of(1000, 50, 2)]
    assert trainings == [Training(0.1, 30), Training(0.05, 40)]
    noise = noise_multiplier(2.0, 1e-5, trainings)
    assert spent(noise, trainings, 1e-5) <= 2.0
    assert spent(noise * 0.99, trainings, 1e-5) > 2.0
    assert Training.of(10, 500, 2) == Training(1.0, 2)


def test_what_no_noise_can_give_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "MOST_NOISE", 4.0)
    with pytest.raises(SnowdropError, match=r"no noise gives ε = 0.001 at δ = 1e-05 over so many"):
        noise_multiplier(0.001, 1e-5, [Training(1.0, 100)])


@pytest.mark.parametrize("secure", [False, True])
def test_the_share_of_filled_cells_has_laplace_noise(secure: bool) -> None:
    torch.manual_seed(0)
    counts = np.array([5, 50, 400])
    shares = [noised_share(counts, 1000, 100, 0.5, secure) for _ in range(500)]
    noise = (np.array(shares) * 3000 - 155) / (100 / 0.5)
    inside = noise[np.array(shares) > 1 / 3000]
    assert float(np.median(noise)) == pytest.approx(0, abs=0.2)
    truncated = stats.laplace.cdf(inside) - stats.laplace.cdf(-154 / 200)
    assert stats.kstest(truncated / (1 - stats.laplace.cdf(-154 / 200)), "uniform").pvalue > 1e-4
    assert min(shares) == 1 / 3000
