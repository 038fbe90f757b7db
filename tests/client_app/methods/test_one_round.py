"""One round's node half: scores against dense algebra, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client_app.methods.base import Local
from client_app.methods.one_round import HistoryAndSum, OneRound
from client_app.scorers import standardised
from common.discrete import STEP
from common.errors import SnowdropError
from common.messages import TrainRequest
from common.settings import RunSettings
from common.users.item_sums import gram_sum, sketch_sum, unpacked, whole_sketch_sum
from common.users.ragged import Ragged
from common.users.randomness import user_keys

WARM, ITEMS = 6, 5
HISTORIES = Ragged(np.array([0, 2, 2, 5, 6]), np.array([0, 3, 1, 2, 5, 4]))
USERS = np.arange(4)


def arrays(seed: int = 0, **changed: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    columns = np.stack([np.sort(rng.choice(WARM, 2, replace=False)) for _ in range(ITEMS)])
    axes = np.linalg.qr(normal(WARM, 3))[0]
    made = {
        "items": normal(ITEMS, 2),
        "warm": normal(WARM, 2),
        "columns": columns.astype(np.int32),
        "values": normal(ITEMS, 2),
        "axes": axes,
        "gains": np.array([[0.9, 0.5, 0.1], [0.3, 0.2, 0.05]], np.float32),
        "shares": np.array([[0.0, 0.25, 1.0]], np.float32),
    }
    return {**made, **changed}


def local_of(given_arrays: dict[str, np.ndarray], **settings: Any) -> Local:
    keys = user_keys(b"secret", [str(user) for user in USERS])
    return Local(
        settings=RunSettings.parse({"method": "one-round", **settings}).training(),
        histories=HISTORIES,
        keys=keys,
        arrays=given_arrays,
        warm=WARM,
        items=ITEMS,
        state_of=dict,
    )


def second_kernel(**changed: Any) -> dict[str, np.ndarray]:
    """Another kernel's weights, by the names that they have for the sum, and items that count."""
    other = arrays(7)
    made = {f"sum_{name}": other[name] for name in ("items", "warm", "columns", "values")}
    rarity = np.random.default_rng(7).uniform(0.5, 2, (1, WARM)).astype(np.float32)
    return {**arrays(), **made, "rarity": rarity, **changed}


def dense_weights(made: dict[str, np.ndarray], prefix: str = "") -> np.ndarray:
    """U V' + S, (items, warm)."""
    weights = made[f"{prefix}items"] @ made[f"{prefix}warm"].T
    for row in range(ITEMS):
        weights[row, made[f"{prefix}columns"][row]] += made[f"{prefix}values"][row]
    return weights


def dense_scores(
    made: dict[str, np.ndarray], gain: np.ndarray, share: float, of_sum: str = ""
) -> np.ndarray:
    """The formula of the class, one user after the other."""
    weights, carrier = dense_weights(made), dense_weights(made, of_sum)
    rarity = made.get("rarity", np.ones((1, WARM)))[0]
    kept = np.eye(WARM) - made["axes"] @ np.diag(gain) @ made["axes"].T
    between = np.eye(WARM) - kept / np.diag(kept)
    scores = np.zeros((len(USERS), ITEMS))
    for user in USERS:
        x = np.zeros(WARM)
        x[HISTORIES.of(user)] = 1
        for part, own in ((1 - share, x @ weights.T), (share, x * rarity @ between @ carrier.T)):
            if own.std() > 1e-9:
                scores[user] += part * (own - own.mean()) / own.std()
    return scores


@pytest.mark.parametrize("seed", range(3))
def test_every_form_scores_as_dense_algebra_does(seed: int) -> None:
    made = arrays(seed)
    forms = list(HistoryAndSum(local_of(made)).forms(USERS))
    expected = [
        dense_scores(made, gain, share) for gain in made["gains"] for share in made["shares"][0]
    ]
    assert len(forms) == len(expected) == 6
    for form, wanted in zip(forms, expected, strict=True):
        np.testing.assert_allclose(form.numpy(), wanted, atol=2e-4)


def test_the_sum_is_carried_by_a_kernel_of_its_own() -> None:
    made = second_kernel()
    forms = list(HistoryAndSum(local_of(made)).forms(USERS))
    expected = [
        dense_scores(made, gain, share, "sum_")
        for gain in made["gains"]
        for share in made["shares"][0]
    ]
    for form, wanted in zip(forms, expected, strict=True):
        np.testing.assert_allclose(form.numpy(), wanted, atol=2e-4)


def test_both_kernels_are_tried_in_the_order_of_the_message() -> None:
    alone, own = second_kernel(), arrays(rarity=second_kernel()["rarity"])
    both = second_kernel(kernels=np.array([[1, 2]], np.float32))
    tried = list(HistoryAndSum(local_of(both)).forms(USERS))
    expected = [form for one in (own, alone) for form in HistoryAndSum(local_of(one)).forms(USERS)]
    torch.testing.assert_close(tried, expected)


def test_a_call_gives_the_first_form_of_the_users_that_are_asked_for() -> None:
    scorer = HistoryAndSum(local_of(arrays()))
    some = np.array([3, 0])
    torch.testing.assert_close(scorer(some), next(scorer.forms(USERS))[some])


def test_weights_of_items_have_a_zero_diagonal() -> None:
    """A user with one item gets nothing of that item by way of the sum."""
    made = arrays()
    kept = np.eye(WARM) - made["axes"] @ np.diag(made["gains"][0]) @ made["axes"].T
    np.testing.assert_allclose(np.diag(np.eye(WARM) - kept / np.diag(kept)), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"columns": np.full((ITEMS, 2), WARM, np.int32)}, "name warm items"),
        ({"columns": np.full((ITEMS, 2), -1, np.int32)}, "name warm items"),
        ({"columns": np.zeros((ITEMS, 3), np.int32)}, "not as many"),
        ({"columns": np.zeros((ITEMS, 2), np.float32)}, "not as many"),
        ({"gains": np.ones((1, 3), np.float32)}, "'gains' must be"),
        ({"gains": np.zeros((0, 3), np.float32)}, "'gains' must be"),
        ({"warm": np.zeros((WARM, 3), np.float32)}, "'warm' has shape"),
        ({"axes": np.zeros((2, 3), np.float32)}, "'axes' has shape"),
        ({"asked": np.zeros((1, 1), np.float32)}, "'asked' must be a share"),
        ({"rarity": np.ones((1, 2), np.float32)}, "'rarity' has shape"),
        ({"sum_items": np.ones((2, 2), np.float32)}, "'sum_items' has shape"),
        (second_kernel(sum_columns=np.zeros((ITEMS, 3), np.int32)), "'sum_columns' are missing"),
        (second_kernel(kernels=np.array([[3]], np.float32)), "'kernels' must be 1 or 2"),
        (second_kernel(kernels=np.zeros((1, 0), np.float32)), "'kernels' must be 1 or 2"),
    ],
)
def test_malformed_arrays_are_refused(changed: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        HistoryAndSum(local_of(arrays(**changed)))


@given(
    scores=st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=8),
    repeats=st.integers(1, 4),
)
def test_standardised_scores_do_not_depend_on_the_number_of_candidates(
    scores: list[float], repeats: int
) -> None:
    once = standardised(torch.tensor([scores]))
    torch.testing.assert_close(
        standardised(torch.tensor([scores * repeats])),
        once.repeat(1, repeats),
        atol=1e-2,
        rtol=1e-2,
    )
    assert abs(float(once.mean())) < 1e-3
    assert float(once.square().mean()) == pytest.approx(1, abs=1e-2) or not once.any()


def request(**changed: Any) -> TrainRequest:
    told = {"catalogue": "", "training": "ab" * 8, "round": 1, "settings": "{}", "best_round": 0}
    return TrainRequest(**{**told, **changed})


def test_a_node_answers_with_the_sum_over_its_users() -> None:
    state, answer = OneRound("one-round").train(request(), local_of({}))
    assert (state, answer.users, answer.loss_sum, set(answer.sums)) == ({}, 4, 0.0, {"gram"})
    assert answer.sums["gram"].dtype == np.float32
    np.testing.assert_allclose(answer.sums["gram"], gram_sum(HISTORIES, WARM), rtol=1e-6)
    assert np.trace(unpacked(answer.sums["gram"], WARM)) == pytest.approx(3)  # one has no history


def test_with_a_basis_it_is_a_sketch_divided_by_the_rounds_scale() -> None:
    basis = arrays()["axes"]
    _, answer = OneRound("one-round").train(request(scale=4.0), local_of({"basis": basis}))
    np.testing.assert_allclose(
        answer.sums["sketch"], sketch_sum(HISTORIES, basis) / 4, rtol=1e-5, atol=1e-7
    )


NOISY = {"average": "users", "clip_norm": 1.0, "gaussian_scale": 3.0}


@pytest.mark.parametrize("noise_by", ["server", "sum", "nodes"])
def test_with_noise_the_sketch_travels_in_whole_steps(noise_by: str) -> None:
    basis = arrays()["axes"]
    added = {"secure_sums": True, "nodes": 3} if noise_by == "sum" else {}
    local = local_of({"basis": basis}, **NOISY, **added, noise_by=noise_by)
    _, answer = OneRound("one-round").train(request(scale=4.0), local)
    whole = whole_sketch_sum(HISTORIES, basis)
    assert answer.sums["sketch"].dtype == np.int64
    if noise_by == "nodes":  # for each of four users; the chance to fail is below 1e-9
        noise = (answer.sums["sketch"] - whole).ravel() * STEP
        assert 0.1 < noise.std() / (3.0 * 2) < 3
    else:
        np.testing.assert_array_equal(answer.sums["sketch"], whole)


def test_with_noise_a_message_without_a_finite_basis_is_refused() -> None:
    basis = arrays()["axes"]
    basis[2, 1] = np.inf
    for given_arrays, sentence in (({}, "needs a 'basis'"), ({"basis": basis}, "holds NaN, Inf")):
        with pytest.raises(SnowdropError, match=sentence):
            OneRound("one-round").train(request(), local_of(given_arrays, **NOISY))


def test_a_bound_that_the_sum_does_not_keep_is_refused() -> None:
    """A server could ask for a smaller one, of which the ledger would count less."""
    local = local_of({"basis": arrays()["axes"]}, **NOISY)
    smaller = replace(local, settings=local.settings.model_copy(update={"clip_norm": 0.1}))
    with pytest.raises(SnowdropError, match="clip_norm must be 1"):
        OneRound("one-round").train(request(), smaller)


def test_users_who_are_not_drawn_are_in_no_sum() -> None:
    _, answer = OneRound("one-round").train(request(), local_of({}, fraction=0.5))
    assert 0 < answer.users < 4
    assert np.trace(unpacked(answer.sums["gram"], WARM)) <= answer.users + 1e-6
