"""DNS with time-outs and caches: for the synchronous libraries that ask it, and for delivery.

Failures are told apart, as the standards ask: a name without such records is an empty answer, a
server that does not answer is `DnsFailedError`, which verdicts report as PROCESSING_FAILED and
delivery as a temporary failure.
"""

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, Generic, TypeVar

import dns.exception
import dns.flags
import dns.name
import dns.rdatatype
import dns.resolver

_CACHED_ANSWERS = 10_000
_QUERY_SECONDS = 2.0
_FAILURE_SECONDS = 10.0  # for which a name that failed is not asked again
_LONGEST_CACHED_SECONDS = 3600.0
_NOTHING_SECONDS = 60.0  # for which the answer that there is nothing is kept
_UDP_OCTETS = 1232
# More at once would overrun a resolver's socket, and each lost question costs a time-out.
_AT_ONCE = 50

Servers = Sequence[tuple[str, int]]

K = TypeVar("K")
V = TypeVar("V")


class DnsFailedError(Exception):
    """The answer could not be found out: time-out, SERVFAIL, a broken answer, no resolver."""


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """The records of a name (dnspython's rdata), perhaps none.

    `exists` is False when there is no such name. `is_secure`: DNSSEC proves it, says a resolver
    that is trusted (RFC 4035 §3.2.3). `name` is what the name was an alias of, or itself.
    """

    records: tuple[Any, ...]
    exists: bool
    is_secure: bool
    name: str = ""

    @property
    def texts(self) -> list[bytes]:
        """TXT records, each with its strings joined."""
        return [_joined(record) for record in self.records]


class InFlight(Generic[K, V]):
    """What is being found out: who asks for it meanwhile shares the answer, or the failure."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}

    async def share(self, key: K, find: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """What `find` answers. Who is cancelled while waiting does not stop it for the others."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(find())
            task.add_done_callback(lambda _: self._tasks.pop(key))
        return await asyncio.shield(task)

    def close(self) -> None:
        """Gives all of it up."""
        for task in self._tasks.values():
            task.cancel()


class Resolver:
    """Asks the servers given, or the system's; may be used by several threads."""

    def __init__(self, servers: Servers | None, *, cached: bool = True) -> None:
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
        return [_joined(record) for record in self.query(name, "TXT", seconds)]

    def _made(self) -> dns.resolver.Resolver:
        if self._resolver is None:
            resolver = dns.resolver.Resolver(configure=self._servers is None)
            _set_up(resolver, self._servers)
            if self._cached:
                resolver.cache = dns.resolver.LRUCache(_CACHED_ANSWERS)
            self._resolver = resolver
        return self._resolver

    def _remember_failure(self, key: tuple[str, str]) -> None:
        if len(self._failures) >= _CACHED_ANSWERS:
            self._failures.clear()
        self._failures[key] = monotonic() + _FAILURE_SECONDS


class AsyncResolver:
    """The same for one event loop: who asks at the same time what is being asked shares the answer.

    `trusted`: what the resolver says about DNSSEC counts (RFC 7672 §2.1): it is on this machine,
    or the way to it is safe. None: if all servers are on loopback.
    """

    def __init__(self, servers: Servers | None, *, trusted: bool | None, seconds: float) -> None:
        """`seconds` is how long one question may take."""
        self._servers = servers
        self._trusted = trusted
        self._seconds = seconds
        self._resolver: Any = None
        self._cache: OrderedDict[tuple[str, str], tuple[float, DnsAnswer | str]] = OrderedDict()
        self._asking: InFlight[tuple[str, str], DnsAnswer] = InFlight()
        self._places = asyncio.Semaphore(_AT_ONCE)

    @property
    def is_trusted(self) -> bool:
        """Whether answers can be secure."""
        if self._trusted is None:
            self._trusted = all(map(_is_loopback, self._made().nameservers))
        return self._trusted

    async def ask(self, name: str, kind: str) -> DnsAnswer:
        """Raises `DnsFailedError`."""
        key = (name.rstrip(".").lower(), kind)
        until, found = self._cache.get(key, (0.0, ""))
        if until > monotonic():
            self._cache.move_to_end(key)
            if isinstance(found, str):
                raise DnsFailedError(found)
            return found
        return await self._asking.share(key, lambda: self._ask(*key))

    def close(self) -> None:
        """Gives up what is being asked."""
        self._asking.close()

    async def both_kinds(self, host: str) -> list[DnsAnswer]:
        """Of AAAA and A, in this order, what could be found out.

        Raises `DnsFailedError` when one kind could not and the other has nothing.
        """
        both = await asyncio.gather(
            self.ask(host, "AAAA"), self.ask(host, "A"), return_exceptions=True
        )
        answers = [answer for answer in both if isinstance(answer, DnsAnswer)]
        failure = next((answer for answer in both if isinstance(answer, BaseException)), None)
        if failure is not None and not any(answer.records for answer in answers):
            raise failure
        return answers

    async def addresses(self, host: str) -> list[str]:
        """Of both kinds, IPv6 first. Raises `OSError` when there are none, or nobody says."""
        try:
            answers = await self.both_kinds(host)
        except DnsFailedError as error:
            raise OSError(str(error)) from error
        found = [str(record.address) for answer in answers for record in answer.records]
        if not found:
            raise OSError(f"{host} has no address")
        return found

    async def _ask(self, name: str, kind: str) -> DnsAnswer:
        try:
            async with self._places:
                answer = await self._made().resolve(
                    name, kind, search=False, raise_on_no_answer=False, lifetime=self._seconds
                )
        except dns.resolver.NXDOMAIN:
            return self._keep((name, kind), _NOTHING_SECONDS, DnsAnswer((), False, False))
        except (dns.exception.DNSException, OSError, ValueError, EOFError) as error:
            reason = f"{name} {kind}: {_in_words(error)}"
            self._remember((name, kind), _FAILURE_SECONDS, reason)
            raise DnsFailedError(reason) from error
        is_secure = self.is_trusted and bool(answer.response.flags & dns.flags.AD)
        records = tuple(answer.rrset or ())
        seconds = answer.expiration - time() if records else _NOTHING_SECONDS
        canonical = answer.canonical_name.to_text(omit_final_dot=True).lower()
        return self._keep((name, kind), seconds, DnsAnswer(records, True, is_secure, canonical))

    def _keep(self, key: tuple[str, str], seconds: float, answer: DnsAnswer) -> DnsAnswer:
        self._remember(key, min(seconds, _LONGEST_CACHED_SECONDS), answer)
        return answer

    def _remember(self, key: tuple[str, str], seconds: float, what: DnsAnswer | str) -> None:
        self._cache[key] = (monotonic() + seconds, what)
        self._cache.move_to_end(key)
        if len(self._cache) > _CACHED_ANSWERS:
            self._cache.popitem(last=False)

    def _made(self) -> Any:
        if self._resolver is None:
            import dns.asyncresolver  # noqa: PLC0415 - only who delivers by MX needs it

            resolver = dns.asyncresolver.Resolver(configure=self._servers is None)
            _set_up(resolver, self._servers)
            # RFC 6840 §5.7: AD in the question asks for AD in the answer.
            resolver.flags = dns.flags.RD | dns.flags.AD
            resolver.use_edns(0, 0, _UDP_OCTETS)
            self._resolver = resolver
        return self._resolver


def _joined(record: Any) -> bytes:
    """RFC 7208 §3.3, RFC 6376 §3.6.2.2."""
    return b"".join(record.strings)


def _set_up(resolver: dns.resolver.BaseResolver, servers: Servers | None) -> None:
    if servers is not None:
        resolver.nameservers = [
            dns.nameserver.Do53Nameserver(address, port) for address, port in servers
        ]
    resolver.timeout = _QUERY_SECONDS


def _in_words(error: Exception) -> str:
    """Shorter than dnspython, which tells of each server and each attempt."""
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return "no answer in time"
    if isinstance(error, dns.resolver.NoNameservers):
        codes = {str(entry[3]) for entry in error.kwargs.get("errors", ())}
        return f"the servers answer {', '.join(sorted(codes)) or 'nothing'}"
    return str(error) or type(error).__name__


def _is_loopback(server: Any) -> bool:
    address = getattr(server, "address", server)
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
