"""A method for new items, trained on real users, on synthetic ones and on both."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cli.bench import command as benching
from cli.bench.methods import Chosen
from cli.bench.runs import Run, perform
from cli.bench_synthetic import bench_synthetic
from cli.bench_synthetic.cold_start import rows_of
from cli.bench_synthetic.methods import choose
from common.errors import SnowdropError
from tests.cli.conftest import QUICK


def test_each_synthesizer_stands_in_place_of_real_users_and_beside_them(drawn: Any) -> None:
    found = rows_of("ridge@head_lr=2", choose("drawn,drawn:copying@drawn.epochs=1"))
    assert found == [
        "ridge:frozen@head_lr=2",
        "ridge@head_lr=2",
        "ridge@head_lr=2@answer=synthetic@synthesizer=drawn",
        "ridge@head_lr=2@answer=both@synthesizer=drawn",
        "ridge@head_lr=2@answer=synthetic@synthesizer=drawn:copying@drawn.epochs=1",
        "ridge@head_lr=2@answer=both@synthesizer=drawn:copying@drawn.epochs=1",
    ]
    assert all(Chosen.parse(name).name == name for name in found)
    assert rows_of("ridge:paper", choose("drawn"))[0] == "ridge:frozen:paper"


@pytest.mark.parametrize("method", ["random", "kernel-ridge", "ridge:frozen", "drawn", "none"])
def test_only_methods_that_learn_from_users(method: str, drawn: Any) -> None:
    with pytest.raises(SnowdropError):
        rows_of(method, choose("drawn"))


def test_the_evaluation_on_demo_items(
    data_folder: Path, tmp_path: Path, drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(run: Run, keep: bool, watch: Any) -> None:
        perform(run)

    monkeypatch.setattr(benching, "execute", execute)
    given = [f"{k}={v}" for k, v in QUICK.items() if "." not in k]
    bench_synthetic(
        data_folder, tmp_path, "drawn", seeds=1, users=40, set_=given, cold_start="ridge"
    )
    table = pl.read_csv(tmp_path / "results.csv").filter(pl.col("kind") == "trained")
    rows = dict(table.select("method", "test_ndcg@20").rows())
    assert set(rows) == {
        "ridge:frozen", "ridge", "ridge@answer=synthetic@synthesizer=drawn",
        "ridge@answer=both@synthesizer=drawn",
    }  # fmt: skip
    assert len(set(rows.values())) == 4


def test_tuned_files_are_not_for_it(tmp_path: Path, drawn: Any) -> None:
    file = tmp_path / "tuned.toml"
    file.write_text("[drawn]\ndrawn.epochs = 1\n")
    with pytest.raises(SnowdropError, match="--tuned is not for --cold-start"):
        bench_synthetic(tmp_path, tmp_path, "drawn", tuned=[file], cold_start="ridge")
