"""What synthetic users give away, as Markdown tables, from folders of `snowdrop synthesize`.

    python benchmarks/synthetic_privacy.py FOLDER [FOLDER ...]

The first table has the nearest real users and the membership attacks, the second the replay test of
the folders that were made with ``--replay``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from client_app.synthesis.folder import read_mark

ATTACKS = {
    "nearest-jaccard": "nearest, Jaccard",
    "nearest-cosine": "nearest, cosine",
    "nearer-than-strangers": "nearer than strangers",
    "likelihood": "likelihood",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def privacy_row(told: dict[str, Any]) -> list[str]:
    """One folder: ε, likeness, nearest real users beside those of held-out people, attacks."""
    epsilon = told["epsilon"]
    measured = told["measured"]
    sides = [measured["similarity"][side] for side in ("synthetic", "control")]
    below = [side["pairs_by_tenth"][0] / sum(side["pairs_by_tenth"]) for side in sides]
    return [
        told["data"],
        told["method"],
        "none" if epsilon is None else f"{epsilon:.3g}",
        f"{measured['fidelity']['popularity_distance']:.2f}",
        " / ".join(f"{100 * share:.1f} %" for share in below),
        " / ".join(f"{side['nearest_quantiles']['0.5']:.2f}" for side in sides),
        " / ".join(f"{100 * side['copies'] / side['users']:.1f} %" for side in sides),
        *(
            f"{roc['auc']:.3f} ({roc['low']:.3f} to {roc['high']:.3f})"
            for roc in (measured["attacks"][name] for name in ATTACKS)
        ),
    ]


def replay_rows(told: dict[str, Any]) -> list[list[str]]:
    """Means over the planted users, one row for each number of copies."""
    rows = []
    for copies in sorted({one["copies"] for one in told["replay"]}):
        group = [one for one in told["replay"] if one["copies"] == copies]
        rows.append(
            [
                told["data"],
                told["method"],
                "none" if told["epsilon"] is None else f"{told['epsilon']:.3g}",
                str(copies),
                f"{fmean(one['nearest'] for one in group):.2f}",
                f"{fmean(one['control'] for one in group):.2f}",
                f"{100 * fmean(one['as_near'] for one in group):.0f} %",
                f"{fmean(one['repeats'] for one in group):.1f}",
            ]
        )
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    told = [read_mark(folder) for folder in parser.parse_args().folders]
    head = [
        "data",
        "method",
        "ε",
        "popularity distance",
        "pairs below 0.1",
        "nearest, median",
        "exact copies",
    ]
    print(table([*head, *ATTACKS.values()], [privacy_row(one) for one in told]))
    if rows := [row for one in told for row in replay_rows(one)]:
        head = ["data", "method", "ε", "planted", "nearest", "of others", "others as near"]
        print("", table([*head, "exact repeats"], rows), sep="\n")


if __name__ == "__main__":
    main()
