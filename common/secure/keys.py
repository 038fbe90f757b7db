"""Keys of one sum: agreed between pairs of nodes, split into shares, and spread into masks."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.common.secure_aggregation.crypto.symmetric_encryption import (
    decrypt,
    encrypt,
    generate_shared_key,
)

from common.errors import SnowdropError
from common.secure.fixed_point import Vector
from common.secure.shares import combined

KEY_BYTES = 32
_CURVE = ec.SECP256R1()
_CHUNK = 2**16
"""Bytes of a mask that are held at once: few enough for a processor's cache."""
_TRIES = 256
"""Sets of shares that are tried where some shares are false."""


def new_private() -> bytes:
    """A private key from the operating system's generator."""
    return ec.generate_private_key(_CURVE).private_numbers().private_value.to_bytes(KEY_BYTES)


def public_of(private: bytes) -> bytes:
    """The public key of a private one, a compressed point (33 bytes)."""
    point = _private(private).public_key()
    return point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def _private(private: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(private), _CURVE)


def belongs(public: bytes, private: bytes) -> bool:
    """Whether a private key is that of a public one."""
    try:
        return public_of(private) == public
    except ValueError:
        return False


def agreed(private: bytes, public: Mapping[int, bytes]) -> dict[int, bytes]:
    """The keys that a node shares with others (elliptic-curve Diffie-Hellman, then HKDF).

    Parameters
    ----------
    private : bytes
    public : Mapping[int, bytes]
        Of each other one.

    Returns
    -------
    dict[int, bytes]
        32 bytes each.

    Raises
    ------
    SnowdropError
        If a public key is no point of the curve.
    """
    own = _private(private)
    try:
        points = {
            other: ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, key)
            for other, key in public.items()
        }
    except ValueError as error:
        raise SnowdropError("a public key of a masked sum is none") from error
    return {
        other: base64.urlsafe_b64decode(generate_shared_key(own, point))
        for other, point in points.items()
    }


def sealed(key: bytes, content: bytes) -> bytes:
    """Content that only the holders of a key can read, or change unnoticed."""
    return encrypt(base64.urlsafe_b64encode(key), content)


def opened(key: bytes, content: bytes) -> bytes:
    """What `sealed` was given.

    Raises
    ------
    SnowdropError
        If it was changed, or sealed with another key.
    """
    try:
        return decrypt(base64.urlsafe_b64encode(key), content)
    except InvalidToken as error:
        raise SnowdropError("shares of a masked sum were changed on their way") from error


def for_words(key: bytes) -> bytes:
    """The key of the words of a pair, from the one that their shares are sealed with."""
    return word(key, b"snowdrop words about a masked sum")


def word(key: bytes, content: bytes) -> bytes:
    """What only the two who hold a key can say of some content (HMAC with SHA-256)."""
    return hmac.digest(key, content, "sha256")


def is_word(said: bytes, right: bytes) -> bool:
    """Whether a word is the right one."""
    return hmac.compare_digest(said, right)


def new_seed() -> bytes:
    """A key of a mask, from the operating system's generator."""
    return secrets.token_bytes(KEY_BYTES)


def commitment(seed: bytes) -> bytes:
    """What tells whether a seed was put together rightly, and nothing else of it."""
    return hashlib.sha256(b"snowdrop seed of a masked sum\0" + seed).digest()


def is_committed(told: bytes, seed: bytes) -> bool:
    """Whether a seed is the one that a commitment was made of."""
    return commitment(seed) == told


def add_mask(vector: Vector, key: bytes, sign: int) -> None:
    """Add a mask to a vector in place, or take it away.

    The mask is the ChaCha20 key stream (RFC 8439) of the whole key. No key serves twice, hence a
    fixed nonce.

    Parameters
    ----------
    vector : Vector
    key : bytes
        32 bytes.
    sign : int
        1 or −1.
    """
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    longest = min(_CHUNK, max(numbers.nbytes for numbers in vector.parts()))
    nothing, mask = memoryview(bytes(longest)), bytearray(longest)
    for numbers in vector.parts():
        step = _CHUNK // numbers.itemsize
        for begin in range(0, len(numbers), step):
            part = numbers[begin : begin + step]
            stream.update_into(nothing[: part.nbytes], mask)
            drawn = np.frombuffer(mask, part.dtype.newbyteorder("<"), len(part))
            if sign > 0:
                part += drawn
            else:
                part -= drawn


def _sets(holders: list[int], size: int) -> Iterator[tuple[int, ...]]:
    """Sets of holders to try: those in a row, so that each is left out of one, then drawn ones."""
    around = [*holders, *holders]
    for begin in range(len(holders)):
        yield tuple(sorted(around[begin : begin + size]))
    for _ in range(_TRIES):
        yield tuple(sorted(secrets.SystemRandom().sample(holders, size)))


def put_together(
    shares: Mapping[int, bytes], threshold: int, genuine: Callable[[bytes], bool]
) -> tuple[bytes, set[int]]:
    """The secret of which there are shares, and who has sent false ones that were in the way.

    Parameters
    ----------
    shares : Mapping[int, bytes]
        By holder.
    threshold : int
    genuine : Callable[[bytes], bool]
        Whether a secret is the one that was split.

    Raises
    ------
    SnowdropError
        If there are too few shares, or too many false ones.
    """
    if len(shares) < threshold:
        raise SnowdropError(f"{len(shares)} of {threshold} shares came")
    for tried, chosen in enumerate(_sets(sorted(shares), threshold)):
        secret = combined([shares[holder] for holder in chosen])
        if secret is None or not genuine(secret):
            continue
        if not tried:
            return secret, set()
        rest = [shares[holder] for holder in chosen[1:]]
        liars = {holder for holder in shares.keys() - set(chosen)
                 if combined([*rest, shares[holder]]) != secret}  # fmt: skip
        return secret, liars
    raise SnowdropError("its shares do not fit together: too many nodes have sent false ones")
