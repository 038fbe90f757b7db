"""Flower's own commands: what is shown of a run's log."""

import sys
from pathlib import Path

import pytest

from common.errors import SnowdropError
from deploy import flower
from deploy.flower import Flower


@pytest.mark.parametrize(
    ("log", "verbose", "shown"),
    [
        (["INFO : starting", "round 1/2", "snowdrop: it failed", "Traceback"], False,
         ["round 1/2", "snowdrop: it failed"]),
        (["INFO : starting", ""], False, []),
        (["INFO : starting"], True, ["INFO : starting"]),
        ([], True, []),
    ],
)  # fmt: skip
def test_following_a_run_says_whether_anything_was_shown(
    log: list[str],
    verbose: bool,
    shown: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = tmp_path / "flwr"
    program.write_text(f"#!{sys.executable}\nfor line in {log!r}:\n    print(line)\n")
    program.chmod(0o755)
    monkeypatch.setattr(flower, "tool", lambda _: str(program))
    assert Flower({}, "here").follow("1", verbose) == bool(shown)
    assert capsys.readouterr().out.splitlines() == shown


@pytest.mark.parametrize(
    "printed",
    ["Using SuperLink: fed\n\nIt is not there.", '{"success": false, "error-message": "%s"}'],
)
def test_a_command_that_fails_tells_what_flower_said_without_its_noise(
    printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = printed.replace("%s", r"Using SuperLink: fed\n\nIt is not there.")
    program = tmp_path / "flwr"
    program.write_text(f"#!{sys.executable}\nprint({printed!r})\nraise SystemExit(1)\n")
    program.chmod(0o755)
    monkeypatch.setattr(flower, "tool", lambda _: str(program))
    with pytest.raises(SnowdropError, match=r"^flwr ls failed: It is not there\.$"):
        Flower({}, "fed").json("ls")
