"""Group fusion through the whole engine: new items, for each group of users."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client_app.methods import half_of
from client_app.methods.base import Local
from common import messages
from common.errors import SnowdropError
from common.settings import RunSettings
from common.users.ragged import Ragged
from common.users.randomness import user_keys
from server_app.checkpoint import Checkpoints
from tests.server_app.runs import SpoiltGrid, run_here, run_values, state_of, untouched

OWN = {
    "group-fusion.groups": 3,
    "group-fusion.least_users": 6,
    "group-fusion.fit_steps": 10,
    "group-fusion.width": 8,
    "group-fusion.lr": 0.01,
}


def values_of(data: Path, run_dir: Path, **changed: Any) -> dict[str, Any]:
    return {**run_values(data, run_dir, method="group-fusion", **changed), **OWN}


@pytest.fixture(scope="module")
def one_node(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("one")
    summary = run_here(values_of(data_folder, folder, nodes=1))
    return {"summary": summary, **state_of(folder, 4)}


@pytest.mark.parametrize("nodes", [2, 7])
def test_numbers_do_not_depend_on_nodes(
    data_folder: Path, tmp_path: Path, one_node: dict[str, Any], nodes: int
) -> None:
    summary = run_here(values_of(data_folder, tmp_path, nodes=nodes))
    last = state_of(tmp_path, 4)
    for name in ("table", "centroids"):
        torch.testing.assert_close(last[name], one_node[name], atol=1e-4, rtol=1e-4)
    for name, value in one_node["summary"]["test"].items():
        assert summary["test"][name] == pytest.approx(value, abs=1e-2)
    assert summary["method"] == "group fusion"
    assert {"own-features", "similar-items", "ridge", "random"} <= set(summary["baselines"])
    assert summary["test"]["recall@20"] > summary["baselines"]["random"]["test"]["recall@20"]


def test_resuming_equals_an_undisturbed_run(
    data_folder: Path, tmp_path: Path, one_node: dict[str, Any]
) -> None:
    run_here(values_of(data_folder, tmp_path, nodes=1, rounds=2))
    Checkpoints(tmp_path / "checkpoint").close()
    resumed = run_here(values_of(data_folder, tmp_path, nodes=1, resume=True))
    last = state_of(tmp_path, 4)
    for name in ("table", "centroids"):
        assert torch.equal(last[name], one_node[name])
    for name, part in one_node["fusion"]["network"].items():
        assert torch.equal(last["fusion"]["network"][name], part)
    assert resumed["test"] == one_node["summary"]["test"]


def test_noise_covers_sizes_of_groups(data_folder: Path, tmp_path: Path) -> None:
    noise = {"clip_norm": 5.0, "laplace_scale": 0.001, "average": "users", "release_metrics": True}
    values = values_of(data_folder, tmp_path, rounds=3, baselines=False, **noise)
    answers: list[messages.TrainAnswer] = []

    def heard(message: Any, reply: Any) -> Any:
        if "values" in reply.content.config_records:
            answers.append(messages.TrainAnswer.from_record(reply.content))
        return reply

    summary = run_here(values, SpoiltGrid(2, values, heard))
    assert summary["privacy"]["epsilon_round"] == pytest.approx(2 * 5.0 / 0.001, rel=0.01)
    assert len(state_of(tmp_path, 3)["scorers"]["kept"]) > 1
    sums = [answer.sums for answer in answers if "heads" in answer.sums]
    assert {one["members"].shape for one in sums} == {(3, 1)}
    assert all((one["members"] % 1.25 != 0).all() for one in sums)


def test_new_items_are_sent_for_each_group(data_folder: Path, tmp_path: Path) -> None:
    values = values_of(data_folder, tmp_path, rounds=2)
    grid = SpoiltGrid(2, values, untouched)
    run_here({**values, "baselines": False}, grid)
    asked = [
        messages.EvaluateRequest.from_record(one.content) for one in grid.of(messages.EVALUATE)
    ]
    last = asked[-1]
    assert set(last.scorers) == {"own-group"}
    rows, columns = last.arrays["0/items"].shape
    assert columns == 8
    assert rows % 3 == 0
    assert last.arrays["0/centroids"].shape == (3, 9)
    tables = last.arrays["0/items"].reshape(3, -1, 8)
    assert not np.array_equal(tables[0], tables[1])
    answers = [messages.RecommendRequest.from_record(m.content)
               for m in grid.of(messages.QUERY_RECOMMEND)]  # fmt: skip
    assert answers and answers[0].arrays["items"].shape[0] % 3 == 0


def test_the_frozen_twin_learns_nothing_of_groups(data_folder: Path, tmp_path: Path) -> None:
    values = {**values_of(data_folder, tmp_path, rounds=2), "method": "group-fusion:frozen"}
    summary = run_here(values)
    assert state_of(tmp_path, 2)["scorers"] is None
    assert summary["test"] == pytest.approx(summary["baselines"]["own-features"]["test"])


def test_users_score_with_the_table_of_their_own_group() -> None:
    settings = RunSettings.parse({"method": "group-fusion", "dim": 4, **OWN})
    draw = torch.Generator().manual_seed(1)
    tables, centroids = torch.randn(3, 5, 4, generator=draw), torch.randn(3, 5, generator=draw)
    state = {
        "weight": torch.randn(7, 4, generator=draw), "bias": torch.randn(7, 1, generator=draw)
    }  # fmt: skip
    arrays = {"items": tables.flatten(0, 1).numpy(), "centroids": centroids.numpy()}
    keys = user_keys(b"s", [str(k) for k in range(7)])
    nobody = Ragged(np.zeros(8, np.int64), np.zeros(0, np.int64))
    local = Local(settings.training(), nobody, keys, arrays, 9, 5, lambda: state)
    scores = half_of("group-fusion").scorer("own-group", local)(np.array([6, 0, 3]))
    for row, user in enumerate([6, 0, 3]):
        point = torch.cat([state["weight"][user], state["bias"][user]])
        near = [float(point @ c / c.norm()) for c in centroids]
        table = tables[near.index(max(near))]
        expected = table @ state["weight"][user] + state["bias"][user]
        torch.testing.assert_close(scores[row], expected)
    without = {name: one for name, one in arrays.items() if name != "centroids"}
    with pytest.raises(SnowdropError, match="the message carries no 'centroids'"):
        half_of("group-fusion").scorer(
            "own-group", Local(settings.training(), nobody, keys, without, 9, 5, lambda: state)
        )


def test_items_that_become_warm_start_from_what_is_fused(data_folder: Path, tmp_path: Path) -> None:
    run_here(values_of(data_folder, tmp_path, nodes=1, rounds=2, baselines=False))
    before = state_of(tmp_path, 2)
    Checkpoints(tmp_path / "checkpoint").close()
    run_here(
        values_of(
            data_folder, tmp_path, nodes=1, rounds=3, resume=True, warm_after=1, baselines=False
        )
    )
    after = state_of(tmp_path, 3)
    assert len(after["table"]) > len(before["table"])
    assert torch.isfinite(after["table"]).all()
    assert after["table"][len(before["table"]) :].abs().sum(1).min() > 0
