"""Mail addresses as RFC 5321 §4.1.2 (`Mailbox`) and RFC 6531 §3.3 write them. Pure.

`parse_address` reads one bare address, `parse_mailbox` an address with an optional display name. An
`Address` keeps the spelling that it was given. `Address.key` is its canonical spelling, and the
only value by which addresses are compared: the local part in NFC, with its case and without
unnecessary quotes, and the domain in lower-case A-labels.

On request, `parse_address` accepts dots at the ends of a local part, or several in a row, which the
standards forbid. Such mailboxes exist (Japanese mobile providers assigned them for years): mail
from them is received, and bounces are sent to them.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import normalize

import idna

from sendback.errors import SendbackError
from sendback.mail.address_lists import read_address_list
from sendback.mail.encoded_words import decode_words

# RFC 5321 §4.1.2 with the non-ASCII of RFC 6531 §3.3; C1 controls and Unicode line ends are
# excluded: they are in no real mailbox, and some readers take them for line ends.
_UTF8 = "\u00a1-\u2027\u202f-\u2065\u2070-\ud7ff\uf900-\ufdcf\ufdf0-\uffef\U00010000-\U000dffff"
_ATEXT = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-{_UTF8}]"
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_ANY_DOTS = re.compile(rf"\.*{_ATEXT}(?:{_ATEXT}|\.)*")
_QUOTED_STRING = re.compile(rf'"(?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*"')
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_MUST_BE_ESCAPED = re.compile(r'(["\\])')
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_PRINTABLE = re.compile(rf"[\t -~{_UTF8}]*")

# RFC 5321 §4.5.3.1 requires at least 64 and 255 octets and discourages limits; VERP and SRS
# local parts often exceed 64.
MAX_LOCAL_OCTETS = 255
MAX_DOMAIN_OCTETS = 255
# Longer than any address with a display name. Longer texts are refused unread.
_MAX_LENGTH = 4096
_SHOWN = 100


class AddressError(SendbackError, ValueError):
    """The text is not a mail address; `str(error)` is the reason."""


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox: `local` (with its quotes, if any) and `domain`, as written."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def ascii_domain(self) -> str:
        """The domain in lower-case A-labels (RFC 5890), or the canonical address literal."""
        return canonical_domain(self.domain)

    @property
    def with_ascii_domain(self) -> str:
        """The address for SMTP: as written, with a non-ASCII domain in A-labels."""
        domain = self.domain if self.domain.isascii() else self.ascii_domain
        return f"{self.local}@{domain}"

    @property
    def in_header(self) -> str:
        """The address for a header field: quoted where RFC 5322 §3.4.1 requires it."""
        local = self.local
        if local[0] != '"' and _has_odd_dots(local):
            local = f'"{local}"'
        return f"{local}@{self.with_ascii_domain[len(self.local) + 1 :]}"

    @property
    def key(self) -> str:
        """The canonical spelling, equal for all spellings of this address."""
        return f"{canonical_local(self.local)}@{self.ascii_domain}"

    @property
    def untagged(self) -> "Address":
        """The address without its `+tag`; the same object when it has none."""
        if "+" not in self.local:
            return self
        local, _, _ = canonical_local(self.local).partition("+")
        return Address(local, self.domain) if local and local[0] != '"' else self

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the local part is non-ASCII. A non-ASCII domain is sent in A-labels."""
        return not self.local.isascii()


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address and its display name, which may be empty (RFC 5322 §3.4)."""

    display_name: str
    address: Address


def canonical_local(local: str) -> str:
    """Return the canonical spelling of a valid local part: in NFC, quoted only if necessary.

    RFC 5321 §4.1.2: "ann", with or without quotes, is the same mailbox.
    """
    if local.isascii() and local[0] != '"' and not _has_odd_dots(local):
        return local
    text = normalize("NFC", local)
    if text[0] == '"':
        text = _QUOTED_PAIR.sub(r"\1", text[1:-1])
    if _DOT_STRING.fullmatch(text):
        return text
    return '"' + _MUST_BE_ESCAPED.sub(r"\\\1", text) + '"'


def _has_odd_dots(local: str) -> bool:
    return ".." in local or local[0] == "." or local[-1] == "."


@lru_cache(maxsize=4096)
def canonical_domain(domain: str) -> str:
    """Return `domain` in lower-case A-labels. Raise `AddressError` if it is not a domain."""
    if len(domain) > MAX_DOMAIN_OCTETS:  # in A-labels it would be longer still
        raise AddressError(f"the domain is longer than {MAX_DOMAIN_OCTETS} octets")
    if domain.startswith("["):
        return _canonical_literal(domain)
    try:
        text = domain if domain.isascii() else idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressError(f"the domain {domain!r} is not valid IDNA: {error}") from None
    if len(text) > MAX_DOMAIN_OCTETS:
        raise AddressError(f"the domain is longer than {MAX_DOMAIN_OCTETS} octets")
    if not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise AddressError(f"{domain!r} is not a domain name")
    return text.lower()


def _canonical_literal(literal: str) -> str:
    """Return the canonical `[192.0.2.1]` or `[ipv6:2001:db8::1]` (RFC 5321 §4.1.3)."""
    inner = literal[1:-1]
    try:
        if not literal.endswith("]"):
            raise ValueError("no closing bracket")
        if inner[:5].lower() == "ipv6:":
            return f"[ipv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise AddressError(f"{literal!r} is not an address literal") from None


@lru_cache(maxsize=4096)
def parse_address(text: str, *, any_dots: bool = False) -> Address:
    """Return the address in `text`, which must be `local@domain` alone. Raise `AddressError`.

    With `any_dots`, the local part may begin or end with dots, or have several in a row.
    """
    if len(text) > _MAX_LENGTH:
        raise AddressError(f"{_shown(text)} is too long for an address")
    local, at, domain = text.rpartition("@")
    if not at:
        raise AddressError(f"{_shown(text)} has no @")
    unquoted = _ANY_DOTS if any_dots else _DOT_STRING
    if not (unquoted.fullmatch(local) or _QUOTED_STRING.fullmatch(local)):
        raise AddressError(f"{_shown(text)} has no valid local part")
    if len(local.encode()) > MAX_LOCAL_OCTETS:
        raise AddressError(f"the local part is longer than {MAX_LOCAL_OCTETS} octets")
    canonical_domain(domain)
    return Address(local, domain)


def parse_domain(text: str) -> str:
    """Return a domain name (no address literal) in canonical form. Raise `AddressError`."""
    if text.startswith("["):
        raise AddressError(f"{_shown(text)} is not a domain name")
    return canonical_domain(text)


def identity_name(text: str) -> str:
    """Return the name under which an identity is stored: an address key or a canonical domain.

    A text that is neither is returned unchanged.
    """
    try:
        return parse_address(text).key if "@" in text else parse_domain(text)
    except AddressError:
        return text


def parse_mailbox(text: str) -> Mailbox:
    """Return the mailbox in `ann@example.com` or `Ann Example <ann@example.com>`.

    The display name is returned without quotes and with its encoded words decoded (RFC 2047), so
    that policies check what people will read. Raise `AddressError`, also for lists, groups and
    comments: the `From:` of a bounce has exactly one address.
    """
    if len(text) > _MAX_LENGTH:
        raise AddressError(f"{_shown(text)} is too long for an address")
    if not _PRINTABLE.fullmatch(text):
        raise AddressError("line ends and control characters are not allowed")
    if "<" not in text:
        return Mailbox("", parse_address(text.strip()))
    name, _, rest = text.rpartition("<")
    if not rest.rstrip().endswith(">"):
        raise AddressError(f"{_shown(text)} has no closing >")
    address = parse_address(rest.rstrip()[:-1])
    name = name.strip()
    return Mailbox(decode_words(_display_name(name)) if name else "", address)


_PHRASE = re.compile(r'(?:[^\s"()<>\[\]:;@\\,]+|"(?:[^"\\]|\\.)*"|\s+)*+')


def _display_name(text: str) -> str:
    """Return a phrase unquoted (RFC 5322 §3.2.5; dots are allowed, §4.1, obs-phrase)."""
    if not _PHRASE.fullmatch(text):
        raise AddressError(f"{_shown(text)} is not a display name")
    (entry,) = read_address_list(f"{text} <x@y>")
    return entry.name


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def address_key(text: str) -> str:
    """Return the canonical key of an address, or the text itself if it is none."""
    try:
        return parse_address(text, any_dots=True).key
    except AddressError:
        return text
