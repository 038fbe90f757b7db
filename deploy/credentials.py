"""Certificate authority, server certificate and node keys.

Private keys can be read by their owner only.
"""

import ipaddress
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.durable import write_atomic
from common.errors import SnowdropError

CA_DAYS = 3650
SERVER_DAYS = 730
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def make_authority(folder: Path, name: str) -> None:
    """Write ``ca.crt`` and ``ca.key`` of a new certificate authority."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Snowdrop {name} CA")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _certificate(subject, subject, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA384())
    )
    write_private(folder / "ca.key", _pem(key))
    write_public(folder / "ca.crt", certificate.public_bytes(Encoding.PEM))


def make_server_certificate(authority: Path, folder: Path, hosts: Sequence[str]) -> None:
    """Write ``server.crt`` and ``server.key``, signed by the authority, for ``hosts`` and loopback.

    Raises
    ------
    SnowdropError
        If the authority's key or certificate cannot be read, or its certificate has ended.
    """
    try:
        signer = load_pem_private_key((authority / "ca.key").read_bytes(), None)
        issuer = x509.load_pem_x509_certificate((authority / "ca.crt").read_bytes())
    except (OSError, ValueError) as error:
        raise SnowdropError(f"the certificate authority in {authority} cannot be read") from error
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    if issuer.not_valid_after_utc < datetime.now(UTC):
        raise SnowdropError(
            f"the certificate authority in {authority} ended on "
            f"{issuer.not_valid_after_utc:%Y-%m-%d}: `snowdrop deploy init --force` makes a new "
            "one, which every node needs"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    names = list(dict.fromkeys([*hosts, *_LOOPBACK]))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=False, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _certificate(subject, issuer.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_san(n) for n in names]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA384())
    )
    write_private(folder / "server.key", _pem(key))
    write_public(folder / "server.crt", certificate.public_bytes(Encoding.PEM))


def make_node_key(folder: Path) -> None:
    """Write ``key`` and ``key.pub``: ECDSA P-384 in OpenSSH form, as Flower needs them."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(
        folder / "key", key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    write_public(folder / "key.pub", public + b"\n")


def make_secret(path: Path) -> None:
    """Write the secret with which the executor authenticates itself to the SuperLink."""
    write_private(path, secrets.token_hex(32).encode())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    write_atomic(path, content)  # which makes it 0600
    path.chmod(0o600)


def write_public(path: Path, content: bytes) -> None:
    """Write a file that everyone may read."""
    write_atomic(path, content)
    path.chmod(0o644)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # clocks differ a little
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _san(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
