"""The event bus of one process: publish, subscribe, and the last thousand events.

Publishing never blocks, never raises, and costs a few microseconds when nobody listens. Each
subscriber has a queue with a bound: one that does not read loses its oldest events, and is told how
many. Everything here may be called from any thread.

IDs are microseconds in steps of `_STEP`; the remainder is a random number of the process, so that
no two processes give the same ID. They are in the order of the events of all processes, whatever
their clocks say: a bus that hears of a later clock than its own (`observe`) adds the difference to
its own from then on. Else a subscriber on a node with a fast clock would miss the events of others.
"""

import asyncio
import bisect
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Self

from sendback.service.events.model import Event, EventKind

log = logging.getLogger(__name__)

KEPT = 1000
_QUEUED = 1000
# The largest ID that fits 63 bits is of the year 2116.
_STEP = 2048
_LONGEST_AHEAD = 24 * 3600 * 1_000_000 * _STEP


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a subscriber gets: those of these kinds and of this account; empty: all.

    An event that concerns no account is for the subscribers of every account.
    """

    kinds: frozenset[EventKind] = frozenset()
    account_id: str | None = None

    def accepts(self, event: Event) -> bool:
        if self.kinds and event.kind not in self.kinds:
            return False
        return self.account_id is None or event.account_id in {None, self.account_id}


@dataclass(frozen=True, slots=True)
class Batch:
    """The next events, and how many before them were lost because nobody read them."""

    events: tuple[Event, ...]
    lost: int


class Subscription:
    """One subscriber's queue of events. Close it, or use it in `with`.

    From the event loop that created it: `await next()`. From another thread: `wait()`. From
    either: `take()`, which does not wait.
    """

    def __init__(self, bus: "EventBus", wanted: EventFilter, after: int) -> None:
        self.after = after
        self._bus = bus
        self._wanted = wanted
        self._events: deque[Event] = deque()
        self._lost = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def take(self) -> Batch:
        """Return the events that have come since the last call, perhaps none."""
        with self._changed:
            batch = Batch(tuple(self._events), self._lost)
            self._events.clear()
            self._lost = 0
            return batch

    def wait(self, seconds: float) -> Batch:
        """Return the next events; none if there are none within so many seconds, or on close."""
        with self._changed:
            self._changed.wait_for(self._has_news, seconds)
        return self.take()

    async def next(self, seconds: float) -> Batch:
        """Do what `wait` does, without blocking the event loop."""
        arrived = asyncio.Event()
        with self._changed:
            if not self._has_news():
                self._waiter = asyncio.get_running_loop(), arrived
        if self._waiter is not None:
            try:
                await asyncio.wait_for(arrived.wait(), seconds)
            except TimeoutError:
                pass
            finally:
                self._waiter = None
        return self.take()

    def close(self) -> None:
        """End the subscription; who waits for events gets none."""
        self._bus.remove(self)
        with self._changed:
            self._is_closed = True
            self._wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def offer(self, event: Event) -> None:
        """Add an event if it is wanted; the bus calls this."""
        if event.id <= self.after or not self._wanted.accepts(event):
            return
        with self._changed:
            self._events.append(event)
            if len(self._events) > _QUEUED:
                self._events.popleft()
                self._lost += 1
            self._wake()

    def _has_news(self) -> bool:
        return bool(self._events) or self._is_closed

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._waiter is not None:
            loop, arrived = self._waiter
            try:
                loop.call_soon_threadsafe(arrived.set)
            except RuntimeError:  # the loop of the subscriber is closed
                self._waiter = None


class EventBus:
    """Publishes the events of this process, and those of others that `accept` is given."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._last = 0
        self._process = int.from_bytes(os.urandom(2)) % _STEP
        self._ahead = 0  # how far the clocks of others are ahead of this one, in IDs
        self._is_closed = False
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._subscriptions: tuple[Subscription, ...] = ()
        self._forward: Callable[[Event], None] | None = None
        self._count: Callable[[Event], None] | None = None
        self._on_listening: Callable[[int], None] | None = None

    @property
    def has_subscribers(self) -> bool:
        return bool(self._subscriptions)

    def publish(self, event: Event) -> None:
        """Give the event an ID, keep it, and queue it for the subscribers."""
        with self._lock:
            self._last = number = self.now()
            numbered = event.with_id(number)
            self._keep(numbered)
            self._offer(numbered)
        if self._count is not None:
            self._guard(self._count, numbered)
        if self._forward is not None:
            self._guard(self._forward, numbered)

    def count_with(self, count: Callable[[Event], None]) -> None:
        """Let `count` take each event that is published here, in the thread that publishes."""
        self._count = count

    def accept(self, event: Event) -> None:
        """Take an event that another process has published."""
        self.observe(event.id)
        with self._lock:
            if len(self._kept) == KEPT and event.id < self._kept[0].id:
                return  # it cannot be known whether it came before
            if all(kept.id != event.id for kept in reversed(self._kept)):  # else it came twice
                self._keep(event)
                self._offer(event)

    def observe(self, number: int) -> None:
        """Learn the ID that an event of another process would have now.

        One that is more than a day ahead is ignored.
        """
        with self._lock:
            ahead = number - self._clock()
            if ahead < _LONGEST_AHEAD:
                self._ahead = max(self._ahead, ahead)

    def followed_after(self) -> int | None:
        """Return the ID behind which the first of the subscriptions began; None: there are none."""
        return min((item.after for item in self._subscriptions), default=None)

    def kept(self, after: int = 0, *, own: bool = False) -> tuple[Event, ...]:
        """Return the events that are kept, behind the one with this ID.

        With `own`, only those that were published here.
        """
        with self._lock:
            return tuple(
                event
                for event in self._kept
                if event.id > after and not (own and event.id % _STEP != self._process)
            )

    def forget(self) -> None:
        """Forget the events that are kept: the server was emptied."""
        with self._lock:
            self._kept.clear()

    def subscribe(
        self,
        kinds: Collection[EventKind] = (),
        *,
        account_id: str | None = None,
        after: int | None = None,
    ) -> Subscription:
        """Return a subscription; with `after`, it begins behind the event with this ID.

        Events that are not kept any more cannot be repeated.
        """
        wanted = EventFilter(frozenset(kinds), account_id)
        with self._lock:
            if after is None:
                after = self._last = self.now()
            subscription = Subscription(self, wanted, after)
            for event in self._kept:
                subscription.offer(event)
            self._subscriptions = (*self._subscriptions, subscription)
        if self._is_closed:
            subscription.close()
        if self._on_listening is not None:
            self._on_listening(after)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription that is closed."""
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)

    def connect(
        self, forward: Callable[[Event], None], on_listening: Callable[[int], None]
    ) -> None:
        """Let `forward` take each event that is published here.

        `on_listening` is called for each subscription, with the ID behind which it begins.
        """
        self._forward, self._on_listening = forward, on_listening

    def close(self) -> None:
        """End all subscriptions, and those that begin later."""
        self._is_closed = True
        for subscription in self._subscriptions:
            subscription.close()

    def now(self) -> int:
        """Return the ID of an event that happens now; greater than that of an earlier one."""
        last = self._last - self._last % _STEP + _STEP
        now = self._clock() + self._ahead
        return max(last, now - now % _STEP) + self._process

    def _clock(self) -> int:
        return time.time_ns() // 1000 * _STEP

    def _keep(self, event: Event) -> None:
        """Keep an event, in the order of the IDs."""
        if not self._kept or self._kept[-1].id < event.id:
            self._kept.append(event)
            return
        ordered = list(self._kept)
        bisect.insort(ordered, event, key=_id_of)
        self._kept = deque(ordered[-KEPT:], KEPT)

    def _offer(self, event: Event) -> None:
        for subscription in self._subscriptions:
            self._guard(subscription.offer, event)

    def _guard(self, take: Callable[[Event], None], event: Event) -> None:
        try:
            take(event)
        except Exception:  # publishing must not fail the work that it reports
            log.exception("an event was not passed on")


def _id_of(event: Event) -> int:
    return event.id
