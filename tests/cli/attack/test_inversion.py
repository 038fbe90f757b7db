"""`snowdrop attack inversion`, as a user calls it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.attack.inversion import GROUP
from cli.bench.methods import groups
from cli.commands import app
from common.errors import SnowdropError
from tests.cli.browser import DESKTOP, Visit, check_page
from tests.cli.conftest import QUICK

GIVEN = [f"--set={name}={value}" for name, value in QUICK.items()
         if name not in ("rounds", "evaluate_every")]  # fmt: skip


def invert(data: Path, out: Path, *options: object) -> list[dict[str, Any]]:
    """The entries of ``attack.json``; raises what the command refuses."""
    given = ["attack", "inversion", str(data), *GIVEN, "--out", str(out), *map(str, options)]
    result = CliRunner().invoke(app, given)
    if isinstance(result.exception, SnowdropError):
        raise result.exception
    assert result.exit_code == 0, result.output
    assert "Recall@20" in result.output
    entries: list[dict[str, Any]] = json.loads((out / "attack.json").read_text())["entries"]
    return entries


def test_the_methods_of_the_paper_are_compared() -> None:
    assert groups()[GROUP] == ("mdifffr", "ipfedrec", "ridge")


def test_methods_stand_side_by_side(
    data_folder: Path, tmp_path: Path, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.attack.features.EPOCHS", 25)
    entries = invert(data_folder, tmp_path, "--rounds", 2, "--methods", "mdifffr,ridge")
    assert {entry["method"] for entry in entries} == {"MDiffFR", "ridge map"}
    kinds = {(entry["method"], entry["noise"]) for entry in entries}
    assert ("MDiffFR", "sampling") in kinds and ("ridge map", "sampling") not in kinds
    ridge = [entry for entry in entries if entry["method"] == "ridge map"]
    assert ridge[0]["cosine"] > ridge[-1]["cosine"]  # the noise that is added hides features
    assert all(0 <= entry["recall@20"] <= 1 for entry in entries)
    visit = Visit(browser, tmp_path / "report.html", viewport=DESKTOP)
    check_page(visit, DESKTOP["width"], least=3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--known", 1], "--known is 1; give a share above 0 and below 1"),
        (["--methods", "pfedrec"], "makes no embeddings of cold items|cannot rank"),
        (["--methods", "nothing"], "'nothing' is unknown"),
        (["--set", "rounds=3"], "--set rounds: give --rounds"),
    ],
)
def test_what_cannot_be_is_refused(
    data_folder: Path, tmp_path: Path, options: list[object], sentence: str
) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        invert(data_folder, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
