"""DANE for SMTP (RFC 7672): whether a server's certificates are those that its TLSA records name.

Usable are the usages DANE-TA(2) and DANE-EE(3) (§3.1.3). With DANE-EE only the key counts: neither
names nor dates (§3.1.1). With DANE-TA the server sends the authority's certificate along, and the
chain up to it is verified, with the server's name (§3.1.2).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_DANE_TA, _DANE_EE = 2, 3
_HASHES = {1: hashlib.sha256, 2: hashlib.sha512}


class DaneError(Exception):
    """None of the records lets the certificate through; `str` says why."""


@dataclass(frozen=True, slots=True)
class TlsaRecord:
    """RFC 6698 §2.1."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def is_usable(self) -> bool:
        known = self.selector in {0, 1} and self.matching in {0, 1, 2}
        return known and self.usage in {_DANE_TA, _DANE_EE} and bool(self.data)

    @property
    def checks_names(self) -> bool:
        """RFC 7672 §3.1.1: with DANE-EE the key alone is proof."""
        return self.usage == _DANE_TA


def usable_records(records: Sequence[Any]) -> tuple[TlsaRecord, ...]:
    """Of dnspython's TLSA rdata."""
    found = (TlsaRecord(r.usage, r.selector, r.mtype, bytes(r.cert)) for r in records)
    return tuple(record for record in found if record.is_usable)


def check_chain(
    records: Sequence[TlsaRecord], chain: Sequence[bytes], names: Sequence[str]
) -> None:
    """`chain` is DER, the server's own certificate first; one of `names` it must have.

    Raises `DaneError`.
    """
    from cryptography import x509  # noqa: PLC0415 - 8 MB

    if not chain:
        raise DaneError("the server sent no certificate")
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
    except ValueError as error:
        raise DaneError(f"a certificate cannot be read: {error}") from None
    reasons = []
    for record in records:
        if not record.checks_names:
            if _matches(record, certificates[0]):
                return
            continue
        reason = _anchor_reason(record, certificates, names)
        if reason is None:
            return
        reasons.append(reason)
    raise DaneError("; ".join(filter(None, reasons)) or "no TLSA record matches the certificate")


def _anchor_reason(record: TlsaRecord, chain: Sequence[Any], names: Sequence[str]) -> str | None:
    """Why the chain does not lead to the record's authority; None when it does."""
    from cryptography import x509  # noqa: PLC0415 - 8 MB
    from cryptography.x509 import verification  # noqa: PLC0415

    anchors = [certificate for certificate in chain if _matches(record, certificate)]
    if not anchors:
        return ""
    reason = ""
    for name in names:
        builder = verification.PolicyBuilder().store(verification.Store(anchors))
        verifier = builder.build_server_verifier(x509.DNSName(name))
        try:
            verifier.verify(chain[0], list(chain[1:]))
        except verification.VerificationError as error:
            reason = f"the certificate is not valid for {' or '.join(names)}: {error}"
        else:
            return None
    return reason


def _matches(record: TlsaRecord, certificate: Any) -> bool:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - 8 MB

    encoding = serialization.Encoding.DER
    if record.selector == 0:
        data = certificate.public_bytes(encoding)
    else:
        data = certificate.public_key().public_bytes(
            encoding, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    if record.matching:
        data = _HASHES[record.matching](data).digest()
    return bool(data == record.data)
