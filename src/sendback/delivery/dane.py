"""DANE for SMTP (RFC 7672): check a server's certificates against its TLSA records.

Usable are the usages DANE-TA(2) and DANE-EE(3) (§3.1.3). With DANE-EE only the key counts: neither
names nor dates (§3.1.1). With DANE-TA the server sends the authority's certificate along, and the
chain up to it is verified, with the server's name (§3.1.2).
"""

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sendback.errors import SendbackError

_DANE_TA, _DANE_EE = 2, 3
_MAX_CERTIFICATES = 20
_HASHES = {1: hashlib.sha256, 2: hashlib.sha512}


class DaneError(SendbackError):
    """None of the records matches the certificate; `str` is the reason."""


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
    """Raise `DaneError` unless one of the records matches the chain.

    `chain` is DER, the server's own certificate first; one of `names` it must have. Each
    certificate is read once, and the chain is verified once for each authority in it.
    """
    from cryptography import x509  # noqa: PLC0415 - 8 MB

    if not chain:
        raise DaneError("the server sent no certificate")
    if len(chain) > _MAX_CERTIFICATES:
        raise DaneError(f"the server sent {len(chain)} certificates")
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        forms = [_forms(certificate) for certificate in certificates]
    except ValueError as error:
        raise DaneError(f"a certificate cannot be read: {error}") from None
    if any(_key(record) in forms[0] for record in records if not record.checks_names):
        return
    wanted = {_key(record) for record in records if record.checks_names}
    anchors = [
        certificate
        for certificate, own in zip(certificates, forms, strict=True)
        if not wanted.isdisjoint(own)
    ]
    if not anchors:
        raise DaneError("no TLSA record matches the certificate")
    _verify(certificates, anchors, names)


def _verify(chain: Sequence[Any], anchors: Sequence[Any], names: Sequence[str]) -> None:
    """Raise `DaneError` unless the chain leads to one of the authorities, for one of the names."""
    from cryptography import x509  # noqa: PLC0415 - 8 MB
    from cryptography.x509 import verification  # noqa: PLC0415

    reason = ""
    for name in names:
        builder = verification.PolicyBuilder().store(verification.Store(list(anchors)))
        verifier = builder.build_server_verifier(x509.DNSName(name))
        try:
            verifier.verify(chain[0], list(chain[1:]))
        except verification.VerificationError as error:
            reason = f"the certificate is not valid for {' or '.join(names)}: {error}"
        else:
            return
    raise DaneError(reason or "no TLSA record matches the certificate")


# Selector, matching type and data of a TLSA record (RFC 6698 §2.1).
_Key = tuple[int, int, bytes]


def _key(record: TlsaRecord) -> _Key:
    return record.selector, record.matching, record.data


def _forms(certificate: Any) -> set[_Key]:
    """Return the record data that match a certificate; none for an unknown kind of key."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - 8 MB
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    encoding = serialization.Encoding.DER
    encoded = {0: certificate.public_bytes(encoding)}
    with contextlib.suppress(UnsupportedAlgorithm):
        encoded[1] = certificate.public_key().public_bytes(
            encoding, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    found = set()
    for selector, data in encoded.items():
        found.add((selector, 0, data))
        found |= {(selector, number, of(data).digest()) for number, of in _HASHES.items()}
    return found
