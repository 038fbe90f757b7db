"""Methods of another's package, `tests/outside_method`: installed, and used by real commands."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from common import methods
from common.errors import SnowdropError
from tests.server_app.encoders import Themes

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "outside_method"
QUICK = {
    "dim": 8, "rounds": 2, "evaluate_every": 1, "mdifffr.fit_steps": 4, "mdifffr.width": 16,
    "mdifffr.steps": 4,
}  # fmt: skip

POWERS = (1, 8)

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Installed:
    """The package in a folder of its own, and a data folder that needs no encoder."""

    site: Path
    data: Path
    home: Path

    def snowdrop(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """A real command with the package on its path."""
        return run_snowdrop(self.site, self.home, *arguments)


def run_snowdrop(site: Path, home: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path, "HOME": str(home), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip


def settings(**others: object) -> list[str]:
    """``--set`` for each setting of a small run."""
    pairs = {**QUICK, **others}
    return [part for name, value in pairs.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Installed:
    """The package as pip installs it, without a network."""
    home = tmp_path_factory.mktemp("outside")
    shutil.copytree(PACKAGE, home / "source")  # building leaves files there
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--no-index", "--no-build-isolation", "--target", home / "site",
            home / "source",
        ],
        check=True, timeout=200,
    )  # fmt: skip
    shutil.copytree(data_folder, home / "data")
    titles = pl.read_csv(home / "data" / "items.csv")["title"].to_list()
    np.save(home / "data" / "text.features.npy", Themes().encode(titles))
    return Installed(home / "site", home / "data", home)


@pytest.fixture(scope="module")
def compared(there: Installed) -> pl.DataFrame:
    """``results.csv`` of a comparison of the package's methods with MDiffFR."""
    own = [f"nearest-own@nearest-own.power={power}" for power in POWERS]
    written = ",".join(["mdifffr", *own, "nearest-warm"])
    out = there.home / "out"
    done = there.snowdrop(
        "bench", there.data, "--out", out, "--methods", written, "--seeds", 1, *settings()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "report.html").stat().st_size
    return pl.read_csv(out / "results.csv")


def test_bench_compares_methods_of_another_package(compared: pl.DataFrame) -> None:
    rows = {row["method"]: row for row in compared.iter_rows(named=True)}
    kinds = {name: row["kind"] for name, row in rows.items()}
    for name in ("mdifffr", "mdifffr:frozen", "nearest-warm", "nearest-warm:frozen"):
        assert kinds[name] == "trained"
    own = ["nearest-own", "nearest-own@nearest-own.power=1", "nearest-own@nearest-own.power=8"]
    assert [kinds[name] for name in own] == ["rule"] * 3
    assert rows["nearest-warm:frozen"]["twin_of"] == "nearest-warm"
    assert rows["nearest-warm"]["test_recall@20"] > rows["random"]["test_recall@20"]
    assert compared["test_recall@20"].is_between(0, 1).all()


def test_the_node_reads_the_setting_of_the_method(there: Installed, compared: pl.DataFrame) -> None:
    """Recall of the rule, worked out here from files alone."""
    found = dict(compared.select("method", "test_recall@20").iter_rows())
    for power in POWERS:
        name = f"nearest-own@nearest-own.power={power}"
        assert found[name] == pytest.approx(expected_recall(there, power), abs=1e-6)
    assert len({found[f"nearest-own@nearest-own.power={power}"] for power in POWERS}) == 2


def expected_recall(there: Installed, power: float) -> float:
    """Recall@20 over test items of users with a warm and a test item."""
    from common.catalogue import read_catalogue

    catalogue = read_catalogue(there.data, seed=0)
    warm, test = catalogue.rows("warm"), catalogue.rows("test")
    features = np.load(there.data / "text.features.npy").astype(np.float64)
    features = features[np.asarray(catalogue.file_rows or range(len(features)))]
    unit = features - features[warm].mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    test = np.array(sorted(test, key=lambda row: catalogue.ids[row]))  # ids break ties
    row_of = {item: row for row, item in enumerate(catalogue.ids)}
    recalls = []
    frame = pl.read_csv(there.data / "interactions.csv").unique(["user_id", "item_id"])
    for (_,), own in frame.group_by("user_id"):
        rows = {row_of[item] for item in own["item_id"]}
        history, wanted = rows & set(warm.tolist()), rows & set(test.tolist())
        if history and wanted:
            scores = (np.maximum(unit[test] @ unit[list(history)].T, 0) ** power).sum(1)
            best = set(test[np.argsort(-scores, kind="stable")[:20]].tolist())
            recalls.append(len(best & wanted) / len(wanted))
    return float(np.mean(recalls))


def test_a_simulation_hands_its_setting_to_every_process(
    there: Installed, compared: pl.DataFrame
) -> None:
    run_dir = there.home / "simulated"
    chosen = ["--set", "method=nearest-own", "--set", "nearest-own.power=8"]
    done = there.snowdrop(
        "simulate", there.data, "--run-dir", run_dir, "--nodes", 2, *chosen,
        "--set", "baselines=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((run_dir / "settings.json").read_text())["nearest-own.power"] == 8
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["method"], summary["kind"]) == ("nearest own items", "rule")
    found = dict(compared.select("method", "test_recall@20").iter_rows())
    expected = found["nearest-own@nearest-own.power=8"]
    assert summary["test"]["recall@20"] == pytest.approx(expected, abs=1e-9)
    assert "new items for user-" in done.stdout


def test_other_commands_know_the_method(there: Installed) -> None:
    listed = there.snowdrop("settings", "--methods").stdout
    assert "nearest own items" in listed and "nearest warm item" in listed
    shown = there.snowdrop("settings", "--method", "nearest-own").stdout
    assert "nearest-own.power" in shown
    done = there.snowdrop(
        "simulate", there.data, "--run-dir", there.home / "refused", "--set", "method=nearest-own",
        "--set", "nearest-own.power=0",
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("snowdrop: setting 'nearest-own.power' is 0: ")


BROKEN = {
    "theirs = nowhere_to_be_found:CARD": "the method 'theirs' of another package cannot be loaded",
    "theirs = common.methods.card:Card": "must load to the Card of a method of that name",
    "other = common.methods.ridge:CARD": "the entry point 'other' of snowdrop.methods must load",
    "ridge = common.methods.ridge:CARD": "the method 'ridge' of another package .* is in use",
}


@pytest.fixture
def fresh_cards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Methods are looked for anew, in other packages too."""
    with monkeypatch.context() as patch:
        patch.setattr(methods, "entry_points", entry_points)
        methods.cards.cache_clear()
        yield
    methods.cards.cache_clear()


def announce(site: Path, entry_point: str) -> None:
    """A package that has nothing but an entry point."""
    folder = site / "broken-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[snowdrop.methods]\n{entry_point}\n")


@pytest.mark.parametrize("entry_point", BROKEN)
@pytest.mark.usefixtures("fresh_cards")
def test_a_broken_entry_point_is_one_sentence(
    entry_point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(tmp_path, entry_point)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(SnowdropError, match=BROKEN[entry_point]):
            methods.cards()


def test_a_command_says_that_sentence(tmp_path: Path) -> None:
    announce(tmp_path / "site", "theirs = nowhere_to_be_found:CARD")
    done = run_snowdrop(tmp_path / "site", tmp_path, "settings")
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence == (
        "snowdrop: the method 'theirs' of another package cannot be loaded from "
        "nowhere_to_be_found:CARD: No module named 'nowhere_to_be_found'"
    )
