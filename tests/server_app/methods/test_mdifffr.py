"""MDiffFR's generator against the paper's equations."""

import copy
import itertools
import logging

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.methods.mdifffr import MDiffFRSettings
from common.settings import RunSettings
from server_app import pace
from server_app.methods import network
from server_app.methods.denoiser import DENOISERS, PaperDenoiser, ResidualDenoiser, time_encoding
from server_app.methods.mdifffr import SAMPLERS, MDiffFR, betas, snr_weights

CPU = torch.device("cpu")
DIM, CONDITION = 6, 10


SMALL = {
    "width": 32,
    "attention_heads": 2,
    "fit_steps": 0,
    "fit_epochs": 3,
    "fit_batch": 64,
    "lr": 3e-3,
    "condition_noise": 0.1,
    "steps": 8,
}


def settings_of(**changed: object) -> MDiffFRSettings:
    return MDiffFRSettings(**{**SMALL, **changed})


def generator_of(seed: int = 0, **changed: object) -> MDiffFR:
    own = {f"mdifffr.{name}": value for name, value in {**SMALL, **changed}.items()}
    settings = RunSettings.parse({"method": "mdifffr", "dim": DIM, "seed": seed, **own})
    return MDiffFR("mdifffr", DIM, CONDITION, settings, CPU)


def linear_world(items: int) -> tuple[Tensor, Tensor]:
    """Conditions (items, c), and embeddings (items, d) that are a linear map of them."""
    draw = torch.Generator().manual_seed(5)
    conditions = torch.randn(items, CONDITION, generator=draw)
    return conditions, conditions @ torch.randn(CONDITION, DIM, generator=draw) * 0.2 + 0.7


def alphas(settings: MDiffFRSettings) -> tuple[np.ndarray, np.ndarray]:
    """α_1 … α_T, and ᾱ_0 … ᾱ_T."""
    alpha = 1 - betas(settings)
    return alpha, np.concatenate([[1.0], np.cumprod(alpha)])


@pytest.mark.parametrize("steps", [2, 10, 1000])
def test_linear_variance_schedule_is_equation_6(steps: int) -> None:
    settings = settings_of(steps=steps, schedule="linear-variance")
    _, kept = alphas(settings)
    for t in range(1, steps + 1):
        expected = 0.1 * (1e-4 + (t - 1) / (steps - 1) * (0.02 - 1e-4))
        assert 1 - kept[t] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("steps", [2, 20, 1000])
def test_cosine_schedule_falls_from_the_data_to_noise(steps: int) -> None:
    beta = betas(settings_of(steps=steps))
    _, kept = alphas(settings_of(steps=steps))
    assert ((beta >= 0) & (beta < 1)).all()
    assert (np.diff(kept) <= 1e-12).all()
    assert kept[-1] == pytest.approx(1e-4)
    middle = np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) ** 2
    assert kept[steps // 2] == pytest.approx(middle, rel=1e-6)


@pytest.mark.parametrize("schedule", ["linear-variance", "cosine"])
def test_forward_process_is_equation_5(schedule: str) -> None:
    settings = settings_of(schedule=schedule)
    _, kept = alphas(settings)
    scheduler = generator_of(schedule=schedule)._scheduler
    clean, noise = torch.randn(8, DIM), torch.randn(8, DIM)
    noisy = scheduler.add_noise(clean, noise, torch.arange(8))
    signal = torch.from_numpy(np.sqrt(kept[1:])).float()[:, None]
    spread = torch.from_numpy(np.sqrt(1 - kept[1:])).float()[:, None]
    torch.testing.assert_close(noisy, signal * clean + spread * noise, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["linear-variance", "cosine"])
def test_mean_sampler_steps_to_the_posterior_mean_of_equation_11(schedule: str) -> None:
    settings = settings_of(schedule=schedule)
    alpha, kept = alphas(settings)
    scheduler = generator_of(schedule=schedule, sampler="mean")._scheduler
    scheduler.set_timesteps(8)
    assert scheduler.timesteps.tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    noisy, clean = torch.randn(5, DIM), torch.randn(5, DIM)
    for t in range(1, 9):
        at, kept_t, kept_before = alpha[t - 1], kept[t], kept[t - 1]
        mean = np.sqrt(at) * (1 - kept_before) / (1 - kept_t) * noisy + (
            np.sqrt(kept_before) * (1 - at) / (1 - kept_t) * clean
        )
        made = scheduler.step(clean, t - 1, noisy).prev_sample
        torch.testing.assert_close(made, mean.float(), atol=2e-3, rtol=1e-3)


def test_ancestral_sampler_has_mean_and_variance_of_equation_10() -> None:
    settings = settings_of()
    alpha, kept = alphas(settings)
    scheduler = generator_of(sampler="ancestral")._scheduler
    scheduler.set_timesteps(8)
    noisy, clean = torch.full((40_000, 1), 0.8), torch.full((40_000, 1), -0.3)
    draw = torch.Generator().manual_seed(1)
    for t in range(1, 9):
        at, kept_t, kept_before = alpha[t - 1], kept[t], kept[t - 1]
        mean = np.sqrt(at) * (1 - kept_before) / (1 - kept_t) * 0.8 - (
            np.sqrt(kept_before) * (1 - at) / (1 - kept_t) * 0.3
        )
        variance = (1 - at) * (1 - kept_before) / (1 - kept_t)
        made = scheduler.step(clean, t - 1, noisy, generator=draw).prev_sample
        assert float(made.mean()) == pytest.approx(mean, abs=0.02)
        assert float(made.var()) == pytest.approx(variance, rel=0.05, abs=1e-6)


def test_sampling_noise_is_a_multiple_of_that_of_equation_10() -> None:
    conditions, table = linear_world(60)
    generator = generator_of(sampler="mean")
    generator.fit(table, conditions, seed=0)
    plain = generator.generate(conditions, seed=1)
    without = generator.with_sampling_noise(0)
    started = [one._sample(conditions[:1]) for one in (without, generator)]
    assert started[0].shape == started[1].shape
    gaps = [float(generator.with_sampling_noise(k)._scheduler._get_variance(3)) for k in (1.0, 3.0)]
    assert gaps[1] == pytest.approx(9 * gaps[0])
    assert not torch.equal(generator.with_sampling_noise(4.0).generate(conditions, seed=1), plain)
    assert torch.equal(generator.generate(conditions, seed=1), plain)  # it is as it was


def test_snr_weights_are_the_differences_of_equation_12() -> None:
    kept = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    weights = snr_weights(kept)
    torch.testing.assert_close(weights, torch.tensor([1, 9 - 1, 1 - 0.25]).double())


def test_snr_loss_weighs_the_steps() -> None:
    generator = generator_of(loss="snr")
    _, kept = alphas(generator.own)
    snr = kept[1:] / (1 - kept[1:])
    expected = np.concatenate([[1.0], snr[:-1] - snr[1:]])
    np.testing.assert_allclose(generator._weights.numpy(), expected, rtol=1e-3)
    assert (generator_of(loss="plain")._weights == 1).all()


def test_time_encoding_is_cosines_and_sines() -> None:
    made = time_encoding(torch.tensor([1, 7]), 6).numpy()
    for row, t in zip(made, (1, 7), strict=True):
        angles = t * 10_000.0 ** (-np.arange(3) / 3)
        np.testing.assert_allclose(row, [*np.cos(angles), *np.sin(angles)], atol=1e-5)


@pytest.mark.parametrize("denoiser", list(DENOISERS))
@pytest.mark.parametrize("guidance", ["modality", "none", "zero", "random"])
@pytest.mark.parametrize("attention", [True, False])
def test_every_denoiser_and_ablation_has_embeddings_as_output(
    denoiser: str, guidance: str, attention: bool
) -> None:
    settings = settings_of(denoiser=denoiser, guidance=guidance, attention=attention)
    network = DENOISERS[denoiser](DIM, CONDITION, settings)
    made = network(torch.randn(4, DIM), torch.arange(1, 5), torch.randn(4, CONDITION))
    assert made.shape == (4, DIM)
    made.sum().backward()
    assert hasattr(network.fusion, "attention") == attention


@pytest.mark.parametrize("denoiser", list(DENOISERS))
def test_without_guidance_the_input_still_counts(denoiser: str) -> None:
    network = DENOISERS[denoiser](DIM, CONDITION, settings_of(denoiser=denoiser, guidance="none"))
    made = network(torch.randn(2, DIM), torch.tensor([3, 3]), torch.zeros(2, CONDITION))
    assert not torch.allclose(made[0], made[1])


def test_random_guidance_is_not_that_of_warm_items() -> None:
    generator = generator_of(guidance="random", fit_steps=400, fit_epochs=1)
    table = torch.randn(60, DIM, generator=torch.Generator().manual_seed(0))
    conditions = torch.zeros(60, CONDITION)
    generator.fit(table, conditions, seed=5)
    made = generator.generate(conditions, seed=5)
    assert torch.cosine_similarity(made, table).mean() < 0.3


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("denoiser", list(DENOISERS))
def test_generated_embeddings_follow_a_linear_ground_truth(sampler: str, denoiser: str) -> None:
    conditions, table = linear_world(300)
    generator = generator_of(sampler=sampler, denoiser=denoiser, fit_epochs=60, lr=1e-2)
    generator.fit(table[:240], conditions[:240], seed=1)
    made = generator.generate(conditions[240:], seed=2)
    assert made.shape == (60, DIM)
    truth = table[240:]
    together = np.corrcoef((made - made.mean(0)).flatten(), (truth - truth.mean(0)).flatten())
    assert together[0, 1] > (0.9 if denoiser == "residual" else 0.5)
    torch.testing.assert_close(made.mean(0), truth.mean(0), atol=0.25, rtol=0)


def test_longer_training_lowers_the_loss() -> None:
    conditions, table = linear_world(200)
    short = generator_of(fit_epochs=1).fit(table, conditions, seed=1)
    long = generator_of(fit_epochs=40).fit(table, conditions, seed=1)
    assert long < 0.5 * short


@pytest.mark.parametrize("standardise", ["none", "global", "entries"])
def test_standardisation_is_undone_in_what_is_generated(standardise: str) -> None:
    conditions, table = linear_world(120)
    scaled = table * torch.linspace(0.5, 2, DIM) + 3
    generator = generator_of(standardise=standardise, fit_epochs=60)
    generator.fit(scaled, conditions, seed=0)
    made = generator.generate(conditions, seed=0)
    torch.testing.assert_close(made.mean(0), scaled.mean(0), atol=0.5, rtol=0)
    if standardise == "entries":
        torch.testing.assert_close(generator._scale, scaled.std(0))
    if standardise == "none":
        assert (generator._scale == 1).all()


@pytest.mark.parametrize("sampling_steps", [0, 1, 2, 8])
def test_ddim_takes_as_many_steps_as_asked_for(
    sampling_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = generator_of(sampler="ddim", sampling_steps=sampling_steps)
    calls = []
    step = generator._scheduler.step
    monkeypatch.setattr(
        generator._scheduler, "step", lambda *given: calls.append(given[1]) or step(*given)
    )
    made = generator.generate(torch.randn(5, CONDITION), seed=0)
    assert made.shape == (5, DIM)
    assert made.isfinite().all()
    assert len(calls) == (sampling_steps or 8)
    assert calls == sorted(set(calls), reverse=True)


@pytest.mark.parametrize("sampling_steps", [1, 2, 4])
def test_ddim_starts_where_there_is_only_noise(sampling_steps: int) -> None:
    scheduler = generator_of(sampler="ddim", sampling_steps=sampling_steps)._scheduler
    scheduler.set_timesteps(sampling_steps)
    assert int(scheduler.timesteps[0]) == 7


def test_samples_are_averaged() -> None:
    conditions = torch.randn(9, CONDITION)
    one, many = generator_of(sampler="ancestral"), generator_of(sampler="ancestral", samples=3)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        parts = [one._sample(conditions) for _ in range(3)]
    made = many.generate(conditions, seed=4)
    torch.testing.assert_close(made, torch.stack(parts).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.generate(conditions, seed=4), parts[0])


@pytest.mark.parametrize("denoiser", list(DENOISERS))
@pytest.mark.parametrize("guidance", ["none", "zero", "random"])
def test_ablations_do_not_see_the_condition(denoiser: str, guidance: str) -> None:
    conditions, table = linear_world(60)
    generator = generator_of(denoiser=denoiser, guidance=guidance)
    generator.fit(table, conditions, seed=0)
    made = generator.generate(conditions, seed=1)
    assert torch.equal(generator.generate(3 - conditions, seed=1), made)


def test_the_condition_guides() -> None:
    conditions, table = linear_world(60)
    generator = generator_of()
    generator.fit(table, conditions, seed=0)
    made = generator.generate(conditions, seed=1)
    assert not torch.allclose(generator.generate(-conditions, seed=1), made)


def test_all_randomness_comes_from_the_seed() -> None:
    conditions, table = linear_world(60)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    made = []
    for seed in (1, 1, 2):
        generator = generator_of(condition_dropout=0.2, sampler="ancestral")
        generator.fit(table, conditions, seed)
        made.append(generator.generate(conditions, seed))
        torch.manual_seed(99) if len(made) == 3 else None
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert not torch.equal(generator.generate(conditions, 3), made[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_state_round_trip_generates_the_same() -> None:
    conditions, table = linear_world(60)
    generator = generator_of()
    generator.fit(table, conditions, seed=1)
    again = generator_of(seed=7)
    again.load_state_dict(generator.state_dict())
    made = generator.generate(conditions, seed=2)
    assert torch.equal(again.generate(conditions, seed=2), made)


def test_going_on_after_a_state_round_trip_is_as_if_undisturbed() -> None:
    conditions, table = linear_world(60)
    generator = generator_of(refit=False)
    generator.fit(table, conditions, seed=1)
    again = generator_of(refit=False)
    again.load_state_dict(copy.deepcopy(generator.state_dict()))
    for one in (generator, again):
        one.fit(table, conditions, seed=2)
    made = generator.generate(conditions, seed=2)
    assert torch.equal(again.generate(conditions, seed=2), made)


def test_refit_starts_anew_and_going_on_does_not() -> None:
    conditions, table = linear_world(100)
    refit, on = generator_of(), generator_of(refit=False)
    refit_losses = [refit.fit(table, conditions, seed=1) for _ in range(4)]
    on_losses = [on.fit(table, conditions, seed=1) for _ in range(4)]
    assert len(set(refit_losses)) == 1
    assert on_losses == sorted(on_losses, reverse=True)
    assert on_losses[-1] < 0.8 * on_losses[0]


def test_guidance_scale_mixes_the_free_and_the_guided_prediction() -> None:
    conditions, table = linear_world(60)
    plain = generator_of()
    plain.fit(table, conditions, seed=1)
    made = {}
    for scale in (0.0, 1.0, 2.0):
        generator = generator_of(condition_dropout=0.2, guidance_scale=scale)
        generator.load_state_dict(plain.state_dict())
        made[scale] = generator.generate(conditions, seed=2)
    torch.testing.assert_close(made[1.0], plain.generate(conditions, seed=2))
    free = plain.generate(torch.zeros_like(conditions), seed=2)
    torch.testing.assert_close(made[0.0], free, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(made[2.0], made[1.0], atol=1e-2)


@pytest.mark.parametrize("denoiser", list(DENOISERS))
def test_no_cold_items_give_no_embeddings(denoiser: str) -> None:
    made = generator_of(denoiser=denoiser).generate(torch.zeros(0, CONDITION), seed=0)
    assert made.shape == (0, DIM)


def test_weight_of_the_condition_noise_and_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    generator = generator_of(condition_dropout=0.5, condition_noise=0.0)

    def network(noisy: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        seen.append(condition)
        return noisy

    monkeypatch.setattr(generator, "_network", network)
    conditions = torch.ones(2_000, CONDITION)
    generator._loss(torch.zeros(2_000, DIM), conditions)
    kept = seen[0].mean(1)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert float(kept.mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("steps", "passes"), [(1, 1), (5, 2), (8, 2), (9, 3)])
def test_a_number_of_steps_is_rounded_up_to_whole_passes(
    steps: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions, table = linear_world(40)
    generator = generator_of(fit_steps=steps, fit_batch=10)
    drawn = []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **k: drawn.append(n) or randperm(n, **k))
    generator.fit(table, conditions, seed=0)
    assert drawn == [40] * passes


# Lines that are easily wrong and change no shape.


def watched_network(
    generator: MDiffFR, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Tensor, ...]]:
    """What the network is given, in the order of its calls; it predicts zeros."""
    seen: list[tuple[Tensor, ...]] = []

    def network(noisy: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        seen.append((noisy, t, condition))
        return torch.zeros_like(noisy)

    monkeypatch.setattr(generator, "_network", network)
    return seen


def test_noise_on_the_condition_is_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = generator_of(condition_noise=0.5)
    seen = watched_network(generator, monkeypatch)
    generator._loss(torch.zeros(4_000, DIM), torch.ones(4_000, CONDITION))
    noise = seen[0][2] - 1
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(0.5, abs=0.02)
    assert float(noise.std(1).min()) > 0.05  # of each entry, not of each item


def test_a_step_is_weighted_by_its_own_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss at a step t is the squared error times the weight of that t."""
    generator = generator_of(loss="snr", condition_noise=0.0, steps=4)
    seen = watched_network(generator, monkeypatch)
    _, kept = alphas(generator.own)
    snr = kept[1:] / (1 - kept[1:])
    weights = [1.0, *(snr[:-1] - snr[1:])]
    target = torch.randn(500, DIM)
    for at in range(4):
        monkeypatch.setattr(torch, "randint", lambda high, shape, at=at, **_: torch.full(shape, at))
        loss = generator._loss(target, torch.zeros(500, CONDITION))
        error = float((target**2).mean())
        assert float(loss) == pytest.approx(weights[at] * error, rel=1e-3)
        noisy, t, _ = seen[-1]
        assert (t == at + 1).all()
        assert float(noisy.var()) == pytest.approx(1, abs=0.15)


def test_training_and_sampling_count_steps_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network meets 1 … T in both, and at step t the signal has the share that it had."""
    generator = generator_of(steps=8, condition_noise=0.0)
    seen = watched_network(generator, monkeypatch)
    target = torch.full((4_000, DIM), 3.0)
    generator._loss(target, torch.zeros(4_000, CONDITION))
    noisy, steps, _ = seen.pop()
    assert sorted(steps.unique().tolist()) == list(range(1, 9))
    _, kept = alphas(generator.own)
    for t in range(1, 9):
        mean = float(noisy[steps == t].mean())
        assert mean == pytest.approx(3 * np.sqrt(kept[t]), abs=0.1)
    asked: list[int] = []
    step = generator._scheduler.step
    monkeypatch.setattr(
        generator._scheduler, "step", lambda *given: asked.append(given[1] + 1) or step(*given)
    )
    generator.generate(torch.zeros(5, CONDITION), seed=0)
    told = [int(t[0]) for _, t, _ in seen]
    assert told == asked == list(range(8, 0, -1))


def test_the_modality_goes_around_the_fusion_of_the_residual_denoiser() -> None:
    """With a fusion and a linear path that say nothing, the modality still counts."""
    network = ResidualDenoiser(DIM, CONDITION, settings_of()).eval()
    network.fusion.forward = lambda query, time, modality: 0 * query  # type: ignore[method-assign]
    nn.init.zeros_(network.linear.weight)
    noisy, t = torch.randn(3, DIM), torch.tensor([1, 2, 3])
    first, second = (network(noisy, t, torch.full((3, CONDITION), v)) for v in (-1.0, 1.0))
    assert not torch.allclose(first, second)
    nn.init.zeros_(network.modality[2].weight)
    first, second = (network(noisy, t, torch.full((3, CONDITION), v)) for v in (-1.0, 1.0))
    assert torch.equal(first, second)


def test_the_published_denoiser_drops_a_tenth_of_its_input_while_it_trains() -> None:
    network = PaperDenoiser(200, CONDITION, settings_of(denoiser="paper"))
    noisy = torch.randn(300, 200)
    network.train()
    kept = network.before(noisy) != 0
    assert float(kept.float().mean()) == pytest.approx(0.9, abs=0.01)
    assert (network.before(noisy) != network.before(noisy)).any()
    network.eval()
    assert torch.equal(network.before(noisy), network.before(noisy))
    assert bool((network.before(noisy) != 0).all())


@pytest.mark.parametrize("standardise", ["global", "entries", "none"])
def test_one_warm_item_is_enough(standardise: str) -> None:
    """One embedding has no spread: nothing may become NaN."""
    generator = generator_of(standardise=standardise)
    loss = generator.fit(torch.ones(1, DIM) * 2, torch.ones(1, CONDITION), seed=0)
    assert np.isfinite(loss)
    assert generator.generate(torch.ones(3, CONDITION), seed=0).isfinite().all()


def test_a_long_fit_says_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    target = linear_world(40)[1], linear_world(40)[0]
    with caplog.at_level(logging.INFO, "snowdrop"):
        generator_of(fit_epochs=10).fit(*target, seed=0)
        assert not caplog.records  # it took less than half a minute
        clock = itertools.count(0, network.FIT_SECONDS * 0.4)
        monkeypatch.setattr(pace.time, "monotonic", lambda: next(clock))
        generator_of(fit_epochs=10).fit(*target, seed=0)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "fitting the generator: 30 % done in 36 s, about 84 s left",
        "fitting the generator: 60 % done in 72 s, about 48 s left",
        "fitting the generator: 90 % done in 108 s, about 12 s left",
    ]
