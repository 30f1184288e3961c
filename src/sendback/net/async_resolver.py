"""DNS lookups on the event loop, with timeouts, a cache, and DNSSEC from a trusted resolver."""

import asyncio
import ipaddress
from typing import Any

import dns.flags
import dns.resolver

from sendback.in_flight import InFlight
from sendback.net.dns_answers import (
    FAILURES,
    DnsAnswer,
    DnsFailedError,
    Servers,
    configure,
    read_answer,
)
from sendback.net.dns_cache import DnsCache

_UDP_OCTETS = 1232
# More would overflow the resolver's socket buffer, and each lost query costs a timeout.
_CONCURRENT_QUERIES = 50


class AsyncResolver:
    """Queries servers on one event loop. Concurrent identical queries share one lookup.

    `trusted`: what the resolver reports about DNSSEC counts (RFC 7672 §2.1), because it is on this
    machine or the path to it is secure. None: only if all servers are on loopback.
    """

    def __init__(self, servers: Servers | None, *, trusted: bool | None, seconds: float) -> None:
        """`servers` are (address, port); None: the system's. `seconds` limits one lookup."""
        self._servers = servers
        self._trusted = trusted
        self._seconds = seconds
        self._resolver: Any = None
        self._cache = DnsCache()
        self._lookups: InFlight[tuple[str, str], DnsAnswer] = InFlight()
        self._slots = asyncio.Semaphore(_CONCURRENT_QUERIES)

    @property
    def is_trusted(self) -> bool:
        """Whether answers can be secure."""
        if self._trusted is None:
            self._trusted = all(map(_is_loopback, self._made().nameservers))
        return self._trusted

    async def query(self, name: str, kind: str) -> DnsAnswer:
        """Return the answer, perhaps cached. Raise `DnsFailedError`."""
        key = (name.rstrip(".").lower(), kind)
        found = self._cache.get(key)
        if found is not None:
            return found
        return await self._lookups.share(key, lambda: self._resolve(*key))

    def close(self) -> None:
        """Cancel the lookups in progress."""
        self._lookups.close()

    async def address_records(self, host: str) -> list[DnsAnswer]:
        """Return the answers for AAAA and A, in this order, without those that failed.

        Raise `DnsFailedError` when one lookup failed and the other has no records.
        """
        both = await asyncio.gather(
            self.query(host, "AAAA"), self.query(host, "A"), return_exceptions=True
        )
        answers = [answer for answer in both if isinstance(answer, DnsAnswer)]
        failure = next((answer for answer in both if isinstance(answer, BaseException)), None)
        if failure is not None and not any(answer.records for answer in answers):
            raise failure
        return answers

    async def addresses(self, host: str) -> list[str]:
        """Return the addresses, IPv6 first. Raise `OSError` if there are none or DNS failed."""
        try:
            answers = await self.address_records(host)
        except DnsFailedError as error:
            raise OSError(str(error)) from error
        found = [str(record.address) for answer in answers for record in answer.records]
        if not found:
            raise OSError(f"{host} has no address")
        return found

    async def _resolve(self, name: str, kind: str) -> DnsAnswer:
        key = (name, kind)
        try:
            async with self._slots:
                answer = await self._made().resolve(
                    name, kind, search=False, raise_on_no_answer=False, lifetime=self._seconds
                )
        except dns.resolver.NXDOMAIN:
            answer = None
        except FAILURES as error:
            raise self._cache.fail(key, error) from error
        return self._cache.keep(key, *read_answer(answer, is_trusted=self.is_trusted))

    def _made(self) -> Any:
        if self._resolver is None:
            import dns.asyncresolver  # noqa: PLC0415 - only delivery by MX needs it

            resolver = dns.asyncresolver.Resolver(configure=self._servers is None)
            configure(resolver, self._servers)
            # RFC 6840 §5.7: AD in the query requests AD in the answer.
            resolver.flags = dns.flags.RD | dns.flags.AD
            resolver.use_edns(0, 0, _UDP_OCTETS)
            self._resolver = resolver
        return self._resolver


def _is_loopback(server: Any) -> bool:
    address = getattr(server, "address", server)
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
