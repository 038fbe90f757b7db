"""Recall and NDCG on cold test items, beside rules that need no federation, as a Markdown table.

    python benchmarks/quality.py --out runs/quality DATA_DIR [DATA_DIR ...] [-- --set key=value ...]

Every data folder is run through Flower by `snowdrop simulate`; a run that is there is not repeated.
What follows ``--`` goes to `snowdrop simulate`.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from common.bar import BAR_METRIC, TWIN, best_local_rule
from server_app.run_folder import RunFolder

SHOWN = ("recall@20", "recall@50", "recall@100", "precision@20", "ndcg@20", "ndcg@100")


def simulate(data: Path, run_dir: Path, options: list[str]) -> dict[str, Any]:
    """The summary of a run, made now where it is not there."""
    folder = RunFolder(run_dir)
    if folder.read_summary() is None:
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
    return folder.read_summary() or {}


def describe(name: str, run_dir: Path, summary: dict[str, Any]) -> str:
    """What was measured, on which data, split and seed."""
    settings = RunFolder(run_dir).read_settings()
    assert settings is not None  # the run has ended
    dataset = summary["dataset"]
    items = dataset["items"]
    generated = " (generated data)" if summary["generated_data"] else ""
    return (
        f"**{name}**{generated}: {dataset['users']} users, {items['warm']} warm, "
        f"{items['validation']} validation and {items['test']} test items; "
        f"seed {settings.seed}, method {settings.method}, preset {settings.preset}, "
        f"d = {settings.dim}, {settings.nodes} nodes, "
        f"best validated round {summary['best_round']}; test metrics in per cent over "
        f"{summary['tested_users']} users; peak memory {summary['memory']['peak_rss_mb']:.0f} MB"
    )


def table(summary: dict[str, Any]) -> list[str]:
    """The method, its frozen twin, the rules, and how many times the best rule each has."""
    baselines = summary["baselines"]
    rows = {f"**{summary['method']}**": summary}
    twins = {parts["title"]: parts for parts in baselines.values() if parts["kind"] == TWIN}
    rows |= {**twins, **{parts["title"]: parts for parts in baselines.values()}}
    bar = best_local_rule(
        {name: parts["kind"] for name, parts in baselines.items()},
        {name: parts.get("validation", {}).get(BAR_METRIC) for name, parts in baselines.items()},
        {name: parts["test"].get(BAR_METRIC) for name, parts in baselines.items()},
    )
    best = baselines[bar.name] if bar else None
    lines = [
        "| | " + " | ".join(SHOWN) + " | recall@20 ÷ best local rule |",
        "| --- |" + " --- |" * (len(SHOWN) + 1),
    ]
    for name, parts in rows.items():
        metrics = parts["test"]
        cells = " | ".join(f"{100 * metrics[metric]:.2f}" for metric in SHOWN)
        level = best["test"][BAR_METRIC] if best else 0.0
        times = f"{metrics[BAR_METRIC] / level:.3f}" if level else "–"
        lines.append(f"| {name} | {cells} | {times} |")
    if bar and best:
        chosen = "validation" if bar.validated else "test"
        lines += ["", f"The best local rule on {chosen} items is {best['title']}."]
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
