"""A search on users who are never reported, and the file that a comparison takes."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.bench_synthetic import bench_synthetic, command, tuning, work
from cli.bench_synthetic.evaluation import evaluate
from cli.bench_synthetic.methods import Row, read_tuned
from cli.bench_synthetic.protocol import World
from cli.bench_synthetic.recommenders import recommender
from cli.bench_synthetic.tuning import TUNED, keep, tune_synthetic
from cli.bench_synthetic.work import worth
from cli.tune import tune
from client_app.synthesis.silo import Silo
from common import methods
from common.errors import SnowdropError
from common.methods import Card
from common.methods.search import Number, OneOf
from tests import synthesizers
from tests.synthesizers import Drawn, DrawnSettings


@pytest.fixture
def searchable(monkeypatch: pytest.MonkeyPatch, drawn: Card) -> Card:
    """The method ``drawn``, with a search."""
    space = {"drawn.copies": Number(0.01, 1), "drawn.epochs": OneOf([1, 2, 5])}
    found = replace(drawn, search=space)
    monkeypatch.setattr(synthesizers, "CARD", found)
    methods.cards.cache_clear()
    return found


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, searchable: Card) -> list[DrawnSettings]:
    """Trials run in this process; what each was run with."""
    found: list[DrawnSettings] = []

    def call(work: Callable[..., Any], arguments: tuple[Any, ...], watch: Any, *_: Any) -> Any:
        watch()
        if work is worth:
            found.append(arguments[1])
        return work(*arguments)

    monkeypatch.setattr(tuning, "in_own_process", call)
    monkeypatch.setattr(command, "in_own_process", call)
    return found


def test_a_search_finds_settings_that_a_comparison_takes(
    users: Path, tmp_path: Path, tried: list[DrawnSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    tune_synthetic(users, "drawn,drawn:paper", out, trials=4, device="cpu")
    assert len(tried) == 8  # as many for each
    assert [settings.epochs for settings in tried[:2]] == [2, 5]  # tuned, published
    tables = tomllib.loads((out / TUNED).read_text())
    assert set(tables["communities"]["svd"]) == {"drawn", "drawn:paper"}
    tuned = read_tuned([out / TUNED])
    best = Row.parse("drawn").settings(tuned, {}, "communities", "svd")
    assert best in tried[:4]
    assert "38 users to train on, 10 held out" in capsys.readouterr().out
    bench_synthetic(
        users, tmp_path / "bench", "drawn", seeds=1, tuned=[out / TUNED], device="cpu"
    )  # fmt: skip
    tune_synthetic(users, "drawn", out, trials=5, device="cpu")
    assert len(tried) == 9  # it goes on
    assert set(tomllib.loads((out / TUNED).read_text())["communities"]["svd"]) == {
        "drawn", "drawn:paper",
    }  # fmt: skip


def test_no_reported_user_takes_part(
    users: Path, tmp_path: Path, tried: list[DrawnSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    silos: list[Silo] = []
    fit = Drawn.fit

    def seen(self: Drawn, silo: Silo, *given: Any, **more: Any) -> None:
        silos.append(silo)
        fit(self, silo, *given, **more)

    monkeypatch.setattr(Drawn, "fit", seen)
    tune_synthetic(users, "drawn:paper", tmp_path / "out", trials=1, seeds=2, device="cpu")
    world = World.read(users)
    part = world.held_out_part(0.2, 0)
    assert len(silos) == 2
    assert (silos[0].likes != part.silo("likes", True).likes).nnz == 0
    assert silos[0].watched is not None
    assert silos[0].watched.shape[0] == len(part.reported.users) == 10
    assert set(part.reported.users) <= set(world.train.users)


def test_a_trial_is_worth_the_mean_over_modes_and_runs(
    users: Path, drawn: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.read(users)
    row, settings = Row.parse("drawn"), DrawnSettings(copies=0.5)

    def value(modes: list[str], runs: int) -> float:
        return worth(row, settings, world, "svd", modes, "likes", runs, 30, "cpu")  # type: ignore[arg-type]

    maker = Drawn("drawn", settings, world.items, torch.device("cpu"))
    maker.fit(world.silo("likes", False), 0)
    svd = recommender("svd")(False, torch.device("cpu"))
    expected = evaluate(world, svd, "replace", 0, maker.sample(30, 0))["recall@10"]
    assert value(["replace"], 1) == pytest.approx(expected)

    def by_run(world: World, model: Any, mode: str, run: int, *_: Any) -> dict[str, float]:
        return {"recall@10": run + 10 * (mode == "replace")}

    monkeypatch.setattr(work, "evaluate", by_run)
    assert value(["augment"], 3) == 1
    assert value(["augment", "replace"], 3) == 6


def test_what_is_set_is_not_searched(
    users: Path, tmp_path: Path, tried: list[DrawnSettings]
) -> None:
    given: dict[str, Any] = {"trials": 3, "set_": ["drawn.epochs=4"], "device": "cpu"}
    tune_synthetic(users, "drawn", tmp_path / "out", **given)
    assert {settings.epochs for settings in tried} == {4}
    found = tomllib.loads((tmp_path / "out" / TUNED).read_text())["communities"]["svd"]["drawn"]
    assert found["drawn"]["epochs"] == 4
    tune_synthetic(users, "drawn", tmp_path / "out", trials=1, device="cpu")
    assert len(tried) == 4  # another search


def test_trials_that_fail_count_and_the_last_reason_is_told(
    users: Path, tmp_path: Path, tried: list[DrawnSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {"trials": 2, "set_": ["drawn.overflow=true"], "device": "cpu"}
    with pytest.raises(SnowdropError, match="every trial of every method failed"):
        tune_synthetic(users, "drawn", tmp_path / "out", **given)
    assert "drawn: 2 of 2 trials failed; the last: the loss is no number" in capsys.readouterr().out


def test_a_search_that_was_stopped_says_so(
    users: Path, tmp_path: Path, tried: list[DrawnSettings]
) -> None:
    given: dict[str, Any] = {"trials": 2, "set_": ["drawn.interrupt=0"], "device": "cpu"}
    with pytest.raises(SnowdropError, match="stopped after 0 of 2 trials of drawn"):
        tune_synthetic(users, "drawn", tmp_path / "out", **given)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"chosen": "original"}, "original has no search; choose from .*drawn"),
        ({"chosen": "drawn@drawn.epochs=1"}, "give --set for a setting"),
        ({"chosen": ","}, "no method is named; choose from .*drawn"),
        ({"recommender": "svd,mlp"}, "--recommender takes one of svd, mlp"),
        ({"protocol": "both"}, "--protocol 'both' must be some of published, likes"),
        ({"data": Path("nowhere")}, "train.csv is missing"),
    ],
)
def test_bad_input_is_one_sentence(
    users: Path, tmp_path: Path, searchable: Card, options: dict[str, Any], told: str
) -> None:
    given: dict[str, Any] = {"data": users, "chosen": "drawn", "out": tmp_path / "out", **options}
    with pytest.raises(SnowdropError, match=told):
        tune_synthetic(**{"device": "cpu", **given})
    assert not (tmp_path / "out").exists()


def test_tables_stand_beside_each_other(tmp_path: Path, drawn: Card) -> None:
    path = tmp_path / TUNED
    keep(path, ["a.b", "svd", "drawn"], {"drawn.epochs": 3})
    keep(path, ["a.b", "mlp", "drawn:paper"], {"drawn.epochs": 4})
    keep(path, ["a.b", "svd", "drawn"], {"drawn.epochs": 5})
    found = read_tuned([path])["a.b"]
    assert found == {
        "svd": {"drawn": {"drawn": {"epochs": 5}}},
        "mlp": {"drawn:paper": {"drawn": {"epochs": 4}}},
    }


def test_the_search_for_other_methods_says_where_synthesizers_are_searched(
    tmp_path: Path, drawn: Card
) -> None:
    with pytest.raises(SnowdropError, match="`snowdrop tune-synthetic` searches it"):
        tune("demo", "drawn", tmp_path)
