"""Whole runs in this process: results, files, resume, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.in_process import InProcessGrid
from common import messages
from common.demo import MARK
from common.errors import SnowdropError
from common.metrics import metric_names
from common.settings import KS, RunSettings
from server_app.features import FeatureTransform
from server_app.measure import Task
from server_app.run import timings, traffic
from server_app.strategy import ColdStart
from server_app.training import Training
from tests.server_app.conftest import Ran
from tests.server_app.runs import (
    SpoiltGrid,
    failing,
    rounds_of,
    run_here,
    run_values,
    state_of,
    untouched,
)


def test_summary_holds_the_results(plain: Ran) -> None:
    folder, summary = plain
    assert json.loads((folder / "summary.json").read_text()) == {"format": 2} | summary
    names = metric_names(KS)
    assert names[0] == "recall@20"
    assert names[-1] == "ndcg@100"
    for results in (summary, *summary["baselines"].values()):
        for split in ("validation", "test"):
            assert list(results[split]) == names
            assert all(0 <= value <= 1 for value in results[split].values())
    assert (summary["method"], summary["kind"]) == ("MDiffFR", "trained")
    assert summary["dataset"]["items"] == {"warm": 48, "validation": 8, "test": 24}
    assert summary["dataset"]["users"] + summary["dataset"]["users_without_warm"] == 60
    assert 0 < summary["tested_users"] <= summary["dataset"]["users"]
    assert summary["recommended_users"] == summary["dataset"]["users"]
    assert summary["best_round"] in (2, 4)
    assert summary["failed_answers"] == 0
    assert summary["generated_data"] is False


def test_data_that_were_prepared_as_generated_are_called_so(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(data_folder, tmp_path / "made")
    (folder / MARK).write_text("{}")
    with caplog.at_level("INFO", "snowdrop"):
        summary = run_here(run_values(folder, tmp_path / "run", method="content-profile"))
    assert summary["generated_data"] is True
    assert "(generated data)" in caplog.text


def test_summary_counts_the_interactions(plain: Ran, data_folder: Path) -> None:
    lines = (data_folder / "interactions.csv").read_text().splitlines()
    dataset = plain[1]["dataset"]
    assert dataset["users_without_warm"] == 0
    assert sum(dataset["interactions"].values()) == len(lines) - 1


def test_summary_holds_times_and_memory(plain: Ran) -> None:
    summary = plain[1]
    assert set(summary["timing"]) == {
        "encode_seconds",
        "start_seconds",
        "training_seconds",
        "test_seconds",
        "recommend_seconds",
        "baselines_seconds",
        "twin_seconds",
        "round_seconds_median",
        "generator_seconds_median",
        "evaluate_seconds_median",
        "total_seconds",
    }
    assert all(seconds > 0 for seconds in summary["timing"].values())
    assert summary["memory"]["peak_rss_mb"] > 50
    assert summary["memory"]["device"] == "cpu"


def test_run_folder_holds_settings_rounds_and_plots(plain: Ran, data_folder: Path) -> None:
    folder = plain[0]
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["data"] == str(data_folder)
    assert (settings["rounds"], settings["mdifffr.steps"], settings["format"]) == (4, 4, 2)
    rows = rounds_of(folder)
    assert [row["round"] for row in rows] == ["1", "2", "3", "4"]
    assert all(row["users"] == "60" and float(row["loss"]) > 0 for row in rows)
    assert [bool(row["validation_recall@20"]) for row in rows] == [False, True, False, True]
    for name in ("metrics.png", "embeddings.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert not list(folder.glob("*.png.png"))


def test_no_user_id_reaches_the_servers_files(plain: Ran) -> None:
    folder = plain[0]
    files = [path for path in folder.iterdir() if path.is_file()]
    files += (folder / "checkpoint").iterdir()
    files += [path for path in (folder / "frozen").rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert b"user-0" not in path.read_bytes()


def test_training_moves_the_item_table(plain: Ran) -> None:
    folder, _ = plain
    first, last = state_of(folder, 1)["table"], state_of(folder, 4)["table"]
    assert first.shape == (48, 8)
    assert float((last - first).abs().max()) > 1e-3


@pytest.mark.parametrize("average", ["users", "touches"])
def test_the_model_does_not_depend_on_how_users_share_nodes(
    data_folder: Path, tmp_path: Path, average: str
) -> None:
    tables, results = [], []
    for nodes in (1, 2, 7):
        folder = tmp_path / str(nodes)
        values = run_values(data_folder, folder, nodes=nodes, average=average, baselines=False)
        results.append(run_here(values)["test"])
        tables.append(state_of(folder, 4)["table"])
    for table, result in zip(tables[1:], results[1:], strict=True):
        torch.testing.assert_close(table, tables[0], atol=1e-5, rtol=0)
        assert result == pytest.approx(results[0], abs=0.02)


def test_resuming_equals_an_undisturbed_run(plain: Ran, data_folder: Path, tmp_path: Path) -> None:
    run_here(run_values(data_folder, tmp_path, rounds=2, baselines=False))
    summary = run_here(run_values(data_folder, tmp_path, resume=True, baselines=False))
    whole, resumed = state_of(plain[0], 4), state_of(tmp_path, 4)
    torch.testing.assert_close(resumed["table"], whole["table"], atol=1e-6, rtol=0)
    assert [row["round"] for row in rounds_of(tmp_path)] == ["1", "2", "3", "4"]
    assert summary["test"] == pytest.approx(plain[1]["test"])
    assert summary["training"] == resumed["id"] == state_of(tmp_path, 2)["id"]


def test_resume_goes_back_to_the_last_whole_checkpoint(
    plain: Ran, data_folder: Path, tmp_path: Path
) -> None:
    run_here(run_values(data_folder, tmp_path, rounds=3, baselines=False))
    (tmp_path / "checkpoint" / "round-000003.ckpt").write_bytes(b"half")
    run_here(run_values(data_folder, tmp_path, rounds=4, resume=True, baselines=False))
    whole, resumed = state_of(plain[0], 4), state_of(tmp_path, 4)
    torch.testing.assert_close(resumed["table"], whole["table"], atol=1e-6, rtol=0)


def test_resume_where_there_is_nothing_begins_or_is_told_to_set_more_rounds(
    data_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = run_values(data_folder, tmp_path, rounds=1, resume=True, baselines=False)
    assert run_here(values)["training"] == state_of(tmp_path, 1)["id"]
    told = "rounds up to 1 are trained already; to go on, set rounds above 1"
    assert told not in caplog.text
    run_here(values)
    assert told in caplog.text


def test_a_training_that_was_stopped_is_tested_as_one_with_fewer_rounds(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def values(name: str, rounds: int) -> dict[str, Any]:
        given: dict[str, Any] = {"method": "ridge", "evaluate_every": 9, "baselines": False}
        return run_values(data_folder, tmp_path / name, rounds=rounds, **given)

    whole_round = ColdStart._round

    def stopped(self: ColdStart, number: int, grid: Any) -> dict[str, Any]:
        if number == 3:
            raise KeyboardInterrupt
        return whole_round(self, number, grid)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ColdStart, "_round", stopped)
        run_here(values("early", 9))
    early = run_here({**values("early", 2), "resume": True})
    assert early["test"] == pytest.approx(run_here(values("whole", 2))["test"])


def test_a_folder_with_a_training_is_refused_unless_fresh(
    data_folder: Path, tmp_path: Path
) -> None:
    values = run_values(data_folder, tmp_path, rounds=2, baselines=False, method="ridge")
    first = run_here(values)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SnowdropError, match="holds a training: resume=true goes on"):
        run_here(values)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == kept
    second = run_here({**values, "rounds": 1, "fresh": True})
    assert first["training"] != second["training"]
    assert [row["round"] for row in rounds_of(tmp_path)] == ["1"]
    assert not (tmp_path / "checkpoint" / "round-000002.ckpt").exists()
    with pytest.raises(SnowdropError, match="set one of them to false"):
        run_here({**values, "fresh": True, "resume": True})


def test_results_stay_where_no_node_answers_the_test_any_more(
    data_folder: Path, tmp_path: Path
) -> None:
    given = run_values(data_folder, tmp_path, method="own-features", rounds=1, baselines=False)
    given |= {"nodes": 2, "resume": True}
    run_here(given)
    before = (tmp_path / "summary.json").read_bytes()
    grid = SpoiltGrid(2, given, failing, bad=range(10), kind=messages.EVALUATE)
    with pytest.raises(SnowdropError, match=r"The results in .* stay as they were"):
        run_here(given, grid)
    assert (tmp_path / "summary.json").read_bytes() == before
    assert run_here(given)["tested_users"] > 0


def test_a_training_is_kept_until_another_one_in_its_place_has_a_round(
    data_folder: Path, tmp_path: Path
) -> None:
    given = run_values(data_folder, tmp_path, method="own-features", rounds=1, baselines=False)
    given |= {"nodes": 2, "round_retries": 0}
    run_here(given)
    fresh = {**given, "fresh": True}
    grid = SpoiltGrid(2, fresh, failing, bad=range(10))
    with pytest.raises(SnowdropError, match="a training that was here before is kept"):
        run_here(fresh, grid)
    old = run_here({**given, "resume": True})
    assert old["tested_users"] > 0
    assert run_here(fresh)["training"] != old["training"]


def test_features_are_fitted_once_for_a_run_and_its_frozen_twin(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[RunSettings] = []
    fit = FeatureTransform.fit

    def counted(warm: np.ndarray, settings: RunSettings) -> FeatureTransform:
        fitted.append(settings)
        return fit(warm, settings)

    monkeypatch.setattr(FeatureTransform, "fit", counted)
    run_here(run_values(data_folder, tmp_path, rounds=1, twin=True, method="ridge"))
    assert len(fitted) == 1


def test_fresh_begins_the_frozen_twin_anew_too(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, rounds=2, twin=True, method="ridge")
    run_here(values)
    former = state_of(tmp_path / "frozen", 2)["id"]
    run_here({**values, "rounds": 1, "fresh": True})
    assert state_of(tmp_path / "frozen", 1)["id"] != former
    assert not (tmp_path / "frozen" / "checkpoint" / "round-000002.ckpt").exists()


def test_bytes_of_a_run_are_medians_of_what_was_counted() -> None:
    history = [{"node_bytes_down": n, "node_bytes_up": 2 * n} for n in (90, 10, 20)]
    history[0] |= {"bytes_down": 300, "bytes_up": 7}
    history[2] |= {"bytes_down": 30, "bytes_up": 5}
    expected = {
        "bytes_down_per_node_and_round": 20, "bytes_up_per_node_and_round": 40,
        "bytes_down": 330, "bytes_up": 12,
    }  # fmt: skip
    assert traffic([{"round": 1}, *history]) == expected
    assert set(traffic([]).values()) == {0}


def test_timings_are_medians_of_what_happened() -> None:
    history = [{"train_seconds": s} for s in (1.0, 5.0, 2.0)]
    assert timings(history) == {
        "round_seconds_median": 2.0,
        "generator_seconds_median": None,
        "evaluate_seconds_median": None,
    }


def falling(self: Task, replies: Any, rankings: int) -> Any:
    """Stands for `Task.means`: each evaluation is worse than the one before it."""
    falling.asked += 1  # type: ignore[attr-defined]
    worse = {"recall@20": 1 / falling.asked}  # type: ignore[attr-defined]
    return [({**metrics, **worse}, users) for metrics, users in MEANS(self, replies, rankings)]


MEANS = Task.means


def test_the_best_validated_round_is_tested_and_recommended(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling.asked = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(Task, "means", falling)
    values = run_values(data_folder, tmp_path, keep_rounds=2, rounds=6, baselines=False)
    grid = SpoiltGrid(2, values, untouched)
    summary = run_here(values, grid)
    assert summary["best_round"] == 2
    kept = sorted(p.name for p in (tmp_path / "checkpoint").glob("*.ckpt"))
    assert kept == [f"round-{number:06d}.ckpt" for number in (2, 5, 6)]
    requests = [messages.EvaluateRequest.from_record(m.content) for m in grid.of(messages.EVALUATE)]
    tests = [(r.round, k.arrays) for r in requests for k in r.rankings() if k.split == "test"]
    assert {number for number, _ in tests} == {2}
    asked = [
        messages.RecommendRequest.from_record(m.content) for m in grid.of(messages.QUERY_RECOMMEND)
    ]
    assert {request.round for request in asked} == {2}
    tested = torch.from_numpy(tests[0][1]["items"])
    made = {n: cold_table(values, state_of(tmp_path, n)) for n in (2, 6)}
    torch.testing.assert_close(tested, made[2])
    assert not torch.allclose(tested, made[6])
    assert len(rounds_of(tmp_path)) == 6


def cold_table(values: dict[str, Any], state: dict[str, Any]) -> torch.Tensor:
    """What the generator of a checkpoint makes of the test items."""
    from common.settings import RunSettings
    from server_app.items import load_catalogue, world_of
    from server_app.methods import ItemTable

    settings = RunSettings.parse(values)
    world = world_of(settings, load_catalogue(settings), torch.device("cpu"))
    training = Training.begin(world)
    training.restore(state)
    assert isinstance(training.method, ItemTable)
    return training.method.cold_table("test")


@pytest.mark.parametrize("method", ["cs-fcf", "cs-fedncf", "ifedncf", "own-features"])
def test_every_kind_of_trained_method_runs_end_to_end(
    data_folder: Path, tmp_path: Path, method: str
) -> None:
    summary = run_here(run_values(data_folder, tmp_path, method=method, baselines=False))
    assert summary["best_round"] in (2, 4)
    assert 0 <= summary["test"]["recall@20"] <= 1
    assert summary["recommended_users"] == 60


def test_without_validation_items_the_last_round_is_tested(
    data_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    header, *rows = (data_folder / "items.csv").read_text().splitlines()
    splits = ["warm"] * 50 + ["test"] * 30
    lines = [f"{header},split", *(f"{r},{s}" for r, s in zip(rows, splits, strict=True))]
    (data / "items.csv").write_text("\n".join(lines) + "\n")
    (data / "interactions.csv").write_bytes((data_folder / "interactions.csv").read_bytes())
    summary = run_here(run_values(data, tmp_path / "run", rounds=2, baselines=False))
    assert summary["best_round"] is None
    assert "validation" not in summary
    assert summary["recommended_users"] > 0


def test_too_few_nodes_are_one_sentence(data_folder: Path, tmp_path: Path) -> None:
    values = run_values(data_folder, tmp_path, nodes=3, nodes_timeout=0.05)
    with pytest.raises(SnowdropError, match=r"2 of 3 nodes came within 0\.05 s"):
        run_here(values, InProcessGrid(2, values))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [("relative/folder", "must be an absolute path"), ("/no/such/folder", "does not exist")],
)
def test_a_wrong_data_folder_is_one_sentence(tmp_path: Path, data: str, sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        run_here({"data": data, "run_dir": str(tmp_path)})
