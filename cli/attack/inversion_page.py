"""The table and the page of `snowdrop attack inversion`."""

from collections.abc import Mapping, Sequence
from typing import Any

from cli.attack.output import page_of
from cli.report.charts import PER_CENT, Figure, Series, heat_map, line_chart, radar
from cli.report.sections import Section

HEAD = (
    "method", "noise", "Recall@20", "cosine", "Pearson", "MSE", "MAE", "structure",
)  # fmt: skip

NOISES = {"none": "none", "sampling": "sampling × {:g}", "added": "added × {:g}"}

_WORDS = (
    "The attacker knows the features of a share of the cold items and the embeddings of all of "
    "them, as every node does. A network of two hidden layers learns to go from embeddings to "
    "features on the items that it knows; the numbers are of the others. Features have mean 0 in "
    "each column and deviation 1 over all of them, so that guessing the mean has an MSE of about 1 "
    "and a cosine of 0. A high cosine is a leak.",
    "'Structure' is the mean absolute difference between the cosines of all pairs of items, true "
    "and inverted: 0 is a perfect copy of who is like whom.",
    "'Sampling' is noise inside the reverse diffusion, as a multiple of what equation 11 of "
    "MDiffFR has; 'added' is Gaussian noise on finished embeddings, in quarters of their "
    "deviation. The same trained generator makes all rows of a method.",
)

_LEAKS = {
    "cosine": lambda entry: entry["cosine"],
    "Pearson": lambda entry: entry["pearson"],
    "1 − MSE": lambda entry: 1 - entry["mse"],
    "1 − MAE": lambda entry: 1 - entry["mae"],
}
"""Measures of which 1 is a perfect copy."""

_NOT = (
    "This is about items, not about people: an embedding from which an item's text can be told "
    "says nothing of who interacted with it. It matters where the features themselves are secret, "
    "such as a dealer's annotations. Where texts are public there is nothing to protect.",
    "It is one network on one share of known items. A cosine near 0 shows that this attacker "
    "failed, and is no bound. The paper's bound (lemma 5.4) compares entropies, and holds for "
    "noise that survives to the end: the last step of the sampler adds none.",
    "An embedding that tells nothing of an item's features cannot rank the item by them either. "
    "The curve shows what each step away from leaking costs in Recall@20.",
)


def rows_of(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table, from what ``attack.json`` holds."""
    return [
        (
            entry["method"],
            NOISES[entry["noise"]].format(entry["level"]),
            "–" if entry["recall@20"] is None else f"{100 * entry['recall@20']:.2f}",
            f"{entry['cosine']:.3f}",
            f"{entry['pearson']:.3f}",
            f"{entry['mse']:.3f}",
            f"{entry['mae']:.3f}",
            f"{entry['structure']:.3f}",
        )
        for entry in told["entries"]
    ]


def page(told: Mapping[str, Any], made: str) -> str:
    """The page as one HTML file that loads nothing.

    Parameters
    ----------
    told : Mapping[str, Any]
        As ``attack.json`` holds it.
    made : str
        Today's date, as shown.
    """
    entries = told["entries"]
    around = page_of(
        told,
        made,
        "Features read from embeddings of",
        "Every node is sent embeddings of cold items. How much of the items' features, which "
        "the server made them from, can be read back?",
        facts=[
            ("Features known", f"{100 * told['known']:g} % of the cold items"),
            ("Items inverted", f"{entries[0]['items']:,}" if entries else "0"),
        ],
    )
    plain = [entry for entry in entries if entry["noise"] == "none"]
    return around.render(
        [
            Section(
                "What was read", head=HEAD, rows=rows_of(told), words=_WORDS, figures=_radar(plain)
            ),
            Section(
                "What protection costs",
                words=["Each line is one generator under more and more noise, from right to left."],
                figures=_curves(entries),
            ),
            Section(
                "Who is like whom",
                words=[
                    "Inverted minus true cosine of each pair of the same few items. Pale is right: "
                    "the attacker has the structure. Blue is too low, orange too high."
                ],
                figures=[_map(entry) for entry in plain],
            ),
            Section("What this shows, and what not", words=_NOT),
        ]
    )


def _radar(entries: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """All measures of the methods without noise; MDiffFR has such a figure (its section 6.7)."""
    if not entries:
        return []
    lines = [(entry["method"], [leak(entry) for leak in _LEAKS.values()]) for entry in entries]
    return [
        Figure(
            "How much is read, by every measure",
            radar("Leakage by method", list(_LEAKS), lines),
            "Farther out is worse: at the outer ring the attacker has a perfect copy, and whoever "
            "guesses the mean is near the centre. What is below 0 is drawn there.",
            ("Method", *_LEAKS),
            [(name, *(f"{value:.3f}" for value in values)) for name, values in lines],
        )
    ]


def _curves(entries: Sequence[Mapping[str, Any]]) -> list[Figure]:
    lines: list[Series] = []
    starts = {e["method"]: e for e in entries if e["noise"] == "none"}
    for method, start in starts.items():
        for noise in ("sampling", "added"):
            own = [e for e in entries if (e["method"], e["noise"]) == (method, noise)]
            points = [
                (100 * entry["cosine"], entry["recall@20"])
                for entry in [start, *own]
                if entry["recall@20"] is not None
            ]
            if own and points:
                lines.append(Series(f"{method}, {noise}", sorted(points), len(lines)))
    if not lines:
        return []
    svg = line_chart(
        "Recall against leakage", lines, "leakage: cosine in per cent", "Recall@20 of cold items"
    )
    table = [
        (line.label, f"{x / 100:.3f}", PER_CENT.value(y)) for line in lines for x, y in line.points
    ]
    return [Figure("Recall@20 against leakage", svg, "Up and to the left is better.",
                   ("Line", "Cosine", "Recall@20"), table)]  # fmt: skip


def _map(entry: Mapping[str, Any]) -> Figure:
    gap = entry["structure_gap"]
    return Figure(
        entry["method"],
        heat_map(f"Difference of structure, {entry['method']}", gap, "item", "item"),
        f"Mean absolute difference over all items: {entry['structure']:.3f}.",
        ("Item", *(str(k + 1) for k in range(len(gap)))),
        [(str(k + 1), *(f"{value:.2f}" for value in row)) for k, row in enumerate(gap)],
    )
