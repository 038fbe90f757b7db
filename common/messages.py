"""What each message carries; the only place that knows record keys.

Every message is a frozen dataclass with ``to_record`` and ``from_record``: an envelope with the
training, the round, and named arrays and numbers that a method fills. Tables travel as float32, or
as float16 with ``wire_dtype``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from common.catalogue import ItemIndex
from common.errors import OverflowedError, SnowdropError
from common.secure.fixed_point import Field, Layout, Vector
from common.settings import TrainingSettings
from common.task import ORDERS, Order

QUERY_CATALOGUE = "query.catalogue"
QUERY_DESCRIBE = "query.describe"
QUERY_COUNT = "query.count"
QUERY_RECOMMEND = "query.recommend"
QUERY_SYNTHETIC = "query.synthetic"
QUERY_KEYS = "query.keys"
QUERY_SHARES = "query.shares"
QUERY_CONFIRM = "query.confirm"
QUERY_UNMASK = "query.unmask"
TRAIN = "train"
TRAIN_HEADS = "train.heads"
EVALUATE = "evaluate"

NEEDS_CATALOGUE = "needs-catalogue"
KEPT = "kept"
NOBODY = "-"
"""Who has signed keys that are not signed; Flower cannot count what is empty."""
REFUSED = 200
"""Code of the error reply of a node that cannot do what it was asked, with a fixed sentence."""
OVERFLOWED = 201
"""The same, where the numbers of its training overflowed."""
OUTSIDE_POLICY = 202
"""The same, where the request is outside what the node's owner agreed to."""


_STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, config=_STRICT)
class Body:
    """The envelope: numbers and texts travel as configuration values, arrays as array records.

    A field that is one array travels in the record ``single``; a field that is a dictionary of
    named arrays travels in a record of its own name. What is None or empty does not travel.
    """

    def to_record(self) -> RecordDict:
        values: dict[str, Any] = {}
        single: dict[str, Array] = {}
        records: dict[str, ConfigRecord | ArrayRecord] = {}
        for name, value in self.__dict__.items():
            if isinstance(value, np.ndarray):
                single[name] = Array(value)
            elif isinstance(value, dict):
                records[name] = ArrayRecord({key: Array(array) for key, array in value.items()})
            elif value is not None and value not in ("", []):  # which Flower cannot count
                values[name] = value
        if single:  # each record that travels costs every node a call to the SuperLink
            records["single"] = ArrayRecord(single)
        return RecordDict({"values": ConfigRecord(values), **records})

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
            named: dict[str, Any] = {}
            for key, arrays in record.array_records.items():
                read = {name: array.numpy() for name, array in arrays.items()}
                named |= read if key == "single" else {key: read}
            return cls(**values, **named)
        except Exception as error:
            raise SnowdropError(f"malformed {cls.__name__}") from error


@dataclass(frozen=True, config=_STRICT)
class Companion(Body):
    """A body without arrays that can travel beside another one, in a record of its own name."""

    RECORD: ClassVar[str]

    def beside(self, record: RecordDict) -> RecordDict:
        """A record with this beside it."""
        return RecordDict({**record, self.RECORD: self.to_record().config_records["values"]})

    @classmethod
    def found_beside(cls, record: RecordDict) -> Self | None:
        """What stands beside a record, if anything does.

        Raises
        ------
        SnowdropError
            If it is malformed.
        """
        own = record.config_records.get(cls.RECORD)
        return None if own is None else cls.from_record(RecordDict({"values": own}))


class Summable(Body):
    """An answer whose numbers may be added up over nodes before anybody sees them."""

    def numbers(self) -> Arrays:
        """All that it tells, by name."""
        raise NotImplementedError


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
    counts: bool = True
    """Whether anything but the number of users is asked for; a run with noise asks for no more."""


@dataclass(frozen=True, config=_STRICT)
class DescribeAnswer(Summable):
    """Counts of a node's data, and its memory; None where it says the number of users alone."""

    users: int
    users_without_warm: int | None = None
    warm: int | None = None
    validation: int | None = None
    test: int | None = None
    unknown: int | None = None
    peak_rss_mb: float | None = None
    order: Order = "seeded"
    """Which column of its interactions tells their order, none of what it holds."""

    def numbers(self) -> Arrays:
        """Its users, by what tells their order; its counts, zeros where it withholds them."""
        told = {name: getattr(self, name) for name in _COUNTS}
        return {
            **{f"users.{order}": np.array([self.users * (order == self.order)])
               for order in _ORDERS},
            **{name: np.array([count or 0]) for name, count in told.items()},
            "withheld": np.array([int(None in told.values())]),
        }  # fmt: skip

    @classmethod
    def fields(cls) -> tuple[Field, ...]:
        """What a masked sum of such answers holds."""
        names = [*(f"users.{order}" for order in _ORDERS), *_COUNTS, "withheld"]
        return tuple(Field(name, 1) for name in names)

    @classmethod
    def of_sums(cls, sums: Mapping[str, np.ndarray]) -> list[Self]:
        """As if each order had one node, the first of them with all counts."""
        users = {order: int(sums[f"users.{order}"][0]) for order in _ORDERS}
        some = [order for order in _ORDERS if users[order]] or [_ORDERS[0]]
        if sums["withheld"][0]:
            return [cls(users[order], order=order) for order in some]
        first = {name: int(sums[name][0]) for name in _COUNTS}
        return [
            cls(users=users[order], order=order, peak_rss_mb=None, **counts)
            for order, counts in zip(
                some, [first, *[dict.fromkeys(_COUNTS, 0)] * len(some)], strict=False
            )
        ]


_ORDERS: tuple[Order, ...] = (*ORDERS, "seeded")
_COUNTS = ("users_without_warm", "warm", "validation", "test", "unknown")


@dataclass(frozen=True, config=_STRICT)
class SyntheticRequest(Body):
    """Asks how a node answers a training, and for its synthetic users where it sends some."""

    catalogue: str
    known: list[str] = field(default_factory=list)
    """Names of the sets that the server has: a node sends none of these again."""


@dataclass(frozen=True, config=_STRICT)
class SyntheticAnswer(Body):
    """How a node answers, and users that do not exist, which it has made of its own.

    This is the one message that holds users one by one. They travel in a record that is named
    ``synthetic_users``, and nothing else does.
    """

    answer: str
    """A `common.settings.Answer`, its owner's choice."""
    name: str = ""
    """Of the set of synthetic users; empty where there is none."""
    epsilon: float | None = None
    """ε of the whole set, as the node states it; None where it states none."""
    synthetic_users: Arrays = field(default_factory=dict)
    """``offsets``, int64 (users + 1,), and ``items``, int64 (interactions,), rows of the item
    table, as in `common.users.ragged.Ragged`; empty where the server has the set."""


@dataclass(frozen=True, config=_STRICT)
class OfTraining(Body):
    """What all requests share that are about a training's state after a round."""

    catalogue: str
    training: str
    round: int
    settings: str

    def training_settings(self) -> TrainingSettings:
        return TrainingSettings.unpack(self.settings)


@dataclass(frozen=True, config=_STRICT)
class TrainRequest(OfTraining):
    """What every user of the node is to be trained on; arrays are named by the method."""

    best_round: int
    scale: float = 1.0
    """What the sums of the answer are divided by before they travel: one for the whole round."""
    arrays: Arrays = field(default_factory=dict)  # such as table: (warm, d)


@dataclass(frozen=True, config=_STRICT)
class TrainAnswer(Summable):
    """Sums over the node's users of the round; arrays are named by the method."""

    users: int
    loss_sum: float | None = None
    """None with noise of the nodes, which a loss would not carry."""
    sums: Arrays = field(default_factory=dict)
    """Such as change: (warm, d), Σ_u (E_u − E) divided by the request's scale; and touches: int64
    (warm,), users that touched each row."""

    def numbers(self) -> Arrays:
        told = {} if self.loss_sum is None else {"loss_sum": np.array([self.loss_sum])}
        sums = {f"sums.{name}": array for name, array in self.sums.items()}
        return {"users": np.array([self.users]), **told, **sums}


@dataclass(frozen=True, config=_STRICT)
class HeadsRequest(OfTraining):
    """The item table of a round, for the users of a node that trains in none to fit heads to."""

    best_round: int
    arrays: Arrays = field(default_factory=dict)  # as for `TrainRequest`


@dataclass(frozen=True, config=_STRICT)
class HeadsAnswer(Body):
    """That heads were fitted; nothing of them, or of users, leaves the node."""


class Scored(Protocol):
    """How items are to be scored."""

    @property
    def scorer(self) -> str: ...
    @property
    def method(self) -> str:
        """Whose node's half knows the scorer."""

    @property
    def arrays(self) -> Arrays:
        """What the scorer needs."""


@dataclass(frozen=True, config=_STRICT)
class Ranked:
    """One ranking that is to be measured: of a split, by a scorer."""

    split: str
    scorer: str
    method: str
    arrays: Arrays = field(default_factory=dict)
    forms: int = 1
    """Forms of the scorer that are tried at once, such as weights of a mixture."""


@dataclass(frozen=True, config=_STRICT)
class EvaluateRequest(OfTraining):
    """Rankings to be measured; the lists have one entry for each."""

    task: str
    splits: list[str]
    scorers: list[str]
    methods: list[str]
    forms: list[int]
    arrays: Arrays = field(default_factory=dict)
    """Of all rankings, by the place of the ranking and their name: ``0/items``."""

    @classmethod
    def of(cls, header: Mapping[str, Any], rankings: Sequence[Ranked]) -> Self:
        """A request for some rankings; ``header`` has the other fields."""
        return cls(
            **header,
            splits=[ranked.split for ranked in rankings],
            scorers=[ranked.scorer for ranked in rankings],
            methods=[ranked.method for ranked in rankings],
            forms=[ranked.forms for ranked in rankings],
            arrays={
                f"{place}/{name}": array
                for place, ranked in enumerate(rankings)
                for name, array in ranked.arrays.items()
            },
        )

    def rankings(self) -> list[Ranked]:
        """The rankings, in order.

        Raises
        ------
        SnowdropError
            If the lists do not fit together.
        """
        arrays: list[Arrays] = [{} for _ in self.splits]
        try:
            for key, array in self.arrays.items():
                place, _, name = key.partition("/")
                arrays[int(place)][name] = array
            parts = zip(self.splits, self.scorers, self.methods, arrays, self.forms, strict=True)
            return [Ranked(*part) for part in parts]
        except (ValueError, IndexError) as error:
            raise SnowdropError("malformed EvaluateRequest") from error


@dataclass(frozen=True, config=_STRICT)
class EvaluateAnswer(Summable):
    """For each ranking, sums over the users that have items to find in it."""

    users: list[int]
    names: list[str] = field(default_factory=list)
    """Of the metrics, the same for each ranking."""
    sums: list[float] = field(default_factory=list)
    """Of each ranking's metrics, one ranking after the other; in a ranking, of each form's."""

    def numbers(self) -> Arrays:
        return {"users": np.array(self.users), "sums": np.array(self.sums)}

    @classmethod
    def fields(cls, forms: Sequence[int], names: Sequence[str]) -> tuple[Field, ...]:
        """What a masked sum of such answers holds.

        Parameters
        ----------
        forms : Sequence[int]
            Of each ranking's scorer.
        names : Sequence[str]
            Of the metrics.
        """
        numbers = sum(forms) * len(names)
        return Field("users", len(forms)), Field("sums", numbers, exponent=METRIC_EXPONENT)

    @classmethod
    def of_sums(cls, sums: Mapping[str, np.ndarray], names: Sequence[str]) -> Self:
        """As if one node had all users."""
        users = sums["users"].astype(np.int64).tolist()
        return cls(users, list(names), sums["sums"].tolist())


@dataclass(frozen=True, config=_STRICT)
class CountRequest(Body):
    """Asks how many users have interacted with each cold item of the test split."""

    catalogue: str


@dataclass(frozen=True, config=_STRICT)
class CountAnswer(Summable):
    """Counts of users, never who they are."""

    users: np.ndarray  # int64 (cold,)

    def numbers(self) -> Arrays:
        return {"users": self.users}


@dataclass(frozen=True, config=_STRICT)
class RecommendRequest(OfTraining):
    """New items to be ranked for every user; the lists stay on the node."""

    top: int
    scorer: str
    method: str
    arrays: Arrays = field(default_factory=dict)
    """As for `Ranked`, of validation items, then test items."""


@dataclass(frozen=True, config=_STRICT)
class RecommendAnswer(Body):
    """How many users were served."""

    users: int


@dataclass(frozen=True, config=_STRICT)
class KeysRequest(Body):
    """Asks a node into a masked sum: for its public keys."""

    session: str
    """Of this one sum."""
    kind: str
    """The message whose answers are to be added up."""


@dataclass(frozen=True, config=_STRICT)
class KeysAnswer(Companion):
    """A node's public keys, as `common.secure.member.PublicKeys`, signed if it has a key.

    For the next sum they stand beside a masked vector.
    """

    RECORD: ClassVar[str] = "keys"

    channel: bytes
    mask: bytes
    signer: str = NOBODY
    """The node's own public key, a line of OpenSSH."""
    signature: bytes = NOBODY.encode()
    kinds: list[str] = field(default_factory=list)
    """Messages that the node answers in a sum, as its policy says."""


@dataclass(frozen=True, config=_STRICT)
class SharesRequest(Companion):
    """The public keys of a node's group, for it to split its secrets among them.

    For the next sum they stand beside an `UnmaskRequest`.
    """

    RECORD: ClassVar[str] = "shares"

    session: str
    own: int
    """The node's place."""
    places: list[int]
    channels: list[bytes]
    masks: list[bytes]
    signers: list[str]
    signatures: list[bytes]


@dataclass(frozen=True, config=_STRICT)
class SharesAnswer(Companion):
    """Shares for the others of the group, which only they can read."""

    RECORD: ClassVar[str] = "shares"

    commitment: bytes
    places: list[int]
    shares: list[bytes]


@dataclass(frozen=True, config=_STRICT)
class Masking(Companion):
    """Stands beside a request: its answer is to be a vector of this layout, masked."""

    RECORD: ClassVar[str] = "masking"

    session: str
    sources: list[int]
    """Places of those who have shared with the node, and what they sent it."""
    shares: list[bytes]
    participants: int
    names: list[str]
    sizes: list[int]
    exponents: list[int]
    bits: list[int]
    following: str = ""
    """Session of the next sum, for which the node is to tell keys beside its answer."""

    @classmethod
    def of(
        cls, session: str, layout: Layout, shares: Mapping[int, bytes], following: str = ""
    ) -> Self:
        fields = layout.fields
        return cls(
            session=session,
            sources=list(shares),
            shares=list(shares.values()),
            participants=layout.participants,
            names=[field.name for field in fields],
            sizes=[field.size for field in fields],
            exponents=[field.exponent for field in fields],
            bits=[field.bits for field in fields],
            following=following,
        )

    def layout(self) -> Layout:
        """What stands where.

        Raises
        ------
        SnowdropError
            If it cannot be.
        """
        try:
            parts = zip(self.names, self.sizes, self.exponents, self.bits, strict=True)
            return Layout(tuple(Field(*part) for part in parts), self.participants)
        except ValueError as error:
            raise SnowdropError("malformed Masking") from error


@dataclass(frozen=True, config=_STRICT)
class MaskedAnswer(Body):
    """All numbers of an answer, masked."""

    long: np.ndarray  # uint64
    short: np.ndarray  # uint32

    def vector(self) -> Vector:
        return Vector(self.long, self.short)


@dataclass(frozen=True, config=_STRICT)
class ConfirmRequest(Body):
    """Tells a node who is in the sum, for it to say so to the others of its group."""

    session: str
    there: list[int]
    """Places of all nodes whose masked vectors have come, in ascending order."""


@dataclass(frozen=True, config=_STRICT)
class ConfirmAnswer(Companion):
    """What a node says to each other node of its group that is in the sum.

    What the others have said to it stands beside an `UnmaskRequest`.
    """

    RECORD: ClassVar[str] = "confirmed"

    places: list[int]
    words: list[bytes]


@dataclass(frozen=True, config=_STRICT)
class UnmaskRequest(Body):
    """Asks for shares of the secrets that take the masks off the sum.

    Where a node of its group is missing, a `ConfirmAnswer` stands beside it.
    """

    session: str
    there: list[int]
    """As in `ConfirmRequest`."""


@dataclass(frozen=True, config=_STRICT)
class UnmaskAnswer(Body):
    """One share of each other node of the group: of its seed where it is in the sum, else of its
    mask key."""

    places: list[int]
    shares: list[bytes]


METRIC_EXPONENT = 36
"""Sums of metrics in a masked sum are whole numbers of 2⁻³⁶."""


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


def status_record(status: str) -> RecordDict:
    """An answer that is a status word alone."""
    return RecordDict({"status": ConfigRecord({"status": status})})


def status_of(record: RecordDict) -> str | None:
    """The status word of an answer, or None where it is a full answer."""
    status = record.config_records.get("status")
    return None if status is None else str(status.get("status"))
