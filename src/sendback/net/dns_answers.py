"""The answers of DNS servers, and the failures of lookups.

A name without records of the queried type has an empty answer. A lookup that fails raises
`DnsFailedError`: verdicts report PROCESSING_FAILED, delivery a temporary failure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import time
from typing import Any

import dns.exception
import dns.flags
import dns.nameserver
import dns.resolver

from sendback.errors import SendbackError

QUERY_SECONDS = 2.0
_EMPTY_ANSWER_SECONDS = 60.0  # lifetime in the cache

Servers = Sequence[tuple[str, int]]

# What dnspython raises when a lookup fails.
FAILURES = (dns.exception.DNSException, OSError, ValueError, EOFError)


class DnsFailedError(SendbackError):
    """The lookup failed: timeout, SERVFAIL, a malformed answer, no resolver."""


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """The records of a name (dnspython's rdata), which may be none.

    `exists` is False when there is no such name. `is_secure`: a trusted resolver reports that
    DNSSEC proves the answer (RFC 4035 §3.2.3). `name` is the canonical name, without aliases.
    """

    records: tuple[Any, ...]
    exists: bool
    is_secure: bool
    name: str = ""

    @property
    def texts(self) -> list[bytes]:
        """TXT records, each with its strings joined."""
        return [joined(record) for record in self.records]


def read_answer(
    answer: dns.resolver.Answer | None, *, is_trusted: bool = False
) -> tuple[DnsAnswer, float]:
    """Return dnspython's answer and its lifetime in seconds; None: there is no such name."""
    if answer is None:
        return DnsAnswer((), False, False), _EMPTY_ANSWER_SECONDS
    records = tuple(answer.rrset or ())
    is_secure = is_trusted and bool(answer.response.flags & dns.flags.AD)
    canonical = answer.canonical_name.to_text(omit_final_dot=True).lower()
    seconds = answer.expiration - time() if records else _EMPTY_ANSWER_SECONDS
    return DnsAnswer(records, True, is_secure, canonical), seconds


def joined(record: Any) -> bytes:
    """Return the strings of a TXT record, joined (RFC 7208 §3.3, RFC 6376 §3.6.2.2)."""
    return b"".join(record.strings)


def configure(resolver: dns.resolver.BaseResolver, servers: Servers | None) -> None:
    """Set the servers, unless None, and the timeout of one query."""
    if servers is not None:
        resolver.nameservers = [
            dns.nameserver.Do53Nameserver(address, port) for address, port in servers
        ]
    resolver.timeout = QUERY_SECONDS
