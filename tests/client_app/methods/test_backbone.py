"""The node's half of recommenders for warm items; `test_backbone_run` compares whole runs."""

from typing import Any

import numpy as np
import pytest
import torch

from client_app.methods import backbone, half_of
from client_app.methods.backbone import Backbone, SharedTable
from client_app.methods.base import Local
from common.catalogue import ItemIndex
from common.errors import SnowdropError
from common.messages import TrainRequest
from common.settings import RunSettings
from common.users.heads import HEADS, State
from common.users.ragged import Ragged
from common.users.randomness import user_keys
from common.users.training import train_round
from tests.common.users.alone import Alone, plain_scores

WARM, DIM = 12, 4
KEYS = user_keys(b"s", ["ann", "bob", "cec"])
HISTORIES = Ragged(np.array([0, 2, 5, 6]), np.array([1, 4, 0, 2, 3, 7]))
DRAW = torch.Generator().manual_seed(1)
TABLE = torch.randn(WARM, DIM, generator=DRAW)
PARTS = ("user_weight", "item_weight", "hidden_bias", "weight", "bias")
VECTOR = torch.randn(1, HEADS["mlp"].size(PARTS, DIM), generator=DRAW)
INDEX = ItemIndex(tuple(f"i{k}" for k in range(WARM)), ("warm",) * WARM)
METHODS = ["fcf", "fedncf", "pfedrec", "fedrap"]


def local_of(method: str, state: State | None = None, **values: Any) -> tuple[Backbone, Local]:
    run = RunSettings.parse({"method": method, "dim": DIM, "head_lr": 0.5, **values})
    half = half_of(method)
    assert isinstance(half, Backbone)
    arrays = {"table": TABLE.numpy(), "items": TABLE.numpy(), "round": np.full((1, 1), 2.0)}
    if method == "fedncf":
        arrays["scorer"] = VECTOR.numpy()
    fresh = half.fresh(KEYS, run.training()) if state is None else state
    return half, Local(
        run.training(), HISTORIES, KEYS, arrays, WARM, WARM, lambda: fresh, INDEX
    )  # fmt: skip


def request_of(number: int, scale: float = 1.0) -> TrainRequest:
    return TrainRequest(
        catalogue="v", training="ab" * 8, round=number, settings="", best_round=0, scale=scale
    )


def test_a_user_keeps_only_what_is_its_own() -> None:
    parts = {method: set(local_of(method)[1].state_of()) for method in METHODS}
    own = {"own.counts", "own.items", "own.rows"}
    assert parts == {
        "fcf": {"user"},
        "fedncf": {"user"},
        "pfedrec": {"weight", "bias"},
        "fedrap": {"weight", "bias"} | own,
    }


def test_a_user_that_comes_late_starts_from_the_scorer_of_today() -> None:
    half, local = local_of("fedncf")
    _, answer = half.train(request_of(7), local)
    scorer = HEADS["mlp"].parts(VECTOR[0], PARTS, DIM)
    change = torch.zeros_like(VECTOR[0])
    settings = local.settings
    for user in range(3):
        private = local.state_of()["user"][user]
        rates = {"user": 0.5} | dict.fromkeys(PARTS, settings.group("fedncf").scorer_lr)
        one = Alone(settings, {"user": private, **scorer}, rates, TABLE, by_sum=True)
        one.train(HISTORIES.of(user), KEYS[user : user + 1], 7)
        change += torch.cat([(one.head[n] - scorer[n]).flatten() for n in PARTS])
    np.testing.assert_allclose(answer.sums["scorer"][0], change.numpy(), atol=1e-5)


def test_sums_travel_divided_by_the_scale() -> None:
    half, local = local_of("fedncf")
    whole, part = (half.train(request_of(1, scale), local)[1].sums for scale in (1.0, 4.0))
    for name in ("change", "scorer"):
        np.testing.assert_allclose(part[name] * 4, whole[name], rtol=1e-6)
    np.testing.assert_array_equal(part["touches"], whole["touches"])


@pytest.mark.parametrize("method", METHODS)
def test_learning_rates_fall_from_round_to_round(method: str) -> None:
    half, local = local_of(method, **{f"{method}.lr_decay": 0.5, "item_lr": 0.8})
    _, settings = local, half.settings_of(local, 3)
    assert (settings.head_lr, settings.item_lr) == (0.125, 0.2)
    if method == "fedncf":
        first, third = (half.beside(local, local.state_of(), k).scorer_lr for k in (1, 3))
        assert third == first / 4
    assert half.settings_of(local, 1).head_lr == 0.5


@pytest.mark.parametrize("method", METHODS)
def test_heads_fit_to_a_table_as_in_its_rounds_and_without_noise(method: str) -> None:
    private = {"clip_norm": 0.1, "laplace_scale": 5.0, "average": "users"}
    half, local = local_of(method, **private)
    after = half.fit_heads(range(2, 4), local)
    plain_half, plain = local_of(method, average="users")
    state, _ = plain_half.train(request_of(2), plain)
    again = local_of(method, state, average="users")[1]
    expected, _ = plain_half.train(request_of(3), again)
    assert after.keys() == expected.keys()
    for name, part in expected.items():
        assert torch.equal(after[name], part), name


@pytest.mark.parametrize("size", [1, 10**6])
def test_scores_are_those_of_whole_heads(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "SCORES_AT_ONCE", size)
    for method in ("fcf", "fedncf", "pfedrec"):
        half, local = local_of(method)
        scorer = half.scorer("backbone", local)
        assert isinstance(scorer, SharedTable)
        scores = scorer(np.array([2, 0]))
        shared = HEADS["mlp"].parts(VECTOR[0], PARTS, DIM) if method == "fedncf" else {}
        for row, user in enumerate([2, 0]):
            head = {n: p[user] for n, p in local.state_of().items()} | shared
            expected = plain_scores(local.settings.head, head, TABLE)
            torch.testing.assert_close(scores[row], expected)


def test_a_personal_table_is_the_shared_one_after_one_more_round() -> None:
    half, local = local_of("pfedrec", **{"pfedrec.personal": True, "pfedrec.lr_decay": 0.5})
    scores = half.scorer("backbone", local)(np.array([2, 0, 1]))
    settings = half.settings_of(local, 3)
    assert settings.head_lr == 0.125
    for row, user in enumerate([2, 0, 1]):
        head = {n: p[user] for n, p in local.state_of().items()}
        rates = dict.fromkeys(head, settings.head_lr)
        one = Alone(settings, head, rates, TABLE, by_sum=True)
        one.train(HISTORIES.of(user), KEYS[user : user + 1], 0)
        expected = plain_scores("linear", one.head, one.table)
        torch.testing.assert_close(scores[row], expected)
        assert not torch.allclose(one.table, TABLE)


def test_fedrap_keeps_rows_of_the_history_alone_where_it_is_to() -> None:
    counts = {}
    for keep in ("touched", "history"):
        half, local = local_of("fedrap", negatives=2, **{"fedrap.keep": keep})
        state, _ = half.train(request_of(1), local)
        counts[keep] = state["own.counts"].tolist()
    assert counts == {"touched": [6, 9, 3], "history": [2, 3, 1]}


def test_the_schedule_of_fedrap() -> None:
    run = {"method": "fedrap", "fedrap.difference": 0.4, "fedrap.sparsity": 0.2}
    grown = RunSettings.parse(run).group("fedrap")
    assert grown.weights(1) == (0.0, 0.0)
    assert grown.weights(11) == pytest.approx((0.4 * np.tanh(1), 0.2 * np.tanh(1)))
    same = RunSettings.parse({**run, "fedrap.schedule": "constant"}).group("fedrap")
    assert same.weights(1) == same.weights(50) == (0.4, 0.2)


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("scorer", None, "the message carries no 'scorer'"),
        ("scorer", VECTOR.numpy()[:, 1:], r"'scorer' has shape \(1, 40\), expected \(1, 41\)"),
        ("table", TABLE.numpy()[1:], r"'table' has shape \(11, 4\), expected \(12, 4\)"),
    ],
)
def test_a_message_without_what_is_needed_is_refused(
    name: str, array: np.ndarray | None, sentence: str
) -> None:
    half, local = local_of("fedncf")
    arrays = {key: one for key, one in local.arrays.items() if key != name}
    object.__setattr__(local, "arrays", arrays if array is None else {**arrays, name: array})
    with pytest.raises(SnowdropError, match=sentence):
        half.train(request_of(1), local)


def test_training_is_that_of_all_methods_where_nothing_is_beside() -> None:
    half, local = local_of("fcf", **{"fcf.item_lr_per_sample": False})
    state, answer = half.train(request_of(2), local)
    expected, result = train_round(TABLE, local.state_of(), HISTORIES, KEYS, 2, local.settings)
    assert torch.equal(state["user"], expected["user"])
    np.testing.assert_array_equal(answer.sums["change"], result.change.numpy())
    assert (answer.users, answer.loss_sum) == (3, result.loss_sum)
