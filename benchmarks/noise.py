"""What noise costs a method: Recall@20 and NDCG@20 by ε, as a Markdown table, attacks beside them.

    python benchmarks/noise.py DATA --out runs/noise [--method mixture] [--seeds 3 4 5]
        [--noise-by nodes sum server] [--epsilons 0.5 1 2 4 8] [--delta 1e-6]
        [--paper-scales 0 1 10 20 30 40 50] [--attack-users 99] [--quick-noise] [--jobs 8]

Runs of three nodes in one process each, through the real messages. With noise of the sum all three
must be there, so that the sum has exactly the noise that ε asks for. ε is of the whole training.
Metrics are told by the nodes for the table alone, after the last round, and nothing is chosen by
them. What was run before with the same settings is read from the folder.

Noise is drawn as `common.discrete` does, exactly, at about 11 µs for each number. With
``--quick-noise`` it is Gaussian noise in floating point, rounded to the same steps: its
distribution is the same as far as a table can tell.

``--paper-scales`` adds rows with the noise of the MDiffFR paper (table 5): Laplace noise of these
scales on changes of any size, which has no ε. ``--attack-users`` adds the AUC of ``snowdrop attack
membership`` on a federation of so many users on three nodes, with the first seed and the same
noise.
"""

import argparse
import contextlib
import hashlib
import json
import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from cli.assignments import parse_assignments
from cli.attack.membership import CALIBRATED, UPDATES, membership
from cli.attack.options import noted
from cli.in_process import run_in_process
from cli.privacy import least_noise
from common import discrete
from common.errors import SnowdropError
from common.privacy import gaussian_epsilon
from common.settings import RunSettings
from server_app.run_folder import RunFolder

NODES = 3
BARE, TWIN = "no noise", "no federation"
SKETCH = "no noise, 64 columns"
"""The form of the sum that noise is added to, where the method has one sum."""
MEAN = "no noise, mean over users"
"""What noise needs in place of the mean over those who touched a row."""
PAPER = "paper"
METRICS = ("recall@20", "ndcg@20")
LEAST_GAIN = 0.25
"""Points that a federation must gain for shares of the gain to be told."""
ATTACKS = (UPDATES, CALIBRATED)

Row = tuple[str, str]


def noise_for(epsilon: float, delta: float, by: str, rounds: int, clip_norm: float) -> float:
    """Standard deviation σ for an ε of all rounds."""
    apart = (2 if by == "nodes" else 1) * clip_norm * rounds**0.5
    return least_noise(lambda scale: gaussian_epsilon(apart / scale, delta), epsilon)


def bare_forms(method: str) -> dict[Row, dict[str, Any]]:
    """Settings of the rows without noise."""
    made: dict[Row, dict[str, Any]] = {
        (TWIN, ""): {"method": f"{method}:frozen"},
        (BARE, "∞"): {"secure_sums": True},
    }
    settings = RunSettings.parse({"method": method})
    if "one-round.columns" in settings.flat():
        made[SKETCH, "∞"] = {"one-round.columns": 64}
    elif settings.average == "touches":
        made[MEAN, "∞"] = {"average": "users"}
    return made


def noisy_forms(given: argparse.Namespace, delta: float, rounds: int) -> dict[Row, dict[str, Any]]:
    """Settings of the rows with noise, by who adds it and by ε, or by the paper's scale."""
    made: dict[Row, dict[str, Any]] = {}
    told = {"average": "users", "release_metrics": True}
    for by in given.noise_by:
        for epsilon in given.epsilons:
            scale = noise_for(epsilon, delta, by, rounds, given.clip_norm)
            made[by, f"{epsilon:g}"] = {
                **told, "clip_norm": given.clip_norm, "gaussian_scale": scale, "noise_by": by,
                "secure_sums": by == "sum", "privacy_delta": delta,
            }  # fmt: skip
    for scale in given.paper_scales:
        made[PAPER, f"scale {scale:g}"] = {
            **told, "laplace_scale": scale, "noise_without_epsilon": True,
        }  # fmt: skip
    return made


def measured(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The summary of a run with these settings, which is made if there is none."""
    settings = RunSettings.parse(values)
    changed = {**settings.changed(), "data": settings.data}
    own = RunFolder(place_of(folder, changed, changed_in(folder)))
    if own.read_summary() is None:
        run_in_process(settings.model_copy(update={"run_dir": str(own.path)}), plots=False)
    return own.read_summary() or {}


def changed_in(folder: Path) -> dict[str, Any] | None:
    """What the run in a folder was made with; None where there is none that can be read."""
    with contextlib.suppress(SnowdropError):
        settings = RunFolder(folder).read_settings()
        return settings and {**settings.changed(), "data": settings.data}
    return None


def attacked(folder: Path, values: dict[str, Any], users: int, rounds: int) -> dict[str, Any]:
    """Rows of ``attack.json`` by attack; the attack is made if there is none with these settings.

    A folder that an older release named may hold another one.
    """
    own = {k: v for k, v in values.items() if k not in {"data", "nodes", "rounds",
           "evaluate_every", "fresh", "baselines"}}  # fmt: skip
    told = {
        "data": Path(values["data"]).name, "users": users, "rounds": rounds,
        "settings": dict(noted(RunSettings.parse({**own, "nodes": NODES}))),
    }  # fmt: skip
    found = json_in(folder)
    place = place_of(folder, told, found and {name: found.get(name) for name in told})
    if json_in(place) is None:
        sets = [f"{name}={value}" for name, value in own.items()]
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            membership(values["data"], str(users // NODES), users, rounds, sets, None, place)
    return {row["attack"]: row for row in (json_in(place) or {})["rows"]}


def json_in(folder: Path) -> dict[str, Any] | None:
    """What an attack left in a folder."""
    path = folder / "attack.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def place_of(folder: Path, wanted: Mapping[str, Any], there: Mapping[str, Any] | None) -> Path:
    """Where results made with some settings are, or go.

    Parameters
    ----------
    folder : Path
        Named without settings, as older releases did.
    wanted : Mapping[str, Any]
        What the results must have been made with.
    there : Mapping[str, Any], optional
        What those in ``folder`` were made with; None: there are none.
    """
    if there == wanted:
        return folder
    content = json.dumps(wanted, sort_keys=True).encode()
    return folder.with_name(f"{folder.name}-{hashlib.sha256(content).hexdigest()[:10]}")


def draw_quickly() -> None:
    """Replace the exact sampler of this process."""
    rng = np.random.default_rng()
    discrete.drawn_exactly = lambda count, deviation: np.rint(
        rng.normal(0, deviation, count)
    ).astype(np.int64)


def main() -> None:
    """Run what is missing and print the table."""
    given = arguments()
    shared = {
        "method": given.method, "data": str(given.data.resolve()), "nodes": NODES,
        "baselines": False, "fresh": True, **parse_assignments(given.set),
    }  # fmt: skip
    rounds = given.rounds or RunSettings.parse(shared).rounds
    shared |= {"rounds": rounds, "evaluate_every": rounds}

    def all_of(rows: Mapping[Row, dict[str, Any]]) -> tuple[dict[Row, list[Any]], dict[Row, Any]]:
        """Runs of all seeds and, where asked for, the attack, for each row."""
        runs = {
            row: [
                start(measured, given.out / _name(row, seed), {**shared, **own, "seed": seed})
                for seed in given.seeds
            ]
            for row, own in rows.items()
        }
        attacks = {
            row: start(
                attacked, given.out / f"attack-{_name(row, given.seeds[0])}",
                {**shared, **own, "seed": given.seeds[0]}, given.attack_users, rounds,
            )
            for row, own in rows.items()
            if given.attack_users and row[0] not in {TWIN, SKETCH, MEAN}
        }  # fmt: skip
        return (
            {row: [one.result() for one in own] for row, own in runs.items()},
            {row: one.result() for row, one in attacks.items()},
        )

    quick = draw_quickly if given.quick_noise else None
    with ProcessPoolExecutor(given.jobs, get_context("spawn"), quick) as pool:

        def start(work: Callable[..., Any], *values: Any) -> "Future[Any]":
            return pool.submit(work, *values)

        bare = bare_forms(given.method)
        first = _name((BARE, "∞"), given.seeds[0])  # alone, so that texts are encoded once
        own = {**shared, **bare[BARE, "∞"], "seed": given.seeds[0]}
        users = start(measured, given.out / first, own).result()["dataset"]["users"]
        delta = given.delta or 1 / users**2
        found, auc = all_of({**bare, **noisy_forms(given, delta, rounds)})
    print(f"{given.method}, {given.data.name}: {users:,} users, {rounds} rounds, δ = {delta:.3g}\n")
    print("\n".join(table(found, auc)))


def table(found: Mapping[Row, list[Any]], auc: Mapping[Row, Any]) -> Iterable[str]:
    """Lines of the Markdown table."""
    tested = {
        row: [{name: 100 * run["test"][name] for name in METRICS} for run in runs]
        for row, runs in found.items()
    }
    heads = ["noise of", "ε", *(part for name in METRICS for part in (name, "of the gain kept"))]
    if auc:
        heads += [f"AUC from {name}" for name in ATTACKS] + ["bound"]
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    for row, results in tested.items():
        cells = list(row)
        for name in METRICS:
            values = [one[name] for one in results]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            least = _mean(tested[TWIN, ""], name)
            gain = _mean(tested[BARE, "∞"], name) - least
            share = (_mean(results, name) - least) / gain if gain > LEAST_GAIN else None
            kept = "–" if share is None else f"{100 * share:.0f} %"
            cells += [f"{_mean(results, name):.2f}{spread}", kept]
        if auc:
            cells += _guessed(auc.get(row, {}))
        yield "| " + " | ".join(cells) + " |"


def _guessed(attacks: Mapping[str, Any]) -> list[str]:
    """The AUC of each attack with its interval, and the bound."""
    rows = [attacks.get(name, {}) for name in ATTACKS]
    cells = [
        f"{row['auc']:.3f} ({row['low']:.3f} to {row['high']:.3f})" if "auc" in row else "–"
        for row in rows
    ]
    bounds = [row["bound"] for row in rows if row.get("bound") is not None]
    return [*cells, f"{bounds[0]:.3f}" if bounds else "–"]


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="one-round")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3])
    parser.add_argument(
        "--noise-by", nargs="*", choices=("sum", "server", "nodes"), default=["sum"]
    )
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.5, 1, 2, 4, 8])
    parser.add_argument("--delta", type=float, help="δ (default: 1 / users²)")
    parser.add_argument("--clip-norm", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, help="rounds (default: those of the method)")
    parser.add_argument("--paper-scales", type=float, nargs="*", default=[])
    parser.add_argument("--attack-users", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--quick-noise", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    return parser.parse_args()


def _name(row: Row, seed: int) -> str:
    return f"{'-'.join(row).replace(' ', '-')}-{seed}"


def _mean(results: list[dict[str, float]], name: str) -> float:
    return statistics.fmean(one[name] for one in results)


if __name__ == "__main__":
    main()
