"""Signed keys: which node has told the keys that stand in a list (ECDSA, as nodes' keys are)."""

from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from common.errors import SnowdropError
from common.secure.member import PublicKeys

_ECDSA = ec.ECDSA(hashes.SHA384())


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A node's own key, in OpenSSH form.

    Raises
    ------
    SnowdropError
        If it cannot be read, or is none of an elliptic curve.
    """
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SnowdropError(f"the node's key {path} cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SnowdropError(f"the node's key {path} is none of an elliptic curve")
    return key


def name_of(key: ec.EllipticCurvePrivateKey) -> str:
    """The public half of a key as a line of OpenSSH, which the key's owner is known by."""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def names_in(text: str) -> frozenset[str]:
    """The public keys of a file that has one a line, whatever is noted behind them."""
    lines = (line.split() for line in text.splitlines())
    return frozenset(" ".join(words[:2]) for words in lines if len(words) > 1)


def sign(key: ec.EllipticCurvePrivateKey, session: str, public: PublicKeys) -> bytes:
    """A signature of the keys that a node tells for one sum."""
    return key.sign(_content(session, public), _ECDSA)


def is_signed(name: str, signature: bytes, session: str, public: PublicKeys) -> bool:
    """Whether the owner of a public key has told these keys for this sum."""
    try:
        key = load_ssh_public_key(name.encode())
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(signature, _content(session, public), _ECDSA)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def _content(session: str, public: PublicKeys) -> bytes:
    parts = (b"snowdrop keys of a masked sum", session.encode(), public.channel, public.mask)
    return b"".join(len(part).to_bytes(4) + part for part in parts)
