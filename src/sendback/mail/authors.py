"""Who a message says that it is from: the domains in `From:`, whatever the spelling. Pure.

DMARC protects the domain that people see, so this reader finds a domain wherever a mail client
could find one (RFC 7489 §6.6.1). An address of the usual form names one domain. Of any other, mail
clients make different things: each `@` in it may name a domain, with or without what stands behind
it, and the author counts as one that cannot be read, beside those domains.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import idna

from sendback.mail.address import MAX_DOMAIN_OCTETS
from sendback.mail.address_lists import ListedAddress, read_address_list
from sendback.mail.encoded_words import decode_words
from sendback.mail.headers import field_values

# Of all From fields together; one author takes some fifty octets.
MAX_OCTETS = 32 * 1024
# Longer than any domain name; nothing looks at what is beyond.
_MAX_DOMAIN = 2 * MAX_DOMAIN_OCTETS
# The usual form, but for dots, which may stand where none are allowed, and quotes around it.
_USUAL = re.compile(
    r"""[ ]* (?: "(?:[^"\\\x00-\x1f]|\\[\x20-\x7e])*" | [^\s"(),:;<>@\[\\\]]+ ) @
    (?: (?P<literal> \[ (?: [0-9.]+ | IPv6:[0-9a-f:.]+ ) \] )
      | (?P<domain> (?: [a-z0-9_.-] | [^\x00-\x7f\s] )+ ) '? ) [ ]*""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Authors:
    """What the From fields of a message say.

    `has_field`: there is such a field. `domains`: each author's domain in lower-case A-labels, in
    order, each once; one may be no valid host name (`_x.bank.example`). `has_literal`: an author's
    address has an address literal for a domain. `has_unreadable`: an author's address may be read
    in several ways, or in none. A field that names nobody leaves all of them empty.
    """

    has_field: bool
    domains: tuple[str, ...] = ()
    has_literal: bool = False
    has_unreadable: bool = False

    @property
    def is_one(self) -> bool:
        """Whether there is one author, who can be read."""
        return not self.has_unreadable and len(self.domains) + self.has_literal == 1


@dataclass(frozen=True, slots=True)
class _Author:
    """What one entry of a field says."""

    domains: tuple[str, ...] = ()
    is_literal: bool = False
    is_unreadable: bool = False


def read_authors(header: bytes) -> Authors:
    """Read the From fields of a well-formed header section (RFC 5322 §3.6.2)."""
    values = field_values(header, "From")
    if not values:
        return Authors(has_field=False)
    if sum(map(len, values)) > MAX_OCTETS:
        return Authors(has_field=True)
    texts = [value.decode("utf-8", "replace") for value in values]
    found = [author for text in texts for author in _authors(read_address_list(text))]
    return Authors(
        has_field=True,
        domains=tuple(dict.fromkeys(domain for author in found for domain in author.domains)),
        has_literal=any(author.is_literal for author in found),
        has_unreadable=any(author.is_unreadable for author in found),
    )


def _authors(entries: Sequence[ListedAddress]) -> Iterator[_Author]:
    is_behind_address = False
    for entry in entries:
        if "@" in entry.address:
            yield _author(entry)
            is_behind_address = True
        elif _may_be_address(entry, is_behind_address=is_behind_address):
            yield _Author(is_unreadable=True)


def _may_be_address(entry: ListedAddress, *, is_behind_address: bool) -> bool:
    """Whether some client may see an address in an entry without an `@`.

    Encoded words may hide one, and what looks like a domain may belong to the address before it.
    A name with a comma (`Doe, John <john@a.example>`) is common and hides nothing.
    """
    text = f"{entry.name} {entry.address}"
    if "@" in decode_words(text):
        return True
    return is_behind_address and any("." in word.rstrip(".") for word in text.split())


def _author(entry: ListedAddress) -> _Author:
    usual = _USUAL.fullmatch(entry.address) if not entry.rest else None
    if usual is not None and usual["literal"]:
        return _Author(is_literal=True)
    if usual is not None and (domain := _domain(usual["domain"])):
        return _Author((domain,))
    pieces = f"{entry.address} {entry.rest}".split("@")[1:]
    domains = [_domain(text) for piece in pieces for text in (_first_word(piece), piece)]
    return _Author(tuple(domain for domain in domains if domain), is_unreadable=True)


def _first_word(text: str) -> str:
    """The domain name that the text begins with."""
    text = text.lstrip(" \t\"'.")
    end = next((n for n, character in enumerate(text) if not _is_of_name(character)), len(text))
    return text[:end]


def _domain(text: str) -> str:
    """Return what of the text can be in a domain name, or an empty text."""
    # The end of a name says whose it is.
    name = "".join(filter(_is_of_name, text))[-_MAX_DOMAIN:]
    return ".".join(label for label in _ascii(name).split(".") if label)


def _is_of_name(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in "-_."
    return not character.isspace()


def _ascii(text: str) -> str:
    """In lower-case A-labels; empty when the text has none (RFC 5891, UTS 46)."""
    if text.isascii():
        return text.lower()
    try:
        return idna.encode(text, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return ""
