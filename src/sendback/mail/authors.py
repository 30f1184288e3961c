"""The domains of the authors in `From:`, for DMARC. Pure.

DMARC protects the domain that people see, so this reader finds a domain wherever a mail client
could find one (RFC 7489 §6.6.1). An address of the usual form has one domain. Mail clients read
other forms differently: there, each `@` may begin a domain, with or without the text that follows,
and the author is reported as unreadable in addition to these domains. Some clients read nothing
behind a NUL, a quote or a parenthesis that is never closed: the text before it is read on its own
too.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import idna

from sendback.mail.address import MAX_DOMAIN_OCTETS
from sendback.mail.address_lists import ListedAddress, first_unclosed, read_address_list
from sendback.mail.encoded_words import decode_words
from sendback.mail.headers import field_values

# Of all From fields together; one author takes some fifty octets.
MAX_OCTETS = 32 * 1024
# Longer than any domain name; only this many of the last characters are read.
_MAX_DOMAIN = 2 * MAX_DOMAIN_OCTETS
# The usual form; dots may be where the standards forbid them, and a quote may enclose it.
_USUAL = re.compile(
    r"""[ ]* (?: "(?:[^"\\\x00-\x1f]|\\[\x20-\x7e])*" | [^\s\x00-\x1f"(),:;<>@\[\\\]]+ ) @
    (?: (?P<literal> \[ (?: [0-9.]+ | IPv6:[0-9a-f:.]+ ) \] )
      | (?P<domain> (?: [a-z0-9_.-] | [^\x00-\x7f\s] )+ ) '? ) [ ]*""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Authors:
    """The authors in the From fields of a message.

    `has_field`: there is a From field. `domains`: each author's domain in lower-case A-labels, in
    order, each once; one may be an invalid host name (`_x.bank.example`). `has_literal`: an
    author's address has an address literal for a domain. `has_unreadable`: an author's address is
    ambiguous or malformed. A field without an address leaves all of them empty.
    """

    has_field: bool
    domains: tuple[str, ...] = ()
    has_literal: bool = False
    has_unreadable: bool = False

    @property
    def is_one(self) -> bool:
        """Whether there is exactly one author, with a readable address."""
        return not self.has_unreadable and len(self.domains) + self.has_literal == 1


@dataclass(frozen=True, slots=True)
class _Author:
    """The author in one entry of a field."""

    domains: tuple[str, ...] = ()
    is_literal: bool = False
    is_unreadable: bool = False


def read_authors(header: bytes) -> Authors:
    """Return the authors in the From fields of a well-formed header section (RFC 5322 §3.6.2)."""
    values = field_values(header, "From")
    if not values:
        return Authors(has_field=False)
    if sum(map(len, values)) > MAX_OCTETS:
        return Authors(has_field=True)
    texts = [value.decode("utf-8", "replace") for value in values]
    found = [
        author for text in texts for reading in _readings(text) for author in _authors(reading)
    ]
    return Authors(
        has_field=True,
        domains=tuple(dict.fromkeys(domain for author in found for domain in author.domains)),
        has_literal=any(author.is_literal for author in found),
        has_unreadable=any(author.is_unreadable for author in found),
    )


def _readings(text: str) -> Iterator[list[ListedAddress]]:
    """Yield the entries that mail clients find: in the text, and in its beginning."""
    yield read_address_list(text)
    ends = {end for end in (first_unclosed(text), text.find("\0")) if end is not None and end > 0}
    for end in ends:
        yield read_address_list(text[:end])


def _authors(entries: Sequence[ListedAddress]) -> Iterator[_Author]:
    is_behind_address = False
    for entry in entries:
        if "@" in entry.address:
            yield _author(entry)
            is_behind_address = True
        elif _may_be_address(entry, is_behind_address=is_behind_address):
            yield _Author(is_unreadable=True)


def _may_be_address(entry: ListedAddress, *, is_behind_address: bool) -> bool:
    """Whether some mail client may find an address in an entry without an `@`.

    Encoded words may contain one, and a text like a domain may continue the preceding address.
    A name with a comma (`Doe, John <john@a.example>`) is common and harmless.
    """
    text = f"{entry.name} {entry.address}"
    if "@" in decode_words(text):
        return True
    return is_behind_address and any("." in word.rstrip(".") for word in text.split())


def _author(entry: ListedAddress) -> _Author:
    local = entry.address.rpartition("@")[0]
    is_usual = not entry.rest and "@" not in decode_words(local)
    usual = _USUAL.fullmatch(entry.address) if is_usual else None
    if usual is not None and usual["literal"]:
        return _Author(is_literal=True)
    if usual is not None and (domain := _domain(usual["domain"])):
        return _Author((domain,))
    text = f"{entry.address} {entry.rest}"
    readings = dict.fromkeys((text, decode_words(text)))
    pieces = [piece for reading in readings for piece in reading.split("@")[1:]]
    domains = [_domain(text) for piece in pieces for text in (_first_word(piece), piece)]
    return _Author(tuple(domain for domain in domains if domain), is_unreadable=True)


def _first_word(text: str) -> str:
    """Return the domain name at the beginning of the text."""
    text = text.lstrip(" \t\"'.")
    end = next((n for n, character in enumerate(text) if not _is_of_name(character)), len(text))
    return text[:end]


def _domain(text: str) -> str:
    """Return the characters of the text that a domain name can have; "" for none."""
    # The end of a name identifies its owner.
    name = "".join(filter(_is_of_name, text))[-_MAX_DOMAIN:]
    return ".".join(label for label in _ascii(name).split(".") if label)


def _is_of_name(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character in "-_."
    return not character.isspace()


def _ascii(text: str) -> str:
    """Return the text in lower-case A-labels; "" when it has none (RFC 5891, UTS 46)."""
    if text.isascii():
        return text.lower()
    try:
        return idna.encode(text, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return ""
