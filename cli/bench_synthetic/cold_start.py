"""Synthetic users as what this project's own cold-start methods are trained on.

No paper has this evaluation. Users of a data folder with items train a method for new items as they
are, with synthetic users in their place, or with both; all of them are then ranked new items with
heads that are fitted to their own histories. It is a comparison of `snowdrop bench`.
"""

from collections.abc import Sequence
from pathlib import Path

from cli.bench.command import bench
from cli.bench_synthetic.methods import Row
from common import methods
from common.errors import SnowdropError
from common.methods import FROZEN, Named

ANSWERS = ("synthetic", "both")
"""What the node of all users answers with, beside updates of real users."""


def rows_of(method: str, synthesizers: Sequence[Row]) -> list[str]:
    """Rows of the comparison, as `snowdrop bench` reads them.

    Parameters
    ----------
    method : str
        A method that is trained in a federation, as it is written.
    synthesizers : Sequence[Row]

    Raises
    ------
    SnowdropError
        If the method is none that can be trained on synthetic users' interactions.
    """
    written, *changes = method.split("@")
    named = methods.ranker(Named.parse(written))
    if named.card.kind != "trained" or named.variant == FROZEN:
        raise SnowdropError(
            f"--cold-start {method} is no method that learns from users; give one that is trained "
            "in a federation, such as the default"
        )
    frozen = ":".join(filter(None, [named.card.name, FROZEN, named.form]))
    found = ["@".join([frozen, *changes])] if not named.variant else []
    found.append(method)
    for row in synthesizers:
        if row.named is None:
            continue
        name, *own = row.name.split("@")
        for answer in ANSWERS:
            found.append("@".join([method, f"answer={answer}", f"synthesizer={name}", *own]))
    return found


def bench_cold_start(
    data: Path,
    out: Path,
    rows: Sequence[Row],
    method: str,
    runs: int,
    users: int,
    assignments: Sequence[str],
    jobs: int,
    keep: bool,
) -> None:
    """Compare a method on real users, on synthetic ones and on both.

    Parameters
    ----------
    data : Path
        Folder with items and interactions.
    out : Path
    rows : Sequence[Row]
        Synthesizers.
    method : str
    runs, users : int
        Seeds; synthetic users, 0 for as many as there are.
    assignments : Sequence[str]
        What ``--set`` says.
    jobs : int
    keep : bool

    Raises
    ------
    SnowdropError
        As `cli.bench.command.bench`.
    """
    given = [*assignments, *([f"synthetic_users={users}"] if users else [])]
    chosen = ",".join(rows_of(method, rows))
    bench(str(data), out, chosen, runs, set_=given, jobs=jobs, keep=keep, twins=False)
