"""`snowdrop attack inversion`, as a user calls it."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.attack.inversion import GROUP
from cli.attack.inversion_page import _radar
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
    check_page(visit, DESKTOP["width"], least=4)


def test_the_radar_has_a_perfect_copy_at_its_edge_and_a_guess_at_its_centre() -> None:
    measures = {"cosine": 1.0, "pearson": 1.0, "mse": 0.0, "mae": 0.0, "structure": 0.0}
    guess = {"cosine": 0.0, "pearson": 0.0, "mse": 1.2, "mae": 1.0, "structure": 1.0}
    (figure,) = _radar([{"method": "copy", **measures}, {"method": "guess", **guess}])
    assert figure.rows[0][1:] == ("1.000",) * 4
    assert figure.rows[1][1:] == ("0.000", "0.000", "-0.200", "0.000")
    edge, centre = re.findall(r'class="line" d="M([^"]*)z"', figure.svg)
    x0, y0 = 210.0, 142.0
    for line, far in ((edge, 104.0), (centre, 0.0)):
        points = [tuple(map(float, point.split())) for point in line.split("L")]
        assert [math.hypot(x - x0, y - y0) for x, y in points] == pytest.approx([far] * 4, abs=0.1)
    assert _radar([]) == []


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
