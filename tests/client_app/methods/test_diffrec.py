"""DiffRec: its schedule, weights, draws and losses against plain loops and another library."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from client_app.methods.diffrec import (
    HISTORY,
    UNIFORM,
    Denoiser,
    DiffRecSynthesizer,
    Schedule,
    StepSampler,
)
from client_app.synthesis.rows import Rows
from common.methods.diffrec import DiffRecSettings
from tests.client_app.silos import blocks

CPU = torch.device("cpu")
OWN = DiffRecSettings(
    steps=6, noise_scale=0.8, noise_min=0.01, noise_max=0.9, hidden=7, bottleneck=0, dropout=0.0
)


def bars_by_hand(own: DiffRecSettings) -> list[float]:
    """ᾱ_0 … ᾱ_T, with the published first step."""
    span = own.noise_max - own.noise_min
    noise = [
        own.noise_scale * (own.noise_min + t / max(own.steps - 1, 1) * span)
        for t in range(own.steps)
    ]
    bars = [1.0, 1 - 1e-5]
    for t in range(1, own.steps):
        bars.append(bars[-1] * (1 - noise[t]) / (1 - noise[t - 1]))
    return bars


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_the_schedule_is_equation_4(steps: int) -> None:
    own = OWN.model_copy(update={"steps": steps})
    schedule = Schedule.of(own, CPU)
    assert schedule.bars.tolist() == pytest.approx(bars_by_hand(own))
    assert schedule.betas.tolist()[:2] == [0, 1e-5]


def test_weights_are_differences_of_signal_to_noise() -> None:
    bars = bars_by_hand(OWN)
    ratio = [bar / (1 - bar) if bar < 1 else math.inf for bar in bars]
    expected = [0, 1, *(ratio[t - 1] - ratio[t] for t in range(2, 7))]
    assert Schedule.of(OWN, CPU).weights().tolist() == pytest.approx(expected, rel=1e-4)


def test_noised_rows_are_equation_2() -> None:
    rows, steps = torch.rand(3, 4), torch.tensor([0, 2, 6])
    torch.manual_seed(1)
    noised = Schedule.of(OWN, CPU).noised(rows, steps)
    torch.manual_seed(1)
    noise = torch.randn(3, 4)
    for row, step in enumerate(steps.tolist()):
        bar = bars_by_hand(OWN)[step]
        expected = math.sqrt(bar) * rows[row] + math.sqrt(1 - bar) * noise[row]
        assert torch.allclose(noised[row], expected, atol=1e-5)


def test_the_posterior_is_that_of_another_library() -> None:
    diffusers = pytest.importorskip("diffusers")
    schedule = Schedule.of(OWN, CPU)
    theirs = diffusers.DDPMScheduler(
        OWN.steps, trained_betas=schedule.betas[1:].float().numpy(), prediction_type="sample",
        clip_sample=False, variance_type="fixed_small",
    )  # fmt: skip
    state, clean = torch.randn(200, 30), torch.rand(200, 30)
    for step in range(1, OWN.steps + 1):
        kept, noised, deviation = schedule.posterior(step)
        mean = kept * clean + noised * state
        found = theirs.step(clean, step - 1, state, torch.Generator().manual_seed(0)).prev_sample
        if step == 1:
            assert (noised, deviation) == (0, 0)
            assert torch.allclose(found, mean, atol=1e-5)
        else:
            assert float((found - mean).std()) == pytest.approx(deviation, rel=0.05)
            assert float((found - mean).mean()) == pytest.approx(0, abs=0.05 * deviation)


def test_steps_are_drawn_by_their_newest_losses() -> None:
    sampler = StepSampler(3)
    assert sampler.probabilities().tolist() == pytest.approx([1 / 3] * 3)
    draw = torch.Generator().manual_seed(0)
    told: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for _ in range(9):
        steps = torch.randint(1, 4, (8,), generator=draw)
        losses = torch.rand(8, generator=draw) * steps
        sampler.remember(steps, losses)
        for step, loss in zip(steps.tolist(), losses.tolist(), strict=True):
            told[step].append(loss)
    assert all(len(losses) > HISTORY for losses in told.values())
    newest = [losses[-HISTORY:] for losses in told.values()]
    assert [sorted(row) for row in sampler.history.tolist()] == [
        pytest.approx(sorted(row)) for row in newest
    ]
    sizes = [math.sqrt(sum(loss**2 for loss in losses) / HISTORY) for losses in newest]
    expected = [(1 - UNIFORM) * size / sum(sizes) + UNIFORM / 3 for size in sizes]
    assert sampler.probabilities().tolist() == pytest.approx(expected)
    for useless in (0.0, float("inf")):
        sampler.history[:] = useless
        assert sampler.probabilities().tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("reweight", [True, False])
def test_losses_as_a_loop_over_users(reweight: bool) -> None:
    own = OWN.model_copy(update={"reweight": reweight})
    method = DiffRecSynthesizer("diffrec", own, 20, CPU)
    network = method._network()
    network.steps.history = torch.rand(6, HISTORY)
    users = Rows.of(blocks(users=8).likes)
    shares = network.steps.probabilities()
    torch.manual_seed(3)
    found = method._losses(network, users)
    torch.manual_seed(3)
    places = shares.multinomial(8, replacement=True)
    noise = torch.randn(8, 20)
    bars, weights = bars_by_hand(own), method._schedule.weights()
    for user, place in enumerate(places.tolist()):
        bar, clean = bars[place + 1], users.dense()[user]
        state = math.sqrt(bar) * clean + math.sqrt(1 - bar) * noise[user]
        made = network(state[None], torch.tensor([place + 1]))[0]
        weight = float(weights[place + 1]) if reweight else 1.0
        error = float(((made - clean) ** 2).mean().detach())
        expected = weight * error / (6 * float(shares[place]))
        assert float(found[user].detach()) == pytest.approx(expected, rel=1e-3)


class Constant(nn.Module):
    """A denoiser that always predicts the same row."""

    def forward(self, rows: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        assert steps.shape == (len(rows),)
        return torch.full_like(rows, 0.25)


@pytest.mark.parametrize("noise", [True, False])
def test_the_reverse_process_ends_where_its_last_prediction_is(noise: bool) -> None:
    own = OWN.model_copy(update={"sampling_noise": noise})
    method = DiffRecSynthesizer("diffrec", own, 5, CPU)
    method._network()
    scores = method._denoised(Constant(), torch.randn(4, 5))  # type: ignore[arg-type]
    assert torch.allclose(scores, torch.full((4, 5), 0.25), atol=1e-5)


def test_layers_of_the_denoiser() -> None:
    plain = Denoiser(9, OWN)
    assert [tuple(layer.weight.shape) for layer in plain.layers] == [(7, 19), (9, 7)]  # type: ignore[union-attr, arg-type]
    narrow = Denoiser(9, OWN.model_copy(update={"bottleneck": 3}))
    shapes = [tuple(layer.weight.shape) for layer in narrow.layers]  # type: ignore[union-attr, arg-type]
    assert shapes == [(7, 19), (3, 7), (7, 3), (9, 7)]
    assert narrow(torch.zeros(2, 9), torch.tensor([1, 6])).shape == (2, 9)


def test_settings_that_make_no_schedule_are_refused() -> None:
    with pytest.raises(ValidationError, match="must be below 1"):
        DiffRecSettings(noise_scale=2, noise_max=0.5)
    with pytest.raises(ValidationError, match="noise_min must not exceed noise_max"):
        DiffRecSettings(noise_min=0.1, noise_max=0.05)
