"""GFMFR's server half by itself: what it refuses, and how it follows the catalogue."""

from typing import Any

import numpy as np
import pytest
import torch

from common.errors import OverflowedError, SnowdropError
from common.settings import RunSettings
from server_app import fused as fused_groups
from server_app.aggregation import Summed
from server_app.methods import World
from server_app.methods.gfmfr import GFMFR
from server_app.training import Training
from tests.server_app.methods.test_backbone import WARM, summed, world_of

SMALL: dict[str, Any] = {
    "gfmfr__groups": 2, "gfmfr__least_users": 1, "gfmfr__fit_steps": 3, "gfmfr__width": 4,
    "gfmfr__weight": 0.5,
}  # fmt: skip


def with_texts(world: World) -> World:
    draw = torch.Generator().manual_seed(1)
    world.features["text"][:] = torch.randn(*world.features["text"].shape, generator=draw)
    return world


def training_of(method: str = "gfmfr:pfedrec", **changed: Any) -> tuple[Training, GFMFR]:
    training = Training.begin(with_texts(world_of(method, **{**SMALL, **changed})))
    assert isinstance(training.method, GFMFR)
    return training, training.method


def sums_of(half: GFMFR, users: int = 5, seed: int = 0) -> Summed:
    some = summed(half, users, seed)  # type: ignore[arg-type]
    members = np.array([users - 2, 2])
    return Summed(users, 1.0, {**some.sums, "members": members})


def test_a_checkpoint_is_taken_over_and_new_items_are_taught() -> None:
    training, half = training_of()
    assert "teacher" not in half.arrays()
    for number in (1, 2):
        half.step(sums_of(half, seed=number))
        row = half.prepare(number, validating=False)
        assert row["generator_loss"] > 0
        assert row["generator_seconds"] > 0
    training.round = 2
    told = half.arrays()["teacher"]
    assert told.shape == (2, WARM)
    assert ((told > 0) & (told < 1)).all()

    same, other = training_of()
    same.restore(training.state())
    for name, array in half.arrays().items():
        np.testing.assert_array_equal(other.arrays()[name], array)

    world = with_texts(world_of("gfmfr:pfedrec", warm=10, cold=1, **SMALL))
    grown = Training.begin(world)
    assert isinstance(grown.method, GFMFR)
    grown.restore(training.state())
    assert grown.method.arrays()["teacher"].shape == (2, 10)
    np.testing.assert_allclose(grown.method.arrays()["teacher"][:, :WARM], told, rtol=1e-5)
    moved = half.moved_to(world)
    np.testing.assert_allclose(moved.arrays()["teacher"], grown.method.arrays()["teacher"])
    assert half.arrays()["teacher"].shape == (2, WARM)


def test_what_is_told_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_groups, "PREFERRED", 3)
    training, half = training_of()
    assert half.told() == {}
    half.step(sums_of(half, seed=1))
    assert set(half.prepare(1, validating=False)) == {"generator_loss", "generator_seconds"}
    half.step(sums_of(half, users=6, seed=2))
    before = half.fused.centroids.clone()  # type: ignore[union-attr]
    row = half.prepare(2, validating=False)
    half.step(sums_of(half, users=8, seed=3))
    assert half.fused is not None and half.fused.scorers is not None
    row = half.prepare(3, validating=False)
    # Of 6 and of 8 users, 2 are in the second group.
    assert row["group_moves"] == pytest.approx(2 / 6 - 2 / 8)
    cosines = [
        float(a @ b / a.norm() / b.norm())
        for a, b in zip(before, half.fused.centroids, strict=True)
    ]
    assert row["group_cosine"] == pytest.approx((6 * cosines[0] + 2 * cosines[1]) / 8, abs=1e-5)

    scores = half.fused.scores(half.fused.scorers, "warm").numpy().astype(float)
    standard = [(one - one.mean()) / one.std() for one in scores]
    expected = [
        np.argsort(-(one - (standard[0] + standard[1]) / 2))[:3].tolist() for one in standard
    ]
    ids = half.world.catalogue.ids_of("warm")
    groups = half.told()["groups"]
    assert [group["share"] for group in groups] == [0.75, 0.25]
    assert [group["items"] for group in groups] == [[ids[k] for k in one] for one in expected]
    training.round = 3
    same, other = training_of()
    same.restore(training.state())
    assert other.told() == half.told()


def test_a_round_of_nobody_teaches_what_was_taught() -> None:
    _, half = training_of()
    half.step(sums_of(half))
    half.prepare(1, validating=False)
    before = half.arrays()
    half.step(Summed.nothing(half.expected()))
    assert half.prepare(2, validating=False) == {}
    for name, array in half.arrays().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_teacher_is_of_the_whole_mean_scorer() -> None:
    _, half = training_of("gfmfr:fedncf", average="users")
    sums = sums_of(half)
    start = half.backbone.scorer.clone()
    half.step(sums)
    half.prepare(1, validating=False)
    fused = half.fused
    assert fused is not None and fused.scorers is not None
    counts = sums.sums["members"]
    for group in range(2):
        shared = start[0] + torch.from_numpy(sums.sums["scorer"][group] / counts[group]).float()
        torch.testing.assert_close(fused.scorers.shared[group], shared)
        head = torch.from_numpy(sums.sums["heads"][group] / counts[group]).float()
        torch.testing.assert_close(fused.scorers.heads[group], head)
        made = fused.embeddings(fused.scorers, "warm")[group]
        d = made.shape[1]
        user_weight, item_weight = shared[: d * d].view(d, d), shared[d * d : 2 * d * d].view(d, d)
        bias, weight, last = shared[2 * d * d :].split([d, d, 1])
        hidden = (head @ user_weight + made @ item_weight + bias).relu()
        expected = ((hidden @ weight + last) / half.own.temperature).sigmoid()
        np.testing.assert_allclose(half.arrays()["teacher"][group], expected, atol=1e-5)


def test_nothing_of_a_teacher_is_made_for_a_round_without_one(
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    _, half = training_of(gfmfr__fade_rounds=2)
    half.step(sums_of(half))
    half.prepare(1, validating=False)
    assert half.own.share_of(2) == 0
    assert "teacher" not in half.arrays()

    monkeypatch.setattr(half.fused, "scores", None)  # would make it
    training, half = training_of(gfmfr__weight=0.0)
    half.step(sums_of(half))
    half.prepare(1, validating=True)
    training.round = 1
    assert "teacher" not in half.arrays()
    same, other = training_of(gfmfr__weight=0.0)
    monkeypatch.setattr(other.fused, "scores", None)
    same.restore(training.state())
    assert "teacher" not in other.arrays()
    assert "fused" in other.scoring(["warm"]).arrays


def test_sizes_of_groups_are_read_from_sums_with_noise() -> None:
    noise = {"average": "users", "clip_norm": 2.0, "laplace_scale": 1.0}
    _, half = training_of(gfmfr__least_users=4, gfmfr__member_share=0.25, **noise)
    assert half.expected()["members"].shape == (2, 1)
    fused, sums = half.fused, sums_of(half, users=20)
    assert fused is not None
    for told, kept, into in (
        ([[0.5 * 11.3], [0.5 * 8.6]], [0, 1], [0, 1]),
        ([[0.5 * 16.7], [0.5 * 3.4]], [0], [0, 0]),  # 3 users are too few
        ([[0.5 * 12.0], [-7.0]], [0], [0, 0]),
    ):
        sums.sums["members"] = np.array(told)  # type: ignore[index]
        half.step(sums)
        assert fused.scorers is not None
        assert fused.scorers.merged.kept.tolist() == kept
        assert fused.scorers.merged.into.tolist() == into
        counts = np.maximum(np.round(np.array(told)[:, 0] / 0.5), 0)
        expected = sums.sums["heads"][kept if len(kept) > 1 else slice(None)]
        if len(kept) == 1:
            expected, counts = expected.sum(0, keepdims=True), counts.sum(keepdims=True)
        np.testing.assert_allclose(fused.scorers.heads, expected / counts[:, None], rtol=1e-5)
        assert fused._shares is not None
        assert float(fused._shares.sum()) == pytest.approx(1)


def test_numbers_that_overflow_are_one_sentence() -> None:
    _, half = training_of()
    sums = sums_of(half)
    sums.sums["heads"][:] = 1e300
    with pytest.raises(OverflowedError, match="overflowed in round 1"):
        half.step(sums)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"gfmfr.backbone": "mdifffr"},
            "gfmfr.backbone = mdifffr is no recommender that can be taught; choose one of fcf, "
            "fedncf, pfedrec, fedrap",
        ),
        ({"head": "dot"}, "gfmfr.backbone = pfedrec needs head = linear"),
        (
            {"method": "gfmfr:fcf", "fcf.solver": "least-squares", "average": "users"},
            "gfmfr teaches users that train by steps: it needs fcf.solver = sgd",
        ),
        ({"gfmfr.grouping": "clustered"}, "gfmfr.grouping = clustered needs nodes = 1: whoever"),
        (
            {
                "gfmfr.grouping": "clustered",
                "nodes": 1,
                "average": "users",
                "clip_norm": 1.0,
                "laplace_scale": 1.0,
            },
            "gfmfr.grouping = clustered needs laplace_scale = 0: there, a user's group depends on",
        ),
        ({"gfmfr.member_share": 1.0}, "setting 'gfmfr.member_share' is 1"),
        ({"laplace_scale": 1.0, "average": "users"}, "laplace_scale needs clip_norm"),
        ({"gfmfr.history_weight": -0.5}, "gfmfr.history_weight must be −1, or 0 or more"),
        ({"gfmfr.groups": 0}, "setting 'gfmfr.groups' is 0"),
        ({"gfmfr.fusion": "product"}, "setting 'gfmfr.fusion' is 'product'"),
        ({"task": "cold-items"}, "gfmfr cannot rank for task = cold-items"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError) as caught:
        RunSettings.parse({"method": "gfmfr", **values})
    assert sentence in str(caught.value)


def test_it_takes_the_values_of_its_backbone() -> None:
    for name in ("fcf", "fedncf", "pfedrec", "fedrap"):
        for form in ("tuned", "paper"):
            taught = RunSettings.parse({"method": f"gfmfr:{name}:{form}"})
            plain = RunSettings.parse({"method": f"{name}:{form}"}).flat()
            assert taught.title().endswith("+ GFMFR")
            own = {"method", "preset", "modality", "average", "fcf.solver"}
            assert {
                key: value for key, value in taught.flat().items() if plain.get(key, value) != value
            }.keys() <= own
    with pytest.raises(SnowdropError, match="belongs to the method gfmfr; the method of this run"):
        RunSettings.parse({"method": "fcf", "gfmfr.fusion": "mlp"})
