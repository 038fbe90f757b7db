"""Seconds and memory of making synthetic users, as a Markdown table.

    python benchmarks/synthetic.py [--data DATA_DIR ...] [--methods sdrm multivae-prior]
        [--large] [--threads 2] [--device cpu]

Each method learns from the users of each folder and makes as many; the folders are cut by users,
as `snowdrop bench-synthetic` reads them. ``--large`` makes 100,000 users with
10,000 items, who like 1 % of them.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array, vstack

from client_app.synthesis import synthesizer_of
from client_app.synthesis.chosen import Chosen
from client_app.synthesis.data import read_user_splits
from client_app.synthesis.silo import Silo
from common.device import pick_device

LARGE = "generated"
"""The name of the data that stand for a large silo."""

LARGE_USERS = 100_000
LARGE_ITEMS = 10_000
LIKES = 100
"""Likes of a generated user: 1 % of the items."""

LEARNT = 2_000
"""Users that are learnt from before 100,000 are made."""


def silo_of(data: str) -> Silo:
    """Users for training and test of a folder, or generated ones."""
    if data == LARGE:
        columns = np.random.default_rng(0).integers(0, LARGE_ITEMS, (LEARNT, LIKES))
        rows = np.repeat(np.arange(LEARNT), LIKES)
        ones = np.ones(rows.size, dtype=bool)
        likes = csr_array((ones, (rows, columns.ravel())), shape=(LEARNT, LARGE_ITEMS))
        return Silo(likes, likes)
    train, test, _ = read_user_splits(Path(data))
    return Silo(
        csr_array(vstack([train.likes, test.likes])), csr_array(vstack([train.rated, test.rated]))
    )


def measure(data: str, method: str, device: torch.device) -> str:
    """One line of the table, measured in this process."""
    silo = silo_of(data)
    users, items = silo.likes.shape
    changes = {f"{method}.vae_epochs": 1} if data == LARGE else {}
    own = synthesizer_of(method, Chosen.of(method, changes).settings, items, device)
    begin = time.perf_counter()
    own.fit(silo, 0)
    fitted = time.perf_counter()
    made = own.sample(LARGE_USERS if data == LARGE else users, 0).likes
    sampled = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cells = [
        Path(data).name, method, str(users), str(items), f"{fitted - begin:.0f}",
        str(made.shape[0]), f"{sampled - fitted:.0f}", f"{peak:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure each row in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--methods", nargs="*", default=["sdrm", "multivae-prior", "multivae"])
    parser.add_argument("--large", action="store_true", help="100,000 users with 10,000 items too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.row:
        print(measure(*options.row, pick_device(options.device, "--device")), flush=True)
        return
    heads = ("data", "method", "users", "items", "fit s", "made", "sample s", "peak MB")
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads), flush=True)
    for data in [*options.data, *([LARGE] if options.large else [])]:
        for method in options.methods:
            options_of_row = ["--threads", str(options.threads), "--device", options.device]
            command = [sys.executable, __file__, *options_of_row, "--row", data, method]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
