"""Randomness that depends on (user, round) alone.

A user's numbers come from a counter-based generator keyed by HMAC(secret, user id), so they are
the same whatever node, chunk or order the user is trained in; the server, which does not know the
secret, cannot draw them itself. The generator is SplitMix64 (Steele, Lea and Flood, 2014).
"""

import hmac
from collections.abc import Sequence

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_PERMUTATION_ROUNDS = 6


def user_keys(secret: bytes, users: Sequence[str]) -> np.ndarray:
    """Key of each user, uint64 (users,): the first 8 bytes of HMAC-SHA-256(secret, user id)."""
    digests = b"".join(hmac.digest(secret, user.encode(), "sha256")[:8] for user in users)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, a bijection of uint64 that looks random."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def stream(keys: np.ndarray, purpose: str, round_number: int = 0) -> np.ndarray:
    """Start of each user's own stream for one purpose in one round, uint64 (users,)."""
    label = np.frombuffer(hmac.digest(b"snowdrop", purpose.encode(), "sha256")[:8], "<u8")
    return mix(keys + mix(label + np.asarray([round_number], np.uint64) * _GOLDEN))


def draw(starts: np.ndarray, count: int) -> np.ndarray:
    """Numbers of each stream, uint64 (users, count)."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return mix(starts[:, None] + steps)


def draw_at(starts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Number ``places``, from 0, of each stream, uint64 of the shape of both: as `draw` has it."""
    return mix(starts + (places.astype(np.uint64) + np.uint64(1)) * _GOLDEN)


def uniform(starts: np.ndarray, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) of each stream, float64 (users, count)."""
    return (draw(starts, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permuted(starts: np.ndarray, places: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Element ``places`` of a random permutation of 0 … ``sizes`` − 1, one permutation a stream.

    Distinct places give distinct values, so the first n places are n draws without replacement.
    Each round of the permutation is a keyed bijection of the next power of two (add, multiply by
    an odd number, xor-shift); values outside the range walk on along their cycle until they are
    inside (cycle walking; Black and Rogaway, 2002).

    Parameters
    ----------
    starts : ndarray, uint64, shape S
    places : ndarray, int64, shape S
        0 ≤ place < size.
    sizes : ndarray, int64, shape S

    Returns
    -------
    ndarray, int64, shape S
    """
    bits = np.maximum(np.ceil(np.log2(np.maximum(sizes, 2))), 1).astype(np.uint64)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    half = (bits + np.uint64(1)) // np.uint64(2)
    rounds = list(draw(starts, _PERMUTATION_ROUNDS).T)
    value = places.astype(np.uint64)
    walking = np.arange(len(value))
    while len(walking):
        x, m, h = value[walking], mask[walking], half[walking]
        for key in rounds:
            k = key[walking]
            x = ((x ^ k) * ((k >> np.uint64(31)) | np.uint64(1)) + (k >> np.uint64(17))) & m
            x ^= x >> h
        value[walking] = x
        walking = walking[x >= sizes[walking].astype(np.uint64)]
    return value.astype(np.int64)
