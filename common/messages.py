"""What each message carries; the only place that knows record keys.

Every message is a frozen dataclass with ``to_record`` and ``from_record``; DESIGN's table of
messages is this file. Tables travel as float32, or as float16 with ``wire_dtype``.
"""

import json
from dataclasses import field
from typing import Any, ClassVar, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from common.catalogue import ItemIndex
from common.errors import OverflowedError, SnowdropError
from common.settings import TrainingSettings

QUERY_CATALOGUE = "query.catalogue"
QUERY_DESCRIBE = "query.describe"
QUERY_COUNT = "query.count"
QUERY_RECOMMEND = "query.recommend"
TRAIN = "train"
EVALUATE = "evaluate"

NEEDS_CATALOGUE = "needs-catalogue"
KEPT = "kept"
REFUSED = 200
"""Code of the error reply of a node that cannot do what it was asked, with a fixed sentence."""
OVERFLOWED = 201
"""The same, where the numbers of its training overflowed."""


_STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)


@dataclass(frozen=True, config=_STRICT)
class Body:
    """Fields that are NumPy arrays travel as arrays, all others as configuration values."""

    def to_record(self) -> RecordDict:
        values: dict[str, Any] = {}
        arrays: dict[str, Array] = {}
        for name, value in self.__dict__.items():
            if isinstance(value, np.ndarray):
                arrays[name] = Array(value)
            elif value is not None:
                values[name] = value
        return RecordDict({"values": ConfigRecord(values), "arrays": ArrayRecord(arrays)})

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """The message in ``record``.

        Raises
        ------
        SnowdropError
            If a field is missing, unknown or of another type, or an array cannot be read.
        """
        try:
            values = dict(record.config_records["values"])
            arrays = {k: v.numpy() for k, v in record.array_records["arrays"].items()}
            return cls(**values, **arrays)
        except Exception as error:
            raise SnowdropError(f"malformed {cls.__name__}") from error


@dataclass(frozen=True, config=_STRICT)
class CatalogueNotice(Body):
    """Every item id with its split, in row order; once for each version."""

    ids: list[str]
    splits: list[str]

    @classmethod
    def of(cls, index: ItemIndex) -> Self:
        return cls(list(index.ids), list(index.splits))

    def index(self) -> ItemIndex:
        return ItemIndex(tuple(self.ids), tuple(self.splits))


@dataclass(frozen=True, config=_STRICT)
class DescribeRequest(Body):
    """Asks for counts."""

    catalogue: str


@dataclass(frozen=True, config=_STRICT)
class DescribeAnswer(Body):
    """Counts of a node's data, and its memory."""

    users: int
    users_without_warm: int
    warm: int
    validation: int
    test: int
    unknown: int
    peak_rss_mb: float


@dataclass(frozen=True, config=_STRICT)
class OfTraining(Body):
    """What all requests share that are about a training's state after a round."""

    catalogue: str
    training: str
    round: int
    settings: str

    def training_settings(self) -> TrainingSettings:
        return TrainingSettings(**json.loads(self.settings))


@dataclass(frozen=True, config=_STRICT)
class TrainRequest(OfTraining):
    """The item table, to be trained on by every user of the node."""

    best_round: int
    table: np.ndarray  # (warm, d)
    mapped: np.ndarray | None = None  # (warm, d), with item_pull only


@dataclass(frozen=True, config=_STRICT)
class TrainAnswer(Body):
    """Sums over the node's users of the round."""

    users: int
    loss_sum: float
    change: np.ndarray  # (warm, d): Σ_u (E_u − E), divided by scale
    touches: np.ndarray | None = None  # int64 (warm,): users that touched each row
    scale: float = 1.0


@dataclass(frozen=True, config=_STRICT)
class EvaluateRequest(OfTraining):
    """A split to be ranked, by a scorer."""

    split: str
    scorer: str  # head, content-profile or random
    cold: np.ndarray | None = None  # (cold, d) or, for the content profile, (cold, c)
    warm: np.ndarray | None = None  # (warm, c), content profile only

    SCORERS: ClassVar[tuple[str, ...]] = ("head", "content-profile", "random")


@dataclass(frozen=True, config=_STRICT)
class EvaluateAnswer(Body):
    """Sums over the users that have cold items of the split."""

    users: int
    names: list[str] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)


@dataclass(frozen=True, config=_STRICT)
class CountRequest(Body):
    """Asks how many users have interacted with each cold item of the test split."""

    catalogue: str


@dataclass(frozen=True, config=_STRICT)
class CountAnswer(Body):
    """Counts of users, never who they are."""

    users: np.ndarray  # int64 (cold,)


@dataclass(frozen=True, config=_STRICT)
class RecommendRequest(OfTraining):
    """New items to be ranked for every user; the lists stay on the node."""

    top: int
    cold: np.ndarray  # (cold, d): validation items, then test items


@dataclass(frozen=True, config=_STRICT)
class RecommendAnswer(Body):
    """How many users were served."""

    users: int


def for_wire(table: np.ndarray, settings: TrainingSettings) -> np.ndarray:
    """A table as it travels, in the dtype of ``wire_dtype``.

    Raises
    ------
    OverflowedError
        If a value does not fit.
    """
    with np.errstate(over="ignore"):
        packed = table.astype(settings.wire_dtype, copy=False)
    if np.isfinite(packed).all():
        return packed
    if np.isfinite(table).all():
        raise OverflowedError(
            f"a table holds numbers up to {np.abs(table).max():.3g}, too large for wire_dtype = "
            f"{packed.dtype}; set wire_dtype = float32, or lower item_lr"
        )
    raise OverflowedError("a table holds NaN or Inf: lower item_lr or head_lr")


def for_wire_scaled(table: np.ndarray, settings: TrainingSettings) -> tuple[np.ndarray, float]:
    """A table of any magnitude as it travels, and what it must be multiplied by on arrival.

    Raises
    ------
    OverflowedError
        If it holds NaN or Inf.
    """
    if settings.wire_dtype == "float32" or not np.isfinite(table).all():
        return for_wire(table, settings), 1.0
    scale = float(np.abs(table).max(initial=0.0)) or 1.0
    return for_wire(table / scale, settings), scale


def status_record(status: str) -> RecordDict:
    """An answer that is a status word alone."""
    return RecordDict({"status": ConfigRecord({"status": status})})


def status_of(record: RecordDict) -> str | None:
    """The status word of an answer, or None where it is a full answer."""
    status = record.config_records.get("status")
    return None if status is None else str(status.get("status"))


def pack_settings(settings: TrainingSettings) -> str:
    """Training settings as they travel."""
    return settings.model_dump_json()
