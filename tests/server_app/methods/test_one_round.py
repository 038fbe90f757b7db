"""One round through the whole engine: its sum, what is chosen, who joins later."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from flwr.app import Message
from scipy.stats import kstest, norm

from common import messages
from common.errors import SnowdropError
from common.methods.carried import SHARES
from common.methods.one_round import ITEM_RIDGES, OneRoundSettings
from common.settings import RunSettings
from common.users.item_sums import packed, unpacked
from server_app import shares
from server_app.item_weights import reliability
from server_app.items import load_catalogue
from server_app.methods import one_round
from server_app.methods.base import World
from server_app.methods.one_round import OneRound
from server_app.shares import NOISE
from tests.server_app.runs import (
    SpoiltGrid,
    rounds_of,
    run_here,
    run_values,
    state_of,
    untouched,
    with_answer,
)

CPU = torch.device("cpu")
WARM, FORMS = 48, 2 * len(ITEM_RIDGES) * len(SHARES)
ONE = {"one-round.kernels": 1}


def values_of(data: Path, folder: Path, changed: dict[str, Any] | None = None) -> dict[str, Any]:
    told = {"method": "one-round", "rounds": 1, "baselines": False}
    return run_values(data, folder, **told) | (changed or {})


class CountingGrid(SpoiltGrid):
    """How many users each evaluation was about, in the order of evaluations."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.users: list[int] = []
        self._nodes = given[0]
        self._seen = 0

    def deliver(self, message: Message) -> Message | None:
        reply = super().deliver(message)
        if reply is not None and message.metadata.message_type == messages.EVALUATE:
            if self._seen % self._nodes == 0:
                self.users.append(0)
            self._seen += 1
            self.users[-1] += messages.EvaluateAnswer.from_record(reply.content).users[0]
        return reply


def copied(data: Path, to: Path) -> Path:
    shutil.copytree(data, to)
    return to


@pytest.mark.parametrize("columns", [0, 6])
def test_the_sum_does_not_depend_on_how_users_share_nodes(
    data_folder: Path, tmp_path: Path, columns: int
) -> None:
    means, results = [], []
    for nodes in (1, 2, 7):
        folder = tmp_path / str(nodes)
        changed = {"nodes": nodes, "one-round.columns": columns}
        results.append(run_here(values_of(data_folder, folder, changed))["test"])
        means.append(state_of(folder, 1)["mean"].numpy())
    assert means[0].shape == ((WARM, columns) if columns else (WARM * (WARM + 1) // 2,))
    for mean, result in zip(means[1:], results[1:], strict=True):
        np.testing.assert_allclose(mean, means[0], atol=1e-6)
        assert result == pytest.approx(results[0], abs=1e-3)


def test_the_mean_is_that_of_the_interactions(data_folder: Path, tmp_path: Path) -> None:
    run_here(values_of(data_folder, tmp_path))
    state = state_of(tmp_path, 1)
    warm = [k for k, split in zip(state["ids"], state["splits"], strict=True) if split == "warm"]
    place = {item: row for row, item in enumerate(warm)}
    frame = pl.read_csv(data_folder / "interactions.csv").unique()
    users = frame.filter(pl.col("item_id").is_in(warm)).partition_by("user_id")
    expected = np.zeros((WARM, WARM))
    for one in users:
        x = np.zeros(WARM)
        x[[place[item] for item in one["item_id"]]] = 1
        expected += np.outer(x, x) / x.sum() / len(users)
    np.testing.assert_allclose(unpacked(state["mean"].numpy(), WARM), expected, atol=1e-6)


def test_of_each_history_as_many_items_count_as_the_settings_say(
    data_folder: Path, tmp_path: Path
) -> None:
    run_here(values_of(data_folder, tmp_path, {"history": 3}))
    mean = unpacked(state_of(tmp_path, 1)["mean"].numpy(), WARM)
    assert np.trace(mean) == pytest.approx(1, abs=1e-5)
    assert 1 < mean.sum() <= 3.0001  # the mean number of items of a history


def test_no_loss_is_told_where_nothing_is_trained(data_folder: Path, tmp_path: Path) -> None:
    run_here(values_of(data_folder, tmp_path))
    assert rounds_of(tmp_path)[0]["loss"] == ""
    run_here(run_values(data_folder, tmp_path / "trained", method="ridge", rounds=1))
    assert float(rounds_of(tmp_path / "trained")[0]["loss"]) > 0


def test_the_frozen_twin_is_kernel_ridge(data_folder: Path, tmp_path: Path) -> None:
    """With as many numbers of an item as it takes: the same scorer without the sum."""
    twin = run_here(values_of(data_folder, tmp_path / "twin", {"method": "one-round:frozen"}))
    rule = run_here(values_of(data_folder, tmp_path / "rule", {"method": "kernel-ridge"}))
    assert twin["test"] == pytest.approx(rule["test"], abs=1e-3)
    assert twin["validation"] == pytest.approx(rule["validation"], abs=1e-3)
    own = {"baselines": True, "twin": True, "one-round.share": 0.5}
    beside = run_here(values_of(data_folder, tmp_path / "beside", own))
    assert beside["baselines"]["frozen"]["test"] == pytest.approx(twin["test"])
    assert beside["test"] != pytest.approx(twin["test"])


def carried_by(
    data: Path, features: dict[str, torch.Tensor], changed: dict[str, Any]
) -> dict[str, np.ndarray]:
    """What carries a history over to the test items: weights, as nodes get them."""
    settings = RunSettings.parse(values_of(data, data, changed))
    method = OneRound("one-round", World(settings, load_catalogue(settings), features, CPU))
    sent = method.scoring(["test"]).arrays
    return {name: sent[name] for name in ("items", "warm", "columns", "values")}


def test_weights_come_of_what_the_modality_says(data_folder: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    text, image = (torch.randn(80, 12, generator=rng) for _ in range(2))
    both = {"text": text, "image": image}
    seen = {
        name: carried_by(data_folder, both, {"modality": name})
        for name in ("text", "image", "text,image")
    }
    alone = carried_by(data_folder, {"text": image}, {"one-round.words": 0})
    for name, array in seen["image"].items():
        np.testing.assert_allclose(array, alone[name], atol=1e-5)
    assert not np.allclose(seen["text"]["items"], seen["image"]["items"])
    assert not np.allclose(seen["text"]["items"], seen["text,image"]["items"])


def test_validation_items_choose_in_one_message(data_folder: Path, tmp_path: Path) -> None:
    values = values_of(data_folder, tmp_path)
    grid = SpoiltGrid(2, values, untouched)
    summary = run_here(values, grid)
    sent = [messages.EvaluateRequest.from_record(m.content) for m in grid.of(messages.EVALUATE)]
    assert [(one.splits, one.forms) for one in sent[::2]] == [
        (["validation"], [FORMS]), (["validation"], [1]), (["validation", "test"], [1, 1]),
    ]  # fmt: skip
    ridge, share, kernels = state_of(tmp_path, 1)["chosen"]
    assert ridge in ITEM_RIDGES
    assert share in SHARES
    assert kernels in (1, 2)
    own = {"one-round.item_ridge": ridge, "one-round.share": share, "one-round.kernels": kernels}
    given = run_here(values_of(data_folder, tmp_path / "given", own))
    assert state_of(tmp_path / "given", 1)["chosen"] is None
    for split in ("validation", "test"):
        assert given[split] == pytest.approx(summary[split])


def test_of_very_many_users_some_choose(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "ASKED", 30)
    counts, chosen = [], []
    for nodes in (1, 3):
        values = values_of(data_folder, tmp_path / str(nodes), {"nodes": nodes})
        grid = CountingGrid(nodes, values, untouched)
        run_here(values, grid)
        counts.append(grid.users)
        chosen.append(state_of(tmp_path / str(nodes), 1)["chosen"])
    tried, validated = counts[0][:2]
    assert counts[1][:2] == [tried, validated]
    assert 5 < tried < validated
    assert chosen[0] == chosen[1]


def test_they_are_a_share_of_all_users_not_of_those_drawn(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "ASKED", 30)
    values = values_of(data_folder, tmp_path, {"fraction": 0.6})
    grid = SpoiltGrid(2, values, untouched)
    run_here(values, grid)
    tried = messages.EvaluateRequest.from_record(grid.of(messages.EVALUATE)[0].content)
    drawn = int(rounds_of(tmp_path)[0]["users"])
    assert 20 < drawn < 50
    assert tried.arrays["0/asked"] == pytest.approx(30 * 0.6 / drawn)


def chosen_of(values: np.ndarray, users: int, tmp_path: Path, data: Path) -> tuple[float, float]:
    """What is chosen where each λ with each share has these values of Recall@20."""
    return chosen_among(values, users, tmp_path, data, ONE)[:2]


def chosen_among(
    values: np.ndarray, users: int, tmp_path: Path, data: Path, own: dict[str, Any]
) -> tuple[float, float, int]:
    settings = RunSettings.parse(values_of(data, tmp_path, own))
    method = OneRound("one-round", World(settings, load_catalogue(settings), {}, CPU))
    method.choose([{"recall@20": value, "ndcg@20": 0.2} for value in values.ravel()], users)
    assert method.chosen is not None
    return method.chosen


def test_a_second_kernel_must_be_ahead_by_more_than_noise(
    data_folder: Path, tmp_path: Path
) -> None:
    values = np.full((2, len(ITEM_RIDGES), len(SHARES)), 0.1)
    values[0, 2, 6] = 0.3
    error = NOISE / np.sqrt(900_000)
    for lead, expected in ((0.9, (ITEM_RIDGES[2], 0.6, 1)), (1.1, (ITEM_RIDGES[4], 0.2, 2))):
        values[1, 4, 2] = 0.3 + lead * error
        assert chosen_among(values, 900_000, tmp_path, data_folder, {}) == expected


def test_shares_are_averaged_where_few_users_cannot_tell_them_apart(
    data_folder: Path, tmp_path: Path
) -> None:
    values = np.full((len(ITEM_RIDGES), len(SHARES)), 0.1)
    values[2, 6] = 0.3  # a share of 0.6 is best, and one of 0.2 next to it
    values[1, 2] = 0.3 - 0.001
    values[4, 4] = 0.12
    few, many = (chosen_of(values, users, tmp_path, data_folder) for users in (900, 900_000))
    assert few == (ITEM_RIDGES[4], 0.4)
    assert many == (ITEM_RIDGES[2], 0.6)
    one_error_behind = np.full_like(values, -1)
    one_error_behind[0, 0], one_error_behind[0, 9] = 0.3 - NOISE / 30, 0.3
    weight = np.exp(-0.5)
    expected = min(SHARES, key=lambda share: abs(share - 1 / (1 + weight)))
    assert chosen_of(one_error_behind, 900, tmp_path, data_folder)[1] == expected


def test_one_of_the_two_may_be_given(data_folder: Path, tmp_path: Path) -> None:
    values = values_of(data_folder, tmp_path, {"one-round.share": 0.3})
    grid = SpoiltGrid(2, values, untouched)
    run_here(values, grid)
    forms = messages.EvaluateRequest.from_record(grid.of(messages.EVALUATE)[0].content).forms
    assert forms == [2 * len(ITEM_RIDGES)]
    assert state_of(tmp_path, 1)["chosen"][1] == 0.3


def test_of_a_large_catalogue_a_second_kernel_is_not_tried(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_round, "WHOLE", WARM - 1)
    values = values_of(data_folder, tmp_path)
    grid = SpoiltGrid(2, values, untouched)
    run_here(values, grid)
    tried = messages.EvaluateRequest.from_record(grid.of(messages.EVALUATE)[0].content)
    assert tried.forms == [FORMS // 2]
    settings = RunSettings.parse(values)
    features = {"text": torch.randn(80, 12, generator=torch.Generator().manual_seed(0))}
    method = OneRound("one-round", World(settings, load_catalogue(settings), features, CPU))
    method.chosen = 10.0, 0.5, 2  # by an earlier round, or by noise
    assert "sum_items" not in method.scoring(["test"]).arrays


OF_SUM = {"sum_items", "sum_warm", "sum_columns", "sum_values"}


@pytest.mark.parametrize(
    ("own", "sent"),
    [
        ({"kernels": 1}, set()),
        ({"kernels": 2}, OF_SUM),
        ({"kernels": 2, "sum_whitening": 0.5, "sum_sharpness": 4}, set()),
        ({"kernels": 2, "share": 0}, set()),
    ],
)
def test_weights_of_a_second_kernel_are_sent_where_it_is_another_one(
    data_folder: Path, tmp_path: Path, own: dict[str, Any], sent: set[str]
) -> None:
    values = values_of(data_folder, tmp_path, {f"one-round.{key}": own[key] for key in own})
    grid = SpoiltGrid(2, values, untouched)
    run_here(values, grid)
    last = messages.EvaluateRequest.from_record(grid.of(messages.EVALUATE)[-1].content)
    names = {name.removeprefix("0/") for name in last.arrays}
    assert {name for name in names if name.startswith("sum_")} == sent
    assert ("rarity" in names) == ("share" not in own)


def test_the_second_kernel_carries_the_sum_alone(data_folder: Path, tmp_path: Path) -> None:
    """Two kernels say of the history what the first does alone, of the sum what the second does."""
    told: dict[tuple[int, str], dict[str, float]] = {}
    second = {"one-round.whitening": 1.0, "one-round.sharpness": 2.0}
    of_sum = {"one-round.sum_whitening": 1.0, "one-round.sum_sharpness": 2.0}
    for share in (0, 1):
        fixed = {"one-round.share": share, "one-round.item_ridge": 10.0}
        for name, own in (
            ("first", ONE), ("second", ONE | second), ("two", {"one-round.kernels": 2} | of_sum),
        ):  # fmt: skip
            values = values_of(data_folder, tmp_path / f"{name}{share}", fixed | own)
            told[share, name] = run_here(values)["test"]
    assert told[0, "two"] == pytest.approx(told[0, "first"])
    assert told[1, "two"] == pytest.approx(told[1, "second"])
    assert told[0, "first"] != pytest.approx(told[0, "second"])
    assert told[1, "first"] != pytest.approx(told[1, "second"])


def test_popular_items_of_a_history_count_less_in_the_sums_score(
    data_folder: Path, tmp_path: Path
) -> None:
    settings = RunSettings.parse(values_of(data_folder, tmp_path, {"one-round.rarity": 0.75}))
    method = OneRound("one-round", World(settings, load_catalogue(settings), {}, CPU))
    x = (np.random.default_rng(0).random((300, WARM)) < np.linspace(0.01, 0.5, WARM)).astype(float)
    x[:, 0] = x[:, 1] = 1  # nobody without an item
    method.mean = packed(x.T @ (x / x.sum(1, keepdims=True)) / len(x)).astype(np.float32)
    popularity = x.sum(0) / x.sum(0).mean()
    np.testing.assert_allclose(method._rarity(), (popularity + 0.2) ** -0.75, rtol=1e-3)
    method.mean[:] = 0
    method._directions = None
    assert len(set(method._rarity())) == 1


def test_what_an_older_release_chose_is_read(data_folder: Path, tmp_path: Path) -> None:
    settings = RunSettings.parse(values_of(data_folder, tmp_path))
    method = OneRound("one-round", World(settings, load_catalogue(settings), {}, CPU))
    state = {**method.state(), "chosen": (30.0, 0.4), "round": 1}
    del state["form"]
    method.restore(state, method.world.catalogue.index())
    assert method.chosen == (30.0, 0.4, 1)
    assert (method.own.kernels, method.own.rarity) == (1, 0.0)
    again = OneRound("one-round", World(settings, load_catalogue(settings), {}, CPU))
    again.restore({**method.state(), "round": 1}, method.world.catalogue.index())
    assert (again.own.kernels, again.own.rarity) == (1, 0.0)


def test_resuming_makes_the_sum_anew_with_whoever_has_come(
    data_folder: Path, tmp_path: Path
) -> None:
    data = copied(data_folder, tmp_path / "data")
    whole = pl.read_csv(data / "interactions.csv")
    users = whole["user_id"].unique().sort()
    earlier = whole.filter(pl.col("user_id").is_in(users[:30].implode()))
    earlier.write_csv(data / "interactions.csv")
    first = run_here(values_of(data, tmp_path / "run"))
    assert first["dataset"]["users"] == 30
    whole.write_csv(data / "interactions.csv")
    again = run_here(values_of(data, tmp_path / "run", {"rounds": 2, "resume": True}))
    at_once = run_here(values_of(data, tmp_path / "once"))
    assert [row["users"] for row in rounds_of(tmp_path / "run")] == ["30", "60"]
    assert again["training"] == first["training"]
    later, now = state_of(tmp_path / "run", 2)["mean"], state_of(tmp_path / "once", 1)["mean"]
    np.testing.assert_allclose(later.numpy(), now.numpy(), atol=1e-7)
    if again["best_round"] == 2:
        assert again["test"] == pytest.approx(at_once["test"])


def test_a_run_that_goes_on_ranks_as_it_did(data_folder: Path, tmp_path: Path) -> None:
    first = run_here(values_of(data_folder, tmp_path))
    again = run_here(values_of(data_folder, tmp_path, {"resume": True}))
    assert (again["test"], again["best_round"]) == (first["test"], 1)


@pytest.mark.parametrize("columns", [0, 6])
def test_an_item_that_turns_warm_has_a_row_and_nothing_in_it(
    data_folder: Path, tmp_path: Path, columns: int
) -> None:
    own = {"one-round.columns": columns}
    run_here(values_of(data_folder, tmp_path, own))
    before = state_of(tmp_path, 1)
    values = values_of(data_folder, tmp_path, {**own, "rounds": 2, "resume": True, "warm_after": 9})
    grid = SpoiltGrid(2, values, untouched)
    run_here(values, grid)
    after = state_of(tmp_path, 2)
    rows = [sum(split == "warm" for split in one["splits"]) for one in (before, after)]
    assert rows[1] > rows[0] == WARM
    assert after["mean"].shape[0] == (rows[1] if columns else rows[1] * (rows[1] + 1) // 2)


def test_published_items_are_scored_with_what_was_learnt(data_folder: Path, tmp_path: Path) -> None:
    values = values_of(data_folder, tmp_path, {"one-round.kernels": 2})
    summary = run_here(values)
    grid = SpoiltGrid(2, values, untouched)
    published = run_here({**values, "mode": "publish"}, grid)
    assert published["users"] == summary["recommended_users"] == 60
    asked = messages.RecommendRequest.from_record(grid.of(messages.QUERY_RECOMMEND)[0].content)
    assert asked.arrays["shares"].tolist() == [[pytest.approx(state_of(tmp_path, 1)["chosen"][1])]]
    assert asked.arrays["gains"].max() > 0
    assert set(asked.arrays) > OF_SUM


def test_a_node_whose_users_add_too_much_is_refused(data_folder: Path, tmp_path: Path) -> None:
    numbers = np.full(WARM * (WARM + 1) // 2, 1.0, np.float32)
    values = values_of(data_folder, tmp_path, {"nodes": 3})
    grid = SpoiltGrid(3, values, with_answer(sums={"gram": numbers}, users=10))
    assert run_here(values, grid)["failed_answers"] > 0
    assert int(rounds_of(tmp_path)[0]["users"]) < 60


def test_synthetic_users_stand_in_the_sum_as_others_do(data_folder: Path, tmp_path: Path) -> None:
    synthetic = {"answer": "synthetic", "synthesizer": "multivae", "synthetic_nodes": 1}
    summary = run_here(values_of(data_folder, tmp_path, synthetic))
    assert summary["synthetic"]["users"] > 0
    row = rounds_of(tmp_path)[0]
    assert int(row["users"]) + int(row["synthetic_users"]) == 60
    assert state_of(tmp_path, 1)["mean"].numpy().any()


GAUSSIAN = {"average": "users", "clip_norm": 1.0, "gaussian_scale": 0.5}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"gaussian_scale": 0.0, "laplace_scale": 1.0}, "one-round needs laplace_scale = 0"),
        ({"clip_norm": 2.0}, "one-round needs clip_norm = 1"),
        ({"clip_norm": 2.0, "gaussian_scale": 0.0}, "one-round needs clip_norm = 1"),
        ({"gaussian_scale": 1e-4}, "gaussian_scale must lie between 0.000244141 and 1.04858e"),
        ({"one-round.columns": 0}, "one-round.columns = 0 needs gaussian_scale = 0"),
        ({"noise_by": "sum"}, "noise_by = sum needs secure_sums = true"),
    ],
)
def test_noise_that_it_does_not_add_is_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        RunSettings.parse({"method": "one-round", "nodes": 3, **GAUSSIAN, **changed})


def test_a_share_that_cannot_be_is_refused() -> None:
    with pytest.raises(SnowdropError, match=r"share must be −1, or lie between 0 and 1"):
        RunSettings.parse({"method": "one-round", "one-round.share": -0.5})


@pytest.mark.parametrize(
    ("columns", "warm", "expected"),
    [
        (-1, 3_000, 0),
        (-1, 4_095, 0),
        (-1, 4_096, 512),
        (-1, 50_000, 167),
        (-1, 1_000_000, 64),
        (64, 3_000, 64),
        (64, 64, 0),
        (0, 50_000, 0),
    ],
)
def test_columns_follow_the_number_of_warm_items(columns: int, warm: int, expected: int) -> None:
    assert OneRoundSettings(columns=columns).columns_for(warm) == expected


@pytest.mark.parametrize(
    ("columns", "warm", "expected"),
    [(-1, 3_000, 64), (-1, 1_000_000, 64), (16, 48, 16), (-1, 48, 48)],
)
def test_with_noise_the_sum_is_always_a_sketch(columns: int, warm: int, expected: int) -> None:
    assert OneRoundSettings(columns=columns).columns_for(warm, noise=True) == expected


@pytest.mark.parametrize("noise_by", ["nodes", "server", "sum"])
def test_the_noise_chooses_and_not_the_metrics(
    data_folder: Path, tmp_path: Path, noise_by: str
) -> None:
    changed = {**GAUSSIAN, "gaussian_scale": 2.0**-6, "noise_by": noise_by, "nodes": 3}
    changed |= {"secure_sums": noise_by == "sum", "release_metrics": True, "one-round.columns": 6}
    given = values_of(data_folder, tmp_path, changed)
    assert run_here(given)["test"]["recall@20"] > 0
    state = state_of(tmp_path, 1)
    assert state["chosen"] is None
    settings = RunSettings.parse(given)
    method = OneRound("one-round", World(settings, load_catalogue(settings), {}, CPU))
    method.restore(state, method.world.catalogue.index())
    ridge, share, kernels = method._by_noise()
    assert (ridge, kernels) == (30, 2)
    reliable = reliability(state["mean"].numpy(), state["basis"].numpy(), method.noise)
    assert share == 0.6 * reliable**0.75
    assert 0.48 < share <= 0.6


@pytest.mark.parametrize(("own", "sent"), [({}, OF_SUM), ({"one-round.kernels": 1}, set())])
def test_with_noise_a_kernel_of_its_own_carries_the_sum(
    data_folder: Path, tmp_path: Path, own: dict[str, Any], sent: set[str]
) -> None:
    noise = {**GAUSSIAN, "gaussian_scale": 2.0**-6, "noise_by": "server", "release_metrics": True}
    values = values_of(data_folder, tmp_path, {**noise, "one-round.columns": 6, **own})
    grid = SpoiltGrid(2, values, untouched)
    run_here(values, grid)
    last = messages.EvaluateRequest.from_record(grid.of(messages.EVALUATE)[-1].content)
    names = {name.removeprefix("0/") for name in last.arrays}
    assert {name for name in names if name.startswith("sum_")} == sent
    assert "rarity" not in names


def test_noise_that_drowns_the_sum_leaves_the_frozen_twin(
    data_folder: Path, tmp_path: Path
) -> None:
    changed = {**GAUSSIAN, "noise_by": "server", "one-round.columns": 6}
    settings = RunSettings.parse(values_of(data_folder, tmp_path, changed))
    method = OneRound("one-round", World(settings, load_catalogue(settings), {}, CPU))
    assert method._by_noise() == (30, 0.0, 2)  # before the sum is there
    rng = np.random.default_rng(0)
    method.mean = rng.normal(size=(WARM, 6)).astype(np.float32)
    method.basis = np.linalg.qr(rng.normal(size=(WARM, 6)))[0].astype(np.float32)
    method.noise = 1.0
    assert method._by_noise() == (30, 0.0, 2)
    method.noise = 1e-3
    assert method._by_noise()[1] > 0.4


def test_the_sum_with_a_servers_noise_is_the_sum_and_the_noise(
    data_folder: Path, tmp_path: Path
) -> None:
    bare = values_of(data_folder, tmp_path / "bare", {"one-round.columns": 6})
    run_here(bare)
    run_here(bare | GAUSSIAN | {"run_dir": str(tmp_path / "noisy"), "noise_by": "server"})
    bare_state, noisy = (state_of(tmp_path / name, 1) for name in ("bare", "noisy"))
    difference = (noisy["mean"] - bare_state["mean"]).numpy().ravel() * 60  # users
    assert kstest(difference, norm(scale=0.5).cdf).pvalue > 1e-9
    assert noisy["noise"] == pytest.approx(0.5 / 60)
    assert bare_state["noise"] == 0.0
