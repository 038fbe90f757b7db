"""The whole command, with a synthesizer of another package: trainings shared, runs gone on with."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy.sparse import csr_array
from typer.testing import CliRunner

import cli.bench_synthetic.work
from cli.bench_synthetic import bench_synthetic, command
from cli.bench_synthetic.evaluation import evaluate
from cli.bench_synthetic.names import METRICS
from cli.bench_synthetic.protocol import World
from cli.bench_synthetic.recommenders import recommender
from cli.bench_synthetic.runs import Ticker, read_sample, write_sample
from cli.bench_synthetic.work import TRAINING_EFFORT
from cli.commands import app
from client_app.synthesis import synthesizer_of
from client_app.synthesis.base import Sample
from client_app.synthesis.silo import Silo
from common.errors import SnowdropError
from tests.synthesizers import Drawn, DrawnSettings

ROOT = Path(__file__).parents[3]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, drawn: Any) -> list[Silo]:
    """Everything is made in this process; the silos that a synthesizer was trained on."""
    trained: list[Silo] = []
    fit = Drawn.fit

    def counted(self: Drawn, silo: Silo, *given: Any, **more: Any) -> None:
        trained.append(silo)
        fit(self, silo, *given, **more)

    def call(work: Callable[..., Any], arguments: tuple[Any, ...], watch: Any, *_: Any) -> Any:
        watch()
        return work(*arguments)

    monkeypatch.setattr(Drawn, "fit", counted)
    monkeypatch.setattr(command, "in_own_process", call)
    return trained


def table_of(out: Path) -> pl.DataFrame:
    return pl.read_csv(out / "results.csv")


def numbers(table: pl.DataFrame) -> pl.DataFrame:
    """What does not depend on how quick a machine is."""
    return table.select("protocol", "mode", "recommender", "method", "run", *METRICS)


def test_a_comparison_has_all_rows_and_trains_each_synthesizer_once_a_run(
    users: Path, tmp_path: Path, here: list[Silo], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    multi = "drawn@drawn.sampling=multi"
    bench_synthetic(users, out, f"drawn,{multi},drawn:paper", seeds=2, device="cpu")
    world = World.read(users)
    # One training per run of the first two rows together, and of the third one per protocol.
    assert len(here) == 2 + 2 * 2
    clean = [silo for silo in here if silo.watched is None]
    assert len(clean) == 2
    assert all((silo.likes != world.train.likes).nnz == 0 for silo in clean)
    table = table_of(out)
    cells = table.group_by("method", "recommender").len().rows()
    assert sorted(cells) == [
        ("drawn", "svd", 8), ("drawn:paper", "svd", 8), (multi, "svd", 8),
        ("original", "popular", 2), ("original", "svd", 4),
    ]  # fmt: skip
    assert table["recall@10"].null_count() == 0
    assert table.filter(pl.col("method") == multi)["likes_per_user"].mean() < 0.7 * (
        table.filter(pl.col("method") == "drawn")["likes_per_user"].mean()  # type: ignore[operator]
    )

    # A cell is what its parts give.
    row = table.filter(method="drawn", protocol="likes", mode="replace", run=1).row(0, named=True)
    maker = synthesizer_of("drawn", DrawnSettings(epochs=2), world.items)
    maker.fit(world.silo("likes", False), 1)
    made = maker.sample(len(world.train.users), 1)
    svd = recommender("svd")(False, torch.device("cpu"))
    expected = evaluate(world, svd, "replace", 1, made)
    assert {name: row[name] for name in METRICS} == pytest.approx(expected)

    text = (out / "results.md").read_text()
    for told in ("## published", "## likes", "table 3", "table 4", "| most popular | Original |",
                 "48 users to train on", "over 2 runs", "drawn:paper"):  # fmt: skip
        assert told in text
    assert "drawn:paper" in (out / "report.html").read_text()
    shown = capsys.readouterr()
    assert "30 cells, 0 of them are there already" in shown.out
    assert "results are in" in shown.out
    assert not list(out.glob("runs/*/training"))
    assert not list(out.glob("runs/*/now"))


def test_only_what_is_missing_is_made(users: Path, tmp_path: Path, here: list[Silo]) -> None:
    out = tmp_path / "out"
    bench_synthetic(users, out, "drawn", seeds=1, modes="augment", device="cpu")
    assert len(here) == 1
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*")}
    bench_synthetic(users, out, "drawn", seeds=2, device="cpu")
    assert len(here) == 2  # the second run alone; the first has its sample
    for path, moment in before.items():
        assert path.stat().st_mtime_ns == moment
    assert table_of(out).height == 2 * (4 + 2) + 2


def test_the_former_name_of_seeds_counts(users: Path, tmp_path: Path, here: list[Silo]) -> None:
    given = ["--methods", "original", "--device", "cpu", "--runs", "2"]
    call = ["bench-synthetic", str(users), "--out", str(tmp_path / "out"), *given]
    assert CliRunner().invoke(app, call).exit_code == 0
    assert table_of(tmp_path / "out")["run"].unique().sort().to_list() == [0, 1]


def test_a_comparison_that_was_stopped_goes_on_to_the_same_numbers(
    users: Path, tmp_path: Path, here: list[Silo], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    bench_synthetic(users, whole, "drawn", seeds=2, device="cpu")
    told = r"stopped; 7 of 14 cells.*the same command goes on"
    with monkeypatch.context() as patch, pytest.raises(SnowdropError, match=told):
        stop_after(7, patch)
        bench_synthetic(users, cut, "drawn", seeds=2, device="cpu")
    assert "cells are missing" in (cut / "results.md").read_text()
    assert "not made yet" in table_of(cut)["reason"].to_list()
    bench_synthetic(users, cut, "drawn", seeds=2, device="cpu")
    assert numbers(table_of(cut)).equals(numbers(table_of(whole)))


def stop_after(cells: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes when so many cells are made."""
    made = [0]

    def interrupted(*given: Any) -> dict[str, float]:
        if made[0] == cells:
            raise KeyboardInterrupt
        made[0] += 1
        return evaluate(*given)

    patch.setattr(cli.bench_synthetic.work, "evaluate", interrupted)


def test_a_training_that_was_stopped_goes_on(users: Path, tmp_path: Path, here: list[Silo]) -> None:
    out = tmp_path / "out"
    name = "drawn@drawn.interrupt=1"
    with pytest.raises(SnowdropError, match="stopped"):
        bench_synthetic(users, out, name, seeds=1, device="cpu")
    assert [path.read_text() for path in out.glob("runs/drawn*/training/epoch")] == ["1"]
    bench_synthetic(users, out, name, seeds=1, device="cpu")
    other = tmp_path / "other"
    bench_synthetic(users, other, "drawn@drawn.copies=0", seeds=1, device="cpu")
    mine, others = (
        table_of(folder).filter(pl.col("recommender") == "svd").select(METRICS)
        for folder in (out, other)
    )
    assert mine.equals(others)


def test_a_row_that_cannot_be_made_says_why_and_the_others_are_made(
    users: Path, tmp_path: Path, here: list[Silo], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    bench_synthetic(users, out, "drawn@drawn.overflow=true,drawn", seeds=2, device="cpu")
    text = (out / "results.md").read_text()
    why = "the loss is no number; give a smaller learning rate"
    assert f"| SVD | drawn@drawn.overflow=true | – ({why})" in text
    assert f"did not run: drawn@drawn.overflow=true: {why}" in capsys.readouterr().out
    table = table_of(out)
    failed = table.filter(pl.col("method") == "drawn@drawn.overflow=true")
    assert set(failed["reason"]) == {why}
    assert set(table.filter(pl.col("method") == "drawn")["reason"]) == {""}
    assert why in (out / "report.html").read_text()


def test_when_all_named_methods_fail_the_tables_of_real_users_are_written(
    users: Path, tmp_path: Path, here: list[Silo], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    told = rf"^every named method failed; the first: the loss is no number.*real users are in {out}"
    with pytest.raises(SnowdropError, match=told):
        bench_synthetic(users, out, "drawn@drawn.overflow=true", seeds=1, device="cpu")
    assert "did not run: drawn@drawn.overflow=true" in capsys.readouterr().out
    real = table_of(out).filter(method="original")
    assert real["recall@10"].null_count() == 0
    assert "the loss is no number" in (out / "results.md").read_text()
    assert (out / "report.html").exists()


def test_progress_never_goes_back(
    users: Path, tmp_path: Path, here: list[Silo], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, float]] = []
    monkeypatch.setattr(Ticker, "tell", lambda _, now, done: told.append((now, done)))
    bench_synthetic(users, tmp_path / "out", "drawn", seeds=1, protocols="likes", device="cpu")
    first = next(at for at, (now, _) in enumerate(told) if now == "doing nothing")
    done = [part for _, part in told[first:]]
    assert done == sorted(done)
    assert dict(told)["drawing"] == TRAINING_EFFORT


def test_a_recommender_that_fails_does_not_stop_the_others(
    users: Path, tmp_path: Path, here: list[Silo], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(world: World, model: Any, mode: str, *given: Any) -> dict[str, float]:
        if mode == "replace":
            raise MemoryError
        return evaluate(world, model, mode, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(cli.bench_synthetic.work, "evaluate", scarce)
    out = tmp_path / "out"
    bench_synthetic(users, out, "drawn", seeds=1, device="cpu")
    reasons = table_of(out).select("mode", "reason").unique().rows()
    assert ("replace", "there is not enough memory for it") in reasons
    assert ("augment", "") in reasons


def test_when_all_fail_the_first_reason_is_told(
    users: Path, tmp_path: Path, here: list[Silo], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> dict[str, float]:
        raise SnowdropError("no luck")

    monkeypatch.setattr(cli.bench_synthetic.work, "evaluate", failing)
    with pytest.raises(SnowdropError, match="every cell failed; the first: no luck"):
        bench_synthetic(users, tmp_path / "out", "drawn", seeds=1, device="cpu")


def test_other_numbers_of_users_and_other_data_are_other_samples(
    users: Path, tmp_path: Path, here: list[Silo]
) -> None:
    out = tmp_path / "out"
    given: dict[str, Any] = {"runs": 1, "protocols": "likes", "modes": "replace", "device": "cpu"}
    bench_synthetic(users, out, "drawn", users=7, **given)
    shapes = [read_sample(path)[0].likes.shape[0] for path in out.glob("runs/*/sample-*")]
    assert shapes == [7]
    bench_synthetic(users, out, "drawn", **given)
    shapes = [read_sample(path)[0].likes.shape[0] for path in out.glob("runs/*/sample-*")]
    assert sorted(shapes) == [7, 48]
    folders = len(list(out.glob("runs/drawn*")))
    with (users / "train.csv").open("a") as file:
        file.write("0,29,1\n")
    bench_synthetic(users, out, "drawn", **given)
    assert len(list(out.glob("runs/drawn*"))) == folders + 1


def test_what_is_kept_is_trained_once_for_later_samplings(
    users: Path, tmp_path: Path, here: list[Silo], drawn: Any
) -> None:
    out = tmp_path / "out"
    bench_synthetic(users, out, "drawn", seeds=1, keep=True, device="cpu")
    assert [path.name for path in out.glob("runs/drawn*/training/*")] == ["epoch"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"chosen": "ridge"}, "ridge makes no synthetic users"),
        ({"recommenders": "knn"}, "some of svd, mlp, neumf"),
        ({"protocols": "leaky"}, "--protocols 'leaky' must be some of published, likes"),
        ({"modes": ""}, "--modes '' must be some of augment, replace"),
        ({"set_": ["dim=3"]}, "no setting of a synthesizer"),
        ({"device": "abacus"}, "--device"),
        ({"tuned": [Path("nowhere.toml")]}, "cannot read nowhere.toml"),
        ({"data": Path("nowhere")}, "train.csv is missing"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    users: Path, tmp_path: Path, here: list[Silo], options: dict[str, Any], told: str
) -> None:
    out = tmp_path / "out"
    given: dict[str, Any] = {"data": users, "out": out, "chosen": "drawn", **options}
    with pytest.raises(SnowdropError, match=told):
        bench_synthetic(**{"device": "cpu", **given})
    assert not out.exists()


def test_a_folder_that_is_taken_is_refused(users: Path, tmp_path: Path, here: list[Silo]) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(SnowdropError, match="is a file; give a folder"):
        bench_synthetic(users, tmp_path / "out", "drawn", device="cpu")


def test_samples_are_read_as_they_were_written(tmp_path: Path) -> None:
    likes = np.random.default_rng(0).random((4, 6)) < 0.4
    path = tmp_path / "sample.npz"
    write_sample(path, Sample(csr_array(likes), csr_array(~likes)), {"train_seconds": 1.5})
    sample, told = read_sample(path)
    assert (sample.likes.toarray() == likes).all()
    assert (sample.dislikes.toarray() == ~likes).all()
    assert sample.likes.dtype == bool
    assert told == {"train_seconds": 1.5}
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SnowdropError, match="is damaged; delete it"):
        read_sample(path)


def test_a_damaged_cell_is_told(users: Path, tmp_path: Path, here: list[Silo]) -> None:
    out = tmp_path / "out"
    bench_synthetic(users, out, "original", seeds=1, device="cpu")
    path = next(out.glob("runs/*/*-svd-*.json"))
    told = json.loads(path.read_text())
    assert {"format", "method", "metrics", "seconds"} <= set(told)
    path.write_text(json.dumps({**told, "format": 99}))
    with pytest.raises(SnowdropError, match="of another release"):
        bench_synthetic(users, out, "original", seeds=1, device="cpu")
    path.write_text("{")
    with pytest.raises(SnowdropError, match="is damaged; delete it to make it anew"):
        bench_synthetic(users, out, "original", seeds=1, device="cpu")


@pytest.mark.slow
def test_the_command_as_a_process(users: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "bench-synthetic", str(users), "--methods", "original",
         "--seeds", "2", "--jobs", "2", "--out", str(out)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=280, check=True,
    )  # fmt: skip
    assert "6 of 6 cells done" in done.stderr
    assert "most popular" in done.stdout
    assert table_of(out)["recall@10"].null_count() == 0
