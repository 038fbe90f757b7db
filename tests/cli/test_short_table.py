"""Tables on a terminal."""

import os
import pty
import sys
from subprocess import run

import pytest

from cli.short_table import ShortTable

TABLE = ShortTable(
    ["method", "recall", "÷ best\nrule"],
    [["gfmfr:pfedrec@gfmfr.weight=0.0", "20.47 ± 0.75", "1.00"], ["random", "1.4", "0.1"]],
    above=["what it is"],
    below=["what it says"],
)


def test_a_table_that_fits_has_a_line_for_each_row() -> None:
    assert TABLE.lines(80) == [
        "what it is",
        "method                          recall        ÷ best",
        "                                              rule",
        "gfmfr:pfedrec@gfmfr.weight=0.0  20.47 ± 0.75  1.00",
        "random                          1.4           0.1",
        "what it says",
    ]


def test_names_stand_above_their_cells_where_the_table_is_too_wide() -> None:
    assert TABLE.lines(49) == [
        "what it is",
        "  recall        ÷ best",
        "                rule",
        "gfmfr:pfedrec@gfmfr.weight=0.0",
        "  20.47 ± 0.75  1.00",
        "random",
        "  1.4           0.1",
        "what it says",
    ]


def test_several_columns_may_name_a_row() -> None:
    table = ShortTable(["users", "attack", "linked"], [["10", "sum of pairs", "9"]], names=2)
    assert table.lines(5) == ["  linked", "10  sum of pairs", "  9"]
    assert ShortTable(["users", "linked"], []).lines(5) == ["  linked"]


SHOWN = "from tests.cli.test_short_table import TABLE; TABLE.show()"


def test_a_pipe_gets_whole_lines_and_a_narrow_terminal_stacked_ones() -> None:
    piped = run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True)
    assert piped.stdout.splitlines() == TABLE.lines(1000)
    ours, theirs = pty.openpty()
    narrow = os.environ | {"COLUMNS": "40"}
    run([sys.executable, "-c", SHOWN], stdout=theirs, env=narrow, check=True)
    shown = os.read(ours, 10_000).decode()
    os.close(theirs)
    os.close(ours)
    assert shown.splitlines() == TABLE.lines(40)


@pytest.mark.parametrize("width", [1, 20])
def test_nothing_is_cut(width: int) -> None:
    shown = "\n".join(TABLE.lines(width))
    assert all(cell in shown for row in TABLE.rows for cell in row)
