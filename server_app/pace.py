"""How long work on the server has taken, and how long it still takes."""

import time


class Pace:
    """Time spent and time left of work, now and then.

    Parameters
    ----------
    work : float
        The whole work, in any unit.
    every : float
        Seconds that lie at least between two tellings, and before the first.
    """

    def __init__(self, work: float, every: float) -> None:
        self._work, self._every = work, every
        self._worked = 0.0
        self._began = self._told = time.monotonic()

    def step(self, work: float) -> tuple[float, float] | None:
        """Seconds spent and seconds left, if they are due.

        Parameters
        ----------
        work : float
            How much more is done.
        """
        self._worked += work
        now = time.monotonic()
        if now - self._told <= self._every or not self._worked:
            return None
        self._told = now
        spent = now - self._began
        return spent, spent * max(self._work - self._worked, 0.0) / self._worked


class Stopwatch:
    """Seconds of one step after the other."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}
        """Seconds of each step by its name."""

    def lap(self, name: str) -> None:
        """End a step, which began where the last one ended."""
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now

    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began
