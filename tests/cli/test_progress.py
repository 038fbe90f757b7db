"""How far a long command is: plain lines in a file, a bar on a terminal."""

import itertools
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli import progress as shown
from cli.progress import Progress, printable, readable

ROOT = Path(__file__).parents[2]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_a_line_whenever_a_unit_ends_and_else_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("runs", 3, clock=clock) as progress:
        progress.update(0, "ridge, seed 0", part=0.0)
        assert lines(capsys) == ["0 of 3 runs done · ridge, seed 0"]
        clock.now = shown.PLAIN_SECONDS - 1
        progress.update(0, "ridge, seed 0", part=0.4)
        assert lines(capsys) == []
        clock.now = shown.PLAIN_SECONDS
        progress.update(0, "ridge, seed 0", part=0.5)
        assert lines(capsys) == ["0 of 3 runs done · ridge, seed 0"]
        clock.now += 10
        progress.update(1, "random, seed 0", "best 3 %", part=1.0)
        assert lines(capsys) == ["1 of 3 runs done · random, seed 0 · best 3 % · 1 min 20 s left"]
        clock.now += 1
        progress.update(1, "random, seed 0", part=1.9)
        assert lines(capsys) == []
        progress.update(3)
    assert lines(capsys) == ["3 of 3 runs done"]


def test_a_share_is_told_in_whole_per_cent(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("%", 100, each=False, clock=clock) as progress:
        progress.update(0, "training")
        clock.now = shown.PLAIN_SECONDS
        progress.update(41.7, "training")
        progress.update(100, "training")
    first, second, third = lines(capsys)
    assert (first, third) == ("0 % done · training", "100 % done · training")
    assert second.startswith("42 % done · training · ")


def left(line: str) -> float | None:
    """Seconds left that a line tells."""
    found = re.search(r"(?:(\d+) min )?(\d+) s left", line)
    return 60 * int(found[1] or 0) + int(found[2]) if found else None


def told(progress: Progress, capsys: pytest.CaptureFixture[str], part: float) -> float | None:
    progress.update(int(part), part=part)
    return left("".join(lines(capsys)))


def test_no_time_is_told_before_a_first_unit_has_ended(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "PLAIN_SECONDS", 0.0)
    progress = Progress("runs", 4, clock=clock)
    told(progress, capsys, 0.0)
    clock.now = 100.0
    assert told(progress, capsys, 0.9) is None
    clock.now = 200.0
    assert told(progress, capsys, 1.0) == 600


def test_units_that_take_longer_count_for_more(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("runs", 3, clock=clock, work=42)
    progress.update(0, part=0)
    clock.now = 80.0
    progress.update(1, part=40)
    assert lines(capsys) == ["0 of 3 runs done", "1 of 3 runs done · 4 s left"]
    clock.now = 82.0
    progress.update(2, part=41)
    progress.update(3, part=42)
    assert lines(capsys)[-1] == "3 of 3 runs done"


def test_the_time_left_counts_down_and_follows_a_new_speed_little_by_little(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "PLAIN_SECONDS", 0.0)
    progress = Progress("runs", 20, clock=clock)
    told(progress, capsys, 0.0)
    clock.now = 100.0
    assert told(progress, capsys, 1.0) == 1900
    clock.now = 110.0
    assert told(progress, capsys, 1.1) == pytest.approx(1890, abs=1)
    clock.now = 200.0
    assert told(progress, capsys, 2.0) == pytest.approx(1800, abs=1)
    # The estimate of this moment alone would be 100 s / 5 * 14 = 280 s.
    seen = [told(progress, capsys, 6.0)]
    for _ in range(2000):
        clock.now += 0.2
        seen.append(told(progress, capsys, 1 + 0.05 * (clock.now - 100)))
        if seen[-1] is None:
            break
    known = [value for value in seen if value is not None]
    assert known[0] == pytest.approx(1800, abs=1)
    assert all(-17 <= after - before <= 0 for before, after in itertools.pairwise(known))
    assert known[-1] <= 20


def test_what_the_first_unit_pays_for_all_is_not_told_of_the_others(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """It encodes the texts for 200 s; each run takes 10 s."""
    progress = Progress("runs", 7, clock=clock)
    progress.update(0)
    seen = []
    for number in range(1, 4):
        clock.now = 200.0 + 10 * number
        progress.update(number)
        seen.append(left(lines(capsys)[-1]))
    assert seen[0] == 6 * 210
    clock.now += 19
    progress.update(4, part=5)
    assert (left(lines(capsys)[-1]) or 0) < 30


def test_a_short_wait_follows_a_new_speed_at_once(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run of a comparison pays for what all share, the others take 3 s each."""
    progress = Progress("runs", 7, clock=clock)
    progress.update(0)
    seen = []
    for number in range(1, 8):
        clock.now = 8.0 + 3 * (number - 1)
        progress.update(number)
        seen.append(left(lines(capsys)[-1]))
    assert seen[0] == 48
    assert seen[5] is not None and seen[5] <= 6
    assert seen[6] is None


def test_two_moments_at_the_same_time_are_no_fault(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("runs", 4, clock=clock)
    for done in range(4):
        progress.update(done)
    assert lines(capsys)[-1] == "3 of 4 runs done · 0 s left"


def test_what_was_done_before_tells_nothing_of_the_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("trials", 20, clock=clock)
    progress.update(10)
    clock.now = 60
    progress.update(11)
    assert lines(capsys) == ["10 of 20 trials done", "11 of 20 trials done · 9 min 0 s left"]


def test_an_amount_has_no_line_for_each_of_its_units(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress("MB", 9.5, each=False, clock=clock)
    for megabytes in (0.0, 1.0, 2.0, 3.0, 9.5):
        progress.update(megabytes, "downloading")
    assert lines(capsys) == ["0.0 of 9.5 MB done · downloading", "9.5 of 9.5 MB done · downloading"]
    unknown = Progress("MB", None, each=False, clock=clock)
    unknown.update(1.25, "downloading")
    assert lines(capsys) == ["1.2 MB done · downloading"]


def test_plain_lines_hold_no_control_characters(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable("a\x1b[2Jb\nc\rµ") == "a [2Jb c µ"
    Progress("runs", 2, clock=clock).update(0, "a\x1b\nb", "c\r")
    assert lines(capsys) == ["0 of 2 runs done · a  b · c "]


@pytest.mark.parametrize(
    ("seconds", "said"), [(5.9, "5 s"), (60, "1 min 0 s"), (725, "12 min 5 s"), (7500, "2 h 5 min")]
)
def test_times_are_readable(seconds: float, said: str) -> None:
    assert readable(seconds) == said


SCRIPT = """
import time
import logging
from cli.commands import _setup
from cli.progress import Progress
_setup()
with Progress("runs", 2) as progress:
    progress.update(0, "[red]first", part=0.5)
    time.sleep(0.5)  # the bar is drawn ten times a second
    logging.getLogger("x").warning("a log line")
    print("on stdout")
    progress.update(2)
"""


def on_a_terminal(term: str) -> tuple[str, str]:
    """What `SCRIPT` writes to its terminal, which is stderr alone, and to stdout, which is none."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": term, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, stderr=theirs,
        check=True, timeout=60,
    )  # fmt: skip
    os.close(theirs)
    drawn = b""
    try:
        while part := os.read(ours, 1 << 16):
            drawn += part
    except OSError:  # that is how Linux says that the other end is closed
        pass
    os.close(ours)
    return drawn.decode(), done.stdout.decode()


def test_on_a_terminal_it_is_a_bar_and_log_lines_stand_above_it() -> None:
    drawn, printed = on_a_terminal("xterm")
    assert "\x1b[" in drawn
    assert "[red]first" in drawn
    assert "2 of 2 runs done" in drawn
    assert printed == "on stdout\n"
    # The line that the bar stood on is erased before the log line is written there.
    before = drawn[: drawn.index("a log line")]
    assert before.endswith("\x1b[2K")


def test_on_a_terminal_that_cannot_draw_it_is_lines() -> None:
    drawn, printed = on_a_terminal("dumb")
    assert drawn.splitlines() == ["0 of 2 runs done · [red]first", "a log line", "2 of 2 runs done"]
    assert printed == "on stdout\n"
