"""DNS with time-outs and caches: for the synchronous libraries that ask it, and for delivery.

Failures are told apart, as the standards ask: a name without such records is an empty answer, a
server that does not answer is `DnsFailedError`, which verdicts report as PROCESSING_FAILED and
delivery as a temporary failure.
"""

import asyncio
import ipaddress
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import monotonic, time
from typing import Any, Generic, TypeVar

import cachetools
import dns.exception
import dns.flags
import dns.name
import dns.rdatatype
import dns.resolver

_CACHED_OCTETS = 8 * 2**20  # in memory, roughly: some 15,000 answers of usual size
_ENTRY_OCTETS = 400
_RECORD_OCTETS = 150
_QUERY_SECONDS = 2.0
_FAILURE_SECONDS = 10.0  # for which a name that failed is not asked again
_LONGEST_CACHED_SECONDS = 3600.0
_NOTHING_SECONDS = 60.0  # for which the answer that there is nothing is kept
_UDP_OCTETS = 1232
# More at once would overrun a resolver's socket, and each lost question costs a time-out.
_AT_ONCE = 50

Servers = Sequence[tuple[str, int]]

# What dnspython raises when there is no answer.
_FAILURES = (dns.exception.DNSException, OSError, ValueError, EOFError)

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


@dataclass(frozen=True, slots=True)
class _Entry:
    """An answer, or the reason why there is none, and for how many seconds it is good."""

    answer: DnsAnswer | str
    seconds: float

    @property
    def octets(self) -> int:
        """How much memory it takes, roughly."""
        records = () if isinstance(self.answer, str) else self.answer.records
        texts = (text for record in records for text in getattr(record, "strings", ()))
        return _ENTRY_OCTETS + _RECORD_OCTETS * len(records) + sum(map(len, texts))


class _Cache:
    """What was answered, by name and kind. May be used by several threads."""

    def __init__(self, octets: int = _CACHED_OCTETS) -> None:
        """`octets` of memory at most; what was not used for the longest time makes room."""
        self._octets = octets
        self._lock = threading.Lock()
        self._entries: cachetools.TLRUCache[tuple[str, str], _Entry] = cachetools.TLRUCache(
            octets,
            ttu=lambda _, entry, now: now + entry.seconds,
            timer=_now,
            getsizeof=lambda entry: entry.octets,
        )

    def get(self, key: tuple[str, str]) -> DnsAnswer | None:
        """Return what was kept, if it is still good. Raises `DnsFailedError` for a failure."""
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            return None
        if isinstance(entry.answer, str):
            raise DnsFailedError(entry.answer)
        return entry.answer

    def keep(self, key: tuple[str, str], answer: DnsAnswer, seconds: float) -> DnsAnswer:
        """Keep an answer for as long as it says, within limits, and return it."""
        self._put(key, _Entry(answer, min(seconds, _LONGEST_CACHED_SECONDS)))
        return answer

    def fail(
        self, key: tuple[str, str], error: Exception, *, in_haste: bool = False
    ) -> DnsFailedError:
        """Keep a failure for a moment, and return the exception to raise.

        `in_haste`: the server had less time than is usual, and silence is not kept: whoever spends
        the time of a message on other names must not decide what is known of this one.
        """
        reason = f"{key[0]} {key[1]}: {_in_words(error)}"
        if not (in_haste and isinstance(error, dns.resolver.LifetimeTimeout)):
            self._put(key, _Entry(reason, _FAILURE_SECONDS))
        return DnsFailedError(reason)

    def _put(self, key: tuple[str, str], entry: _Entry) -> None:
        if entry.octets <= self._octets:
            with self._lock:
                self._entries[key] = entry


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
        self._cache = _Cache() if cached else _Cache(0)
        self._resolver: dns.resolver.Resolver | None = None

    def query(self, name: str, kind: str, seconds: float) -> list[Any]:
        """Return the records (dnspython's rdata) of that kind; empty when there are none.

        Raises `DnsFailedError`.
        """
        key = (name.rstrip(".").lower(), kind)
        found = self._cache.get(key)
        if found is None:
            try:
                found = self._cache.keep(key, *_read(self._ask(name, kind, seconds)))
            except _FAILURES as error:
                raise self._cache.fail(key, error, in_haste=seconds < _QUERY_SECONDS) from error
        return list(found.records)

    def texts(self, name: str, seconds: float) -> list[bytes]:
        """TXT records, each with its strings joined (RFC 7208 §3.3, RFC 6376 §3.6.2.2)."""
        return [_joined(record) for record in self.query(name, "TXT", seconds)]

    def _ask(self, name: str, kind: str, seconds: float) -> dns.resolver.Answer | None:
        """None when there is no such name."""
        try:
            return self._made().resolve(
                name, kind, search=False, raise_on_no_answer=False, lifetime=max(0.1, seconds)
            )
        except dns.resolver.NXDOMAIN:
            return None

    def _made(self) -> dns.resolver.Resolver:
        if self._resolver is None:
            resolver = dns.resolver.Resolver(configure=self._servers is None)
            _set_up(resolver, self._servers)
            self._resolver = resolver
        return self._resolver


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
        self._cache = _Cache()
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
        found = self._cache.get(key)
        if found is not None:
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
        key = (name, kind)
        try:
            async with self._places:
                answer = await self._made().resolve(
                    name, kind, search=False, raise_on_no_answer=False, lifetime=self._seconds
                )
        except dns.resolver.NXDOMAIN:
            answer = None
        except _FAILURES as error:
            raise self._cache.fail(key, error) from error
        return self._cache.keep(key, *_read(answer, is_trusted=self.is_trusted))

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


def _now() -> float:
    return monotonic()


def _read(
    answer: dns.resolver.Answer | None, *, is_trusted: bool = False
) -> tuple[DnsAnswer, float]:
    """Return an answer of dnspython's, None being that there is no such name, and its seconds."""
    if answer is None:
        return DnsAnswer((), False, False), _NOTHING_SECONDS
    records = tuple(answer.rrset or ())
    is_secure = is_trusted and bool(answer.response.flags & dns.flags.AD)
    canonical = answer.canonical_name.to_text(omit_final_dot=True).lower()
    seconds = answer.expiration - time() if records else _NOTHING_SECONDS
    return DnsAnswer(records, True, is_secure, canonical), seconds


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
