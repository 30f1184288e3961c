"""How many messages may be on the wire to one domain at once, in this process.

Theory of operation. A domain begins with one message at a time. Each that is answered doubles its
window, up to the limit; a failure of the domain closes it. So a domain that does not answer costs
one connection for one time-out, however much mail waits for it. What is in hand beyond the window
waits for a place; when the window closes meanwhile, it is told so and goes back to the queue. That
is as much as the domain answers in half a second: a fast one does not wait for the store, and a
slow one does not fill the hands that others need.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from time import monotonic

from cachetools import LRUCache

# In hand for each message that may be on the wire: at least, and at most where answers come fast.
_LEAST_AHEAD, _MOST_AHEAD = 2, 20
_AHEAD_SECONDS = 0.5
_COUNTED_SECONDS = 0.05
# Refusals in a row that are not about one message: then the domain refuses everything.
_STRIKES = 5
_REMEMBERED = 10_000
_MOST_RESTING = 1000


@dataclass(slots=True)
class _Domain:
    window: int = 1
    in_hand: int = 0
    on_wire: int = 0
    is_closed: bool = False
    rate: float = 0.0  # answers a second, lately
    counted: int = 0
    counted_since: float = 0.0
    waiters: "deque[asyncio.Future[None]]" = field(default_factory=deque)


class Windows:
    """The windows of all domains; with `limit` None there are none."""

    def __init__(self, limit: int | None, now: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._now = now
        self._domains: dict[str, _Domain] = {}  # something is in hand of these
        self._resting: OrderedDict[str, _Domain] = OrderedDict()  # that worked a moment ago
        self._strikes: LRUCache[str, int] = LRUCache(_REMEMBERED)

    @property
    def first_room(self) -> int | None:
        """How many may be taken of a domain that `rooms` does not know; None: any number."""
        return None if self._limit is None else 1

    def rooms(self) -> Mapping[str, int]:
        """How many more may be taken of each domain that is known."""
        if self._limit is None:
            return {}
        known = chain(self._domains.items(), self._resting.items())
        return {name: self._room(domain) for name, domain in known}

    def take(self, name: str) -> None:
        """One more of the domain is in hand."""
        domain = self._domains.get(name)
        if domain is None:
            domain = self._domains[name] = self._resting.pop(name, _Domain())
        domain.in_hand += 1

    def give(self, name: str) -> None:
        """One of the domain is not in hand any more."""
        domain = self._domains[name]
        domain.in_hand -= 1
        if domain.in_hand:
            return
        del self._domains[name]
        if not domain.is_closed:
            self._resting[name] = domain
            if len(self._resting) > _MOST_RESTING:
                self._resting.popitem(last=False)

    async def enter(self, name: str) -> bool:
        """Waits for a place on the wire; False when the domain has failed. `leave` it then."""
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
        """Its place on the wire is free."""
        domain = self._domains[name]
        domain.on_wire -= 1
        self._admit(domain)

    def answered(self, name: str) -> None:
        """A message got through, or was refused for what it is."""
        self._strikes.pop(name, None)
        domain = self._domains[name]
        if self._limit is not None:
            domain.window = min(domain.window * 2, self._limit)
            self._count(domain)

    def failed(self, name: str) -> None:
        """The domain does not answer, or refuses everything."""
        domain = self._domains[name]
        domain.window, domain.is_closed = 1, True
        self._admit(domain)

    def strike(self, name: str) -> bool:
        """A refusal that was not about the message; True when it was one too many."""
        strikes = self._strikes.get(name, 0) + 1
        self._strikes[name] = strikes
        return strikes >= _STRIKES

    def _room(self, domain: _Domain) -> int:
        if domain.is_closed:
            return 0
        allowed = 1
        if domain.window > 1:
            ahead = int(domain.rate * _AHEAD_SECONDS)
            allowed = min(max(ahead, domain.window * _LEAST_AHEAD), domain.window * _MOST_AHEAD)
        free = allowed - domain.in_hand
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
