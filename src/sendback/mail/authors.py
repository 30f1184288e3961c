"""Who a message says that it is from: the domains in `From:`, whatever the spelling. Pure.

DMARC protects the domain that people see, so this reader finds a domain wherever a mail client
could find one (RFC 7489 §6.6.1). It takes what stands behind the last `@` of each author's address,
as other DMARC implementations do, without asking whether the address is valid.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import idna

from sendback.mail.address import MAX_DOMAIN_OCTETS
from sendback.mail.address_lists import ListedAddress, read_address_list
from sendback.mail.headers import field_values

# Of all From fields together; one author takes some fifty octets.
MAX_OCTETS = 32 * 1024
# Longer than any domain name; nothing looks at what is beyond.
_MAX_DOMAIN = 2 * MAX_DOMAIN_OCTETS


@dataclass(frozen=True, slots=True)
class Authors:
    """What the From fields of a message say.

    `has_field`: there is such a field. `domains`: each author's domain in lower-case A-labels, in
    order, each once; one may be no valid host name (`_x.bank.example`). `has_literal`: an author's
    address has an address literal for a domain. A field that names nobody leaves all of them empty.
    """

    has_field: bool
    domains: tuple[str, ...] = ()
    has_literal: bool = False

    @property
    def is_readable(self) -> bool:
        return bool(self.domains) or self.has_literal


def read_authors(header: bytes) -> Authors:
    """Read the From fields of a well-formed header section (RFC 5322 §3.6.2)."""
    values = field_values(header, "From")
    if not values:
        return Authors(has_field=False)
    if sum(map(len, values)) > MAX_OCTETS:
        return Authors(has_field=True)
    texts = [value.decode("utf-8", "replace") for value in values]
    found = [domain for text in texts for domain in _domains(read_address_list(text))]
    domains = tuple(dict.fromkeys(domain for domain in found if domain))
    return Authors(True, domains, has_literal="" in found)


def _domains(entries: list[ListedAddress]) -> Iterator[str]:
    """Yield the domain of each entry that has one; an empty text for an address literal."""
    for entry in entries:
        _, at, text = entry.address.rpartition("@")
        if not at:
            continue
        if text.lstrip().startswith("["):
            yield ""
        elif domain := _domain(text):
            yield domain


def _domain(text: str) -> str:
    """Return the domain name that the text begins with, or an empty text."""
    text = text.lstrip(" \t\"'.")
    end = next((n for n, character in enumerate(text) if not _is_of_name(character)), len(text))
    labels = _ascii(text[:end][-_MAX_DOMAIN:]).split(".")
    return ".".join(label for label in labels if label)


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
