"""What a comparison consists of: trainings of synthesizers, their samples, and cells of tables.

A synthesizer is trained once for each run and each silo, whatever is made of it: several samplings,
recommenders, and both of `augment` and `replace`. Each sample and each cell is a file, so that a
comparison that was stopped makes only what is missing.
"""

import hashlib
import io
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from scipy.sparse import csr_array

from cli.bench_synthetic.methods import Row, Tuned
from cli.bench_synthetic.names import METRICS, ORIGINAL, POPULAR, Mode, Protocol
from cli.bench_synthetic.protocol import World
from client_app.synthesis.base import Sample
from common.durable import write_atomic
from common.errors import SnowdropError
from common.methods import MethodSettings
from common.roles import Role, fields_with

FORMAT = 1
"""Of the files of samples and cells."""


@dataclass(frozen=True)
class Training:
    """A synthesizer that is trained, or real users.

    Parameters
    ----------
    method : str
        Of its card; 'original' for real users.
    published : bool
        Whether it is in its published form, which sees some items of the reported users.
    protocol : str, optional
        The protocol whose silo it sees; None where the silo is the same for all.
    run : int
        Also its seed.
    folder : Path
    """

    method: str
    published: bool
    protocol: Protocol | None
    run: int
    folder: Path

    @property
    def state(self) -> Path:
        """Where the synthesizer keeps how far it is."""
        return self.folder / "training"

    @property
    def progress(self) -> Path:
        """What is being done at the moment."""
        return self.folder / "now"


@dataclass(frozen=True)
class Sampling:
    """A sample of a trained synthesizer.

    Parameters
    ----------
    training : Training
    settings : MethodSettings, optional
        Of the synthesizer; None for real users.
    digest : str
    """

    training: Training
    settings: MethodSettings | None
    digest: str

    @property
    def path(self) -> Path:
        return self.training.folder / f"sample-{self.digest}.npz"


@dataclass(frozen=True)
class Cell:
    """A recommender on real users, on synthetic ones or on both; whole once its file is there.

    Parameters
    ----------
    row : Row
    sampling : Sampling
    protocol, recommender, mode : str
    """

    row: Row
    sampling: Sampling
    protocol: Protocol
    recommender: str
    mode: Mode

    @property
    def run(self) -> int:
        return self.sampling.training.run

    @property
    def path(self) -> Path:
        name = f"{self.sampling.digest}-{self.protocol}-{self.recommender}-{self.mode}.json"
        return self.sampling.training.folder / name

    @property
    def whole(self) -> bool:
        """Whether it was made, by this or an earlier command."""
        return self.path.exists()

    @property
    def named(self) -> str:
        """As a line about it says."""
        return f"{self.row.name}, {self.recommender}, {self.mode}, {self.protocol}, run {self.run}"

    def read(self) -> dict[str, Any]:
        """What its file holds.

        Raises
        ------
        SnowdropError
            If it is damaged, or a later release wrote it.
        """
        try:
            told: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            format_, metrics = told["format"], told["metrics"]
            whole = all(isinstance(metrics[name], float) for name in METRICS)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SnowdropError(f"{self.path} is damaged; delete it to make it anew") from error
        if format_ > FORMAT or not whole:
            raise SnowdropError(f"{self.path} is of another release; delete it to make it anew")
        return told


@dataclass(frozen=True)
class Plan:
    """Which comparison it is.

    Parameters
    ----------
    rows : Sequence[Row]
    recommenders : Sequence[str]
    protocols, modes : Sequence[str]
    runs : int
    data : str
        Name of the data folder.
    checksum : str
        Of the data.
    users : int
        Synthetic users of a sample.
    tuned, shared : Mapping[str, Any]
        Settings of files and of ``--set``.
    """

    rows: Sequence[Row]
    recommenders: Sequence[str]
    protocols: Sequence[Protocol]
    modes: Sequence[Mode]
    runs: int
    data: str
    checksum: str
    users: int
    tuned: Tuned = field(default_factory=dict)
    shared: Mapping[str, Any] = field(default_factory=dict)

    def cells(self, out: Path) -> list[Cell]:
        """All cells, run by run, so that a comparison that is stopped has all methods."""
        return [
            cell
            for run in range(self.runs)
            for row in self.rows
            for protocol in self.protocols
            for cell in self._of_row(out, run, row, protocol)
        ]

    def _of_row(self, out: Path, run: int, row: Row, protocol: Protocol) -> Iterable[Cell]:
        modes: Sequence[Mode] = self.modes if row.named else ["original"]
        for name in self.recommenders:
            sampling = self.sampling(out, run, row, protocol, name)
            for mode in modes:
                yield Cell(row, sampling, protocol, name, mode)
        if not row.named and not run:
            sampling = self.sampling(out, run, row, protocol, POPULAR)
            yield Cell(row, sampling, protocol, POPULAR, "original")

    def sampling(
        self, out: Path, run: int, row: Row, protocol: Protocol, recommender: str
    ) -> Sampling:
        """Which synthetic users a cell needs.

        Raises
        ------
        SnowdropError
            If the row's settings do not fit together.
        """
        settings = row.settings(self.tuned, self.shared, self.data, recommender)
        method = row.card.name if row.card else ORIGINAL
        silo = protocol if row.published else None
        identity = changed(
            settings, set(fields_with(type(settings), Role.IDENTITY)) if settings else set()
        )
        digest = digest_of([method, identity, row.published, silo, run, self.checksum])
        form = "_paper" if row.published else ""
        label = re.sub(r"[^A-Za-z0-9.]+", "_", f"{method}{form}")
        folder = out.absolute() / "runs" / f"{label}-{run}-{digest}"
        training = Training(method, row.published, silo, run, folder)
        return Sampling(training, settings, digest_of([changed(settings), self.users]))


def changed(settings: MethodSettings | None, names: set[str] | None = None) -> dict[str, Any]:
    """Settings that differ from their defaults, so that a new setting makes nothing anew."""
    if settings is None:
        return {}
    fields = type(settings).model_fields
    values = settings.model_dump(mode="json")
    return {
        name: value
        for name, value in values.items()
        if value != fields[name].default and (names is None or name in names)
    }


def digest_of(content: Any) -> str:
    """Ten letters by which something is known."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def checksum_of(world: World) -> str:
    """Digest of real users' interactions."""
    digest = hashlib.sha256()
    for table in (world.train, world.reported):
        for matrix in (table.likes, table.rated):
            for part in (matrix.shape, matrix.indptr, matrix.indices):
                digest.update(np.asarray(part, np.int64).tobytes())
    return digest.hexdigest()[:16]


def grouped(cells: Iterable[Cell]) -> dict[Training, list[Cell]]:
    """Cells by the training that they need, in their order."""
    found: dict[Training, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.sampling.training, []).append(cell)
    return found


class Moment(NamedTuple):
    """How far the cells of a training are."""

    now: str
    done: float
    """Units of effort that are behind it."""


def write_sample(path: Path, sample: Sample, told: Mapping[str, Any]) -> None:
    """Keep a sample, with numbers about it.

    Raises
    ------
    SnowdropError
        If it cannot be written.
    """
    parts: dict[str, Any] = {"format": FORMAT, "told": json.dumps(dict(told))}
    for name in ("likes", "dislikes"):
        matrix = csr_array(getattr(sample, name))
        parts |= {
            f"{name}_starts": matrix.indptr.astype(np.int64),
            f"{name}_items": matrix.indices.astype(np.int32),
        }
    content = io.BytesIO()
    np.savez_compressed(content, shape=np.asarray(sample.likes.shape), **parts)
    write_atomic(path, content.getvalue())


def read_sample(path: Path) -> tuple[Sample, dict[str, Any]]:
    """A sample, and the numbers about it.

    Raises
    ------
    SnowdropError
        If it is damaged, or a later release wrote it.
    """
    try:
        with np.load(path) as parts:
            if int(parts["format"]) > FORMAT:
                raise SnowdropError(f"{path} is of a later release; delete it to make it anew")
            shape = tuple(parts["shape"].tolist())
            matrices = [
                csr_array(
                    (
                        np.ones(len(parts[f"{name}_items"]), dtype=bool),
                        parts[f"{name}_items"],
                        parts[f"{name}_starts"],
                    ),
                    shape=shape,
                )
                for name in ("likes", "dislikes")
            ]
            return Sample(*matrices), json.loads(str(parts["told"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise SnowdropError(f"{path} is damaged; delete it to make it anew") from error


class Ticker:
    """Tells another process, through a file, what is being done and how far it is.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._path, self._told = path, -1.0

    def tell(self, now: str, done: float) -> None:
        """Say how far it is; may be called as often as one likes."""
        moment = time.monotonic()
        if moment - self._told < 0.5:
            return
        self._told = moment
        aside = self._path.with_suffix(".new")
        aside.write_text(json.dumps(Moment(now, done)), encoding="utf-8")
        aside.replace(self._path)

    @staticmethod
    def read(path: Path) -> Moment:
        """What was told last."""
        try:
            return Moment(*json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Moment("", 0.0)
