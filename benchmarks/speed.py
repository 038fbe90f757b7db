"""Seconds of a federated round, messages included, and memory, as a Markdown table.

    python benchmarks/speed.py --out runs/speed [--data DATA_DIR ...] [--large]
        [--nodes 2 8 32]

Runs `snowdrop simulate` with d = 64 on the given folders, on generated data of the size of the
paper's largest set (100 rounds, ten validations) and on generated data of growing numbers of users.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from quality import simulate

from server_app.run_folder import RunFolder

PAPER_SIZE = {"users": 16_525, "items": 3_509, "interactions-per-user": 7}
GROWTH = (1_000, 10_000, 100_000)
LARGE = 1_000_000
SHORT = [
    "--set",
    "rounds=3",
    "--set",
    "evaluate_every=3",
    "--set",
    "baselines=false",
    "--set",
    "method=ridge",
]
WIDTH = ["--set", "dim=64", "--set", "twin=false"]


def generate(out: Path, **sizes: int) -> Path:
    """A generated data folder of that size."""
    if not (out / "items.csv").exists():
        options = [part for k, v in sizes.items() for part in (f"--{k}", str(v))]
        command = [sys.executable, "-m", "cli.main", "prepare", "demo", "--out", str(out), *options]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return out


def growth(users: int) -> dict[str, int]:
    """Sizes of generated data with that many users."""
    return {"users": users, "items": 2_000, "interactions-per-user": 7}


def row(name: str, data: Path, run_dir: Path, options: list[str]) -> str:
    """One line of the table."""
    summary = simulate(data, run_dir, [*WIDTH, *options])
    settings = RunFolder(run_dir).read_settings()
    assert settings is not None  # the run has ended
    timing, sizes = summary["timing"], summary["dataset"]
    shown = [
        f"{timing[key]:.2f}" if timing[key] is not None else "–"
        for key in ("round_seconds_median", "generator_seconds_median", "evaluate_seconds_median")
    ]
    wire = summary["wire"]
    cells = [
        name,
        str(settings.nodes),
        str(sizes["users"]),
        str(sum(sizes["items"].values())),
        str(sum(sizes["interactions"].values())),
        *shown,
        f"{timing['total_seconds']:.0f}",
        f"{summary['memory']['peak_rss_mb']:.0f}",
        f"{wire['bytes_down_per_node_and_round'] / 1e6:.2f}",
        f"{wire['bytes_up_per_node_and_round'] / 1e6:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", type=Path, default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--large", action="store_true", help="a million users too")
    parser.add_argument("--nodes", nargs="*", type=int, default=[], help="numbers of nodes too")
    options = parser.parse_args()
    heads = ("data", "nodes", "users", "items", "interactions", "round s", "generator s",
             "evaluate s", "total s", "peak MB", "MB down", "MB up")  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads), flush=True)
    for data in options.data:
        print(row(data.name, data, options.out / data.name, []), flush=True)
    paper = generate(options.out / "data" / "paper-size", **PAPER_SIZE)
    hundred = ["--set", "rounds=100"]
    print(row("generated, 100 rounds", paper, options.out / "paper-size", hundred), flush=True)
    for nodes in options.nodes:
        data = generate(options.out / "data" / f"{GROWTH[1]}", **growth(GROWTH[1]))
        run_dir = options.out / f"nodes-{nodes}"
        print(
            row("generated, 3 rounds", data, run_dir, [*SHORT, "--nodes", str(nodes)]), flush=True
        )
    for users in (*GROWTH, *([LARGE] if options.large else [])):
        data = generate(options.out / "data" / f"{users}", **growth(users))
        print(row("generated, 3 rounds", data, options.out / f"{users}", SHORT), flush=True)


if __name__ == "__main__":
    main()
