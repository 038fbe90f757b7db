"""Recall and NDCG on cold test items, beside the baselines of the same run, as a Markdown table.

    python benchmarks/quality.py --out runs/quality DATA_DIR [DATA_DIR ...] [-- --set key=value ...]

Every data folder is run through Flower by `snowdrop simulate`; a run that is there is not repeated.
What follows ``--`` goes to `snowdrop simulate`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SHOWN = ("recall@20", "recall@50", "recall@100", "precision@20", "ndcg@20", "ndcg@100")


def simulate(data: Path, run_dir: Path, options: list[str]) -> dict[str, Any]:
    """The summary of a run, made now where it is not there."""
    summary = run_dir / "summary.json"
    if not summary.exists():
        command = [
            sys.executable,
            "-m",
            "cli.main",
            "simulate",
            str(data),
            "--run-dir",
            str(run_dir),
        ]
        subprocess.run([*command, *options], check=True, stdout=sys.stderr)
    return json.loads(summary.read_text())


def describe(name: str, run_dir: Path, summary: dict[str, Any]) -> str:
    """What was measured, on which data, split and seed."""
    settings = json.loads((run_dir / "settings.json").read_text())
    dataset = summary["dataset"]
    items = dataset["items"]
    generated = " (generated data)" if summary["generated_data"] else ""
    return (
        f"**{name}**{generated}: {dataset['users']} users, {items['warm']} warm, "
        f"{items['validation']} validation and {items['test']} test items; "
        f"seed {settings['seed']}, preset {settings['preset']}, d = {settings['dim']}, "
        f"{settings['nodes']} nodes, "
        f"best validated round {summary['best_round']}; test metrics in per cent over "
        f"{summary['tested_users']} users; peak memory {summary['memory']['peak_rss_mb']:.0f} MB"
    )


def table(summary: dict[str, Any]) -> list[str]:
    """The method and the baselines, and how many times the content profile each has."""
    rows = {f"**{summary['method']}**": summary["test"]}
    rows |= {name: parts["test"] for name, parts in summary["baselines"].items()}
    profile = summary["baselines"]["content-profile"]["test"]["recall@20"]
    lines = [
        "| | " + " | ".join(SHOWN) + " | recall@20 / content profile |",
        "| --- |" + " --- |" * (len(SHOWN) + 1),
    ]
    for name, metrics in rows.items():
        cells = " | ".join(f"{100 * metrics[metric]:.2f}" for metric in SHOWN)
        lines.append(f"| {name} | {cells} | {metrics['recall@20'] / profile:.3f} |")
    return lines


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    ours, _, theirs = (" ".join(sys.argv[1:]) + " ").partition(" -- ")
    options = parser.parse_args(ours.split())
    for data in options.data:
        run_dir = options.out / data.name
        summary = simulate(data, run_dir, theirs.split())
        print(describe(data.name, run_dir, summary), "", *table(summary), "", sep="\n")


if __name__ == "__main__":
    main()
