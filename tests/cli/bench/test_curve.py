"""The curve against the number of users in the federation."""

from pathlib import Path

import polars as pl
import pytest

from cli.bench.curve import Curve, curve_table
from cli.bench.methods import choose
from cli.bench.results import write_results
from cli.bench.runs import perform, plan
from cli.report import make_report
from common.errors import SnowdropError
from tests.cli.conftest import QUICK

USERS = 60


def test_points_are_numbers_of_users_in_order(data_folder: Path) -> None:
    curve = Curve.parse("users = 30, all,12,30", str(data_folder))
    assert (curve.users, curve.everyone) == ((12, 30, USERS), USERS)


def test_each_trained_method_has_a_row_for_each_smaller_federation(data_folder: Path) -> None:
    curve = Curve.parse("users=12,30,all", str(data_folder))
    before = choose("ridge,mdifffr@dim=8", True)
    names = [chosen.name for chosen in curve.extended(before)]
    assert [name for name in names if "federated" not in name] == [one.name for one in before]
    assert [name for name in names if "federated" in name] == [
        "ridge@federated=0.2", "ridge@federated=0.5",
        "mdifffr@dim=8@federated=0.2", "mdifffr@dim=8@federated=0.5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("300", "--curve is written users=300,1000,all, not '300'"),
        ("items=300", "--curve is written users=300,1000,all, not 'items=300'"),
        ("users=", "--curve is written users=300,1000,all, not 'users='"),
        ("users=300,many", "'many' is no number of users above 0"),
        ("users=0", "'0' is no number of users above 0"),
        ("users=30,61", "the data has 60 users, 61 are more"),
    ],
)
def test_a_curve_that_cannot_be_is_refused(data_folder: Path, text: str, sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        Curve.parse(text, str(data_folder))


def test_a_federation_of_whom_each_round_draws_some_has_more_users_than_a_round(
    data_folder: Path, tmp_path: Path
) -> None:
    chosen = choose("softmax-table@fraction=0.25", True)
    runs = plan(chosen[:1], [0], str(data_folder), tmp_path, {}, QUICK | {"rounds": 12})
    for run in runs:
        perform(run)
    (number,) = write_results(runs, tmp_path)["federation_users"]
    assert abs(number - USERS) < USERS / 4


def test_the_table_of_a_curve(data_folder: Path, tmp_path: Path) -> None:
    curve = Curve.parse("users=20,all", str(data_folder))
    chosen = curve.extended(choose("one-round", True))
    runs = plan(chosen, [0], str(data_folder), tmp_path, {}, QUICK)
    for run in runs:
        perform(run)
    table = write_results(runs, tmp_path)
    lines = [line for line in curve_table(table).splitlines() if line.startswith("| ")][2:]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    ours = {users: recall for name, users, recall, _ in shown if name == "one-round"}
    number = table.filter(pl.col("method").str.contains("federated"))["federation_users"][0]
    assert set(ours) == {str(number), str(USERS)}
    assert 5 < number < 40
    assert ["one-round:frozen", "–"] in [row[:2] for row in shown]
    assert {"kernel-ridge", "content-profile"} <= {row[0] for row in shown}
    assert "random" not in {row[0] for row in shown}
    whole = table.filter(pl.col("method") == "one-round")["test_recall@20"][0]
    assert ours[str(USERS)] == f"{100 * whole:.2f}"
    assert "## The number of users in the federation" in (tmp_path / "results.md").read_text()
    make_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "Recall@20 against the number of users" in page
    assert f"<td>{100 * whole:.1f} %</td>" in page
    assert curve_table(table.filter(~pl.col("method").str.contains("federated"))) == ""
