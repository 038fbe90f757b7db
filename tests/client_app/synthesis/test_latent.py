"""What synthesizers with a MultiVAE have in common, with the plainest of them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from client_app.synthesis import loop
from client_app.synthesis.latent import LatentSynthesizer, PriorSynthesizer, encoded
from client_app.synthesis.privacy import Training, spent
from client_app.synthesis.rows import Rows, recall
from client_app.synthesis.silo import Silo
from client_app.synthesis.stopping import watched_recall
from client_app.synthesis.threshold import thresholded
from common.errors import OverflowedError, SnowdropError
from common.methods.autoencoder import AutoencoderSettings
from tests.client_app.synthesis.silos import ITEMS, grouped_silo

CPU = torch.device("cpu")
QUICK = {"vae_hidden": 16, "vae_latent": 4, "vae_batch": 20, "vae_epochs": 12, "vae_lr": 0.01}


def prior(items: int = ITEMS, **values: Any) -> PriorSynthesizer:
    return PriorSynthesizer("prior", AutoencoderSettings(**{**QUICK, **values}), items, CPU)


def weights(made: LatentSynthesizer[Any]) -> list[float]:
    assert made._network is not None
    return torch.cat([v.flatten() for v in made._network.state_dict().values()]).tolist()


def test_synthetic_users_are_of_groups_like_real_ones() -> None:
    made = prior(vae_epochs=60)
    made.fit(grouped_silo(), 1)
    likes = made.sample(200, 2).likes.toarray()
    likes = likes[likes.any(1)]
    assert len(likes) > 150
    shares = np.stack([likes[:, group::3].sum(1) for group in range(3)], 1) / likes.sum(1)[:, None]
    assert float(shares.max(1).mean()) > 0.6


def test_likes_are_the_decoded_prior_at_the_sparsity_of_likes_or_ratings() -> None:
    silo = grouped_silo()
    for fill, matrix in (("likes", silo.likes), ("rated", silo.rated)):
        made = prior(fill=fill)
        made.fit(silo, 1)
        sample = made.sample(50, 3)
        with loop.seeded(3, "sample", CPU):
            latents = torch.randn(50, 4)
        assert made._network is not None
        scores = made._network.decode(latents).detach()
        empty = 1 - matrix.nnz / (90 * ITEMS)
        expected = thresholded(50, ITEMS, lambda part: scores[part], empty)  # noqa: B023
        assert (sample.likes != expected.likes).nnz == 0
        assert (sample.dislikes != expected.dislikes).nnz == 0
        assert sample.likes.mean() == pytest.approx(1 - empty, abs=1e-3)


def test_the_same_seed_gives_the_same_users() -> None:
    first, second, other = prior(), prior(), prior()
    for made, seed in ((first, 1), (second, 1), (other, 2)):
        made.fit(grouped_silo(), seed)
    assert weights(first) == weights(second) != weights(other)
    assert (first.sample(30, 5).likes != second.sample(30, 5).likes).nnz == 0
    assert (first.sample(30, 5).likes != first.sample(30, 6).likes).nnz > 0


def test_a_stopped_training_goes_on_as_if_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_SECONDS", 0.0)
    monkeypatch.setattr(loop, "_SHARE", 0)
    silo = grouped_silo(watched=True)
    whole, stopped, again, further = (prior(stop_on="watched") for _ in range(4))
    whole.fit(silo, 1)

    def watch(stage: str, done: float, total: float) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.fit(silo, 1, watch, tmp_path)
    again.fit(silo, 1, folder=tmp_path)
    assert weights(again) == weights(whole)
    further.own = further.own.model_copy(update={"fill": "rated"})
    told: list[str] = []
    further.fit(silo, 1, lambda stage, *_: told.append(stage), tmp_path)
    assert weights(further) == weights(whole)
    assert told == []  # how many cells are filled does not concern the training


def test_users_that_stop_the_training_are_not_trained_on() -> None:
    rows = Rows.of(grouped_silo().likes)
    silo = grouped_silo()
    trained, watched = prior(held_out=0.2)._parted(silo, rows)
    assert watched is not None
    assert (len(trained), len(watched)) == (72, 18)
    assert sorted([*trained.counts.tolist(), *watched.counts.tolist()]) == sorted(
        rows.counts.tolist()
    )
    assert prior(held_out=0.0)._parted(silo, rows)[1] is None
    shared = grouped_silo(watched=True)
    trained, watched = prior(stop_on="watched")._parted(shared, Rows.of(shared.likes))
    assert watched is not None
    assert (len(trained), len(watched)) == (70, 20)
    own = prior(stop_on="watched")._parted(silo, rows)[1]
    assert own is not None and len(own) == 9


def test_the_score_is_recall_of_held_out_items() -> None:
    made = prior()
    made.fit(grouped_silo(), 1)
    assert made._network is not None
    rows = Rows.of(grouped_silo().likes).take(torch.arange(30))
    torch.manual_seed(0)
    network = made._network
    found = watched_recall(lambda kept: network.decode(network.encode(kept)[0]), rows)
    torch.manual_seed(0)
    kept, held = rows.cut()
    scores = made._network.decode(encoded(made._network, kept)).detach()
    assert found == pytest.approx(float(recall(scores, kept, held).mean()))
    assert 0 < found < 1


PRIVATE = {"epsilon": 4.0, "delta": 1e-3, "secure_noise": False, "vae_epochs": 3}


def test_a_private_training_says_what_it_spends() -> None:
    pytest.importorskip("opacus")
    made = prior(**PRIVATE)
    made.fit(grouped_silo(), 1)
    assert made._budget is not None
    own = spent(made._budget.noise, [Training(20 / 90, 15)], 1e-3)
    assert made.epsilon == pytest.approx(own + 0.05 * 4.0)
    assert 3.5 < made.epsilon <= 4.0
    assert made.delta == 1e-3
    assert prior()._parted(grouped_silo(), Rows.of(grouped_silo().likes))[1] is not None
    assert made._parted(grouped_silo(), Rows.of(grouped_silo().likes))[1] is None
    real = 1 - grouped_silo().likes.mean()
    assert made._empty != pytest.approx(real, abs=1e-9)
    assert made._empty == pytest.approx(real, abs=0.3)
    assert made.sample(10, 1).likes.shape == (10, ITEMS)
    again = prior(**PRIVATE)
    again.fit(grouped_silo(), 1)
    assert (weights(again), again._empty) == (weights(made), made._empty)
    secure = prior(**PRIVATE | {"secure_noise": True, "delta": 0.0})
    secure.fit(grouped_silo(), 1)
    assert weights(secure) != weights(made)
    assert secure.epsilon is not None
    plain = prior()
    plain.fit(grouped_silo(), 1)
    assert plain.epsilon is plain.delta is None


def test_delta_is_one_over_users_squared_where_none_is_given() -> None:
    pytest.importorskip("opacus")
    made = prior(**PRIVATE | {"delta": 0.0})
    made._settle_privacy(90)
    assert made._budget is not None and made.epsilon is not None
    own = spent(made._budget.noise, [Training(20 / 90, 15)], 1 / 90**2)
    assert made.epsilon == pytest.approx(own + 0.2)


def filled(rows: list[list[int]]) -> Silo:
    likes = csr_array(np.array(rows, dtype=bool))
    return Silo(likes, likes)


@pytest.mark.parametrize(
    "rows",
    [
        [[1]],
        [[1], [0], [1]],
        [[1, 1, 1], [1, 1, 1]],
        [[1, 1, 1], [0, 0, 0]],
        [[0, 0, 1], [0, 1, 0], [0, 0, 0]],
    ],
    ids=["one user, one item", "one item", "all users like all", "one likes all", "single likes"],
)
def test_odd_silos_work(rows: list[list[int]]) -> None:
    made = prior(items=len(rows[0]))
    made.fit(filled(rows), 1)
    sample = made.sample(4, 1)
    assert sample.likes.shape == (4, len(rows[0]))
    share = np.mean(rows)
    assert sample.likes.mean() == pytest.approx(share, abs=0.26)


def test_what_cannot_be_is_told_in_one_sentence() -> None:
    made = prior()
    with pytest.raises(SnowdropError, match="prior has not been fitted"):
        made.sample(3, 1)
    none = csr_array((0, ITEMS), dtype=bool)
    with pytest.raises(SnowdropError, match="the silo has 0 users"):
        made.fit(Silo(none, none), 1)
    made.fit(grouped_silo(), 1)
    with pytest.raises(SnowdropError, match="0 synthetic users cannot be made"):
        made.sample(0, 1)
    with pytest.raises(OverflowedError, match="the loss overflows"):
        prior(vae_lr=1e30, held_out=0.0).fit(grouped_silo(), 1)


def test_scores_are_made_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = prior()
    made.fit(grouped_silo(), 1)
    whole = made.sample(60, 4)
    monkeypatch.setattr("client_app.synthesis.threshold.CHUNK", 7 * ITEMS)
    assert math.isclose((made.sample(60, 4).likes != whole.likes).nnz, 0)
