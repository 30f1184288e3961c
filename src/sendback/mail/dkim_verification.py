"""Verify DKIM signatures (RFC 6376, RFC 8301, RFC 8463). Pure.

Theory of operation. `DkimMail` reads the signatures of a header section; each is either a
`Signature`, which names the hashed fields, or an `UnusableSignature` with the reason.
`hash_bodies` hashes the body once for each canonical form, however many signatures there are.
`read_key` reads the key records that the caller found at `Signature.key_name`, and
`DkimMail.signed_octets` returns the signed octets. The caller looks up the keys and checks the
signature: this module must do neither I/O nor cryptography other than hashing.

All input is untrusted. The limits below, and one pass over each octet, keep the work
linear in the size of the mail.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from sendback.errors import SendbackError
from sendback.mail.address import AddressError, canonical_domain
from sendback.mail.dkim_canonicalization import RelaxedBody, SimpleBody, relaxed_field
from sendback.mail.headers import header_fields

MAX_SIGNATURES = 5  # per mail: each costs a DNS query
MAX_FIELD_OCTETS = 16 * 1024  # of a DKIM-Signature field; z= may be long
MAX_NAMES = 200  # in h=
MAX_KEY_RECORDS = 10  # at one name
MAX_KEY_RECORD_OCTETS = 4096  # an RSA key of 4096 bits takes 800
MAX_RSA_BITS = 4096
MIN_RSA_BITS = 1024  # RFC 8301 §3.2
_MAX_NAME_OCTETS = 253  # RFC 1035 §2.3.4, as text
_MAX_SHOWN = 255

# Tolerance for the clocks of senders: OpenDKIM's default.
_CLOCK_DRIFT = timedelta(minutes=5)

_FWS = " \t\r\n"
_TAG_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FIELD_NAME = re.compile(r"[!-9;-~]+")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_TIME = re.compile(r"[0-9]{1,12}")
_LENGTH = re.compile(r"[0-9]{1,76}")
_NO_FWS = str.maketrans("", "", _FWS)
_SIGNATURE_NAME = b"dkim-signature"
_KEY_TYPES = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
_FORMS = {"simple": False, "relaxed": True}


class UnusableError(SendbackError, ValueError):
    """A signature or a key record cannot be used; `str(error)` is the reason."""


@dataclass(frozen=True, slots=True)
class BodyForm:
    """The hashed part of a body: its canonical form, or the first `length` octets of it (l=)."""

    relaxed: bool
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """One DKIM-Signature field that can be verified."""

    domain: str  # d= in lower-case A-labels
    selector: str
    identity_domain: str  # of i=
    key_type: str
    signature: bytes
    body_hash: bytes
    body_form: BodyForm
    relaxed_header: bool
    names: tuple[str, ...]  # h= in lower case
    index: int  # of its own field in the header section
    own_field: bytes  # with b= empty, without its last CRLF

    @property
    def key_name(self) -> str:
        """The name at which the key is published (RFC 6376 §3.6.2.1)."""
        return _key_name(self.selector, self.domain)


@dataclass(frozen=True, slots=True)
class UnusableSignature:
    """One DKIM-Signature field that cannot be verified: `permerror` in RFC 8601's terms.

    `domain` and `selector` are as the field has them, cut to 255 characters.
    """

    domain: str
    selector: str
    reason: str


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A published key (RFC 6376 §3.6.1). `public` is DER for RSA, 32 octets for Ed25519."""

    key_type: str
    public: bytes
    is_testing: bool


class DkimMail:
    """The header fields of one mail, and its DKIM signatures."""

    def __init__(self, header: bytes) -> None:
        """`header` is the header section with its last CRLF."""
        self._fields = [(name.lower(), field) for name, field in header_fields(header)]
        self._relaxed: dict[int, bytes] = {}

    def signatures(self, at: datetime) -> list[Signature | UnusableSignature]:
        """Return the first `MAX_SIGNATURES`. `at` is when the mail was received (§3.5, x=)."""
        indexes = self._indexes.get(_SIGNATURE_NAME, ())[:MAX_SIGNATURES]
        return [_read_signature(self._fields[index][1], index, at) for index in indexes]

    def signed_octets(self, signature: Signature) -> bytes:
        """Return the signed octets (§3.7).

        Raise `UnusableError` if a From field is not signed: mail clients may show any of several
        (§8.15).
        """
        left = {name: len(found) for name, found in self._indexes.items()}
        selected = []
        for name in signature.names:
            index = self._take_last(name.encode("ascii"), left, signature.index)
            if index is not None:
                selected.append(self._canonical(index, relaxed=signature.relaxed_header))
        if left.get(b"from"):
            raise UnusableError("a From field is not signed")
        own = signature.own_field
        if signature.relaxed_header:
            own = relaxed_field(_SIGNATURE_NAME, own)[:-2]
        return b"".join(selected) + own

    def _take_last(self, name: bytes, left: dict[bytes, int], own: int) -> int | None:
        """Return the index of the last field of that name not yet taken, except `own` (§5.4.2)."""
        while left.get(name):
            left[name] -= 1
            index = self._indexes[name][left[name]]
            if index != own:
                return index
        return None

    @cached_property
    def _indexes(self) -> Mapping[bytes, Sequence[int]]:
        indexes: dict[bytes, list[int]] = {}
        for index, (name, _) in enumerate(self._fields):
            indexes.setdefault(name, []).append(index)
        return indexes

    def _canonical(self, index: int, *, relaxed: bool) -> bytes:
        """Return the field's canonical form, computed once for all signatures."""
        name, field = self._fields[index]
        if not relaxed:
            return field
        if index not in self._relaxed:
            self._relaxed[index] = relaxed_field(name, field)
        return self._relaxed[index]


def hash_bodies(forms: Collection[BodyForm], chunks: Iterable[bytes]) -> dict[BodyForm, bytes]:
    """Return the SHA-256 of each form of the body in `chunks`.

    The result lacks a form whose `length` is more than the body has.
    """
    hashes = [
        _BodyHash(relaxed, {form.length for form in forms if form.relaxed is relaxed})
        for relaxed in {form.relaxed for form in forms}
    ]
    if hashes:
        for chunk in chunks:
            for body_hash in hashes:
                body_hash.feed(chunk)
    return {
        BodyForm(body_hash.relaxed, length): digest
        for body_hash in hashes
        for length, digest in body_hash.finish().items()
    }


class _BodyHash:
    """The hashes of one canonical form at several lengths, computed in one pass."""

    def __init__(self, relaxed: bool, lengths: Collection[int | None]) -> None:  # noqa: FBT001 - a form
        self.relaxed = relaxed
        self._form = RelaxedBody() if relaxed else SimpleBody()
        self._hash = hashlib.sha256()
        self._size = 0
        self._cuts = sorted((length for length in lengths if length is not None), reverse=True)
        self._digests: dict[int | None, bytes] = {}

    def feed(self, chunk: bytes) -> None:
        for piece in self._form.feed(chunk):
            self._add(piece)

    def finish(self) -> dict[int | None, bytes]:
        for piece in self._form.finish():
            self._add(piece)
        self._add(b"")  # l=0 of an empty body
        self._digests[None] = self._hash.digest()
        return self._digests

    def _add(self, piece: bytes) -> None:
        while self._cuts and self._cuts[-1] <= self._size + len(piece):
            cut = self._cuts.pop()
            self._hash.update(piece[: cut - self._size])
            piece = piece[cut - self._size :]
            self._size = cut
            self._digests[cut] = self._hash.copy().digest()
        self._hash.update(piece)
        self._size += len(piece)


def read_key(records: Sequence[bytes], signature: Signature) -> KeyRecord:
    """Return the key for the signature from the TXT records at its key name.

    Raise `UnusableError`, also for several key records at one name: the result would depend on the
    order of a DNS response (RFC 6376 §3.6.2.2: undefined). Other records at the name are ignored.
    """
    if len(records) > MAX_KEY_RECORDS:
        raise UnusableError(f"more than {MAX_KEY_RECORDS} TXT records at {signature.key_name}")
    found = [tags for record in records if (tags := _key_tags(record)) is not None]
    if not found:
        raise UnusableError(f"no key record at {signature.key_name}")
    if len(found) > 1:
        raise UnusableError(f"{len(found)} key records at {signature.key_name}")
    (tags,) = found
    _check_use(tags, signature)
    if not tags["p"]:
        raise UnusableError("the key is revoked")
    flags = _list(tags.get("t", ""))
    if "s" in flags and signature.identity_domain != signature.domain:
        raise UnusableError("the key is not for subdomains in i=")
    return KeyRecord(signature.key_type, _decoded(tags["p"], "p"), "y" in flags)


def _key_tags(record: bytes) -> dict[str, str] | None:
    """Return the tags of a key record; None for another record."""
    if len(record) > MAX_KEY_RECORD_OCTETS:
        return None
    try:
        tags = _read_tags(record.decode("utf-8"))
    except ValueError:
        return None
    return tags if "p" in tags and tags.get("v", "DKIM1") == "DKIM1" else None


def _check_use(tags: Mapping[str, str], signature: Signature) -> None:
    """Raise `UnusableError` when the key is not for this signature."""
    if tags.get("k", "rsa") != signature.key_type:
        raise UnusableError(f"the key is for k={tags.get('k', 'rsa')}")
    if "h" in tags and "sha256" not in _list(tags["h"]):
        raise UnusableError("the key is not for sha256")
    if not {"*", "email"} & set(_list(tags.get("s", "*"))):
        raise UnusableError("the key is not for mail")


def _read_signature(field: bytes, index: int, at: datetime) -> Signature | UnusableSignature:
    tags: dict[str, str] = {}
    try:
        if len(field) > MAX_FIELD_OCTETS:
            raise UnusableError(f"the field is longer than {MAX_FIELD_OCTETS} octets")
        value = field[field.index(b":") + 1 :]
        tags = _read_tags(value.decode("utf-8"))
        _check_tags(tags)
        _check_times(tags, at)
        return _signature(tags, field, index)
    except UnicodeDecodeError:
        reason = "the field is not UTF-8"
    except UnusableError as error:
        reason = str(error)
    domain, selector = (tags.get(tag, "").translate(_NO_FWS)[:_MAX_SHOWN] for tag in "ds")
    return UnusableSignature(domain, selector, reason)


def _read_tags(text: str) -> dict[str, str]:
    """Return the tags of a tag list (RFC 6376 §3.2). Raise `UnusableError`."""
    parts = text.split(";")
    if not parts[-1].strip(_FWS):
        parts.pop()
    tags: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip(_FWS)
        if not equals or not _TAG_NAME.fullmatch(name):
            raise UnusableError("it is not a list of tags")
        if name in tags:
            raise UnusableError(f"the tag {name[:20]}= occurs twice")
        tags[name] = value.strip(_FWS)
    return tags


def _check_tags(tags: Mapping[str, str]) -> None:
    """Raise `UnusableError` for missing or invalid tags (RFC 6376 §3.5, §6.1.1)."""
    for tag in ("v", "a", "b", "bh", "d", "h", "s"):
        if tag not in tags:
            raise UnusableError(f"there is no {tag}=")
    if tags["v"] != "1":
        raise UnusableError("v= is not 1")
    if tags["a"] == "rsa-sha1":
        raise UnusableError("a=rsa-sha1 is not valid any more (RFC 8301)")
    if tags["a"] not in _KEY_TYPES:
        raise UnusableError("a= is not a known algorithm")
    if "dns/txt" not in _list(tags.get("q", "dns/txt")):
        raise UnusableError("q= has no known query method")
    if "l" in tags and not _LENGTH.fullmatch(tags["l"]):
        raise UnusableError("l= is not a number")


def _check_times(tags: Mapping[str, str], at: datetime) -> None:
    """Raise `UnusableError` for a signature from the future or past its expiry."""
    for tag in "tx":
        if tag in tags and not _TIME.fullmatch(tags[tag]):
            raise UnusableError(f"{tag}= is not a time")
    signed, expires = (int(tags[tag]) if tag in tags else None for tag in "tx")
    if signed is not None and signed > (at + _CLOCK_DRIFT).timestamp():
        raise UnusableError("it was signed in the future (t=)")
    if expires is not None and expires < (at - _CLOCK_DRIFT).timestamp():
        raise UnusableError("it has expired (x=)")
    if signed is not None and expires is not None and expires < signed:
        raise UnusableError("x= is before t=")


def _signature(tags: Mapping[str, str], field: bytes, index: int) -> Signature:
    domain, selector = _domain(tags["d"], "d"), _selector(tags["s"])
    if len(_key_name(selector, domain)) > _MAX_NAME_OCTETS:
        raise UnusableError("s= and d= make no DNS name")
    relaxed_header, relaxed = _canonicalization(tags.get("c", "simple"))
    return Signature(
        domain=domain,
        selector=selector,
        identity_domain=_identity_domain(tags.get("i"), domain),
        key_type=_KEY_TYPES[tags["a"]],
        signature=_decoded(tags["b"], "b"),
        body_hash=_decoded(tags["bh"], "bh"),
        body_form=BodyForm(relaxed, int(tags["l"]) if "l" in tags else None),
        relaxed_header=relaxed_header,
        names=_names(tags["h"]),
        index=index,
        own_field=_without_signature(field),
    )


def _key_name(selector: str, domain: str) -> str:
    return f"{selector}._domainkey.{domain}"


def _canonicalization(text: str) -> tuple[bool, bool]:
    """Return whether the forms of header and body are relaxed (§3.5, c=)."""
    header, slash, body = text.partition("/")
    try:
        return _FORMS[header], _FORMS[body if slash else "simple"]
    except KeyError:
        raise UnusableError("c= is not a known canonicalization") from None


def _domain(text: str, tag: str) -> str:
    """Return a domain name in A-labels. Raise `UnusableError`."""
    try:
        if not text.startswith("[") and len(text) <= _MAX_NAME_OCTETS:
            return canonical_domain(text)
    except AddressError:
        pass
    raise UnusableError(f"{tag}= is not a domain name")


def _selector(text: str) -> str:
    """Return a selector. Unlike in a domain name, labels may begin or end with underscores."""
    if text.isascii() and all(_LABEL.fullmatch(label) for label in text.split(".")):
        return text.lower()
    return _domain(text, "s")


def _identity_domain(text: str | None, domain: str) -> str:
    """Return the domain of i=, which is d= or a subdomain of it (§3.5)."""
    if text is None:
        return domain
    _, at, name = text.rpartition("@")
    identity = _domain(name, "i")
    if not at or not f".{identity}".endswith(f".{domain}"):
        raise UnusableError("i= is not in the domain of d=")
    return identity


def _names(text: str) -> tuple[str, ...]:
    names = _list(text.lower())
    if len(names) > MAX_NAMES:
        raise UnusableError(f"h= has more than {MAX_NAMES} names")
    if not all(_FIELD_NAME.fullmatch(name) for name in names):
        raise UnusableError("h= is not a list of field names")
    if "from" not in names:
        raise UnusableError("From is not signed")
    return tuple(names)


def _list(text: str) -> list[str]:
    """Return the values between colons, stripped."""
    return [item.strip(_FWS) for item in text.split(":")]


def _decoded(text: str, tag: str) -> bytes:
    """Return the octets of base64 with any white space. Raise `UnusableError`."""
    try:
        found = base64.b64decode(text.translate(_NO_FWS).encode("ascii"), validate=True)
    except ValueError:
        found = b""
    if not found:
        raise UnusableError(f"{tag}= is not base64")
    return found


def _without_signature(field: bytes) -> bytes:
    """Return the signature's own field with an empty b= and without its last CRLF (§3.7)."""
    start = field.index(b":") + 1
    for part in field[start:].removesuffix(b"\r\n").split(b";"):
        name, _, value = part.partition(b"=")
        end = start + len(part)
        if name.strip(b" \t\r\n") == b"b":
            return (field[: end - len(value)] + field[end:]).removesuffix(b"\r\n")
        start = end + 1
    raise UnusableError("there is no b=")
