"""The table and the page of `snowdrop attack membership`."""

from collections.abc import Mapping, Sequence
from typing import Any

from cli.attack.output import page_of
from cli.report.roc import roc_figure
from cli.report.sections import Section
from client_app.synthesis.attacks import FALSE_ALARMS, Roc

HEAD = ("users per node", "attack", "AUC", "95 % interval", "most that ε allows",
        f"found at {100 * FALSE_ALARMS:g} % false alarms", "pairs")  # fmt: skip

_WORDS = (
    "Each question is a pair: did this user interact with this item? Half of the pairs are "
    "interactions; the other half are items of equal popularity that the same user has not "
    "interacted with. An AUC of 0.5 is guessing, 1 is certainty. Intervals are a bootstrap over "
    "users.",
    "'Updates': the attacker knows half of the user's warm interactions, and looks how far each "
    "other item's row in the node's sums moves along with theirs. 'Metrics of crafted rankings': "
    "the server has nodes measure rankings of the test items that it chose itself, and solves for "
    "who has which item. 'Cold table': the attacker holds nothing but the released embeddings of "
    "cold items and the items' texts, and knows half of the user's interactions.",
    "'Texts' is what the texts alone tell, with no federation: tastes show in the half that is "
    "known. A cold table that is no better than texts gives nothing away beside them. The last row "
    "takes away what a table of other users tells, which leaves what these users added.",
    "'Most that ε allows' is the largest AUC that any attack can have, where the run's noise has "
    "an ε. It is about what a user's own interactions add. What others' histories and texts tell "
    "of a taste is not bounded by it.",
)


def rows_of(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table, from what ``attack.json`` holds."""
    return [
        (
            "–" if row["users_per_node"] is None else f"{row['users_per_node']:,}",
            row["attack"],
            f"{row['auc']:.3f}" if "auc" in row else "–",
            f"{row['low']:.3f} to {row['high']:.3f}" if "auc" in row else row["told"],
            "–" if row.get("bound") is None else f"{row['bound']:.3f}",
            f"{100 * row['caught']:.1f} %" if "auc" in row else "–",
            f"{row['members'] + row['others']:,}" if "auc" in row else "–",
        )
        for row in told["rows"]
    ]


def page(told: Mapping[str, Any], curves: Sequence[tuple[str, Roc]], made: str) -> str:
    """The page as one HTML file that loads nothing.

    Parameters
    ----------
    told : Mapping[str, Any]
        As ``attack.json`` holds it.
    curves : Sequence[tuple[str, Roc]]
        By a short name.
    made : str
        Today's date, as shown.
    """
    around = page_of(
        told,
        made,
        "Memberships guessed on",
        "Did this user interact with this item? Guessed from what nodes answer, from metrics, "
        "and from what is released.",
        facts=[
            ("Method", told["method"]),
            ("Users", f"{told['users']:,}"),
            ("Rounds", f"{told['rounds']:,}"),
        ],
    )
    figures = []
    if curves:
        caption = "The number after an attack is that of users on a node."
        figures = [roc_figure(curves, "Interactions found", "interactions found", caption)]
    return around.render(
        [Section("How well it is guessed", head=HEAD, rows=rows_of(told), words=_WORDS,
                 figures=figures)]
    )  # fmt: skip
