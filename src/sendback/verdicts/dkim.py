"""DKIM: look up the keys of a mail's signatures and verify the signatures.

The signed octets and the bounds are in `mail.dkim_verification`. Synchronous: it blocks on DNS and
reads the body.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from sendback.mail.authors import read_authors
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
from sendback.net.dns_answers import DnsFailedError
from sendback.receipt.verdicts import DkimResult
from sendback.service.rules.content import ContentGoneError, MailToCheck
from sendback.verdicts.dmarc import organization
from sendback.verdicts.look_ups import Budget


@dataclass(frozen=True, slots=True)
class _Failure:
    """A result other than `pass`, and the reason."""

    result: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Keyed:
    """A signature with its key."""

    signature: Signature
    key: KeyRecord


def check_dkim(
    mail: MailToCheck, budget: Budget, note: Callable[[str], None]
) -> tuple[DkimResult, ...]:
    """Return the result of each signature, up to five, in the steps of RFC 6376 §6.1.

    `note` is called with the reason of a result other than `pass`.
    """
    message = DkimMail(mail.content.header)
    found = message.signatures(mail.received_at)
    keyed = _find_keys(found, _organizations(mail), budget)
    body_hashes = _hash_bodies(mail, [entry for entry in keyed if isinstance(entry, _Keyed)])
    results = []
    for signature, entry in zip(found, keyed, strict=True):
        outcome = _verify(message, entry, body_hashes) if isinstance(entry, _Keyed) else entry
        if outcome is not None:
            name = f"d={signature.domain} s={signature.selector}"
            note(f"dkim {outcome.result} of {name}: {outcome.reason}")
        result = "pass" if outcome is None else outcome.result
        results.append(DkimResult(result, signature.domain, signature.selector))
    return tuple(results)


def _organizations(mail: MailToCheck) -> set[str]:
    """Return the organizational domains of the authors: their signatures count for DMARC."""
    return {organization(domain) for domain in read_authors(mail.content.header).domains}


def _find_keys(
    found: Sequence[Signature | UnusableSignature], organizations: set[str], budget: Budget
) -> list[_Keyed | _Failure]:
    """Look up the authors' keys first.

    The sender chooses the other names: their timeouts must not use the time for an author's domain.
    """
    last = [organization(entry.domain) not in organizations for entry in found]
    order = sorted(range(len(found)), key=lambda index: (last[index], index))
    keyed = {index: _find_key(found[index], budget) for index in order}
    return [keyed[index] for index in range(len(found))]


def _find_key(entry: Signature | UnusableSignature, budget: Budget) -> _Keyed | _Failure:
    if isinstance(entry, UnusableSignature):
        return _Failure("permerror", entry.reason)
    try:
        return _Keyed(entry, read_key(budget.texts(entry.key_name), entry))
    except UnusableError as error:
        return _Failure("permerror", str(error))
    except DnsFailedError as error:
        return _Failure("temperror", f"DNS: {error}")


def _hash_bodies(mail: MailToCheck, keyed: Sequence[_Keyed]) -> Mapping[BodyForm, bytes] | _Failure:
    """Read the body once, and only for signatures that have a key."""
    try:
        return hash_bodies({entry.signature.body_form for entry in keyed}, _body(mail))
    except (OSError, ContentGoneError) as error:
        return _Failure("temperror", f"the body cannot be read: {error}")


def _body(mail: MailToCheck) -> Iterator[bytes]:
    """Yield the octets of the body, without the empty line before it."""
    chunks = mail.content.body_chunks()
    yield next(chunks, b"").removeprefix(b"\r\n")
    yield from chunks


def _verify(
    message: DkimMail, entry: _Keyed, body_hashes: Mapping[BodyForm, bytes] | _Failure
) -> _Failure | None:
    """Return None when the signature verifies."""
    if isinstance(body_hashes, _Failure):
        return body_hashes
    try:
        reason = _difference(message, entry, body_hashes)
    except UnusableError as error:
        return _Failure("permerror", str(error))
    except Exception as error:  # noqa: BLE001 - one signature must not cost the others' results
        return _Failure("temperror", f"internal error: {error!r}")
    if not reason:
        return None
    if entry.key.is_testing:  # RFC 6376 §3.6.1, t=y: treat the mail as unsigned
        return _Failure("neutral", f"{reason}; the domain is testing")
    return _Failure("fail", reason)


def _difference(message: DkimMail, entry: _Keyed, body_hashes: Mapping[BodyForm, bytes]) -> str:
    """Return which part differs from the signed one; nothing when the signature verifies.

    Raises `UnusableError`.
    """
    signature = entry.signature
    body_hash = body_hashes.get(signature.body_form)
    if body_hash is None:
        raise UnusableError("l= is more than the body has")
    if body_hash != signature.body_hash:
        return "the body was changed"
    octets = message.signed_octets(signature)
    return "" if _verifies(entry.key, signature.signature, octets) else "it does not verify"


def _verifies(key: KeyRecord, signature: bytes, octets: bytes) -> bool:
    """Return whether the key verifies it. Raise `UnusableError` for an invalid key."""
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
