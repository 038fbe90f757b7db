"""Schedules, the denoiser and the sampler against closed forms and plain loops."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from client_app.synthesis.diffusion import Denoiser, Schedule, denoise, time_embedding


def test_the_linear_schedule_is_the_published_one() -> None:
    schedule = Schedule.of("linear", 83)
    betas = [1e-4 + (0.02 - 1e-4) * t / 83 for t in range(84)]
    assert schedule.steps == 83
    assert schedule.betas.tolist() == pytest.approx(betas, rel=1e-5)
    assert schedule.alpha_bars[0] == 1
    assert float(schedule.alpha_bars[83]) == pytest.approx(
        math.prod(1 - beta for beta in betas), rel=1e-5
    )
    assert float(schedule.alpha_bars[83]) == pytest.approx(0.43, abs=0.01)  # far from 0
    assert float(Schedule.of("linear", 23).alpha_bars[23]) == pytest.approx(0.78, abs=0.01)


@pytest.mark.parametrize("kind", ["scaled", "cosine"])
@pytest.mark.parametrize("steps", [20, 100, 1000])
def test_other_schedules_end_near_noise(kind: str, steps: int) -> None:
    schedule = Schedule.of(kind, steps)  # type: ignore[arg-type]
    assert float(schedule.alpha_bars[-1]) < 1e-3
    assert all(after < before for before, after in pairwise(schedule.alpha_bars.tolist()))
    assert float(schedule.betas[1:].min()) > 0
    assert float(schedule.betas.max()) <= 0.9991


def test_the_cosine_schedule_in_closed_form() -> None:
    schedule = Schedule.of("cosine", 50)
    for t in (1, 10, 25, 49):
        exact = math.cos((t / 50 + 0.008) / 1.008 * math.pi / 2) ** 2
        exact /= math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        assert float(schedule.alpha_bars[t]) == pytest.approx(exact, rel=1e-4)


def test_noise_is_added_in_both_forms() -> None:
    schedule = Schedule.of("linear", 83)
    latents, noise = torch.randn(2, 3, 4)
    steps = torch.tensor([1, 40, 83])
    for published in (False, True):
        noised = schedule.noised(latents, noise, steps, published)
        for row, t in enumerate(steps.tolist()):
            bar = float(schedule.alpha_bars[t])
            factor = 1 - bar if published else math.sqrt(1 - bar)
            assert torch.allclose(
                noised[row], math.sqrt(bar) * latents[row] + factor * noise[row], atol=1e-6
            )


@pytest.mark.parametrize("width", [6, 7])
def test_the_embedding_of_a_step(width: int) -> None:
    found = time_embedding(torch.tensor([0, 5]), width)
    for row, t in enumerate((0, 5)):
        angles = [t * 10_000 ** (-k / 3) for k in range(3)]
        expected = [*map(math.cos, angles), *map(math.sin, angles), *[0.0] * (width - 6)]
        assert found[row].tolist() == pytest.approx(expected, abs=1e-6)


def denoiser(layers: int, shared: bool = False, dropout: float = 0.0) -> Denoiser:
    torch.manual_seed(1)
    return Denoiser(3, 5, 4, layers, shared, dropout, bounded=True)


def test_the_denoiser_by_hand() -> None:
    network = denoiser(2)
    latents, steps = torch.randn(6, 3), torch.tensor([1, 2, 3, 4, 5, 1])
    time = time_embedding(steps, 5) @ network.time.weight.T + network.time.bias
    state = torch.cat([latents, time], 1)
    for linear in (network.first[0], *(part[0] for part in network.hidden)):
        state = state @ linear.weight.T + linear.bias
        state = torch.where(state > 0, state, 0.25 * state)
    expected = (state @ network.last.weight.T + network.last.bias).tanh()
    assert torch.allclose(network(latents, steps), expected, atol=1e-6)
    network.bounded = False
    assert torch.allclose(network(latents, steps).tanh(), expected, atol=1e-6)


def test_shared_layers_are_one_layer_repeated() -> None:
    shared, own = denoiser(3, shared=True), denoiser(3)
    assert len(shared.hidden) == 1
    assert len(own.hidden) == 3
    state = shared.state_dict()
    for k in range(3):
        state |= {key.replace("hidden.0", f"hidden.{k}"): v for key, v in state.items()
                  if "hidden" in key}  # fmt: skip
    own.load_state_dict(state)
    latents, steps = torch.randn(2, 3), torch.tensor([1, 2])
    assert torch.allclose(shared(latents, steps), own(latents, steps))
    assert sum(1 for _ in denoiser(0, shared=True).hidden) == 0


def test_dropout_follows_its_switch_and_not_the_mode() -> None:
    network = denoiser(1, dropout=0.5).eval()
    latents, steps = torch.randn(40, 3), torch.ones(40, dtype=torch.int64)
    assert not torch.equal(network(latents, steps), network(latents, steps))
    network.dropping = False
    assert torch.equal(network(latents, steps), network(latents, steps))


def one_by_one(
    predict: Denoiser, schedule: Schedule, latents: Tensor, starts: Tensor, scale: float
) -> Tensor:
    """Each latent on its own, with the noise that all get at once."""
    noise = {}
    for i in range(int(starts.max()), 1, -1):
        rows = [row for row, start in enumerate(starts.tolist()) if start >= i]
        drawn = torch.randn(len(rows), latents.shape[1])
        noise |= {(i, row): drawn[k] for k, row in enumerate(rows)}
    made = []
    for row, start in enumerate(starts.tolist()):
        z = latents[row]
        for i in range(start, 0, -1):
            beta, bar = float(schedule.betas[i]), float(schedule.alpha_bars[i])
            found = predict(z[None], torch.tensor([i]))[0]
            z = (z - found * beta / math.sqrt(1 - bar)) / math.sqrt(1 - beta)
            z = z + scale * math.sqrt(beta) * noise.get((i, row), torch.zeros(3))
        made.append(z)
    return torch.stack(made)


@torch.no_grad()
@pytest.mark.parametrize("starts", [[5] * 4, [1, 4, 2, 0]], ids=["full", "multi"])
def test_sampling_at_once_is_sampling_one_by_one(starts: list[int]) -> None:
    network, schedule = denoiser(1), Schedule.of("linear", 5)
    latents = torch.randn(4, 3)
    torch.manual_seed(7)
    together = denoise(network, schedule, latents, torch.tensor(starts), 0.7)
    torch.manual_seed(7)
    apart = one_by_one(network, schedule, latents, torch.tensor(starts), 0.7)
    assert torch.allclose(together, apart, atol=1e-5)


@torch.no_grad()
def test_perfect_predictions_lead_to_the_distribution_that_was_noised() -> None:
    """Of N(m, s²), the expected noise in z_t is known, and sampling gives N(m, s²) back."""
    schedule, mean, deviation = Schedule.of("cosine", 200), 1.5, 0.4

    def predict(latents: Tensor, steps: Tensor) -> Tensor:
        bar = schedule.alpha_bars[steps][:, None]
        spread = bar * deviation**2 + 1 - bar
        return (latents - bar.sqrt() * mean) * (1 - bar).sqrt() / spread

    torch.manual_seed(0)
    steps = torch.full((20_000,), 200)
    made = denoise(predict, schedule, torch.randn(20_000, 1), steps, 1.0)
    assert float(made.mean()) == pytest.approx(mean, abs=0.02)
    assert float(made.std()) == pytest.approx(deviation, abs=0.02)
