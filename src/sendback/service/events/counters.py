"""Counts the events of this process, and adds them to the counters of the store.

Theory of operation. `count` is called for each event that is published here, in the thread that
publishes: it adds one to a number in memory. Every two seconds the numbers are added to the store,
and when the process stops. So the store has the sums of all processes; a process that is killed
loses two seconds. Numbers that could not be added are added later.

Domains are names that clients choose, so their number is bounded: from the `MAX_DOMAINS`th of an
hour on, further ones are counted together as `OTHER`.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from enum import StrEnum

from sendback.service.events.model import Event, EventKind
from sendback.store.engine.errors import CommitUnknownError, StoreUnavailableError
from sendback.store.engine.store import Store
from sendback.store.events.counters import NO_ACCOUNT, AddCounts, CountKey

log = logging.getLogger(__name__)

MAX_DOMAINS = 25
OTHER = "other"
NO_STATUS = "none"
_EVERY_SECONDS = 2.0
_MAX_KEYS = 20_000  # while the store is unavailable
_MAX_DETAIL = 255
_ENHANCED = re.compile(r"\d{3}[ -](\d\.\d{1,3}\.\d{1,3})(?: |$)")
_REPLY = re.compile(r"\d{3}")


class Counted(StrEnum):
    """What is counted. Details: the domain, or why."""

    RECEIVED = "received"  # domain of the first recipient
    REFUSED = "refused"  # enhanced status of the reply, or its code
    BOUNCED = "bounced"  # `api 5.1.1` or `rule 5.1.1`
    DELIVERED = "delivered"  # domain
    CAPTURED = "captured"  # domain
    DEFERRED = "deferred"  # domain
    FAILED = "failed"  # domain


_ATTEMPTS = {
    "delivered": Counted.DELIVERED,
    "captured": Counted.CAPTURED,
    "temporary": Counted.DEFERRED,
    "permanent": Counted.FAILED,
}
_ENDED = frozenset({"failed", "expired"})


class Counters:
    """The counters of one process. `count` may be called in any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._counts: dict[CountKey, int] = {}
        self._hour = 0
        self._domains: set[str] = set()
        self._flushing: asyncio.Task[None] | None = None

    def count(self, event: Event) -> None:
        """Count an event, if its kind is counted."""
        find = _FOUND.get(event.kind)
        if find is None:
            return
        kind, detail = find(event)
        minute = int(event.date.timestamp()) // 60
        with self._lock:
            if kind in _BY_DOMAIN:
                detail = self._bounded(detail, minute // 60)
            key = (event.account_id or NO_ACCOUNT, minute, kind.value, detail)
            number = self._counts.get(key)
            if number is not None:
                self._counts[key] = number + 1
            elif len(self._counts) < _MAX_KEYS:
                self._counts[key] = 1

    async def flush(self) -> None:
        """Add to the store what was counted. Raises `StoreUnavailableError`."""
        with self._lock:
            taken, self._counts = self._counts, {}
        if not taken:
            return
        try:
            await self._store.write(AddCounts(taken))
        except CommitUnknownError:
            raise  # they may be there
        except StoreUnavailableError:
            with self._lock:
                for key, number in taken.items():
                    self._counts[key] = self._counts.get(key, 0) + number
            raise

    async def run(self) -> None:
        """Add to the store every two seconds, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            # A transaction that is cancelled may be committed: then nobody knew what to add later.
            self._flushing = asyncio.create_task(self._try())
            await asyncio.shield(self._flushing)

    async def close(self) -> None:
        """Add the last ones; `run` is cancelled."""
        if self._flushing is not None:
            await self._flushing
        await self._try()

    def forget(self) -> None:
        """Forget what is not added yet: the server was emptied."""
        with self._lock:
            self._counts.clear()
            self._domains.clear()

    async def _try(self) -> None:
        try:
            await self.flush()
        except StoreUnavailableError as error:
            log.debug("counters are added later: %s", error)
        except Exception:
            log.exception("counters could not be added, and are added later")

    def _bounded(self, domain: str, hour: int) -> str:
        if hour != self._hour:
            self._hour = hour
            self._domains.clear()
        if domain in self._domains:
            return domain
        if len(self._domains) >= MAX_DOMAINS:
            return OTHER
        self._domains.add(domain)
        return domain


def _received(event: Event) -> tuple[Counted, str]:
    recipients = event.fields["to"]
    return Counted.RECEIVED, _domain(recipients[0]) if recipients else OTHER


def _refused(event: Event) -> tuple[Counted, str]:
    reply = event.fields["reply"]
    found = _ENHANCED.match(reply)
    if found is not None:
        return Counted.REFUSED, found[1]
    code = _REPLY.match(reply)
    return Counted.REFUSED, code[0] if code else OTHER


def _bounced(event: Event) -> tuple[Counted, str]:
    return Counted.BOUNCED, f"{event.fields['by']} {event.fields['status'] or NO_STATUS}"


def _attempted(event: Event) -> tuple[Counted, str]:
    fields = event.fields
    kind = Counted.FAILED if fields["state"] in _ENDED else _ATTEMPTS[fields["outcome"]]
    return kind, _domain(fields["recipient"])


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()[:_MAX_DETAIL]


_FOUND: dict[EventKind, Callable[[Event], tuple[Counted, str]]] = {
    EventKind.RECEIVED: _received,
    EventKind.REFUSED: _refused,
    EventKind.BOUNCE: _bounced,
    EventKind.ATTEMPT: _attempted,
}
_BY_DOMAIN = frozenset(Counted) - {Counted.REFUSED, Counted.BOUNCED}
