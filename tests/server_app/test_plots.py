"""The plots of a run, and the two dimensions in which embeddings are shown."""

import numpy as np
import torch
from sklearn.decomposition import PCA

from server_app.plots import embeddings_plot, in_two_dimensions, metrics_plot


def test_snapshots_lie_in_the_main_axes_of_the_last_warm_items() -> None:
    draw = torch.Generator().manual_seed(0)
    stretch = torch.tensor([5.0, 3.0, 1.0, 0.1])
    snapshots = {
        number: {kind: torch.randn(40, 4, generator=draw) * stretch for kind in ("warm", "cold")}
        for number in (2, 4)
    }
    flat = in_two_dimensions(snapshots)
    pca = PCA(2).fit(snapshots[4]["warm"].numpy())
    for number, kinds in snapshots.items():
        for kind, rows in kinds.items():
            expected = pca.transform(rows.numpy())
            got = flat[number][kind]
            signs = np.sign((expected * got).sum(0))  # an axis may point either way
            np.testing.assert_allclose(got, expected * signs, atol=1e-4)
    again = in_two_dimensions(snapshots)
    np.testing.assert_array_equal(again[2]["cold"], flat[2]["cold"])


def test_one_dimension_is_shown_as_a_line() -> None:
    rows = torch.arange(5.0)[:, None]
    flat = in_two_dimensions({1: {"warm": rows, "cold": rows}})
    assert flat[1]["warm"].shape == (5, 2)
    assert not flat[1]["warm"][:, 1].any()


PNG = b"\x89PNG\r\n"


def test_plots_are_images() -> None:
    rows = torch.arange(10.0).reshape(5, 2)
    history = [
        {"round": 1, "loss": 0.7},
        {"round": 2, "loss": 0.6, "generator_loss": 0.3, "validation_recall@20": 0.2},
    ]
    assert metrics_plot(history).startswith(PNG)
    assert (embeddings_plot({1: {"warm": rows, "cold": rows}}) or b"").startswith(PNG)


def test_a_method_without_rounds_has_plots_too() -> None:
    assert metrics_plot([]).startswith(PNG)
    assert embeddings_plot({}) is None
