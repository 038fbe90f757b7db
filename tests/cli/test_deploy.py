"""What `snowdrop deploy status` shows."""

import io
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from cli.deploy import local_time, status_table


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
    table.add_row("superlink", "running", "1234567", "yes", "yes", "0", since)
    usual = drawn(table)
    assert since in usual
    table.add_row(name, "running", "1234567", "yes", "yes", "0", since)
    assert "…" not in drawn(table)
    first = "".join(line.split()[0] for line in drawn(table).splitlines()[2:])
    assert name in first


def drawn(table: object) -> str:
    shown = io.StringIO()
    Console(file=shown, width=80).print(table)
    return shown.getvalue()
