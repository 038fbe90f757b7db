"""The life of the server's certificate: checked before a start, renewed before it ends."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from common.errors import SnowdropError
from deploy import credentials
from deploy.federation import Federation

RENEW_DAYS = 30
"""A certificate that ends within so many days is renewed."""


def renew(folder: Path, federation: Federation) -> None:
    """Make a new certificate for the SuperLink, signed by the same authority.

    Raises
    ------
    SnowdropError
        If the authority's key is not here, or its own certificate has ended.
    """
    hosts = dict.fromkeys([*federation.hosts, federation.control_host])
    named = [host for host in hosts if host not in ("0.0.0.0", "::")]
    credentials.make_server_certificate(folder / "ca", folder / "server", named)
    authority = (folder / "ca" / "ca.crt").read_bytes()
    credentials.write_public(folder / "server" / "ca.crt", authority)


def renew_if_due(folder: Path, federation: Federation, days: int = RENEW_DAYS) -> bool:
    """Renew the certificate where it ends within some days; whether it was renewed.

    Raises
    ------
    SnowdropError
        As `renew`; or if the certificate cannot be read.
    """
    if validity(folder)[1] - datetime.now(UTC) > timedelta(days=days):
        return False
    renew(folder, federation)
    return True


def check_certificate(folder: Path, federation: Federation) -> None:
    """Renew a certificate that ends soon, where the authority's key is here.

    Raises
    ------
    SnowdropError
        If it is not valid today and cannot be renewed here.
    """
    path = folder / "server" / "server.crt"
    begins, ends = validity(folder)
    now = datetime.now(UTC)
    if now < begins:
        raise SnowdropError(
            f"{path} begins on {begins:%Y-%m-%d %H:%M} UTC, and this machine's clock says "
            f"{now:%Y-%m-%d %H:%M} UTC: set the clock"
        )
    if (folder / "ca" / "ca.key").exists():
        renew_if_due(folder, federation)
    elif now > ends:
        raise SnowdropError(
            f"{path} ended on {ends:%Y-%m-%d}, and this machine's clock says {now:%Y-%m-%d}: if "
            f"the clock is right, run `snowdrop deploy renew {folder}` where ca/ca.key is, and "
            "copy server/server.crt and server/server.key here"
        )


def validity(folder: Path) -> tuple[datetime, datetime]:
    """From when until when the server's certificate is valid.

    Raises
    ------
    SnowdropError
        If it cannot be read.
    """
    path = folder / "server" / "server.crt"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SnowdropError(
            f"{path} is no certificate that can be read; `snowdrop deploy renew {folder}` makes one"
        ) from error
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc
