"""DNS: one resolver with time-outs and a cache, for the synchronous libraries that ask it.

Failures are told apart, as the standards ask: a name without such records is an empty answer, a
server that does not answer is `DnsFailedError`, which verdicts report as PROCESSING_FAILED.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Any

import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver

_CACHED_ANSWERS = 10_000
_QUERY_SECONDS = 2.0
_FAILURE_SECONDS = 10.0  # for which a name that failed is not asked again


class DnsFailedError(Exception):
    """The answer could not be found out: time-out, SERVFAIL, a broken answer, no resolver."""


class Resolver:
    """Asks the servers given, or the system's; may be used by several threads."""

    def __init__(self, servers: Sequence[tuple[str, int]] | None, *, cached: bool = True) -> None:
        """`servers` are (address, port); None is what the system says.

        Without a cache every question is asked: for records that somebody has just published.
        """
        self._servers = servers
        self._cached = cached
        self._resolver: dns.resolver.Resolver | None = None
        self._failures: dict[tuple[str, str], float] = {}

    def query(self, name: str, kind: str, seconds: float) -> list[Any]:
        """The records (dnspython's rdata) of that kind; empty when there are none.

        Raises `DnsFailedError`.
        """
        key = (name.lower(), kind)
        if self._cached and self._failures.get(key, 0.0) > monotonic():
            raise DnsFailedError(f"{name} {kind} failed a moment ago")
        try:
            answer = self._made().resolve(
                name, kind, search=False, raise_on_no_answer=False, lifetime=max(0.1, seconds)
            )
        except dns.resolver.NXDOMAIN:
            return []
        except (dns.exception.DNSException, OSError, ValueError) as error:
            self._remember_failure(key)
            raise DnsFailedError(f"{name} {kind}: {error}") from error
        return list(answer.rrset or ())

    def texts(self, name: str, seconds: float) -> list[bytes]:
        """TXT records, each with its strings joined (RFC 7208 §3.3, RFC 6376 §3.6.2.2)."""
        return [b"".join(record.strings) for record in self.query(name, "TXT", seconds)]

    def _made(self) -> dns.resolver.Resolver:
        if self._resolver is None:
            resolver = dns.resolver.Resolver(configure=self._servers is None)
            if self._servers is not None:
                resolver.nameservers = [
                    dns.nameserver.Do53Nameserver(address, port) for address, port in self._servers
                ]
            resolver.timeout = _QUERY_SECONDS
            if self._cached:
                resolver.cache = dns.resolver.LRUCache(_CACHED_ANSWERS)
            self._resolver = resolver
        return self._resolver

    def _remember_failure(self, key: tuple[str, str]) -> None:
        if len(self._failures) >= _CACHED_ANSWERS:
            self._failures.clear()
        self._failures[key] = monotonic() + _FAILURE_SECONDS
