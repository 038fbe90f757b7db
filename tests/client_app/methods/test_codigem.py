"""CODIGEM: its loss against a plain loop over steps with torch's distributions."""

from typing import Literal

import pytest
import torch
from torch.distributions import Normal

from client_app.methods.codigem import Chain, CODIGEMSynthesizer, unlikelihood
from client_app.synthesis.rows import Rows
from common.methods.codigem import CODIGEMSettings
from tests.client_app.silos import blocks

CPU = torch.device("cpu")
OWN = CODIGEMSettings(steps=4, beta=0.2, width=6, layers=2)
HALF_LOG_2_PI = 0.9189385332


def test_the_unlikelihood_is_the_normal_distributions() -> None:
    rows, mean, log_variance = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 4)
    expected = -Normal(mean, (log_variance / 2).exp()).log_prob(rows).sum(1)
    found = unlikelihood(rows, mean, log_variance) + 4 * HALF_LOG_2_PI
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("pairs", ["steps", "published"])
@pytest.mark.parametrize("likelihood", ["gaussian", "multinomial"])
def test_losses_as_a_loop_over_steps(
    pairs: Literal["steps", "published"], likelihood: Literal["gaussian", "multinomial"]
) -> None:
    own = OWN.model_copy(update={"pairs": pairs, "likelihood": likelihood})
    method = CODIGEMSynthesizer("codigem", own, 20, CPU)
    torch.manual_seed(0)
    network = method._network()
    users = Rows.of(blocks(users=8).likes)
    torch.manual_seed(3)
    found = method._losses(network, users)
    torch.manual_seed(3)
    clean = users.dense()
    noised = [clean]
    for _ in range(4):
        noised.append(0.8**0.5 * noised[-1] + 0.2**0.5 * torch.randn(8, 20))
    made = network.decoder(noised[1])
    if likelihood == "gaussian":
        assert float(made.detach().abs().max()) <= 1
        expected = ((made - clean) ** 2).sum(1) / 2
    else:
        expected = -(made.log_softmax(1) * clean).sum(1)
    # The published code lists predictions from the last step on, and targets from the first.
    targets = {2: 1, 3: 2, 4: 3} if pairs == "steps" else {2: 3, 3: 2, 4: 1}
    for step, target in targets.items():
        mean, log_variance = network.steps[step - 2](noised[step]).split(20, dim=1)
        spread = Normal(mean, (log_variance / 2).exp())
        expected = expected - spread.log_prob(noised[target]).sum(1) - 20 * HALF_LOG_2_PI
    assert torch.allclose(found, expected, rtol=1e-4)


def test_first_layers_start_near_nothing() -> None:
    chain = Chain(200, OWN)
    assert len(chain.steps) == 3
    for step in chain.steps:
        first = step.get_submodule("0")
        for values in first.parameters():
            assert float(values.detach().abs().max()) < 1e-3
    mean, log_variance = chain.before(4, torch.randn(2, 200))
    assert mean.shape == log_variance.shape == (2, 200)
    assert float(chain.decoder.get_submodule("0").weight.detach().std()) > 1e-2  # type: ignore[operator, union-attr, arg-type]


def test_sampling_walks_the_chain_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    method = CODIGEMSynthesizer("codigem", OWN, 5, CPU)
    network = method._network()
    walked: list[int] = []

    def before(step: int, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        walked.append(step)
        return torch.full_like(rows, float(step)), torch.full_like(rows, -40.0)

    monkeypatch.setattr(network, "before", before)
    scores = method._denoised(network, torch.randn(3, 5))
    assert walked == [4, 3, 2]
    assert torch.allclose(scores, network.decoder(torch.full((3, 5), 2.0)), atol=1e-5)
