"""DKIM: the keys of a mail's signatures are looked up, and the signatures verified with them.

What a signature is over, and the bounds, are in `mail.dkim_verification`. Synchronous: it waits for
DNS and reads the body.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from sendback.mail.dkim_verification import (
    MAX_RSA_BITS,
    MIN_RSA_BITS,
    BodyForm,
    DkimMail,
    KeyRecord,
    Signature,
    UnusableError,
    UnusableSignature,
    hash_bodies,
    read_key,
)
from sendback.receipt.verdicts import DkimResult
from sendback.resolver import DnsFailedError
from sendback.service.content import ContentGoneError, MailToCheck
from sendback.verdicts.look_ups import Budget


def check_dkim(
    mail: MailToCheck, budget: Budget, note: Callable[[str], None]
) -> tuple[DkimResult, ...]:
    """Return the result of each signature, up to five (RFC 6376).

    `note` is called with what explains a result other than `pass`.
    """
    message = DkimMail(mail.content.header)
    found = message.signatures(mail.received_at)
    usable = [entry for entry in found if isinstance(entry, Signature)]
    try:
        body_hashes = hash_bodies({entry.body_form for entry in usable}, _body(mail))
    except (OSError, ContentGoneError) as error:
        note(f"dkim temperror: the body cannot be read: {error}")
        return tuple(DkimResult("temperror", entry.domain, entry.selector) for entry in found)
    return tuple(_result(message, entry, body_hashes, budget, note) for entry in found)


def _body(mail: MailToCheck) -> Any:
    """The body's octets, without the empty line before it."""
    chunks = mail.content.body_chunks()
    yield next(chunks, b"").removeprefix(b"\r\n")
    yield from chunks


def _result(
    message: DkimMail,
    entry: Signature | UnusableSignature,
    body_hashes: dict[BodyForm, bytes],
    budget: Budget,
    note: Callable[[str], None],
) -> DkimResult:
    result, reason = "pass", ""
    try:
        if isinstance(entry, UnusableSignature):
            raise UnusableError(entry.reason)
        result, reason = _verify(message, entry, body_hashes, budget)
    except UnusableError as error:
        result, reason = "permerror", str(error)
    except DnsFailedError as error:
        result, reason = "temperror", f"DNS: {error}"
    except Exception as error:  # noqa: BLE001 - one signature must not cost the others' results
        result, reason = "temperror", f"internal error: {error!r}"
    if reason:
        note(f"dkim {result} of d={entry.domain} s={entry.selector}: {reason}")
    return DkimResult(result, entry.domain, entry.selector)


def _verify(
    message: DkimMail, signature: Signature, body_hashes: dict[BodyForm, bytes], budget: Budget
) -> tuple[str, str]:
    """Return the result and, unless it is `pass`, the reason.

    Raises `UnusableError`, `DnsFailedError`.
    """
    body_hash = body_hashes.get(signature.body_form)
    if body_hash is None:
        raise UnusableError("l= is more than the body has")
    if body_hash != signature.body_hash:
        return "fail", "the body was changed"
    octets = message.signed_octets(signature)
    key = read_key(budget.texts(signature.key_name), signature)
    if _verifies(key, signature.signature, octets):
        return "pass", ""
    if key.is_testing:  # RFC 6376 §3.6.1, t=y: as if it were not signed
        return "neutral", "the signature does not verify; the domain is testing"
    return "fail", "the signature does not verify"


def _verifies(key: KeyRecord, signature: bytes, octets: bytes) -> bool:
    """Whether the key verifies it. Raises `UnusableError` when the key is none."""
    try:
        if key.key_type == "ed25519":  # RFC 8463 §3
            public = ed25519.Ed25519PublicKey.from_public_bytes(key.public)
            public.verify(signature, hashlib.sha256(octets).digest())
        else:
            _rsa_key(key.public).verify(signature, octets, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableError(f"the published key cannot be used: {error}") from None
    return True


def _rsa_key(der: bytes) -> rsa.RSAPublicKey:
    key = serialization.load_der_public_key(der)
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("it is not an RSA key")
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:  # RFC 8301 §3.2
        raise UnusableError(
            f"the key has {key.key_size} bits, and {MIN_RSA_BITS} to {MAX_RSA_BITS} are allowed"
        )
    return key
