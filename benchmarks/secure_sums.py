"""What secure sums cost beside plain ones: seconds and bytes of a round through Flower.

    python benchmarks/secure_sums.py --out runs/secure-sums [--nodes 3 10 50] [--users 1000]

Runs `snowdrop simulate` on generated data, with and without `secure_sums`, and prints a Markdown
table. What was run before is read from the folder.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from quality import simulate

CHOSEN = {
    "dim": 64,
    "rounds": 9,
    "evaluate_every": 9,
    "method": "own-features",
    "baselines": "false",
    "twin": "false",
}


def run(data: Path, out: Path, nodes: int, secure: bool) -> dict[str, Any]:
    """The summary of a run."""
    chosen = {**CHOSEN, "secure_sums": str(secure).lower()}
    options = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
    folder = out / f"{nodes}-{'secure' if secure else 'plain'}"
    return simulate(data, folder, ["--nodes", str(nodes), *options])


def row(nodes: int, plain: dict[str, Any], secure: dict[str, Any]) -> str:
    """One line of the table."""
    cells = [str(nodes)]
    for part, key, scale in (
        ("timing", "round_seconds_median", 1),
        ("wire", "bytes_down_per_node_and_round", 1e6),
        ("wire", "bytes_up_per_node_and_round", 1e6),
    ):
        before, after = plain[part][key] / scale, secure[part][key] / scale
        cells += [f"{before:.2f}", f"{after:.2f}", f"{after / before:.2f}"]
    total = [
        sum(one["wire"][f"bytes_{way}_per_node_and_round"] for way in ("down", "up"))
        for one in (plain, secure)
    ]
    cells.append(f"{total[1] / total[0]:.2f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nodes", type=int, nargs="*", default=[3, 10, 50])
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--items", type=int, default=2_000)
    given = parser.parse_args()
    data = given.out / "data"
    if not (data / "items.csv").exists():
        sizes = ["--users", str(given.users), "--items", str(given.items)]
        command = [sys.executable, "-m", "cli.main", "prepare", "demo", "--out", str(data), *sizes]
        subprocess.run(command, check=True, stdout=sys.stderr)
    print(
        "| nodes | s, plain | s, secure | ratio | MB down, plain | secure | ratio | MB up, plain | "
        "secure | ratio | ratio of all bytes |"
    )
    print("| --- " * 11 + "|")
    for nodes in given.nodes:
        print(row(nodes, *(run(data, given.out, nodes, secure) for secure in (False, True))))


if __name__ == "__main__":
    main()
