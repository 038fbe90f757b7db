"""Why a node cannot take part in its federation: one sentence, with what to do."""

import itertools
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

_SECONDS = 5.0
_EXPIRED, _NOT_YET_VALID = 10, 9  # OpenSSL's X509_V_ERR_…
_WRONG_NAME = (62, 64)
_NO_INTERVAL = 0.0
"""A heartbeat interval that Flower refuses, after it has looked for the key."""


def obstacle(superlink: str, authority: Path, key: Path | None = None) -> str | None:
    """What keeps a node from its SuperLink; None where nothing does.

    Parameters
    ----------
    superlink : str
        ``HOST:PORT`` of the Fleet API.
    authority : Path
        Certificate of the authority that vouches for the server.
    key : Path, optional
        Private key of the node: whether the SuperLink lets it in is asked too. The SuperLink notes
        the question in its log.
    """
    host, _, port = superlink.rpartition(":")
    host = host.strip("[]")
    return _unreachable(host, int(port), authority) or (
        None if key is None else _refused(superlink, authority, key)
    )


def obstacle_of(command: Sequence[str], with_key: bool) -> str | None:
    """`obstacle` of the command line of a SuperNode; None where it names no SuperLink."""
    options = dict(itertools.pairwise(command))
    superlink, authority = options.get("--superlink"), options.get("--root-certificates")
    key = options.get("--auth-supernode-private-key") if with_key else None
    if superlink is None or authority is None:
        return None
    return obstacle(superlink, Path(authority), Path(key) if key else None)


def _unreachable(host: str, port: int, authority: Path) -> str | None:
    """What is wrong with the name, the port or the certificate of the server."""
    place = f"{host}:{port}"
    try:
        context = ssl.create_default_context(cafile=authority)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, port), _SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        return _unvouched(error.verify_code, error.verify_message, host, port, authority)
    except ssl.SSLError:
        return (
            f"{place} speaks no TLS, so it is not the SuperLink's port for nodes: correct the "
            "address of the SuperLink"
        )
    except socket.gaierror:
        return (
            f"the server's name {host!r} is not known to this machine: correct it (it comes from "
            "`snowdrop deploy init --host`), or make it known to DNS or in /etc/hosts"
        )
    except ConnectionRefusedError:
        return (
            f"nothing listens on {place}: start the SuperLink, or correct the address of the "
            "SuperLink"
        )
    except OSError as error:
        if not authority.is_file():
            return f"{authority} cannot be read: copy ca.crt of the federation there"
        return (
            f"{place} does not answer ({error.strerror or error}): look whether the server is up, "
            "and whether a firewall lets this machine through"
        )


def _unvouched(code: int, why: str, host: str, port: int, authority: Path) -> str:
    """What is wrong with a certificate that OpenSSL does not accept."""
    place, now = f"{host}:{port}", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if code not in (_EXPIRED, _NOT_YET_VALID, *_WRONG_NAME):
        return (
            f"{authority} does not vouch for the server at {place} ({why}): copy ca.crt of this "
            "federation there, or correct the address of the SuperLink"
        )
    shown = x509.load_pem_x509_certificate(_shown(host, port).encode())
    if code == _EXPIRED:
        return (
            f"the certificate of {place} ended on {shown.not_valid_after_utc:%Y-%m-%d}, and this "
            f"machine's clock says {now}: if the clock is right, run `snowdrop deploy renew DIR` "
            "and restart the SuperLink"
        )
    if code == _NOT_YET_VALID:
        return (
            f"the certificate of {place} begins on {shown.not_valid_before_utc:%Y-%m-%d %H:%M} "
            f"UTC, and this machine's clock says {now}: set the clock"
        )
    return (
        f"the certificate of {place} is for {', '.join(_names(shown))} and not for {host!r}: give "
        "nodes one of these, or make a federation with `snowdrop deploy init --host`"
    )


def _shown(host: str, port: int) -> str:
    """The certificate that a server shows, which nobody has checked."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, port), _SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        return ssl.DER_cert_to_PEM_cert(wrapped.getpeercert(binary_form=True) or b"")


def _names(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that a certificate is for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _refused(superlink: str, authority: Path, key: Path) -> str | None:
    """Why the SuperLink does not let a key in."""
    import grpc
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
    from flwr.proto.fleet_pb2 import ActivateNodeRequest
    from flwr.proto.fleet_pb2_grpc import FleetStub
    from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    try:
        private = load_ssh_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
    except (OSError, ValueError, AssertionError):
        return f"{key} is no key of a node: `snowdrop deploy rekey` makes a new one"
    credentials = grpc.ssl_channel_credentials(authority.read_bytes())
    with grpc.secure_channel(superlink, credentials) as channel:
        signed = grpc.intercept_channel(
            channel,
            RuntimeVersionClientInterceptor(component_name="SuperNode"),
            NodeAuthClientInterceptor(private, private.public_key()),
        )
        request = ActivateNodeRequest(
            public_key=public_key_to_bytes(private.public_key()), heartbeat_interval=_NO_INTERVAL
        )
        try:
            FleetStub(signed).ActivateNode(request, timeout=_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                return (
                    f"the SuperLink at {superlink} does not know the key {key}: register it there "
                    "with `snowdrop deploy register DIR`, or copy this federation's key to its "
                    "place"
                )
            if error.details() == "Invalid timestamp":
                return (
                    "this machine's clock and the server's differ by more than five minutes "
                    f"(this one says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC): set the clock that "
                    "is off"
                )
    return None
