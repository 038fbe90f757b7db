"""SDRM: its losses by hand, its sampling, and a training that stops and goes on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from client_app.methods import sdrm
from client_app.methods.sdrm import SDRM, Standard, equation_1, published_loss
from client_app.synthesis import loop
from client_app.synthesis.chosen import Chosen
from client_app.synthesis.diffusion import Denoiser
from client_app.synthesis.privacy import Training, spent
from common.methods.sdrm import SDRMSettings, StandardKind
from tests.client_app.synthesis.silos import ITEMS, grouped_silo

CPU = torch.device("cpu")
QUICK = {
    "vae_hidden": 16, "vae_latent": 4, "vae_batch": 20, "vae_epochs": 12, "vae_lr": 0.01,
    "batch": 30, "epochs": 6, "steps": 8, "layers": 1,
}  # fmt: skip


def made(**values: Any) -> SDRM:
    return SDRM("sdrm", SDRMSettings(**{**QUICK, **values}), ITEMS, CPU)


def fitted(**values: Any) -> SDRM:
    own = made(**values)
    own.fit(grouped_silo(), 1)
    return own


@dataclass(frozen=True, eq=False)
class Step:
    """What an optimiser was about to do."""

    values: list[nn.Parameter]
    gradient: Tensor
    lr: float


@pytest.fixture
def steps() -> Iterator[list[Step]]:
    """All steps of all optimisers."""
    seen: list[Step] = []

    def note(optimizer: Optimizer, *_: Any) -> None:
        (group,) = optimizer.param_groups
        slopes = [v.grad.flatten() for v in group["params"] if v.grad is not None]
        seen.append(Step(list(group["params"]), torch.cat(slopes), group["lr"]))

    handle = register_optimizer_step_pre_hook(note)
    yield seen
    handle.remove()


def steps_of(network: nn.Module, steps: list[Step]) -> list[Step]:
    first = next(network.parameters())
    return [step for step in steps if any(first is value for value in step.values)]


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(3)
    return Denoiser(4, 8, 6, 1, False, 0.0, True)


def test_the_published_loss_by_hand(denoiser: Denoiser) -> None:
    latents, noised, noise = torch.randn(3, 5, 4)
    steps = torch.tensor([1, 3, 8, 2, 5])
    with torch.no_grad():
        e = denoiser(noised, steps).double().numpy()
        s = denoiser(latents, steps).double().numpy()
        moved = denoiser(latents + 0.1 * noise, steps).double().numpy()
    change = e - latents.double().numpy()
    first = np.mean(((moved - s) / 0.01 - change) ** 2)
    second = np.mean((change - s) ** 2)
    expected = 0.5 * (first + second) / (1e-8 + np.var(change, ddof=1))
    loss = published_loss(denoiser, latents, noised, noise, steps)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-3)


def test_gradients_of_the_published_loss_flow_through_all_of_it(denoiser: Denoiser) -> None:
    """Against the slope of the whole loss along a direction."""
    double = denoiser.double()
    time = double.time.forward
    double.time.forward = lambda embedded: time(embedded.double())  # type: ignore[method-assign]
    latents, noised, noise = torch.randn(3, 5, 4, dtype=torch.float64)
    steps = torch.tensor([1, 3, 8, 2, 5])
    weight = double.last.weight
    published_loss(double, latents, noised, noise, steps).backward()
    assert weight.grad is not None
    direction = torch.randn_like(weight)
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-6 * direction
            losses.append(float(published_loss(double, latents, noised, noise, steps)))
            weight -= sign * 1e-6 * direction
    slope = (losses[0] - losses[1]) / 2e-6
    assert float((weight.grad * direction).sum()) == pytest.approx(slope, rel=1e-4)


def test_equation_1_by_hand(denoiser: Denoiser) -> None:
    noised, steps = torch.randn(5, 4), torch.tensor([1, 3, 8, 2, 5])
    torch.manual_seed(2)
    found = equation_1(denoiser, noised, steps).detach()
    torch.manual_seed(2)
    moved = noised + 0.1 * torch.randn(5, 4)
    for row in range(5):
        own, at = noised[row : row + 1], steps[row : row + 1]
        e = denoiser(own, at).detach()[0]
        s = denoiser(moved[row : row + 1], at).detach()[0]
        change = e - own[0]
        expected = ((s - e - change) ** 2).sum() + ((e - change) ** 2).sum()
        assert float(found[row]) == pytest.approx(float(expected / (change**2).sum()), rel=1e-4)


@pytest.mark.parametrize("noising", ["root", "published"])
def test_the_plain_loss_is_the_error_of_the_noise(noising: str) -> None:
    own = fitted(objective="noise", noising=noising, dropout=0.0, noise_scale=0.5)
    latents = torch.randn(6, 4)
    torch.manual_seed(4)
    found = own._losses(latents).detach()
    torch.manual_seed(4)
    steps = torch.randint(1, 9, (6,))
    noise = 0.5 * torch.randn(6, 4)
    noised = own._schedule.noised(latents, noise, steps, noising == "published")
    expected = (own._denoiser(noised, steps).detach() - noise).square().mean(1)
    assert torch.allclose(found, expected)


def test_the_velocity_is_learnt_and_gives_the_noise() -> None:
    own = fitted(dropout=0.0)
    latents = torch.randn(6, 4)
    torch.manual_seed(4)
    found = own._losses(latents).detach()
    torch.manual_seed(4)
    steps = torch.randint(1, 9, (6,))
    noise = torch.randn(6, 4)
    bars = own._schedule.alpha_bars[steps][:, None]
    noised = bars.sqrt() * latents + (1 - bars).sqrt() * noise
    velocity = bars.sqrt() * noise - (1 - bars).sqrt() * latents
    guessed = own._denoiser(noised, steps).detach()
    assert torch.allclose(found, (guessed - velocity).square().mean(1), rtol=1e-4)
    assert torch.allclose(own._schedule.noise_of(velocity, noised, steps), noise, atol=1e-5)
    expected = own._schedule.noise_of(guessed, noised, steps)
    assert torch.allclose(own._predicted(noised, steps).detach(), expected)


@pytest.mark.parametrize("objective", ["code", "equation-1"])
def test_other_objectives_train(objective: str) -> None:
    own = fitted(objective=objective, lr=1e-3, dropout=0.0, bounded=True)
    latents = torch.randn(64, 4)
    torch.manual_seed(0)
    own._denoiser.dropping = False
    after = float(own._losses(latents).mean().detach())
    own._denoiser.load_state_dict(made_denoiser(own).state_dict())
    torch.manual_seed(0)
    assert after != float(own._losses(latents).mean().detach())


def made_denoiser(own: SDRM) -> Denoiser:
    with loop.seeded(1, "denoiser", CPU):
        return Denoiser(4, 8, 4, 1, False, 0.0, True)


def test_sampled_latents_are_of_the_clusters_of_real_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[2.0, 0, 0, 1], [0, 2.0, 0, 1], [0, 0, 2.0, 1]])
    latents = centres[torch.arange(600) % 3] + 0.1 * torch.randn(600, 4)
    monkeypatch.setattr(sdrm, "encoded", lambda *_: latents)
    own = fitted(
        epochs=150, lr=5e-3, dropout=0.0, steps=60, width=64, layers=2, batch=60, restored=1.0
    )
    with torch.no_grad(), loop.seeded(1, "sample", CPU):
        drawn = own._latents(2000, lambda *_: None)
    distances, nearest = torch.cdist(drawn, centres).min(1)
    assert float(distances.median()) < 0.5
    assert torch.bincount(nearest).min() > 500


def test_sampling_alone_may_differ_after_one_training(tmp_path: Path) -> None:
    full, multi = made(), made(sampling="multi")
    full.fit(grouped_silo(), 1, folder=tmp_path)
    told: list[str] = []
    multi.fit(grouped_silo(), 1, lambda stage, *_: told.append(stage), tmp_path)
    assert told == []
    full_users, multi_users = (own.sample(40, 1).likes for own in (full, multi))
    assert (full_users != multi_users).nnz > 0


@torch.no_grad()
@pytest.mark.parametrize("sampling", ["full", "multi"])
def test_starts_are_the_last_step_or_one_before_it(
    monkeypatch: pytest.MonkeyPatch, sampling: str
) -> None:
    own = fitted(noise_scale=0.7)
    own.own = own.own.model_copy(update={"sampling": sampling})
    seen: list[Tensor] = []

    def noted(predict: object, schedule: object, latents: Tensor, starts: Tensor, scale: float):  # type: ignore[no-untyped-def]
        seen.append(starts)
        assert scale == 0.7
        return latents

    monkeypatch.setattr(sdrm, "denoise", noted)
    monkeypatch.setattr(sdrm, "CHUNK", 400)
    made_latents = own._latents(1000, lambda *_: None)
    starts = torch.cat(seen)
    assert [len(part) for part in seen] == [400, 400, 200]
    if sampling == "full":
        assert starts.unique().tolist() == [8]
    else:
        assert starts.unique().tolist() == list(range(1, 8))
        assert torch.bincount(starts)[1:].float().std() < 40
    assert torch.allclose(made_latents.std(0), torch.ones(4), atol=0.1)


@pytest.mark.parametrize("dropping", [False, True])
def test_dropout_in_sampling_is_a_setting(dropping: bool) -> None:
    assert fitted(sampling_dropout=dropping)._denoiser.dropping is dropping


@pytest.fixture
def skewed() -> Tensor:
    torch.manual_seed(0)
    mix = torch.tensor([[1.0, 0.5, 0.0], [0.0, 5.0, 1.0], [0.0, 0.0, 0.3]])
    return torch.randn(800, 3) @ mix + torch.tensor([3.0, -1.0, 0.5])


def test_latents_are_standardised_as_the_setting_says(skewed: Tensor) -> None:
    done = {way: Standard.of(skewed, way).taken(skewed)
            for way in ("none", "global", "entries", "whole")}  # fmt: skip
    assert torch.allclose(done["none"], skewed, atol=1e-6)
    spread = (skewed - skewed.mean(0)).square().mean().sqrt()
    assert torch.allclose(done["global"], (skewed - skewed.mean(0)) / spread, atol=1e-4)
    single = (skewed - skewed.mean(0)) / skewed.std(0, correction=0)
    assert torch.allclose(done["entries"], single, atol=1e-4)
    whole = torch.cov(done["whole"].T, correction=0)
    assert torch.allclose(whole, torch.eye(3), atol=1e-3)
    assert torch.allclose(done["whole"].mean(0), torch.zeros(3), atol=1e-4)
    turned = np.linalg.eigh(np.cov(skewed.double().numpy().T, ddof=0))
    root = turned.eigenvectors @ np.diag(turned.eigenvalues**-0.5) @ turned.eigenvectors.T
    expected = (skewed - skewed.mean(0)).double().numpy() @ root
    assert np.allclose(done["whole"].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("way", ["none", "global", "entries", "whole"])
def test_a_share_of_mean_and_spread_is_given_back(skewed: Tensor, way: StandardKind) -> None:
    standard = Standard.of(skewed, way)
    taken = standard.taken(skewed)
    assert torch.allclose(standard.given(taken, 1.0), skewed, atol=1e-3)
    assert torch.allclose(standard.given(taken, 0.0), taken, atol=1e-4)
    half = standard.given(taken, 0.5)
    assert torch.allclose(half.mean(0), skewed.mean(0) / 2 if way != "none" else skewed.mean(0))
    if way == "entries":
        assert torch.allclose(half.std(0), skewed.std(0).sqrt(), rtol=1e-2)


def test_axes_without_spread_are_not_blown_up() -> None:
    flat = torch.randn(50, 3) * torch.tensor([1.0, 0.0, 1e-9])
    for way in ("entries", "whole"):
        taken = Standard.of(flat, way).taken(flat)  # type: ignore[arg-type]
        assert float(taken.abs().max()) < 10
    alone = Standard.of(torch.ones(1, 3), "whole").taken(torch.ones(1, 3))
    assert torch.equal(alone, torch.zeros(1, 3))


def test_a_stopped_diffusion_goes_on_as_if_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SECONDS", 0.0)
    monkeypatch.setattr(loop, "_SHARE", 0)
    whole, again = fitted(), made()

    def watch(stage: str, done: float, total: float) -> None:
        if (stage, done) == ("diffusion", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made().fit(grouped_silo(), 1, watch, tmp_path)
    told: list[tuple[str, float]] = []
    again.fit(grouped_silo(), 1, lambda stage, done, _: told.append((stage, done)), tmp_path)
    assert told[0] == ("diffusion", 3)
    for name, values in whole._denoiser.state_dict().items():
        assert torch.equal(again._denoiser.state_dict()[name], values)
    assert (whole.sample(30, 1).likes != again.sample(30, 1).likes).nnz == 0


def test_both_trainings_spend_the_one_epsilon() -> None:
    pytest.importorskip("opacus")
    own = fitted(epsilon=5.0, delta=1e-3, secure_noise=False, vae_epochs=2, epochs=3)
    assert own._budget is not None
    trainings = [Training(20 / 90, 10), Training(30 / 90, 9)]
    assert own.epsilon == pytest.approx(spent(own._budget.noise, trainings, 1e-3) + 0.25)
    assert 4.5 < own.epsilon <= 5.0
    latents = torch.randn(5, 4)
    assert torch.equal(own._standard.taken(latents), latents)  # others would tell of the users
    assert own.sample(5, 1).likes.shape == (5, ITEMS)
    with pytest.raises(ValidationError, match="needs another objective than code"):
        SDRMSettings(epsilon=1.0, objective="code")


def test_the_gradients_of_the_denoiser_are_clipped_and_noised(steps: list[Step]) -> None:
    """Each number is noise of the budget's deviation: the bound leaves little of the users."""
    pytest.importorskip("opacus")
    own = fitted(
        epsilon=0.5, delta=1e-3, secure_noise=False, clip=1e-3, vae_epochs=1, epochs=3, width=64
    )
    assert own._budget is not None
    trained = steps_of(own._denoiser, steps)
    assert len(trained) == 9
    deviation = own._budget.noise * 1e-3 / 30
    for step in trained:
        assert float(step.gradient.std()) == pytest.approx(deviation, rel=0.05)


def test_the_learning_rate_falls_to_nothing(steps: list[Step]) -> None:
    own = fitted(epochs=4, lr=0.02)
    falling = [0.02, 0.015, 0.01, 0.005]
    told = [step.lr for step in steps_of(own._denoiser, steps)]
    assert told == pytest.approx([lr for lr in falling for _ in range(3)])


def test_the_forms_are_values_of_settings() -> None:
    fixed, plain, paper = (Chosen.of(text) for text in ("sdrm:fixed", "sdrm", "sdrm:paper"))
    assert fixed.settings == plain.settings
    values = paper.settings.model_dump()
    assert values.items() >= {
        "noising": "published", "objective": "code", "schedule": "linear", "shared_layers": True,
        "sampling_dropout": True, "fill": "rated", "stop_on": "watched", "standardise": "none",
        "bounded": True, "steps": 83, "vae_latent": 830, "batch": 550, "lr": 2.1e-5,
    }.items()  # fmt: skip
    both = Chosen.of("sdrm:fixed:paper").settings.model_dump()
    assert (both["steps"], both["noising"], both["fill"]) == (83, "root", "likes")
    assert Chosen.of("sdrm:multi").settings.model_dump()["sampling"] == "multi"
