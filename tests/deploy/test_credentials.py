"""Certificates that verify, keys that only their owner reads, nothing lost unasked."""

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from common.errors import SnowdropError
from deploy import certificate, credentials
from deploy import folder as federation_folder
from deploy.credentials import make_authority, make_server_certificate
from deploy.federation import Federation

Made = tuple[Path, Federation]


def handshake(folder: Path, authority: Path, name: str) -> None:
    """A TLS handshake with the server's certificate, as a client that checks everything."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server" / "server.crt", folder / "server" / "server.key")
    client = ssl.create_default_context(cafile=str(authority / "ca.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("name", ["server.example", "10.1.2.3", "localhost", "127.0.0.1"])
def test_the_server_is_trusted_under_each_of_its_names(made: Made, name: str) -> None:
    handshake(made[0], made[0] / "server", name)


def test_another_name_and_another_authority_are_not_trusted(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made[0], made[0] / "server", "other.example")
    make_authority(tmp_path / "other", "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(made[0], tmp_path / "other", "localhost")


def test_the_server_certificate_signs_nothing_and_ends(made: Made) -> None:
    certificate = x509.load_pem_x509_certificate((made[0] / "server" / "server.crt").read_bytes())
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=800)


def test_the_authority_signs_servers_and_no_other_authority(made: Made) -> None:
    certificate = x509.load_pem_x509_certificate((made[0] / "ca" / "ca.crt").read_bytes())
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature


def test_private_keys_are_readable_by_their_owner_only(made: Made) -> None:
    private = [
        made[0] / "ca" / "ca.key",
        made[0] / "server" / "server.key",
        made[0] / "server" / "executor.secret",
        *(made[0] / "nodes" / name / "key" for name in made[1].node_names()),
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    known = {path for path in made[0].rglob("*") if b"PRIVATE" in _content(path)}
    assert known == set(private) - {made[0] / "server" / "executor.secret"}


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def test_node_keys_are_p384_pairs_of_their_own(made: Made) -> None:
    publics = set()
    for name in made[1].node_names():
        place = made[0] / "nodes" / name
        key = load_ssh_private_key((place / "key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == "secp384r1"
        assert key.public_key() == load_ssh_public_key((place / "key.pub").read_bytes())
        copy = made[0] / "server" / "node-keys" / f"{name}.pub"
        assert copy.read_bytes() == (place / "key.pub").read_bytes()
        publics.add(copy.read_bytes())
    assert len(publics) == 2


def test_nothing_is_overwritten_unasked(made: Made) -> None:
    folder, description = made
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(SnowdropError, match="--force replaces all its keys"):
        federation_folder.make(folder, description, force=False, keep=False)
    federation_folder.make(folder, description, force=False, keep=True)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    federation_folder.make(folder, description, force=True, keep=False)
    assert (folder / "ca" / "ca.key").read_bytes() != before[folder / "ca" / "ca.key"]


def test_a_renewed_certificate_has_the_same_authority(made: Made) -> None:
    old = (made[0] / "server" / "server.crt").read_bytes()
    certificate.renew(*made)
    assert (made[0] / "server" / "server.crt").read_bytes() != old
    handshake(made[0], made[0] / "nodes" / "node-0", "server.example")


def test_a_missing_authority_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match=r"certificate authority in .* cannot be read"):
        make_server_certificate(tmp_path, tmp_path, ["localhost"])


def days_left(folder: Path) -> int:
    return (certificate.validity(folder)[1] - datetime.now(UTC)).days


def test_a_certificate_is_renewed_before_it_ends_and_not_earlier(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not certificate.renew_if_due(*made)
    assert not certificate.renew_if_due(*made, credentials.SERVER_DAYS - 1)
    monkeypatch.setattr(credentials, "SERVER_DAYS", certificate.RENEW_DAYS)
    certificate.renew(*made)
    monkeypatch.undo()
    certificate.check_certificate(*made)
    assert days_left(made[0]) >= credentials.SERVER_DAYS - 1
    handshake(made[0], made[0] / "nodes" / "node-0", "server.example")


def test_a_certificate_that_has_ended_far_from_its_authority_is_one_sentence(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made[0] / "ca" / "ca.key").rename(made[0] / "aside")
    certificate.check_certificate(*made)
    (made[0] / "aside").rename(made[0] / "ca" / "ca.key")
    monkeypatch.setattr(credentials, "SERVER_DAYS", 0)
    certificate.renew(*made)
    (made[0] / "ca" / "ca.key").unlink()
    with pytest.raises(SnowdropError, match=r"ended on .* run `snowdrop deploy renew"):
        certificate.check_certificate(*made)


def test_an_authority_that_has_ended_signs_nothing(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "CA_DAYS", 0)
    make_authority(made[0] / "ca", "fed")
    with pytest.raises(SnowdropError, match=r"ended on .* --force"):
        certificate.renew(*made)
