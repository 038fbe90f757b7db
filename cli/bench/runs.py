"""One run of a comparison: known by its settings and its data, made in a process of its own.

A fresh process each, forked from one that has only imported: its peak memory is its own, and
nothing that one run caches reaches the next.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from cli.bench.artefacts import write_artefacts
from cli.bench.methods import Chosen
from cli.in_process import InProcessGrid
from client_app.interactions import interaction_files
from common.catalogue import find_table
from common.durable import write_atomic
from common.errors import OverflowedError, SnowdropError
from common.settings import DEMO, RunSettings
from server_app import app as server_app
from server_app.checkpoint import newest_state
from server_app.modality import pick_device
from server_app.report import RunFolder

Result = TypeVar("Result")

_UNNAMED = (
    "data", "run_dir", "resume", "preset", "nodes_timeout", "round_timeout", "top", "tensorboard",
)  # fmt: skip
"""Settings that change no result."""
_PRELOADED = ["cli.bench", "cli.prepare", "cli.recommend", "cli.settings", "cli.tune"]
"""All that a fresh process imports before it works: what `cli.main` does, which it runs again."""
_LARGE = ("checkpoint", "nodes")
_LAST = "sample.json"
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Run:
    """A method on a seed; whole once its last file is there."""

    chosen: Chosen
    seed: int
    settings: RunSettings
    digest: str

    @property
    def folder(self) -> Path:
        return Path(self.settings.run_dir)

    @property
    def whole(self) -> bool:
        """Whether it was made, by this or an earlier command."""
        return (self.folder / _LAST).exists()

    def summary(self) -> dict[str, Any]:
        """What the run found."""
        return json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))

    def rounds_done(self) -> int:
        """Rounds that are behind it, while it goes on."""
        try:
            return max(0, (self.folder / "rounds.csv").read_bytes().count(b"\n") - 1)
        except OSError:
            return 0


def data_checksum(data: str) -> str:
    """Digest of the files of a data folder that a run reads."""
    if data == DEMO:
        return DEMO
    digest = hashlib.sha256()
    for path in (find_table(Path(data), "items"), *interaction_files(Path(data))):
        if path.exists():
            digest.update(f"{path.name}:{path.stat().st_size}:".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def plan(
    methods: Sequence[Chosen],
    seeds: int,
    data: str,
    out: Path,
    tuned: Mapping[str, Mapping[str, Any]],
    shared: Mapping[str, Any],
) -> list[Run]:
    """Every run of a comparison, seed by seed.

    Raises
    ------
    SnowdropError
        If a method's settings do not fit together.
    """
    checksum = data_checksum(data)
    runs = []
    for seed in range(seeds):
        for chosen in methods:
            given = {
                "data": data,
                "nodes": 1,
                "seed": seed,
                "baselines": chosen.method.scorer != "head",
            }
            settings = chosen.settings(tuned, shared, given)
            named = {k: v for k, v in settings.model_dump().items() if k not in _UNNAMED}
            content = json.dumps([chosen.name, named, checksum], sort_keys=True)
            digest = hashlib.sha256(content.encode()).hexdigest()[:10]
            label = re.sub(r"[^A-Za-z0-9.]+", "_", chosen.name.replace("-", "_"))
            folder = out.absolute() / "runs" / f"{label}-{seed}-{digest}"
            settings = settings.model_copy(update={"run_dir": str(folder)})
            runs.append(Run(chosen, seed, settings, digest))
    return runs


def perform(run: Run, keep: bool = False) -> None:
    """Make a run in this process; a half one that is there is made anew.

    Raises
    ------
    SnowdropError
        If it fails.
    """
    shutil.rmtree(run.folder, ignore_errors=True)
    summary = train_and_test(run.settings)
    sample = write_artefacts(run.folder, run.settings, summary, run.chosen.method.scorer)
    scorer = run.chosen.method.scorer
    if scorer != "head":
        summary |= summary["baselines"][scorer]
    summary |= {"method": run.chosen.name, "title": run.chosen.method.title, "baselines": {}}
    write_atomic(run.folder / "summary.json", json.dumps(summary, indent=2).encode())
    if not keep:
        for name in _LARGE:
            shutil.rmtree(run.folder / name, ignore_errors=True)
    write_atomic(run.folder / _LAST, json.dumps(sample, indent=2, ensure_ascii=False).encode())


def train_and_test(settings: RunSettings) -> dict[str, Any]:
    """What an in-process run finds; one that overflows is tested at its best validated round.

    So the published codes do: they choose among all rounds on validation items, and rounds whose
    numbers overflow validate worst. ``broke_off`` is the round that overflowed.

    Raises
    ------
    SnowdropError
        If it fails before a round was validated.
    """

    def attempt(settings: RunSettings) -> dict[str, Any]:
        grid = InProcessGrid(settings.nodes, settings.model_dump())
        return server_app.run(grid, settings, plots=False)  # the report draws its own

    began = time.perf_counter()
    try:
        return attempt(settings)
    except OverflowedError:
        last = newest_state(Path(settings.run_dir) / "checkpoint")
        if last is None or not last["best_round"]:
            raise
    summary = attempt(settings.model_copy(update={"resume": True, "rounds": last["round"]}))
    RunFolder(Path(settings.run_dir)).write_settings(settings)
    summary["timing"]["total_seconds"] = time.perf_counter() - began
    return summary | {"broke_off": last["round"] + 1}


def encode_texts(settings: RunSettings) -> None:
    """Fill the cache of modality features.

    Raises
    ------
    SnowdropError
        If the items or the encoder cannot be read.
    """
    texts = server_app.load_catalogue(settings).texts
    server_app.encode(texts, settings, pick_device(settings.server_device))


def execute(run: Run, keep: bool, watch: Callable[[float], None]) -> None:
    """`perform` in a process of its own, which finds its features made.

    Else the first run of a comparison alone would pay for the encoder, in time and in memory.

    Parameters
    ----------
    run : Run
    keep : bool
        Whether checkpoints and nodes' states stay.
    watch : Callable[[float], None]
        Told again and again what share of the rounds is done.

    Raises
    ------
    SnowdropError
        If the run fails; nothing of it is left.
    """
    try:
        in_own_process(encode_texts, (run.settings,), lambda: watch(0.0))
        in_own_process(
            perform, (run, keep), lambda: watch(min(1.0, run.rounds_done() / run.settings.rounds))
        )
    except SnowdropError as error:
        raise SnowdropError(f"{run.chosen.name}, seed {run.seed}: {error}") from error
    finally:
        if not run.whole:
            shutil.rmtree(run.folder, ignore_errors=True)


def in_own_process(
    work: Callable[..., Result], arguments: tuple[Any, ...], watch: Callable[[], None]
) -> Result:
    """What a function of a module returns, called in a fresh process that ends with it.

    Raises
    ------
    SnowdropError
        If it raises one, or the process dies.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_and_tell, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        while process.is_alive():
            process.join(_POLL_SECONDS)
            watch()
        try:
            worked, told = receiver.recv()
        except EOFError:
            raise SnowdropError(f"its process died with status {process.exitcode}") from None
        if not worked:
            raise SnowdropError(told)
        return told
    finally:
        if process.is_alive():
            process.terminate()
            process.join()


def _work_and_tell(
    sender: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    logging.getLogger("snowdrop").setLevel(logging.ERROR)
    Thread(target=_end_with_parent, daemon=True).start()
    with suppress(KeyboardInterrupt):
        try:
            sender.send((True, work(*arguments)))
        except SnowdropError as error:
            sender.send((False, str(error)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
