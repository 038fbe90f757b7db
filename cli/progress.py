"""How far a long command is: a bar on a terminal, plain lines where the output goes to a file."""

import math
import os
import sys
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

PLAIN_SECONDS = 30.0
"""Where there is no terminal, a line comes at least this long after the last one."""

SMOOTH_SECONDS = 20.0
"""About how long a new estimate of the end takes to replace the one before, at most."""
SMOOTH_SHARE = 0.25
"""The same as a share of the time that the new estimate says is left."""


class Progress:
    """What is done of a whole, on stderr; a context manager.

    On a terminal it is a bar. Elsewhere it is plain lines: one whenever another unit has ended, and
    else at most one per `PLAIN_SECONDS`. The time left is shown once a first unit has ended: what
    is done of the first one alone may take a tenth of its time, or nearly all.

    Parameters
    ----------
    unit : str
        What is counted, in the plural: ``"runs"``; or ``"%"``.
    total : float, optional
        How many there are, if that is known.
    work : float, optional
        The whole work, where units take unequal times (default: ``total``).
    each : bool
        Whether the end of a unit is worth a line; a megabyte's end is not.
    clock : Callable[[], float]
        Seconds that have passed, since whenever.
    """

    def __init__(
        self,
        unit: str,
        total: float | None,
        each: bool = True,
        clock: Callable[[], float] = time.monotonic,
        work: float | None = None,
    ) -> None:
        self._unit, self._total, self._each, self._clock = unit, total, each, clock
        self._work = total if work is None else work
        self.done = 0.0
        """Units that have ended."""
        self._now = self._note = ""
        self._since: list[tuple[float, float, float]] = []
        """Done, part and time of the first update, and of the first end of a unit after it."""
        self._end: tuple[float, float] | None = None  # estimate of the end, and when it was made
        self._told: tuple[float, float] | None = None  # units and time of the last plain line
        self._bar: Bar | None = None
        if on_terminal():
            columns = [
                SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
                TextColumn("{task.fields[count]}", markup=False), TimeElapsedColumn(),
                TextColumn("{task.fields[rest]}", markup=False),
            ]  # fmt: skip
            self._bar = Bar(
                *columns,
                console=Console(stderr=True, force_terminal=True),
                redirect_stdout=sys.stdout.isatty(),  # a file shall have what is printed to it
            )
            self._task = self._bar.add_task("", total=self._work, count="", rest="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: float, now: str = "", note: str = "", part: float | None = None) -> None:
        """Say how far it is; may be called as often as one likes.

        Parameters
        ----------
        done : float
            Units that have ended.
        now : str
            What is being done.
        note : str
            What else is to be shown.
        part : float, optional
            The work that is done, with that of units under way, for the time left (default:
            ``done``).
        """
        moment = self._clock()
        part = done if part is None else part
        if len(self._since) < 2 and (not self._since or done - self._since[0][0] >= 1):
            self._since.append((done, part, moment))
        self.done, self._now, self._note = done, now, note
        left = self._left(part, moment)
        if self._bar:
            rest = " · ".join(said for said in (left, printable(note)) if said)
            self._bar.update(
                self._task, completed=part, description=printable(now), count=self._count(),
                rest=rest,
            )  # fmt: skip
        elif self._due(moment):
            self._told = (done, moment)
            said = [self._count(), now, note, left]
            line = " · ".join(printable(words) for words in said if words)
            print(line, file=sys.stderr, flush=True)

    def _due(self, moment: float) -> bool:
        if self._told is None:
            return True
        done, told = self._told
        ended = self._each and int(self.done) > int(done)
        whole = self._total is not None and done < self._total <= self.done
        return ended or whole or moment - told >= PLAIN_SECONDS

    def _count(self) -> str:
        if self._unit == "%":
            return f"{self.done:.0f} % done"
        form = "d" if self._each else ".1f"
        done = format(int(self.done) if self._each else self.done, form)
        if self._total is None:
            return f"{done} {self._unit} done"
        total = format(int(self._total) if self._each else self._total, form)
        return f"{done} of {total} {self._unit} done"

    def _left(self, part: float, moment: float) -> str:
        """From the speed so far, without what was done before this command began; smoothed.

        The first unit may pay for what all share, so it counts only until a second one has ended.
        """
        ended = [since for since in self._since if self.done - since[0] >= 1]
        if self._work is None or not ended:
            return ""
        _, before, began = ended[-1]
        if not before < part < self._work:
            return ""
        end = moment + (moment - began) / (part - before) * (self._work - part)
        if self._end is not None:
            smooth, made = self._end
            window = min(SMOOTH_SECONDS, SMOOTH_SHARE * (end - moment)) or SMOOTH_SECONDS
            end = smooth + (end - smooth) * -math.expm1((made - moment) / window)
        self._end = end, moment
        return f"{readable(max(0.0, end - moment))} left"


def on_terminal() -> bool:
    """Whether stderr is a terminal that can draw over what it has shown."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def readable(seconds: float) -> str:
    """A time as a person says it: ``12 min 5 s``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def printable(text: str) -> str:
    """Text without line ends and control characters, which a log would keep."""
    return "".join(c if c.isprintable() else " " for c in text)
