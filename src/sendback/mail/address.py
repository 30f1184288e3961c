"""Mail addresses as RFC 5321 §4.1.2 (`Mailbox`) and RFC 6531 §3.3 write them.

`parse_address` is for one bare address, `parse_mailbox` for what may stand in a `From:` field.
An `Address` keeps the spelling that it was given; comparing is done on `Address.key`, in which
the domain is lower-case A-labels and the local part is untouched (its case matters).
"""

import ipaddress
import re
from dataclasses import dataclass
from email.utils import parseaddr
from functools import lru_cache

import idna

# RFC 5321 §4.1.2 with the non-ASCII of RFC 6531 §3.3; C1 controls and Unicode line ends are
# no letters of any mailbox and would be line ends to some readers.
_UTF8 = "\u00a1-\u2027\u202f-\u2065\u2070-\ud7ff\uf900-\ufdcf\ufdf0-\uffef\U00010000-\U000dffff"
_ATEXT = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~\-{_UTF8}]"
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_QUOTED_STRING = re.compile(rf'"(?:[ !#-\[\]-~{_UTF8}]|\\[ -~])*"')
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_PRINTABLE = re.compile(rf"[\t -~{_UTF8}]*")

# RFC 5321 §4.5.3.1 asks for at least 64 and 255 octets and for no needless limit; VERP and SRS
# local parts pass 64 every day.
MAX_LOCAL_OCTETS = 255
MAX_DOMAIN_OCTETS = 255


class AddressError(ValueError):
    """The text is no mail address; `str(error)` says why."""


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox: `local` (quotes included, where it has them) and `domain`, as written."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def ascii_domain(self) -> str:
        """The domain as lower-case A-labels (RFC 5890); an address literal as written."""
        return canonical_domain(self.domain)

    @property
    def with_ascii_domain(self) -> str:
        """As written, but for a non-ASCII domain, which is in A-labels: how mail carries it."""
        domain = self.domain if self.domain.isascii() else self.ascii_domain
        return f"{self.local}@{domain}"

    @property
    def key(self) -> str:
        """What two spellings of one address share: SES compares the domain without case."""
        return f"{self.local}@{self.ascii_domain}"

    @property
    def untagged(self) -> "Address":
        """Without `+tag`; itself where there is none."""
        local, plus, _ = self.local.partition("+")
        return Address(local, self.domain) if plus and local and local[0] != '"' else self

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the local part is non-ASCII: a non-ASCII domain has A-labels to go by."""
        return not self.local.isascii()


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address with the display name that may stand before it (RFC 5322 §3.4)."""

    display_name: str
    address: Address


@lru_cache(maxsize=4096)
def canonical_domain(domain: str) -> str:
    """Lower-case A-labels of `domain`; raises `AddressError` for what is no domain."""
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
    """RFC 5321 §4.1.3: `[192.0.2.1]` or `[IPv6:2001:db8::1]`."""
    inner = literal[1:-1]
    try:
        if not literal.endswith("]"):
            raise ValueError("no closing bracket")
        if inner[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(inner[5:])
        else:
            ipaddress.IPv4Address(inner)
    except ValueError:
        raise AddressError(f"{literal!r} is not an address literal") from None
    return literal.lower()


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address:
    """`local@domain`, nothing around it. Raises `AddressError`."""
    local, at, domain = text.rpartition("@")
    if not at:
        raise AddressError(f"{text!r} has no @")
    if not (_DOT_STRING.fullmatch(local) or _QUOTED_STRING.fullmatch(local)):
        raise AddressError(f"{text!r} has no valid local part")
    if len(local.encode()) > MAX_LOCAL_OCTETS:
        raise AddressError(f"the local part is longer than {MAX_LOCAL_OCTETS} octets")
    canonical_domain(domain)
    return Address(local, domain)


def parse_domain(text: str) -> str:
    """A domain name (no address literal) in canonical form. Raises `AddressError`."""
    if text.startswith("["):
        raise AddressError(f"{text!r} is not a domain name")
    return canonical_domain(text)


def identity_name(text: str) -> str:
    """The spelling under which an identity is kept; the text itself when it is neither kind."""
    try:
        return parse_address(text).key if "@" in text else parse_domain(text)
    except AddressError:
        return text


def parse_mailbox(text: str) -> Mailbox:
    """`ann@example.com` or `Ann Example <ann@example.com>`. Raises `AddressError`.

    The display name comes back unquoted. Lists, groups and comments are refused: exactly one
    address may stand in the `From:` of a bounce.
    """
    if not _PRINTABLE.fullmatch(text):
        raise AddressError("line ends and control characters are not allowed")
    if "<" not in text:
        return Mailbox("", parse_address(text.strip()))
    name, _, rest = text.rpartition("<")
    if not rest.rstrip().endswith(">"):
        raise AddressError(f"{text!r} has no closing >")
    address = parse_address(rest.rstrip()[:-1])
    name = name.strip()
    if not name:
        return Mailbox("", address)
    # The standard library knows the quoting rules; what it does not read back is no phrase.
    parsed_name, parsed_address = parseaddr(f"{name} <x@y>")
    if parsed_address != "x@y" or not parsed_name:
        raise AddressError(f"{name!r} is not a display name")
    return Mailbox(parsed_name, address)
