"""What noise costs `one-round`: Recall@20 and NDCG@20 by ε, as a Markdown table.

    python benchmarks/noise.py DATA --out runs/noise [--seeds 3 4 5] [--noise-by sum nodes]

Runs of three nodes in one process, through the real messages. With noise of the sum all three must
be there, so that the sum has exactly the noise that ε asks for. Metrics are told by the nodes for
the table alone, and nothing is chosen by them. What was run before is read from the folder.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from cli.in_process import run_in_process
from cli.privacy import least_noise
from common.privacy import gaussian_epsilon
from common.settings import RunSettings

NODES = 3
BARE, TWIN = "no noise", "no federation"
SKETCH = {"one-round.columns": 64}
"""The form of the sum that noise is added to."""
METRICS = ("recall@20", "ndcg@20")


def noise_for(epsilon: float, delta: float, by: str) -> float:
    """Standard deviation σ for an ε of one release with C = 1."""
    apart = 2 if by == "nodes" else 1
    return least_noise(lambda scale: gaussian_epsilon(apart / scale, delta), epsilon)


def forms(given: argparse.Namespace) -> dict[tuple[str, str], dict[str, Any]]:
    """Settings of each row, by who adds noise and by ε."""
    made: dict[tuple[str, str], dict[str, Any]] = {
        (TWIN, ""): {"method": "one-round:frozen"},
        (BARE, "∞"): {},
        (f"{BARE}, 64 columns", "∞"): SKETCH,
    }
    for by in given.noise_by:
        for epsilon in given.epsilons:
            scale = noise_for(epsilon, given.delta, by)
            made[by, f"{epsilon:g}"] = {
                "average": "users", "clip_norm": 1.0, "gaussian_scale": scale, "noise_by": by,
                "secure_sums": by == "sum", "release_metrics": True, "privacy_delta": given.delta,
            }  # fmt: skip
    return made


def tested(folder: Path, values: dict[str, Any]) -> dict[str, float]:
    """Per cent of each metric on test items."""
    summary = folder / "summary.json"
    if not summary.exists():
        run_in_process(RunSettings.parse({**values, "run_dir": str(folder)}), plots=False)
    test = json.loads(summary.read_text())["test"]
    return {name: 100 * test[name] for name in METRICS}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3])
    parser.add_argument(
        "--noise-by", nargs="+", choices=("sum", "server", "nodes"), default=["sum"]
    )
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.5, 1, 2, 4, 8])
    parser.add_argument("--delta", type=float, default=1e-6)
    given = parser.parse_args()
    shared = {
        "method": "one-round", "data": str(given.data.resolve()), "nodes": NODES,
        "baselines": False, "fresh": True,
    }  # fmt: skip
    found = {
        row: [
            tested(given.out / f"{'-'.join(row)}-{seed}", {**shared, **own, "seed": seed})
            for seed in given.seeds
        ]
        for row, own in forms(given).items()
    }
    gain = {name: _mean(found[BARE, "∞"], name) - _mean(found[TWIN, ""], name) for name in METRICS}
    heads = ("noise of", "ε", *(part for name in METRICS for part in (name, "of the gain kept")))
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for row, results in found.items():
        cells = list(row)
        for name in METRICS:
            values = [one[name] for one in results]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            kept = (_mean(results, name) - _mean(found[TWIN, ""], name)) / gain[name]
            cells += [f"{_mean(results, name):.2f}{spread}", f"{100 * kept:.0f} %"]
        print("| " + " | ".join(cells) + " |")


def _mean(results: list[dict[str, float]], name: str) -> float:
    return statistics.fmean(one[name] for one in results)


if __name__ == "__main__":
    main()
