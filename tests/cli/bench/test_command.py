"""What `snowdrop bench` tells while it makes runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli import progress
from cli.bench import command
from cli.bench.methods import choose
from cli.bench.runs import Run, plan
from common.errors import SnowdropError


def test_it_tells_how_far_the_run_under_way_is_and_which_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = plan(choose("ridge,random", False), [0], "demo", tmp_path, {}, {})
    names = [run.chosen.name for run in runs]

    def execute(run: Run, keep: bool, watch: Callable[[float], None]) -> None:
        watch(0.25)
        seen.wait(10)
        if run.chosen.name == names[0]:
            raise SnowdropError("it failed")

    seen = command.threading.Event()
    shown = progress.Progress.update

    def update(self: progress.Progress, *given: object, **more: object) -> None:
        shown(self, *given, **more)  # type: ignore[arg-type]
        if "25 %" in str(more["now"]):
            seen.set()

    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(progress.Progress, "update", update)
    monkeypatch.setattr(command, "execute", execute)
    assert command.make(runs, keep=False, jobs=1) == ["it failed"]
    told = capsys.readouterr().err
    assert f"0 of {len(runs)} runs done · {names[0]}, seed 0, 25 % of its rounds" in told
    assert f"{len(runs)} of {len(runs)} runs done" in told


def test_seeds_begin_where_the_command_says(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def execute(run: Run, keep: bool, watch: Callable[[float], None]) -> None:
        made.append((run.chosen.name, run.seed, run.settings.seed))
        raise SnowdropError("not made")

    monkeypatch.setattr(command, "execute", execute)
    with pytest.raises(SnowdropError, match="every run failed"):
        command.bench(str(data_folder), tmp_path, "ridge", seeds=2, first_seed=3, twins=False)
    assert [one for one in made if one[0] == "ridge"] == [("ridge", 3, 3), ("ridge", 4, 4)]


def test_methods_are_compared_on_a_task_that_the_default_method_does_not_know(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def execute(run: Run, keep: bool, watch: Callable[[float], None]) -> None:
        made.append((run.chosen.name, run.settings.task))
        raise SnowdropError("not made")

    monkeypatch.setattr(command, "execute", execute)
    with pytest.raises(SnowdropError, match="every run failed"):
        command.bench(str(data_folder), tmp_path, "pfedrec", seeds=1, twins=False)
    assert ("pfedrec", "last-warm-item") in made


def test_a_run_without_many_rounds_takes_more_than_its_rounds(tmp_path: Path) -> None:
    runs = plan(choose("ridge,one-round", False), [0], "demo", tmp_path, {}, {"rounds": 30})
    work = {run.chosen.name: run.work for run in runs}
    assert work["ridge"] - work["random"] == 30
    assert work["random"] > 0


def test_the_results_name_the_methods_that_have_another_value_than_all_were_given(
    tmp_path: Path,
) -> None:
    shared = {"rounds": 3, "dim": 8, "modality": "text+image"}
    compared = choose("one-round,mdifffr@dim=16", True)
    told = command._given(shared, [], plan(compared, [0, 1], "demo", tmp_path, {}, shared))
    assert told == (
        "Given to all methods: `rounds=3`, `dim=8`, `modality=text+image`. "
        "These have another `rounds`: one-round (1), one-round:frozen (1). "
        "These have another `dim`: mdifffr@dim=16 (16), mdifffr:frozen@dim=16 (16)."
    )


def test_a_comparison_that_is_refused_leaves_no_folder(data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "compared"
    with pytest.raises(SnowdropError, match="cannot read"):
        command.bench(str(data_folder), out, "ridge", tuned=[tmp_path / "missing.toml"])
    assert not out.exists()
