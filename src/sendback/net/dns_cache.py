"""The cache of DNS answers and failures: bounded in memory, each entry with its lifetime."""

import threading
from dataclasses import dataclass
from time import monotonic

import cachetools
import dns.resolver

from sendback.net.dns_answers import DnsAnswer, DnsFailedError

_CACHED_OCTETS = 8 * 2**20  # estimated memory: some 15,000 answers of usual size
_ENTRY_OCTETS = 400
_RECORD_OCTETS = 150
_FAILURE_SECONDS = 10.0
_LONGEST_CACHED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class _Entry:
    """An answer, or the reason of a failure, and its lifetime in seconds."""

    answer: DnsAnswer | str
    seconds: float

    @property
    def octets(self) -> int:
        """Estimated memory."""
        records = () if isinstance(self.answer, str) else self.answer.records
        texts = (text for record in records for text in getattr(record, "strings", ()))
        return _ENTRY_OCTETS + _RECORD_OCTETS * len(records) + sum(map(len, texts))


class DnsCache:
    """Answers and failures by name and type. Thread-safe."""

    def __init__(self, octets: int = _CACHED_OCTETS) -> None:
        """`octets` limits the memory; the least recently used entries are dropped."""
        self._octets = octets
        self._lock = threading.Lock()
        self._entries: cachetools.TLRUCache[tuple[str, str], _Entry] = cachetools.TLRUCache(
            octets,
            ttu=lambda _, entry, now: now + entry.seconds,
            timer=_now,
            getsizeof=lambda entry: entry.octets,
        )

    def get(self, key: tuple[str, str]) -> DnsAnswer | None:
        """Return the cached answer, if any. Raise `DnsFailedError` for a cached failure."""
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            return None
        if isinstance(entry.answer, str):
            raise DnsFailedError(entry.answer)
        return entry.answer

    def keep(self, key: tuple[str, str], answer: DnsAnswer, seconds: float) -> DnsAnswer:
        """Cache an answer for its lifetime, at most an hour, and return it."""
        self._put(key, _Entry(answer, min(seconds, _LONGEST_CACHED_SECONDS)))
        return answer

    def fail(
        self, key: tuple[str, str], error: Exception, *, short_timeout: bool = False
    ) -> DnsFailedError:
        """Cache a failure for some seconds, and return the exception to raise.

        `short_timeout`: the server had less time than usual, so a timeout is not cached: a message
        that spends its budget on other names must not make this one fail for other messages.
        """
        reason = f"{key[0]} {key[1]}: {_describe(error)}"
        if not (short_timeout and isinstance(error, dns.resolver.LifetimeTimeout)):
            self._put(key, _Entry(reason, _FAILURE_SECONDS))
        return DnsFailedError(reason)

    def _put(self, key: tuple[str, str], entry: _Entry) -> None:
        if entry.octets <= self._octets:
            with self._lock:
                self._entries[key] = entry


def _now() -> float:
    return monotonic()


def _describe(error: Exception) -> str:
    """Return a short reason; dnspython's text lists each server and each attempt."""
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return "no answer in time"
    if isinstance(error, dns.resolver.NoNameservers):
        codes = {str(entry[3]) for entry in error.kwargs.get("errors", ())}
        return f"the servers answer {', '.join(sorted(codes)) or 'nothing'}"
    return str(error) or type(error).__name__
