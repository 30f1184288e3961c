"""TLS policies: which TLS a delivery requires, and the source of that requirement.

From the weakest: opportunistic (RFC 7435: any certificate, or plain text), encrypted (any
certificate), verified (a certificate of a trusted authority for the server's name) by a setting or
by MTA-STS (RFC 8461), and DANE (RFC 7672), where DNS has the certificate.
"""

import ssl
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sendback.delivery.dane import TlsaRecord


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """`name` is for display; `required`: never in clear text; `tlsa`: the records of DANE.

    `names` are those of which DANE's certificates must have one, where names count;
    `server_name` is the SNI, if it is not the host's own name.
    """

    name: str
    context: ssl.SSLContext
    required: bool
    tlsa: tuple[TlsaRecord, ...] = ()
    names: tuple[str, ...] = ()
    server_name: str = ""


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context with the authorities of the system and of the file.

    Raises `OSError`, `ssl.SSLError`.
    """
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


@cache
def _any_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def opportunistic() -> TlsPolicy:
    """TLS where it is offered."""
    return TlsPolicy("opportunistic", _any_certificate(), required=False)


def encrypted() -> TlsPolicy:
    """TLS with any certificate."""
    return TlsPolicy("encrypted", _any_certificate(), required=True)


def verified(trust: ssl.SSLContext, name: str = "verified") -> TlsPolicy:
    """TLS with a certificate that `trust` accepts for the server's name."""
    return TlsPolicy(name, trust, required=True)


def dane(records: tuple[TlsaRecord, ...], server_name: str, names: tuple[str, ...]) -> TlsPolicy:
    """TLS with a certificate that one of the records names (RFC 7672 §3.2.2, §8.1)."""
    context = _any_certificate()
    return TlsPolicy("dane", context, True, tlsa=records, names=names, server_name=server_name)
