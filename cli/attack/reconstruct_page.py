"""The table and the page of `snowdrop attack reconstruct`."""

from collections.abc import Mapping, Sequence
from typing import Any

from cli.attack.output import page_of
from cli.attack.received import BY_NODE
from cli.report.charts import PER_CENT, Figure, Series, line_chart
from cli.report.sections import Section

HEAD = (
    "users per node", "attack", "users", "linked", "linkable linked", "exact", "precision",
    "recall",
)  # fmt: skip

_WORDS = (
    "Linked are users of whom an attack ties two interactions or more together as one person's (or "
    "the only one), with nine tenths of what it claims of that person right. Linkable are users "
    "with two items or more that nobody else on their node has. Precision and recall are of "
    "interactions. Where an attack names no people (–), they are of items that somebody on a node "
    "has interacted with. Exact are users whose whole history is read without a wrong item.",
    "Attacks that only listen: 'directions of rows' looks for rows of the item table that one user "
    "alone changed, which are parallel; 'mean directions over rounds' adds up the directions of "
    "each item's row, which turn to its owners' scoring heads; 'touches over rounds' estimates how "
    "many users have each item from the number of users who touched its row; 'sum of pairs' reads "
    "sums of what goes with what; 'rows of a softmax' takes sums of gradients of a softmax over "
    "all items apart, in which a history stands off the direction that all other rows have.",
    "'Differences of sums' subtract the first round's sum from that of another training with the "
    "same settings, in which some users take part besides: a user who joins, or all users of a "
    "node. They are measured on these users.",
    "'Another node' is whoever holds one node and reads what the server sends it, masks or "
    "not: the item table of each round, two of which differ by the sum of all users' changes, or "
    "the directions of the sum of pairs. It is measured on the users of all other nodes. "
    "'Histories in few directions' looks for histories that lie nearly in the span of these "
    "directions, where there are more users than directions.",
    "Attacks that ask crafted questions need a server that does not follow the protocol. They are "
    "measured on as many nodes as the questions reach, so their numbers of users are smaller. "
    "'Counts' and 'descriptions' announce a catalogue with one warm item, 'losses' sends an item "
    "table in which few rows are not zero.",
)


def rows_of(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table, from what ``attack.json`` holds."""
    return [
        (
            f"{federation['users_per_node']:,}",
            verdict["attack"],
            f"{verdict['users']:,}",
            _count(verdict["linked"]),
            "–"
            if verdict["linked"] is None
            else f"{verdict['linkable_linked']:,} of {verdict['linkable']:,}",
            _count(verdict["exact"]),
            PER_CENT.value(verdict["precision"]) if verdict["claimed"] else "nothing claimed",
            PER_CENT.value(verdict["recall"]),
        )
        for federation in told["federations"]
        for verdict in federation["verdicts"]
    ]


def notes_of(told: Mapping[str, Any]) -> list[str]:
    """Sentences under the table on the terminal."""
    every = (verdict for federation in told["federations"] for verdict in federation["verdicts"])
    if not any(verdict["attack"].startswith(BY_NODE) for verdict in every):
        return []
    return [
        f"{BY_NODE}what whoever holds one node reads of the users of all other nodes, out of what "
        "the server sends it"
    ]


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def page(told: Mapping[str, Any], made: str) -> str:
    """The page as one HTML file that loads nothing.

    Parameters
    ----------
    told : Mapping[str, Any]
        As ``attack.json`` holds it.
    made : str
        Today's date, as shown.
    """
    around = page_of(
        told,
        made,
        "Histories read from",
        "A server that is curious, or worse, tries to read users' histories out of the sums "
        "that nodes answer with. Each row is a federation of its own on these data, with so many "
        "users on every node.",
        facts=[
            ("Method", told["method"]),
            ("Warm items", f"{told['warm_items']:,}"),
            ("Sums of nodes", ", ".join(told["sums"]) or "none were sent"),
            *_of_the_table(told),
        ],
    )
    refusals = _refusals(told["federations"])
    sections = [
        Section(
            "What was read",
            headline=_headline(told["federations"]),
            head=HEAD,
            rows=rows_of(told),
            words=_WORDS,
            figures=_figures(told["federations"]),
        ),
    ]
    if refusals:
        sections.append(
            Section("What stopped attacks", head=("Attack", "Reason"), rows=refusals)
        )  # fmt: skip
    sections.append(
        Section(
            "What this shows, and what not",
            words=[
                "An attack that succeeds shows what a server can compute today from these messages "
                "on these data. One that fails shows nothing of better attacks: only a bound such "
                "as ε, or a message that is independent of the data, does.",
                "No history is written down by this command: attack.json and this page hold counts "
                "alone.",
            ],
        )
    )
    return around.render(sections)


def _of_the_table(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is said of rounds that change an item table."""
    if "change" not in told["sums"]:
        return []
    return [
        ("Dimensions", f"{told['dim']:,}"),
        ("Item table starts", told["table_start"]),
        ("Rounds", f"{told['rounds']:,}"),
    ]


def _best(federation: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The verdict with most users linked, as a share."""
    named = [v for v in federation["verdicts"] if v["linked"] is not None and v["users"]]
    return max(named, key=lambda v: v["linked"] / v["users"], default=None)


def _headline(federations: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    told = []
    for federation in federations:
        best = _best(federation)
        if best is not None:
            size = federation["users_per_node"]
            where = "one user" if size == 1 else f"{size:,} users"
            told.append(
                (
                    f"{best['linked']:,} of {best['users']:,}",
                    f"users linked, with {where} on a node",
                    f"by {best['attack']}",
                )
            )
    return told


def _figures(federations: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Users linked, by attack, over the number of users on a node."""
    every = [v for federation in federations for v in federation["verdicts"]]
    attacks = list(dict.fromkeys(v["attack"] for v in every if v["linked"] is not None))
    lines = []
    for colour, attack in enumerate(attacks):
        points = [
            (float(place), v["linked"] / v["users"])
            for place, federation in enumerate(federations)
            for v in federation["verdicts"]
            if v["attack"] == attack and v["linked"] is not None and v["users"]
        ]
        if points:
            lines.append(Series(attack, points, colour))
    if not lines:
        return []
    names = [f"{federation['users_per_node']}" for federation in federations]
    table = [
        (name, *(_at(line, place) for line in lines)) for place, name in enumerate(names)
    ]  # fmt: skip
    svg = line_chart("Users linked", lines, "users on a node", "users linked", x_names=names)
    return [Figure("Users linked", svg, "Share of the users who were attacked.",
                   ("Users on a node", *(line.label for line in lines)), table)]  # fmt: skip


def _at(line: Series, place: int) -> str:
    return next((PER_CENT.value(y) for x, y in line.points if x == place), "–")


def _refusals(federations: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    told = {v["attack"]: v["told"] for f in federations for v in f["verdicts"] if v["told"]}
    return list(told.items())
