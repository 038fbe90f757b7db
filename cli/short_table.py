"""Tables on a terminal: whole where they fit, else with the name of each row on its own line."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import typer
from rich.cells import cell_len, set_cell_size

_BETWEEN = "  "


@dataclass(frozen=True)
class ShortTable:
    """A table whose first columns name a row.

    Parameters
    ----------
    heads : Sequence[str]
        May have several lines each.
    rows : Sequence[Sequence[str]]
        A cell for each head.
    names : int
        How many of the first columns name a row.
    above, below : Sequence[str]
        Sentences before and after it.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    above: Sequence[str] = ()
    below: Sequence[str] = ()

    def lines(self, width: float) -> list[str]:
        """The table for a terminal of that width, in letters; nothing of it is ever cut."""
        whole = list(_aligned(self.heads, self.rows))
        if max(map(cell_len, whole)) > width and self.names < len(self.heads):
            whole = self._stacked()
        return [*self.above, *whole, *self.below]

    def _stacked(self) -> list[str]:
        cells = [["", *row[self.names :]] for row in self.rows]
        heads = ["", *self.heads[self.names :]]
        lines = list(_aligned(heads, cells))
        above = lines[: -len(cells) or None]
        named = [_BETWEEN.join(filter(None, row[: self.names])) for row in self.rows]
        pairs = zip(named, lines[len(above) :], strict=True)
        return [*above, *(line for pair in pairs for line in pair)]

    def show(self) -> None:
        """Print it: for the terminal that there is, or whole into a file or a pipe."""
        from rich.console import Console

        console = Console()
        width = console.width if console.is_terminal else math.inf
        typer.echo("\n".join(self.lines(width)))


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines with each column as wide as its widest cell."""
    above = list(zip_longest(*(head.split("\n") for head in heads), fillvalue=""))
    widths = [max(map(cell_len, column)) for column in zip(*above, *rows, strict=True)]
    for row in [*above, *rows]:
        filled = [set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True)]
        yield _BETWEEN.join(filled).rstrip()
