"""What `snowdrop deploy status` shows."""

import io
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli.commands import app
from cli.deploy import down, up
from cli.deploy_status import age, certificate_line, local_time, run_line, status_table
from common.errors import SnowdropError
from common.settings import RunSettings
from deploy import local, supervisor
from deploy.federation import Federation
from server_app.run_folder import RunFolder


@pytest.fixture
def an_hour_east() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "CET-1")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("an_hour_east")
def test_the_table_of_processes_cuts_nothing() -> None:
    since = local_time("2026-11-24T21:50:05+00:00")
    assert since == "2026-11-24 22:50:05"
    name = "a-node-with-a-very-long-name-that-fits-no-column"
    table = status_table()
    table.add_row("superlink", "running", "1234567", "yes", "0", since, "59 min ago")
    usual = drawn(table)
    assert since in usual
    assert "59 min ago" in usual
    table.add_row(name, "running", "1234567", "yes", "0", since, "")
    assert "…" not in drawn(table)
    first = "".join(line.split()[0] for line in drawn(table).splitlines()[2:])
    assert name in first


def drawn(table: object) -> str:
    shown = io.StringIO()
    Console(file=shown, width=80).print(table)
    return shown.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s ago"), (59, "59 s ago"), (60, "1 min ago"), (7199, "1 h ago"), (90000, "1 d ago")],
)
def test_the_age_of_an_answer_is_in_its_largest_unit(seconds: int, said: str) -> None:
    moment = datetime.fromisoformat("2026-11-24T21:50:05+00:00")
    assert (
        age(moment.isoformat(), datetime.fromtimestamp(moment.timestamp() + seconds, moment.tzinfo))
        == said
    )
    assert (
        age(moment.isoformat(), datetime.fromtimestamp(moment.timestamp() - 5, moment.tzinfo))
        == "0 s ago"
    )


def test_a_run_is_told_in_one_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run_line(run, False) == f"run: none yet in {tmp_path}"
    assert run_line(run, True).startswith(f"run: under way, with nothing in {tmp_path} yet")
    run.write_settings(RunSettings.parse({"rounds": 8, "run_dir": str(tmp_path)}))
    assert run_line(run, True) == "run: round 0 of 8 · under way"
    row = {"round": 2, "validation_recall@20": 0.25, "epsilon_total": 1.234, "failed_nodes": 0}
    last = {"round": 3, "epsilon_total": 2.0, "failed_nodes": 1}
    run.write_rounds([row, last])
    assert run_line(run, False) == (
        "run: round 3 of 8 · not under way · validation Recall@20 25.00 % after round 2 · ε 2 · "
        "1 failed answers in the last round"
    )
    (tmp_path / "rounds.csv").write_text("nonsense")
    assert "is damaged" in run_line(run, False)


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("u 1,a\nu2,b\n", "u3,a\n", "node-0/state --user 'u 1'\n"),
        ("", "u3,a\n", "node-1/state --user u3\n"),
        ("", "", "node-0/state --user USER\n"),
        (None, None, "node-0/state --user USER\n"),
    ],
)
def test_what_is_started_tells_a_user_whom_a_node_has(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    first: str | None,
    second: str | None,
    told: str,
) -> None:
    Federation.new(tmp_path, "shops", 2, (), 9092, "").save(tmp_path)
    for name, rows in (("node-0", first), ("node-1", second)):
        if rows is not None:
            (tmp_path / "nodes" / name / "data").mkdir(parents=True)
            path = tmp_path / "nodes" / name / "data" / "interactions.csv"
            path.write_text(f"user_id,item_id\n{rows}")
    monkeypatch.setattr(local, "up", lambda *_: None)
    up(tmp_path)
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ran", "at_work", "told"),
    [
        (False, [], "nothing was running\n"),
        (True, [], "all ended\n"),
        (True, [1], "all ended, the run that was under way too\n"),
    ],
)
def test_down_tells_of_a_run_that_it_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ran: bool,
    at_work: list[int],
    told: str,
) -> None:
    Federation.new(tmp_path, "shops", 1, ()).save(tmp_path)
    monkeypatch.setattr(supervisor, "serverapps", lambda _: at_work)
    monkeypatch.setattr(local, "down", lambda _: at_work.clear() or ran)
    down(tmp_path)
    assert capsys.readouterr().out == told


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("down {}/absent", "holds no federation"),
        ("status {}/file", "file is a file; give the folder of a federation"),
        ("stop {} node-0", "is not up"),
        ("start {} node-0", "is not up"),
        ("stop {} node-7", "there is no process 'node-7'"),
        ("init {}/file", "is a file; give a folder"),
        ("init {}/file/below", "cannot make the folder"),
        ("init {}/new --host server:9092", "'server:9092': it must be a name"),
        ("init {}/new --host=", "'': it must be a name"),
        ("init {}/new --host bücher.example", "'bücher.example': it must be a name in ASCII"),
        ("init {}/new --control-host http://server", "'http://server': it must be a name"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, command: str, told: str
) -> None:
    Federation.new(tmp_path, "shops", 1, ("::1", "my_host.example")).save(tmp_path)
    (tmp_path / "file").touch()
    before = set(tmp_path.rglob("*"))
    refused = CliRunner().invoke(app, ["deploy", *command.format(tmp_path).split()])
    assert isinstance(refused.exception, SnowdropError), refused.output
    assert told in str(refused.exception)
    assert set(tmp_path.rglob("*")) == before


def test_a_missing_certificate_is_told(tmp_path: Path) -> None:
    assert "deploy renew" in certificate_line(tmp_path)
