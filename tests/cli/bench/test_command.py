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
    runs = plan(choose("ridge,random", False), 1, "demo", tmp_path, {}, {})
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
