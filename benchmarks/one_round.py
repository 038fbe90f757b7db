"""What the sum of `one-round` costs with many items or users, as a Markdown table.

    python benchmarks/one_round.py [--items 10000 1000000] [--users 10000 1000000]

Users' histories are drawn (20 items each), and so are item features (64 numbers each). A line is
made in a process of its own, with one thread: the sum on a node with all users, what the server
makes of it, and the weights of 1,000 new items. Bytes are those of the arrays that travel.
"""

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from common.methods.one_round import OneRoundSettings
from common.users.item_sums import gram_sum, sketch_sum, unpacked
from common.users.ragged import Ragged

HISTORY, FEATURES, NEW = 20, 64, 1_000


def drawn_units(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Unit rows, float32 (rows, `FEATURES`)."""
    made = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def drawn_histories(users: int, items: int, rng: np.random.Generator) -> Ragged:
    """About `HISTORY` items for each user, few of them popular."""
    places = (items * rng.random((users, HISTORY)) ** 3).astype(np.int64)
    places.sort(axis=1)
    kept = np.diff(places, axis=1, prepend=-1) > 0
    return Ragged(np.concatenate([[0], np.cumsum(kept.sum(1))]), places[kept])


def line(items: int, users: int) -> str:
    """One line of the table."""
    import torch
    from threadpoolctl import threadpool_limits

    from server_app.carrier import LANDMARKS, WHOLE
    from server_app.compact import compact, compact_by_landmarks
    from server_app.item_weights import directions_of_gram, directions_of_sketch, text_basis
    from server_app.kernels import ridge_weights

    torch.set_num_threads(1)
    own, rng = OneRoundSettings(), np.random.default_rng(0)
    seconds = []

    def timed(started: float) -> float:
        seconds.append(time.perf_counter() - started)
        return time.perf_counter()

    with threadpool_limits(1):
        histories, warm = drawn_histories(users, items, rng), drawn_units(items, rng)
        columns = own.columns_for(items)
        basis = text_basis(warm, columns) if columns else None
        now = time.perf_counter()
        numbers = gram_sum(histories, items) if basis is None else sketch_sum(histories, basis)
        now = timed(now)
        mean = (numbers / users).astype(np.float32)
        up = mean.nbytes
        del numbers
        if basis is None:
            axes, _ = directions_of_gram(unpacked(mean, items), own.directions)
        else:
            axes, _ = directions_of_sketch(mean, basis, own.directions)
        del mean
        now = timed(now)
        cold = drawn_units(NEW, rng)
        if items <= WHOLE:
            weights = ridge_weights(warm, cold, own.sharpness, own.ridge)
            made = compact(weights, own.rank, own.neighbours)
        else:
            chosen = np.sort(rng.permutation(items)[:LANDMARKS])
            made = compact_by_landmarks(
                warm, cold, own.sharpness, own.ridge, own.rank, own.neighbours, chosen
            )
        timed(now)
    sent = made.items.nbytes + made.columns.nbytes + made.values.nbytes
    once = made.warm.nbytes + axes.nbytes
    down = 0 if basis is None else basis.nbytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cells = [
        f"{items:,}", f"{users:,}", str(columns or "all"), *(f"{one:.1f}" for one in seconds),
        f"{peak:,.0f}", f"{down / 1e6:.1f}", f"{up / 1e6:.1f}", f"{once / 1e6:.1f}",
        f"{sent / NEW / 1e3:.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", nargs="+", type=int, default=[2_000, 10_000, 1_000_000])
    parser.add_argument("--users", nargs="+", type=int, default=[10_000])
    options = parser.parse_args()
    heads = ("warm items", "users", "columns", "sum s", "directions s", "weights s", "peak MB",
             "MB down: basis", "MB up: sum", "MB down: warm items",
             "kB down: a new item")  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads), flush=True)
    for items in options.items:
        for users in options.users:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                print(pool.submit(line, items, users).result(), flush=True)


if __name__ == "__main__":
    main()
