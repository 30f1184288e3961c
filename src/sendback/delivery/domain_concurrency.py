"""The concurrency limit of each domain: how many messages are transmitted at once, per process.

Theory of operation. A domain begins with a window of one message. Each delivery or refusal of a
message doubles the window, up to the limit; a failure of the domain closes it. So a domain that has
never replied costs one connection for one timeout, however much mail is queued for it. Messages
leased beyond the window wait for a slot, and are requeued if the window closes. As many are leased
as the domain accepts in half a second: a fast domain does not wait for the store, and a slow one
leaves capacity to others.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from time import monotonic

from cachetools import LRUCache

# Leased messages for each slot of the window: the minimum, and the maximum of a fast domain.
_MIN_AHEAD, _MAX_AHEAD = 2, 20
_AHEAD_SECONDS = 0.5
_COUNTED_SECONDS = 0.05
# Consecutive refusals that are not about one message, after which the domain is blocked.
_MAX_REFUSALS = 5
_MAX_REFUSALS_KNOWN = 10_000
_MAX_IDLE = 1000


@dataclass(slots=True)
class _Domain:
    window: int = 1
    leased: int = 0
    on_wire: int = 0
    is_closed: bool = False
    rate: float = 0.0  # replies a second, recently
    counted: int = 0
    counted_since: float = 0.0
    waiters: "deque[asyncio.Future[None]]" = field(default_factory=deque)


class DomainConcurrency:
    """The concurrency of all domains; without any limit if `limit` is None."""

    def __init__(self, limit: int | None, now: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._now = now
        self._domains: dict[str, _Domain] = {}  # those with leased messages
        self._idle: OrderedDict[str, _Domain] = OrderedDict()  # nothing leased now
        self._refusals: LRUCache[str, int] = LRUCache(_MAX_REFUSALS_KNOWN)

    @property
    def initial_capacity(self) -> int | None:
        """How many to lease of a domain that is not in `capacities`; None for no limit."""
        return None if self._limit is None else 1

    def capacities(self) -> Mapping[str, int]:
        """Return how many more to lease of each known domain; empty if there is no limit."""
        if self._limit is None:
            return {}
        known = chain(self._domains.items(), self._idle.items())
        return {name: self._capacity(domain) for name, domain in known}

    def counts(self, name: str) -> tuple[int, int]:
        """Return how many messages to the domain are being delivered, and how many are leased."""
        domain = self._domains.get(name)
        return (domain.on_wire, domain.leased) if domain else (0, 0)

    def add_leased(self, name: str) -> None:
        """Count one more leased message of the domain."""
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = self._idle.pop(name, _Domain())
        domain.leased += 1

    def remove_leased(self, name: str) -> None:
        """Decrement the count of the domain's leased messages."""
        domain = self._domains[name]
        domain.leased -= 1
        if domain.leased:
            return
        del self._domains[name]
        if not domain.is_closed:
            self._idle[name] = domain
            if len(self._idle) > _MAX_IDLE:
                self._idle.popitem(last=False)

    async def enter(self, name: str) -> bool:
        """Wait for a slot; return False if the domain has failed. Call `leave` after True."""
        domain = self._domains[name]
        if self._limit is not None and not domain.is_closed and domain.on_wire >= domain.window:
            waiter = asyncio.get_running_loop().create_future()
            domain.waiters.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter in domain.waiters:
                    domain.waiters.remove(waiter)
                raise
        if domain.is_closed:
            return False
        domain.on_wire += 1
        return True

    def leave(self, name: str) -> None:
        """Free the slot."""
        domain = self._domains[name]
        domain.on_wire -= 1
        self._admit(domain)

    def record_reply(self, name: str) -> None:
        """Record a delivery, or a refusal of the message itself: the window doubles."""
        self._refusals.pop(name, None)
        domain = self._domains[name]
        if self._limit is not None:
            domain.window = min(domain.window * 2, self._limit)
            self._count(domain)

    def record_failure(self, name: str) -> None:
        """Close the window: the domain does not reply, or refuses everything."""
        domain = self._domains[name]
        domain.window, domain.is_closed = 1, True
        self._admit(domain)

    def count_refusal(self, name: str) -> bool:
        """Count a refusal that is not about the message; return whether to block the domain."""
        refusals = self._refusals.get(name, 0) + 1
        self._refusals[name] = refusals
        return refusals >= _MAX_REFUSALS

    def _capacity(self, domain: _Domain) -> int:
        if domain.is_closed:
            return 0
        allowed = 1
        if domain.window > 1:
            ahead = int(domain.rate * _AHEAD_SECONDS)
            allowed = min(max(ahead, domain.window * _MIN_AHEAD), domain.window * _MAX_AHEAD)
        free = allowed - domain.leased
        return free if free * 3 >= allowed else 0  # larger steps, fewer transactions

    def _count(self, domain: _Domain) -> None:
        domain.counted += 1
        seconds = self._now() - domain.counted_since
        if seconds > _COUNTED_SECONDS:
            domain.rate = domain.counted / seconds if domain.counted_since else 0.0
            domain.counted, domain.counted_since = 0, self._now()

    def _admit(self, domain: _Domain) -> None:
        admitted = domain.on_wire
        while domain.waiters and (domain.is_closed or admitted < domain.window):
            waiter = domain.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                admitted += 1
