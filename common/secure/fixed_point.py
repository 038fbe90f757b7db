"""Numbers as whole numbers of fixed steps, so that they can be added modulo 2³² or 2⁶⁴."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from common.discrete import EXPONENT, discrete_gaussian
from common.errors import OverflowedError, SnowdropError

CLIPPED = "clipped"
"""The field that counts the numbers that did not fit, over all nodes."""

_WORDS = {32: (np.int32, np.uint32), 64: (np.int64, np.uint64)}


@dataclass(frozen=True)
class Field:
    """Numbers of one kind.

    Parameters
    ----------
    name : str
    size : int
        How many there are.
    exponent : int
        A number x travels as the whole number nearest to x · 2^exponent.
    bits : int
        Of a whole number: 32 or 64.
    """

    name: str
    size: int
    exponent: int = 0
    bits: int = 64


@dataclass(frozen=True, eq=False)
class Vector:
    """Everything that a node adds to a sum, modulo 2⁶⁴ and modulo 2³²."""

    long: np.ndarray  # uint64
    short: np.ndarray  # uint32

    @classmethod
    def zeros(cls, long: int, short: int) -> "Vector":
        """A vector of zeros with that many numbers of each kind."""
        return cls(np.zeros(long, np.uint64), np.zeros(short, np.uint32))

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Both arrays, in the order in which masks are laid over them."""
        return self.long, self.short

    def add(self, other: "Vector") -> None:
        """Add another vector in place; it wraps around.

        Raises
        ------
        SnowdropError
            If it has another shape or other types.
        """
        for mine, theirs in zip(self.parts(), other.parts(), strict=True):
            if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
                raise SnowdropError("its masked vector has another shape")
            mine += theirs


@dataclass(frozen=True)
class Layout:
    """What stands where in a vector, and how much of each number a node may add.

    Parameters
    ----------
    fields : tuple[Field, ...]
        All but `CLIPPED`, which always comes first.
    participants : int
        Most nodes that add up: each of them is given its share of the range, so that the sum
        cannot wrap around.
    """

    fields: tuple[Field, ...]
    participants: int

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if len({CLIPPED, *names}) != len(names) + 1 or self.participants < 1:
            raise SnowdropError("the layout of a masked sum names a field twice, or has no nodes")
        if any(one.bits not in _WORDS or one.size < 0 or abs(one.exponent) > 62
               for one in self.fields):  # fmt: skip
            raise SnowdropError("the layout of a masked sum has a field that cannot be")

    def bound(self, field: Field) -> float:
        """The largest number that a node may add; larger ones are clipped and counted."""
        return float(self._most(field)) * 2.0**-field.exponent

    def error(self, field: Field) -> float:
        """How far the sum of a field can be from the exact one where nothing is clipped."""
        return self.participants * 2.0 ** -(field.exponent + 1)

    def _most(self, field: Field) -> int:
        return int(2 ** (field.bits - 2) // self.participants)

    def sizes(self) -> tuple[int, int]:
        """Numbers modulo 2⁶⁴, and modulo 2³²."""
        sizes = {bits: sum(f.size for f in self._all() if f.bits == bits) for bits in _WORDS}
        return sizes[64], sizes[32]

    def _all(self) -> tuple[Field, ...]:
        return (Field(CLIPPED, 1), *self.fields)

    def _places(self) -> Iterator[tuple[Field, slice]]:
        ends = dict.fromkeys(_WORDS, 0)
        for field in self._all():
            begin = ends[field.bits]
            ends[field.bits] = begin + field.size
            yield field, slice(begin, begin + field.size)

    def encode(self, numbers: Mapping[str, np.ndarray]) -> Vector:
        """A node's numbers as a vector; the nearest whole number of steps each.

        Parameters
        ----------
        numbers : Mapping[str, ndarray]
            By field, of any shape with its size. Whole numbers are steps already.

        Raises
        ------
        SnowdropError
            If the fields are not those of the layout.
        OverflowedError
            If a number is NaN or Inf.
        """
        wanted = {field.name: field.size for field in self.fields}
        if {name: np.size(own) for name, own in numbers.items()} != wanted:
            raise SnowdropError("the masked sum that is asked for is not of what this node answers")
        vector = Vector.zeros(*self.sizes())
        clipped = 0
        for field, place in self._places():
            if field.name == CLIPPED:
                continue
            steps = np.asarray(numbers[field.name]).ravel()
            if steps.dtype.kind not in "iu":
                steps = steps.astype(np.float64) * 2.0**field.exponent
                if not np.isfinite(steps).all():
                    raise OverflowedError(f"its {field.name} holds NaN or Inf")
                np.rint(steps, out=steps)
            most = self._most(field)
            clipped += int(np.count_nonzero(np.abs(steps) > most))
            signed, unsigned = _WORDS[field.bits]
            whole = np.clip(steps, -most, most).astype(signed)
            _words(vector, field.bits)[place] = whole.view(unsigned)
        vector.long[0] = clipped
        return vector

    def add_noise(self, vector: Vector, deviation: float, public: Collection[str]) -> None:
        """Add discrete Gaussian noise to a node's vector, in place; it wraps around.

        What wraps around or was clipped before tells nothing more, but how many numbers were
        clipped would: that count becomes 0.

        Parameters
        ----------
        vector : Vector
        deviation : float
            Standard deviation of the noise, in the unit of the numbers.
        public : Collection[str]
            Fields without noise.

        Raises
        ------
        SnowdropError
            If a field's steps are not those that noise is made for.
        """
        vector.long[0] = 0
        for field, place in self._places():
            if field.name in {CLIPPED, *public}:
                continue
            if (field.exponent, field.bits) != (EXPONENT, 64):
                raise SnowdropError(f"noise needs {field.name} in steps of 2^-{EXPONENT}")
            noise = discrete_gaussian((field.size,), deviation * 2.0**EXPONENT)
            vector.long[place] += noise.view(np.uint64)

    def decode(self, vector: Vector) -> dict[str, np.ndarray]:
        """The sums of all fields, float64 (size,) each, `CLIPPED` among them.

        Raises
        ------
        SnowdropError
            If the vector has another shape.
        """
        Vector.zeros(*self.sizes()).add(vector)
        return {
            field.name: _words(vector, field.bits)[place].view(_WORDS[field.bits][0])
            * 2.0**-field.exponent
            for field, place in self._places()
        }


def _words(vector: Vector, bits: int) -> np.ndarray:
    return vector.long if bits == 64 else vector.short
