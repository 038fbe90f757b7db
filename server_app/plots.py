"""Plots of a run, as PNG images."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from common.settings import KS

if TYPE_CHECKING:
    from torch import Tensor


def metrics_plot(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Validation metrics and training losses over rounds.

    Parameters
    ----------
    history : Sequence[Mapping[str, Any]]
        One mapping per round, as ``rounds.csv`` has them.

    Returns
    -------
    bytes
        A PNG image.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, 4, figsize=(16, 3.6), layout="constrained")
    for axis, metric in zip(axes, ("recall", "precision", "ndcg"), strict=False):
        for k in KS:
            points = _points(history, f"validation_{metric}@{k}")
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", ms=3, label=f"@{k}")
        axis.set(title=f"validation {metric}", xlabel="round")
        axis.set_ylim(bottom=0, top=1.08 * axis.get_ylim()[1])
        if axis.lines:
            axis.legend(frameon=False, loc="lower right")
    for column, label, marker in (("loss", "users", None), ("generator_loss", "generator", "o")):
        points = _points(history, column)
        if points:
            axes[3].plot(*zip(*points, strict=True), marker=marker, ms=3, label=label)
    axes[3].set(title="training loss", xlabel="round")
    if axes[3].lines:
        axes[3].legend(frameon=False)
    return _png(figure)


def embeddings_plot(snapshots: "Mapping[int, Mapping[str, Tensor]]") -> bytes | None:
    """Warm and generated cold items in two principal components, by round.

    As figures 2 and 4 of the MDiffFR paper show them.

    Parameters
    ----------
    snapshots : Mapping[int, Mapping[str, Tensor]]
        By round, float32 (items, d) ``warm`` and ``cold``.

    Returns
    -------
    bytes or None
        A PNG image; None without snapshots.
    """
    if not snapshots:
        return None
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
    return _png(figure)


def in_two_dimensions(
    snapshots: "Mapping[int, Mapping[str, Tensor]]",
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
    import torch

    basis = snapshots[max(snapshots)]["warm"].double()
    centre = basis.mean(0)
    spread = (basis - centre).T @ (basis - centre)  # float64: a training may be near overflow
    axes = torch.linalg.eigh(spread).eigenvectors[:, -2:].flip(1)
    axes = axes * axes.sum(0).sign()  # else each axis may point either way

    def flat(rows: "Tensor") -> np.ndarray:
        points = ((rows.double() - centre) @ axes).float().numpy()
        return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))

    return {
        number: {kind: flat(rows) for kind, rows in kinds.items()}
        for number, kinds in snapshots.items()
    }


def _points(history: Sequence[Mapping[str, Any]], column: str) -> list[tuple[int, float]]:
    return [(row["round"], row[column]) for row in history if row.get(column) is not None]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    _pyplot().close(figure)
    return buffer.getvalue()


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
