"""DNS lookups for threads, with timeouts and a cache."""

from typing import Any

import dns.resolver

from sendback.net.dns_answers import (
    FAILURES,
    QUERY_SECONDS,
    Servers,
    configure,
    joined,
    read_answer,
)
from sendback.net.dns_cache import DnsCache


class Resolver:
    """Queries the given servers, or the system's. Thread-safe."""

    def __init__(self, servers: Servers | None, *, cached: bool = True) -> None:
        """`servers` are (address, port); None: the system's.

        Not `cached`: each call sends a query, to see records that were published just now.
        """
        self._servers = servers
        self._cache = DnsCache() if cached else DnsCache(0)
        self._resolver: dns.resolver.Resolver | None = None

    def query(self, name: str, kind: str, seconds: float) -> list[Any]:
        """Return the records (dnspython's rdata) of that type; empty when there are none.

        Raise `DnsFailedError`.
        """
        key = (name.rstrip(".").lower(), kind)
        found = self._cache.get(key)
        if found is None:
            try:
                found = self._cache.keep(key, *read_answer(self._resolve(name, kind, seconds)))
            except FAILURES as error:
                is_short = seconds < QUERY_SECONDS
                raise self._cache.fail(key, error, short_timeout=is_short) from error
        return list(found.records)

    def texts(self, name: str, seconds: float) -> list[bytes]:
        """Return the TXT records, each with its strings joined."""
        return [joined(record) for record in self.query(name, "TXT", seconds)]

    def _resolve(self, name: str, kind: str, seconds: float) -> dns.resolver.Answer | None:
        """Return the answer, or None when there is no such name."""
        try:
            return self._made().resolve(
                name, kind, search=False, raise_on_no_answer=False, lifetime=max(0.1, seconds)
            )
        except dns.resolver.NXDOMAIN:
            return None

    def _made(self) -> dns.resolver.Resolver:
        if self._resolver is None:
            resolver = dns.resolver.Resolver(configure=self._servers is None)
            configure(resolver, self._servers)
            self._resolver = resolver
        return self._resolver
