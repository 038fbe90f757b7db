"""Node answers → sums over users; whatever is malformed is refused."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from common.discrete import STEP, discrete_gaussian
from common.errors import OverflowedError, SnowdropError
from common.messages import CountAnswer, EvaluateAnswer, TrainAnswer
from common.settings import RunSettings

_ROUNDING = 1e-3
"""By how much a sum of float16 numbers may exceed its bound."""


@dataclass(frozen=True)
class Expected:
    """One of the sums that a method's nodes answer with.

    Parameters
    ----------
    shape : tuple[int, ...]
    bounded : bool
        Whether ``max_update_norm`` bounds it; such sums are divided by the round's scale.
    norm : float
        Most that one user adds to its L2 norm, by the method's own rule; 0: nothing is known.
    counts : str
        The sum whose rows it counts users of, for whole numbers; empty for a table.
    of_each : bool
        Whether every user is in one of the counts, so that they add up to all users.
    whole : bool
        Whether it is a table in whole steps of 2⁻³⁰, which discrete noise is made for.
    """

    shape: tuple[int, ...]
    bounded: bool = False
    norm: float = 0.0
    counts: str = ""
    of_each: bool = False
    whole: bool = False

    def unit(self, scale: float) -> float:
        """What a number of it counts, where other tables are divided by a scale."""
        return STEP if self.whole else scale


@dataclass(frozen=True, eq=False)
class Summed:
    """What a round's usable answers come to."""

    users: int
    loss_sum: float
    sums: Mapping[str, np.ndarray]  # float64, or int64 for counts
    largest: float = 0.0
    """Largest entry of an answer's table before scaling; the next round's scale follows it."""
    dropped: Mapping[int, SnowdropError] = field(default_factory=dict)
    """Nodes whose answer is in none of the sums, and why."""

    @classmethod
    def nothing(cls, expected: Mapping[str, Expected]) -> "Summed":
        """What no answer at all comes to."""
        zeros = {
            name: np.zeros(one.shape, np.int64 if one.counts else np.float64)
            for name, one in expected.items()
        }
        return cls(0, 0.0, zeros)

    def __add__(self, other: "Summed") -> "Summed":
        """What these answers and others come to together."""
        return Summed(
            self.users + other.users,
            self.loss_sum + other.loss_sum,
            {name: array + other.sums[name] for name, array in self.sums.items()},
            max(self.largest, other.largest),
            {**self.dropped, **other.dropped},
        )


class Aggregator(ABC):
    """How the nodes' answers of a round become sums over all their users."""

    @abstractmethod
    def combine(
        self,
        answers: Sequence[tuple[int, TrainAnswer]],
        expected: Mapping[str, Expected],
        scale: float,
    ) -> Summed:
        """Sums over the answers that can be used.

        Parameters
        ----------
        answers : Sequence[tuple[int, TrainAnswer]]
            By node id, ascending.
        expected : Mapping[str, Expected]
            The sums that every answer must hold.
        scale : float
            What tables were divided by before they travelled: one number for the whole round.
        """


class PlainSum(Aggregator):
    """Each node's answer is seen by the server, checked by itself, and added up.

    Parameters
    ----------
    settings : RunSettings
    """

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings

    def combine(
        self,
        answers: Sequence[tuple[int, TrainAnswer]],
        expected: Mapping[str, Expected],
        scale: float,
    ) -> Summed:
        sums = dict(Summed.nothing(expected).sums)
        dropped: dict[int, SnowdropError] = {}
        users, loss_sum, largest = 0, 0.0, 0.0
        for node, answer in answers:
            try:
                check(answer, expected, scale, self._settings)
            except SnowdropError as error:
                dropped[node] = error
                continue
            users += answer.users
            loss_sum += answer.loss_sum or 0.0
            for name, one in expected.items():
                if one.counts:
                    sums[name] += answer.sums[name]
                else:
                    table = answer.sums[name].astype(np.float64) * one.unit(scale)
                    sums[name] += table
                    largest = max(largest, float(np.abs(table).max(initial=0)))
        return Summed(users, loss_sum, sums, largest, dropped)


class NoisySum(Aggregator):
    """Sums that carry Gaussian noise once, added by a server that is trusted with the sums.

    Each user's change has an L2 norm of at most C. With noise of variance σ² on every entry of the
    sum, discrete as the sum is (`common.discrete`),
    and users drawn each with the same chance q, whatever is made of the sums is a sampled Gaussian
    mechanism of noise multiplier σ / C (McMahan, Ramage, Talwar and Zhang, arXiv 1710.06963, the
    estimator with a fixed denominator): the sum is divided by q times the users of all nodes, since
    the number of those that were drawn would tell of single ones.

    Parameters
    ----------
    inner : Aggregator
        Adds up what nodes sent.
    settings : RunSettings
    users : int
        Of all nodes that train.
    """

    def __init__(self, inner: Aggregator, settings: RunSettings, users: int) -> None:
        self._inner, self._scale = inner, settings.gaussian_scale
        share = settings.fraction * settings.federated
        self._expected_users = max(1, round(share * users))

    def combine(
        self,
        answers: Sequence[tuple[int, TrainAnswer]],
        expected: Mapping[str, Expected],
        scale: float,
    ) -> Summed:
        summed = self._inner.combine(answers, expected, scale)
        if len(summed.dropped) == len(answers):
            return summed
        noisy = {name: self._noisy(array) for name, array in summed.sums.items()}
        return replace(summed, users=self._expected_users, sums=noisy)

    def _noisy(self, array: np.ndarray) -> np.ndarray:
        """A sum in whole steps, with discrete noise, float64."""
        noise = discrete_gaussian(array.shape, self._scale / STEP)
        noisy: np.ndarray = (np.rint(array / STEP) + noise) * STEP
        return noisy


def check(
    answer: TrainAnswer, expected: Mapping[str, Expected], scale: float, settings: RunSettings
) -> None:
    """Refuse an answer that cannot be added up.

    Raises
    ------
    SnowdropError
        On a wrong shape or type, NaN or Inf, a norm above ``max_update_norm`` for each user, or
        counts that cannot be.
    """
    if answer.sums.keys() != expected.keys():
        raise SnowdropError(
            f"its sums are {', '.join(sorted(answer.sums)) or 'none'}, expected "
            f"{', '.join(sorted(expected))}"
        )
    for name, one in expected.items():
        if not one.counts:
            _check_table(name, answer.sums[name], one, settings)
    check_users(answer.users, settings)
    tables = {name: answer.sums[name] for name, one in expected.items() if not one.counts}
    if answer.users == 0 and any(table.any() for table in tables.values()):
        raise SnowdropError("it claims 0 users and a change")
    if settings.hides_losses:
        if answer.loss_sum is not None:
            raise SnowdropError("it tells a loss, which carries no noise")
    elif answer.loss_sum is None or not np.isfinite(answer.loss_sum):
        raise SnowdropError("its loss is missing, NaN or Inf")
    for name, table in tables.items():
        one = expected[name]
        norm = one.unit(scale) * float(np.linalg.norm(table.astype(np.float64)))
        _check_norm(name, norm, one, answer.users, settings)
    for name, one in expected.items():
        if one.counts:
            _check_counts(answer.sums[name], answer.sums[one.counts], answer.users)
        if one.of_each and answer.sums[name].sum() != answer.users:
            raise SnowdropError(f"its {name} do not add up to its users")


def _check_table(name: str, table: np.ndarray, one: Expected, settings: RunSettings) -> None:
    if table.shape != one.shape:
        raise SnowdropError(f"its {name} has shape {table.shape}, expected {one.shape}")
    dtype = "int64" if one.whole else settings.wire_dtype
    if table.dtype != dtype or not np.isfinite(table).all():
        raise SnowdropError(f"its {name} holds NaN, Inf or no {dtype}")


def _check_norm(name: str, norm: float, one: Expected, users: int, settings: RunSettings) -> None:
    if not norm < float(np.finfo(np.float32).max):
        raise OverflowedError(f"its {name} has norm {norm:.3g}, which no item table can hold")
    _check_own_norm(name, norm, one, users)
    if one.bounded and settings.max_update_norm and not norm <= settings.max_update_norm * users:
        raise SnowdropError(
            f"its {name} has norm {norm:.3g} for {users} users, above max_update_norm = "
            f"{settings.max_update_norm:g} for each user"
        )


def _check_own_norm(name: str, norm: float, one: Expected, users: int) -> None:
    if one.norm and not norm <= one.norm * users * (1 + _ROUNDING):
        raise SnowdropError(
            f"its {name} has norm {norm:.3g} for {users} users, each of whom can add {one.norm:g}"
        )


def _check_counts(counts: np.ndarray, table: np.ndarray, users: int) -> None:
    if counts.shape != table.shape[:1] or counts.dtype.kind != "i":
        raise SnowdropError("its counts of touched rows are missing or misshapen")
    if counts.min(initial=0) < 0 or counts.max(initial=0) > users:
        raise SnowdropError("its counts of touched rows exceed its users")
    if table[counts == 0].any():
        raise SnowdropError("it changes rows that no user touched")


def check_users(users: int, settings: RunSettings) -> None:
    """Refuse a number of users that a node cannot have.

    Raises
    ------
    SnowdropError
    """
    if users < 0:
        raise SnowdropError(f"it claims {users} users")
    if 0 < settings.max_node_users < users:
        raise SnowdropError(
            f"it claims {users} users, above max_node_users = {settings.max_node_users}"
        )


def check_metrics(
    answer: EvaluateAnswer, forms: Sequence[int], names: Sequence[str], settings: RunSettings
) -> np.ndarray:
    """The sums of an answer, float64 (all forms, names); what cannot be is refused.

    Every metric lies between 0 and 1 for each user.

    Parameters
    ----------
    answer : EvaluateAnswer
    forms : Sequence[int]
        Of each ranking, the forms of its scorer that were tried.
    names : Sequence[str]
        Of the metrics.
    settings : RunSettings

    Raises
    ------
    SnowdropError
    """
    shape = sum(forms), len(names)
    sums = np.asarray(answer.sums)
    sizes = len(answer.users), sums.size
    if answer.names != list(names) or sizes != (len(forms), shape[0] * shape[1]):
        raise SnowdropError("its metrics are not those asked for")
    for count in answer.users:
        check_users(count, settings)
    table = sums.reshape(shape)
    most = np.repeat(answer.users, forms)[:, None] + 1e-6
    if not ((table >= 0) & (table <= most)).all():
        raise SnowdropError("its sums of metrics cannot be")
    return table


def check_counts(answer: CountAnswer, rows: int, settings: RunSettings) -> np.ndarray:
    """The counts of an answer, int64 (rows,); what cannot be is refused.

    Raises
    ------
    SnowdropError
    """
    users = answer.users
    if users.shape != (rows,) or users.dtype != np.int64 or users.min(initial=0) < 0:
        raise SnowdropError("its counts of users are misshapen or negative")
    check_users(int(users.max(initial=0)), settings)
    return users
