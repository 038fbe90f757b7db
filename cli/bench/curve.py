"""What a federation gains with its number of users: points of a curve, and their table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cli.bench.methods import Chosen
from cli.comparison import FEWER
from common import demo
from common.errors import SnowdropError
from common.settings import DEMO

_FORM = "users=300,1000,all"


@dataclass(frozen=True)
class Curve:
    """Numbers of users in the federation, ascending; the last may be all of them."""

    users: tuple[int, ...]
    everyone: int

    @classmethod
    def parse(cls, text: str, data: str) -> "Curve":
        """What ``--curve`` says.

        Parameters
        ----------
        text : str
            Such as ``users=300,1000,all``.
        data : str
            Data folder, or 'demo'.

        Raises
        ------
        SnowdropError
            If it says anything else.
        """
        name, _, numbers = text.partition("=")
        parts = [part.strip() for part in numbers.split(",") if part.strip()]
        if name.strip() != "users" or not parts:
            raise SnowdropError(f"--curve is written {_FORM}, not '{text}'")
        if bad := [one for one in parts if one != "all" and not (one.isdigit() and int(one))]:
            raise SnowdropError(f"--curve {text}: '{bad[0]}' is no number of users above 0")
        everyone = _users_of(data)
        wanted = {everyone if one == "all" else int(one) for one in parts}
        if too_many := [one for one in wanted if one > everyone]:
            raise SnowdropError(
                f"--curve {text}: the data has {everyone:,} users, {max(too_many):,} are more; "
                "'all' stands for all of them"
            )
        return cls(tuple(sorted(wanted)), everyone)

    def extended(self, methods: Sequence[Chosen]) -> list[Chosen]:
        """These methods, and each that is trained with fewer users in its federation too.

        Where all users are no point of the curve, they are one nevertheless: the method itself.
        """
        found = []
        for chosen in methods:
            found.append(chosen)
            if chosen.kind == "trained" and not chosen.twin_of:
                fewer = [number for number in self.users if number < self.everyone]
                found += [self._with(chosen, number) for number in fewer]
        return found

    def _with(self, chosen: Chosen, number: int) -> Chosen:
        return Chosen.parse(f"{chosen.name}@federated={number / self.everyone:.5g}")


def curve_table(table: pl.DataFrame) -> str:
    """The means over seeds against the number of users in the federation, as Markdown.

    Parameters
    ----------
    table : DataFrame
        What ``results.csv`` holds.

    Returns
    -------
    str
        Empty where no method ran with fewer users.
    """
    base = pl.col("method").str.replace(FEWER, "")
    points = table.with_columns(of=base, fewer=pl.col("method") != base)
    methods = points.filter("fewer")["of"].unique(maintain_order=True).to_list()
    if not methods:
        return ""
    shown = points.filter(
        pl.col("of").is_in(methods) | pl.col("twin_of").is_in(methods) | (pl.col("kind") == "rule")
    )
    means = (
        shown.group_by("method", "of", "kind", "twin_of", maintain_order=True)
        .agg(pl.col("federation_users", "test_recall@20", "test_ndcg@20").mean())
        .sort("of", "federation_users", maintain_order=True)
    )
    lines = [
        "| method | users in the federation | recall@20 | ndcg@20 |",
        "| --- | --- | --- | --- |",
    ]
    for row in means.iter_rows(named=True):
        alone = row["kind"] != "trained" or bool(row["twin_of"])
        users = "–" if alone else f"{row['federation_users']:,.0f}"
        recall, ndcg = (f"{100 * row[f'test_{metric}']:.2f}" for metric in ("recall@20", "ndcg@20"))
        lines.append(f"| {row['of']} | {users} | {recall} | {ndcg} |")
    return "\n".join(
        [
            "\n## The number of users in the federation\n",
            "The same test users and items in each line. Users outside the federation send nothing "
            "and are tested all the same; “–” needs no federation.\n",
            *lines,
            "",
        ]
    )


def _users_of(data: str) -> int:
    """Users of a data folder with any interaction."""
    if data == DEMO:
        return demo.USERS
    from client_app.interactions import interaction_files, read_interactions

    return read_interactions(interaction_files(Path(data)))["user_id"].n_unique()
