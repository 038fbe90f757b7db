"""What a run leaves in its folder: settings, rounds, summary and plots."""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.durable import write_atomic
from common.metrics import metric_names
from common.settings import KS, RunSettings

log = logging.getLogger("snowdrop")

ROUND_COLUMNS = (
    "round",
    "users",
    "loss",
    "generator_loss",
    *(f"validation_{name}" for name in metric_names(KS)),
    "failed_nodes",
    "train_seconds",
    "generator_seconds",
    "evaluate_seconds",
    "seconds",
    "node_bytes_down",
    "node_bytes_up",
)


class RunFolder:
    """The results of one run.

    Parameters
    ----------
    path : Path
        Made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_settings(self, settings: RunSettings) -> None:
        """``settings.json``: all of them, resolved."""
        write_atomic(self.path / "settings.json", settings.model_dump_json(indent=2).encode())

    def write_rounds(self, history: Sequence[Mapping[str, Any]]) -> None:
        """``rounds.csv``: a row a round."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, ROUND_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_atomic(self.path / "rounds.csv", buffer.getvalue().encode())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """``summary.json``: the results, fractions and seconds."""
        write_atomic(self.path / "summary.json", json.dumps(summary, indent=2).encode())

    def write_published(self, published: Mapping[str, Any]) -> None:
        """``published.json``: what the last publishing came to, as counts."""
        write_atomic(self.path / "published.json", json.dumps(published, indent=2).encode())

    def plot_metrics(self, history: Sequence[Mapping[str, Any]]) -> None:
        """``metrics.png``: validation metrics and losses over rounds."""
        pyplot = _pyplot()
        figure, axes = pyplot.subplots(1, 4, figsize=(16, 3.6), layout="constrained")
        for axis, metric in zip(axes, ("recall", "precision", "ndcg"), strict=False):
            for k in KS:
                column = f"validation_{metric}@{k}"
                points = [(row["round"], row[column]) for row in history if column in row]
                if points:
                    axis.plot(*zip(*points, strict=True), marker="o", ms=3, label=f"@{k}")
            axis.set(title=f"validation {metric}", xlabel="round")
            axis.set_ylim(bottom=0, top=1.08 * axis.get_ylim()[1])
            if axis.lines:
                axis.legend(frameon=False, loc="lower right")
        rounds = [row["round"] for row in history]
        axes[3].plot(rounds, [row["loss"] for row in history], label="users")
        fitted = [(r["round"], r["generator_loss"]) for r in history if "generator_loss" in r]
        if fitted:
            axes[3].plot(*zip(*fitted, strict=True), marker="o", ms=3, label="generator")
        axes[3].set(title="training loss", xlabel="round")
        axes[3].legend(frameon=False)
        self._save(figure, "metrics.png")

    def plot_embeddings(self, snapshots: Mapping[int, Mapping[str, Tensor]]) -> None:
        """``embeddings.png``: warm and generated cold items in two PCA dimensions, by round.

        The paper's figures 2 and 4.
        """
        if not snapshots:
            return
        pyplot = _pyplot()
        rounds = sorted(snapshots)
        flat = in_two_dimensions(snapshots)
        figure, panels = pyplot.subplots(
            1, len(rounds), figsize=(4.6 * len(rounds), 4.4), layout="constrained",
            squeeze=False, sharex=True, sharey=True,
        )  # fmt: skip
        for panel, number in zip(panels[0], rounds, strict=True):
            for kind, colour, label in (
                ("warm", "#9aa5b1", "warm items"),
                ("cold", "#d1495b", "generated cold items"),
            ):
                points = flat[number][kind]
                panel.scatter(points[:, 0], points[:, 1], s=5, alpha=0.6, c=colour, label=label)
            panel.set(title=f"round {number}", xlabel="first principal component")
        panels[0][0].set_ylabel("second principal component")
        panels[0][0].legend(frameon=False, markerscale=2)
        self._save(figure, "embeddings.png")

    def _save(self, figure: Any, name: str) -> None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        write_atomic(self.path / name, buffer.getvalue())
        _pyplot().close(figure)


def in_two_dimensions(
    snapshots: Mapping[int, Mapping[str, Tensor]],
) -> dict[int, dict[str, np.ndarray]]:
    """Snapshots of embeddings in the two main axes of the last one's warm items.

    Parameters
    ----------
    snapshots : Mapping[int, Mapping[str, Tensor]]
        By round, float32 (items, d) ``warm`` and ``cold``; at least one round.

    Returns
    -------
    dict[int, dict[str, ndarray]]
        By round, float32 (items, 2).
    """
    basis = snapshots[max(snapshots)]["warm"].double()
    centre = basis.mean(0)
    spread = (basis - centre).T @ (basis - centre)  # float64: a training may be near overflow
    axes = torch.linalg.eigh(spread).eigenvectors[:, -2:].flip(1)
    axes = axes * axes.sum(0).sign()  # else each axis may point either way

    def flat(rows: Tensor) -> np.ndarray:
        points = ((rows.double() - centre) @ axes).float().numpy()
        return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))

    return {
        number: {kind: flat(rows) for kind, rows in kinds.items()}
        for number, kinds in snapshots.items()
    }


def result_table(summary: Mapping[str, Any]) -> str:
    """The final table: the method beside the baselines of the same run, on cold test items."""
    rows = {summary["method"]: summary["test"]}
    rows |= {name: parts["test"] for name, parts in summary["baselines"].items()}
    note = " (generated data)" if summary["generated_data"] else ""
    tested = summary["tested_users"]
    width = max(len(name) for name in rows)
    heads = [f"{metric}@{k}" for metric in ("R", "P", "N") for k in KS]
    lines = [
        f"cold test items{note}, {tested} users, per cent; R recall, P precision, N ndcg",
        " " * width + "".join(f"{head:>8}" for head in heads),
    ]
    for name, metrics in rows.items():
        cells = "".join(f"{100 * metrics[metric]:8.2f}" for metric in metric_names(KS))
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join(lines)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
