"""The worker of a durable queue: takes leases, works them off side by side, renews and gives back.

Any number of workers, in any number of processes, serve one queue. What the work is, the queue
knows; here is only how many are in hand and for how long.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Generic, Protocol, TypeVar

from sendback.clock import Clock
from sendback.store.errors import StoreUnavailableError

log = logging.getLogger(__name__)

# How long a row queued by another process may wait to be seen.
POLL_SECONDS = 1.0
_LONGEST_FINISH = 10.0
_STEP_SECONDS = 0.1

L = TypeVar("L")


class LeasedQueue(Protocol[L]):
    """A queue in the store, and the work that its rows are."""

    async def take(self, now: datetime, until: datetime, limit: int) -> Sequence[L]:
        """Raises `StoreUnavailableError`."""

    async def renew(self, keys: Sequence[str], until: datetime) -> None:
        """Raises `StoreUnavailableError`."""

    async def release(self, now: datetime) -> None:
        """Gives back all that is still held. Raises `StoreUnavailableError`."""

    def key(self, lease: L, /) -> str: ...

    async def work(self, lease: L, /) -> None: ...


class LeaseWorker(Generic[L]):
    """Works off one queue."""

    def __init__(
        self, queue: LeasedQueue[L], clock: Clock, *, lease: timedelta, in_hand: int
    ) -> None:
        """`in_hand` is how many leases it holds at most."""
        self._queue = queue
        self._clock = clock
        self._lease = lease
        self._in_hand = in_hand
        self._wake = asyncio.Event()
        self._held: dict[str, asyncio.Task[None]] = {}
        self._reserved = 0
        self._taken_at = 0.0
        self._stopping = False

    @property
    def room(self) -> int:
        """How many more it could hold; none once it has been told to stop."""
        return 0 if self._stopping else self._in_hand - len(self._held) - self._reserved

    def lease_ends(self) -> datetime:
        """When a lease taken now ends."""
        return self._clock.now() + self._lease

    def wake(self) -> None:
        """Something was queued."""
        self._wake.set()

    def reserve(self) -> bool:
        """Keeps room for a lease that is being made elsewhere; `hold` or `give_up` it."""
        if self.room <= 0:
            return False
        self._reserved += 1
        return True

    def give_up(self) -> None:
        """The lease that room was reserved for was not made."""
        self._reserved -= 1

    def hold(self, lease: L) -> None:
        """Works a lease off that room was reserved for."""
        self._reserved -= 1
        self._held[self._queue.key(lease)] = asyncio.create_task(self._work(lease))

    async def run(self) -> None:
        """Works until `stop` is called; then finishes what is in hand."""
        renewing = asyncio.create_task(self._renew())
        try:
            while not self._stopping:
                if not await self._take():
                    await self._wait()
        finally:
            renewing.cancel()
            await self._finish()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _take(self) -> bool:
        """Takes what there is and room for; answers whether there may be more to take now."""
        room = self.room
        # Larger steps, fewer transactions; but what takes long must not keep the rest waiting.
        few = room < self._in_hand // 4 and monotonic() - self._taken_at < _STEP_SECONDS
        if room <= 0 or few:
            return False
        self._taken_at = monotonic()
        self._reserved += room
        leases: Sequence[L] = ()
        try:
            leases = await self._queue.take(self._clock.now(), self.lease_ends(), room)
        except StoreUnavailableError as error:
            log.warning("the queue cannot be read, work will go on by itself: %s", error)
            await asyncio.sleep(POLL_SECONDS)
        finally:
            self._reserved -= room - len(leases)
        for lease in leases:
            self.hold(lease)
        return len(leases) == room

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)
        self._wake.clear()

    async def _work(self, lease: L) -> None:
        key = self._queue.key(lease)
        try:
            await self._queue.work(lease)
        except Exception:
            # The row keeps its lease and comes back by itself; the others must go on.
            log.exception("the work on %s broke", key)
        finally:
            del self._held[key]
            self._wake.set()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            if not self._held:
                continue
            try:
                await self._queue.renew(tuple(self._held), self.lease_ends())
            except StoreUnavailableError as error:
                log.warning("leases could not be renewed: %s", error)

    async def _finish(self) -> None:
        """Lets what is in hand end, for as long as a lease lasts, and gives back the rest."""
        if self._held:
            tasks = list(self._held.values())
            await asyncio.wait(tasks, timeout=min(_LONGEST_FINISH, self._lease.total_seconds()))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self._queue.release(self._clock.now())
        except StoreUnavailableError as error:
            log.warning("leases were not given back and will end by themselves: %s", error)
