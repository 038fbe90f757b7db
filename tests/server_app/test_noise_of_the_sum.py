"""Runs in which nodes add noise together, under the masks of secure sums."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from scipy.stats import kstest, norm

from client_app.ledger import Ledger
from client_app.methods.base import NodeMethod
from client_app.policy import REFUSALS
from common import messages
from common.discrete import STEP
from common.errors import SnowdropError
from common.privacy import Cost, gaussian_epsilon
from common.secure import fixed_point, groups
from common.settings import RunSettings
from server_app import aggregation
from server_app.accountant import noise_in_sum
from tests.server_app.runs import SpoiltGrid, failing, rounds_of, run_here, run_values, state_of

NODES, FEWEST, SCALE = 5, 4, 2.0
"""Of five nodes one may drop out: each adds a quarter of the variance."""


def values(data: Path, run_dir: Path, **changed: Any) -> dict[str, Any]:
    own = {
        "method": "one-round", "rounds": 1, "nodes": NODES, "baselines": False, "average": "users",
        "clip_norm": 1.0, "gaussian_scale": SCALE, "noise_by": "sum", "secure_sums": True,
        "one-round.columns": 20, "round_retries": 0, **changed,
    }  # fmt: skip
    return run_values(data, run_dir, **own)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What nodes add, in the order in which they answer; each is drawn as ever."""
    kept: list[np.ndarray] = []
    draw = fixed_point.discrete_gaussian

    def keeping(shape: tuple[int, ...], deviation: float) -> np.ndarray:
        assert deviation * STEP == pytest.approx(SCALE / groups.certain(NODES) ** 0.5, rel=1e-12)
        kept.append(draw(shape, deviation))
        return kept[-1]

    monkeypatch.setattr(fixed_point, "discrete_gaussian", keeping)
    return kept


def noise_found(data: Path, folder: Path, bad: Sequence[int]) -> np.ndarray:
    """What the sum of a run has more than that of one without noise, float64 (numbers,)."""
    bare = values(data, folder / "bare", gaussian_scale=0.0, clip_norm=0.0, noise_by="nodes",
                  secure_sums=False)  # fmt: skip
    for given in (bare, values(data, folder / "noisy")):
        run_here(given, SpoiltGrid(NODES, given, failing, bad=bad, kind=messages.TRAIN))
    means = [state_of(folder / name, 1)["mean"].numpy() for name in ("bare", "noisy")]
    users = int(rounds_of(folder / "noisy")[0]["users"])
    return np.asarray((means[1] - means[0]).astype(np.float64) * users).ravel()


@pytest.mark.parametrize(("gone", "ring"), [(0, False), (1, False), (0, True)])
def test_the_total_has_the_variance_that_was_asked_for_as_far_as_nodes_may_drop_out(
    data_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    drawn: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    gone: int,
    ring: bool,
) -> None:
    """And it is exactly the sum of all users' whole parts and of what the nodes have added."""
    if ring:  # then fewer nodes are certain to be in the sum
        monkeypatch.setattr(groups, "SMALLEST_RING", NODES)
    fewest = 2 * FEWEST - NODES if ring else FEWEST
    with caplog.at_level(logging.INFO, logger="snowdrop"):
        added = noise_found(data_folder, tmp_path, bad=(3,) if gone else ())
    there = NODES - gone
    assert f"the sum of {there} nodes carries noise of standard deviation " in caplog.text
    assert f"{SCALE * (there / fewest) ** 0.5:.4g}" in caplog.text
    for own in drawn:
        assert kstest(own * STEP, norm(scale=SCALE / fewest**0.5).cdf).pvalue > 1e-10
    assert kstest(added, norm(scale=SCALE * (there / fewest) ** 0.5).cdf).pvalue > 1e-10
    if not gone:
        np.testing.assert_allclose(added, sum(drawn).ravel() * STEP, atol=1e-4)
        assert len(drawn) == NODES
    settings = RunSettings.parse(values(data_folder, tmp_path))
    assert noise_in_sum(settings, users=60) == pytest.approx(SCALE * (NODES / fewest) ** 0.5)


@pytest.mark.parametrize("dishonest", [2, 3])
def test_the_parts_that_dishonest_nodes_leave_out_are_missing(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dishonest: int
) -> None:
    """Of a sum over the least number k of nodes, (k − c) / k of the variance is left."""
    draw, answered = fixed_point.discrete_gaussian, itertools.count()

    def left_out(shape: tuple[int, ...], deviation: float) -> np.ndarray:
        return draw(shape, deviation) * (next(answered) >= dishonest)

    monkeypatch.setattr(fixed_point, "discrete_gaussian", left_out)
    added = noise_found(data_folder, tmp_path, bad=(NODES + 1,))  # the last one
    assert next(answered) == NODES
    left = SCALE * ((FEWEST - dishonest) / FEWEST) ** 0.5
    assert added.std() == pytest.approx(left, rel=0.12)  # five deviations of it


def test_epsilon_is_told_and_nothing_else_leaves(data_folder: Path, tmp_path: Path) -> None:
    answers: list[str] = []

    def listening(message: Message, reply: Message) -> Message:
        answers.append(message.metadata.message_type)
        return reply

    given = values(data_folder, tmp_path, privacy_delta=1e-6)
    grid = SpoiltGrid(NODES, given, listening, bad=range(2, 2 + NODES), kind=messages.EVALUATE)
    summary = run_here(given, grid)
    (row,) = rounds_of(tmp_path)
    expected = gaussian_epsilon(1 / SCALE, 1e-6)
    assert float(row["epsilon"]) == float(row["epsilon_total"]) == pytest.approx(expected)
    told = summary["privacy"]
    assert (told["noise"], told["noise_by"]) == ("gaussian", "sum")
    assert told["epsilon"] == pytest.approx(expected)
    assert not answers  # nobody was asked for metrics
    assert "test" not in summary
    assert not row["loss"]
    assert summary["recommended_users"] > 0


def test_ledgers_count_it_and_stop_when_it_is_spent(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    each = gaussian_epsilon(1 / SCALE, 1e-6)
    agreed = tmp_path / "policy.toml"
    agreed.write_text(f"epsilon_total = {1.05 * each}\nepsilon_round = {1.05 * each}\n")
    run_here(values(data_folder, tmp_path / "one", policy=str(agreed)))
    nodes = sorted((tmp_path / "one" / "nodes").iterdir())
    assert len(nodes) == NODES
    for node in nodes:
        assert Ledger(node).read().cost == Cost(gaussian=1 / SCALE**2)
    again = values(data_folder, tmp_path / "one", policy=str(agreed), fresh=True)
    with pytest.raises(SnowdropError, match="no node has agreed to round 1"):
        run_here(again)
    assert REFUSALS["epsilon_total"] in caplog.text
    agreed.write_text(f"epsilon_round = {0.95 * each}\n")
    with pytest.raises(SnowdropError, match="no node has agreed to round 1"):
        run_here(values(data_folder, tmp_path / "two", policy=str(agreed)))
    assert REFUSALS["epsilon_round"] in caplog.text


def test_a_node_adds_no_part_of_noise_to_an_answer_of_its_own(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that asks for a plain answer gets none, whatever the settings say."""
    monkeypatch.setattr("server_app.masked.replies", lambda nodes, asked, *_: nodes.exchange(asked))
    with pytest.raises(SnowdropError, match="round 1 brought no usable answer"):
        run_here(values(data_folder, tmp_path))


def test_users_of_a_round_give_whole_parts_and_nodes_the_noise(
    data_folder: Path, tmp_path: Path, drawn: list[np.ndarray]
) -> None:
    """The item table moves by the mean of users' clipped changes and of what nodes have added."""
    shared = {"method": "own-features", "rounds": 1, "one-round.columns": "", "dim": 8}
    bare = values(data_folder, tmp_path / "bare", **shared, noise_by="server")
    noisy = values(data_folder, tmp_path / "noisy", **shared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregation, "discrete_gaussian", lambda shape, _: np.zeros(shape, int))
        run_here(bare | {"secure_sums": False})
    run_here(noisy)
    users = int(rounds_of(tmp_path / "noisy")[0]["users"])
    tables = [state_of(tmp_path / name, 1)["table"].double() for name in ("bare", "noisy")]
    assert len(drawn) == NODES
    added = ((tables[1] - tables[0]) * users).numpy().ravel()
    np.testing.assert_allclose(added, sum(drawn) * STEP, atol=1e-4)
    assert kstest(added, norm(scale=SCALE * (NODES / FEWEST) ** 0.5).cdf).pvalue > 1e-10


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "mixture"},
        {"method": "similar-items"},
        {"method": "mdifffr", "mdifffr.fit_steps": 5},
        {"method": "ifedncf", "task": "last-warm-item"},
        {"method": "fcf", "fcf.solver": "least-squares", "task": "last-warm-item"},
        {"method": "ipfedrec", "condition_dim": 0},
        {"method": "group-fusion"},
    ],
    ids=lambda changed: changed["method"],
)
def test_epsilon_of_rounds_adds_up_and_ledgers_agree(
    data_folder: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    own = {"rounds": 2, "one-round.columns": "", "dim": 4, "nodes": 3, "privacy_delta": 1e-6}
    given = values(data_folder, tmp_path, **{**own, **changed})
    summary = run_here(given)
    first, last = rounds_of(tmp_path)
    assert float(first["epsilon"]) == pytest.approx(gaussian_epsilon(1 / SCALE, 1e-6))
    both = gaussian_epsilon(2**0.5 / SCALE, 1e-6)
    assert float(last["epsilon_total"]) == summary["privacy"]["epsilon"] == pytest.approx(both)
    for node in (tmp_path / "nodes").iterdir():
        assert Ledger(node).read().cost == Cost(gaussian=2 / SCALE**2)


def test_float_sums_get_no_noise_of_the_sum(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """A method from elsewhere whose sums are no whole numbers is refused by the node."""
    train = NodeMethod.train

    def floats(self: NodeMethod, request: Any, local: Any) -> Any:
        state, answer = train(self, request, local)
        sums = {name: one * STEP for name, one in answer.sums.items()}
        return state, messages.TrainAnswer(answer.users, answer.loss_sum, sums)

    monkeypatch.setattr(NodeMethod, "train", floats)
    with pytest.raises(SnowdropError, match="round 1 brought no usable answer"):
        run_here(values(data_folder, tmp_path, **{"method": "ridge", "one-round.columns": ""}))
    assert "noise_by = sum needs whole numbers" in capfd.readouterr().err
