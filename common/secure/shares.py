"""Shares of a secret (Shamir 1979) in GF(2¹²⁸), each 16 bytes of the secret by themselves.

PyCryptodome, whose shares Flower uses too, splits. Its way of putting shares together takes
seconds for the secrets of 50 nodes, so that is done here: a secret is Σ_j y_j l_j, and what the
shares' places alone tell, the factors l_j, serves for all secrets whose shares have these places.
"""

from collections.abc import Sequence
from functools import lru_cache, reduce

from Crypto.Protocol.SecretSharing import Shamir

_BLOCK = 16
_PLACE = 4
"""Bytes of a share's place, which come first."""
_POLYNOMIAL = (1 << 128) | 0b1000_0111
"""x¹²⁸ + x⁷ + x² + x + 1, which defines the field."""


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """Shares of a secret, any ``threshold`` of which tell it, and fewer nothing.

    Parameters
    ----------
    secret : bytes
        A multiple of 16 bytes.
    threshold, count : int

    Returns
    -------
    list[bytes]
        ``count`` shares: place, and a share of each 16 bytes.
    """
    blocks = [
        Shamir.split(threshold, count, secret[begin : begin + _BLOCK], ssss=False)
        for begin in range(0, len(secret), _BLOCK)
    ]
    return [
        (k + 1).to_bytes(_PLACE) + b"".join(block[k][1] for block in blocks) for k in range(count)
    ]


def combined(shares: Sequence[bytes]) -> bytes | None:
    """The secret of which these are shares, as many as it needs; None if they cannot be that."""
    places = tuple(int.from_bytes(share[:_PLACE]) for share in shares)
    length = len(shares[0]) - _PLACE
    if (
        length < _BLOCK
        or length % _BLOCK
        or any(len(share) != length + _PLACE for share in shares)
        or len(set(places)) < len(places)
        or 0 in places
    ):
        return None
    factors = _factors(places)
    secret = b""
    for begin in range(_PLACE, length + _PLACE, _BLOCK):
        block = 0
        for share, factor in zip(shares, factors, strict=True):
            block ^= _product(int.from_bytes(share[begin : begin + _BLOCK]), factor)
        secret += block.to_bytes(_BLOCK)
    return secret


@lru_cache(maxsize=256)
def _factors(places: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's l_j at 0: Π_{m ≠ j} x_m / (x_j + x_m)."""
    every = reduce(_product, places, 1)
    return tuple(
        _product(every, _inverse(reduce(_product, (x ^ own for x in places if x != own), own)))
        for own in places
    )


def _product(one: int, other: int) -> int:
    """The product of two elements of the field."""
    if other > one:
        one, other = other, one
    total = 0
    while other:
        if other & 1:
            total ^= one
        one <<= 1
        if one >> 128:
            one ^= _POLYNOMIAL
        other >>= 1
    return total


def _inverse(element: int) -> int:
    """1 / element, by Euclid's algorithm for polynomials; the element is not 0."""
    left, right, of_left, of_right = element, _POLYNOMIAL, 1, 0
    while left != 1:
        shift = left.bit_length() - right.bit_length()
        if shift < 0:
            left, right, of_left, of_right = right, left, of_right, of_left
            shift = -shift
        left ^= right << shift
        of_left ^= of_right << shift
    return of_left
