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
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from cli.bench.methods import Chosen
from client_app.interactions import interaction_files
from common.bar import TRAINED
from common.catalogue import find_table, read_catalogue
from common.demo import ITEMS, demo_texts
from common.errors import FormatError, OverflowedError, SnowdropError
from common.settings import DEMO, RunSettings
from server_app.modality.file import features_file
from server_app.modality.image import image_paths
from server_app.run_folder import NODES, RunFolder

Result = TypeVar("Result")

_PRELOADED = ["cli.bench.mortal", "cli.bench.artefacts", "cli.in_process", "cli.tune"]
"""All that a run or a trial imports; this process itself never needs it."""
_LARGE = ("checkpoint", "nodes")
_FEATURES = ("*.features.npy", "*.features.parquet")
_POLL_SECONDS = 0.2
_BESIDE_ROUNDS = 4
"""Rounds that take as long as all else of a run: its process, its items, its test."""


@dataclass(frozen=True)
class Run:
    """A method on a seed; whole once its last file is there."""

    chosen: Chosen
    seed: int
    settings: RunSettings
    digest: str
    former: str = ""
    """What a run that was given the same settings had otherwise, as older defaults were."""

    @property
    def folder(self) -> Path:
        return Path(self.settings.run_dir)

    @property
    def whole(self) -> bool:
        """Whether it was made, by this or an earlier command."""
        return RunFolder(self.folder).is_whole

    @property
    def work(self) -> int:
        """About how long it takes, in rounds."""
        return _BESIDE_ROUNDS + (self.settings.rounds if self.chosen.kind == TRAINED else 0)

    def share_done(self) -> float:
        """Share of its rounds that are behind it, while it goes on."""
        return min(1.0, RunFolder(self.folder).rounds_done() / self.settings.rounds)


def data_checksum(data: str, settings: Mapping[str, Any]) -> str:
    """Digest of the files of a data folder that a run reads, or of the demo's texts.

    Parameters
    ----------
    data : str
        Data folder, or 'demo'.
    settings : Mapping[str, Any]
        Of the run: images count where ``modalities`` or ``modality`` names them.
    """
    digest = hashlib.sha256()
    if data == DEMO:
        digest.update(json.dumps(demo_texts(ITEMS, 0)).encode())
        return f"{DEMO} {digest.hexdigest()[:8]}"
    folder = Path(data)
    features = sorted(path for pattern in _FEATURES for path in folder.glob(pattern))
    images: list[Path] = []
    named = f"{settings.get('modalities', '')},{settings.get('modality', '')}"
    names = {part.partition(":")[0].strip() for part in re.split(r"[,+]", named)}
    if "image" in names and not features_file(folder, "image"):
        images = [path for path in image_paths(read_catalogue(folder, 0), folder) if path]
    for path in (find_table(folder, "items"), *interaction_files(folder), *features, *images):
        if path.exists():
            digest.update(f"{path.name}:{path.stat().st_size}:".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def plan(
    methods: Sequence[Chosen],
    seeds: Iterable[int],
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
    checksums: dict[tuple[str, str], str] = {}
    shared = {"nodes": 1, **shared}
    runs = []
    for seed in seeds:
        for chosen in methods:
            given = {"data": data, "seed": seed, "baselines": False}
            settings = chosen.settings(tuned, shared, given)
            read = settings.modalities, settings.modality
            if read not in checksums:
                checksums[read] = data_checksum(data, settings.flat())
            place = out.absolute() / "runs"
            # What differs from the defaults, so that a new setting does not make all runs anew.
            run = _run_in(place, chosen, settings, [settings.changed(), checksums[read]])
            if former := _older_default(run):
                known = [settings.with_effect(), checksums[read]]
                run = replace(_run_in(place, chosen, settings, known), former=former)
            runs.append(run)
    return runs


def _run_in(place: Path, chosen: Chosen, settings: RunSettings, known: list[Any]) -> Run:
    """A run whose folder has a name that what is ``known`` of it makes."""
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:10]
    label = re.sub(r"[^A-Za-z0-9.]+", "_", chosen.name)
    folder = place / f"{label}-{settings.seed}-{digest}"
    settings = settings.model_copy(update={"run_dir": str(folder)})
    return Run(chosen, settings.seed, settings, digest)


def _older_default(run: Run) -> str:
    """A setting in which the whole run that is there differs from this one, with both values.

    Empty where nothing is there, or nothing differs. Their folder has the same name, so both were
    given the same settings, and a default has changed between them.
    """
    label = f"{run.chosen.name}, seed {run.seed}"
    try:
        stored = RunFolder(run.folder).read_settings() if run.whole else None
    except FormatError:
        raise
    except SnowdropError:
        return f"{label}, whose settings this release cannot read"
    if stored is None:
        return ""
    other = first_difference(stored, run.settings)
    return other and f"{label}, with {other}"


def first_difference(stored: RunSettings, today: RunSettings, besides: Collection[str] = ()) -> str:
    """A setting that may change results and has another value, with both; empty where none has."""
    then = stored.with_effect()
    for name, value in today.with_effect().items():
        if name not in besides and then.get(name) != value:
            return f"{name} = {then.get(name)} in place of {value}"
    return ""


def perform(run: Run, keep: bool = False) -> None:
    """Make a run in this process; a half one that is there is made anew.

    Raises
    ------
    SnowdropError
        If it fails.
    """
    from cli.bench.artefacts import write_artefacts

    shutil.rmtree(run.folder, ignore_errors=True)
    folder = RunFolder(run.folder)
    summary = train_and_test(run.settings)
    sample = write_artefacts(folder, run.settings, summary)
    summary |= {
        "method": run.chosen.name,
        "title": run.chosen.title,
        "twin_of": run.chosen.twin_of,
    }
    folder.write_summary(summary)
    if not keep:
        for name in _LARGE:
            shutil.rmtree(run.folder / name, ignore_errors=True)
        (run.folder / NODES).unlink(missing_ok=True)
    folder.write_sample(sample)


def train_and_test(settings: RunSettings) -> dict[str, Any]:
    """What an in-process run finds; one that overflows is tested at its best validated round.

    So the published codes do: they choose among all rounds on validation items, and rounds whose
    numbers overflow validate worst. ``broke_off`` is the round that overflowed.

    Raises
    ------
    SnowdropError
        If it fails before a round was validated.
    """
    from cli.in_process import run_in_process
    from server_app.checkpoint import newest_state

    def attempt(settings: RunSettings) -> dict[str, Any]:
        return run_in_process(settings, plots=False)  # the report draws its own

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


def encode_items(settings: RunSettings) -> None:
    """Fill the cache of modality features.

    Raises
    ------
    SnowdropError
        If the items or the encoder cannot be read.
    """
    from common.device import pick_device
    from server_app.items import load_catalogue, world_of

    world_of(settings, load_catalogue(settings), pick_device(settings.server_device))


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
        in_own_process(encode_items, (run.settings,), lambda: watch(0.0))
        in_own_process(perform, (run, keep), lambda: watch(run.share_done()))
    except SnowdropError as error:
        raise SnowdropError(f"{run.chosen.name}, seed {run.seed}: {error}") from error
    finally:
        if not run.whole:
            shutil.rmtree(run.folder, ignore_errors=True)


def share_cores(jobs: int) -> None:
    """Give each of several processes of this command its share of the cores, or fewer.

    ``OMP_NUM_THREADS`` of whoever calls is the most that each gets.
    """
    if jobs > 1:
        share = max(1, (os.cpu_count() or 1) // jobs)
        given = os.environ.get("OMP_NUM_THREADS", "")
        os.environ["OMP_NUM_THREADS"] = str(min(share, int(given)) if given.isdigit() else share)


def in_own_process(
    work: Callable[..., Result],
    arguments: tuple[Any, ...],
    watch: Callable[[], None],
    preloaded: Sequence[str] = _PRELOADED,
) -> Result:
    """What a function of a module returns, called in a fresh process that ends with it.

    Parameters
    ----------
    work : Callable
    arguments : tuple
        Of the function.
    watch : Callable[[], None]
        Called again and again meanwhile; what it raises ends the process.
    preloaded : Sequence[str]
        Modules that are imported once, for all processes of this command.

    Raises
    ------
    SnowdropError
        If it raises one, or the process dies.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preloaded))
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_and_tell, args=(sender, work, arguments))
    with _deaf_to_interrupts():
        process.start()
    sender.close()
    try:
        while process.is_alive():
            process.join(_POLL_SECONDS)
            watch()
        try:
            worked, told = receiver.recv()
        except EOFError:
            why = ", as a rule for want of memory" if process.exitcode == -signal.SIGKILL else ""
            raise SnowdropError(f"its process died with status {process.exitcode}{why}") from None
        if not worked:
            raise SnowdropError(told)
        return told
    finally:
        if process.is_alive():
            process.terminate()
            process.join()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started here does not hear Ctrl-C until `cli.bench.mortal` is imported there.

    Else it would print a traceback of whatever it was importing.
    """
    resource_tracker.ensure_running()  # later it would make this thread hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
