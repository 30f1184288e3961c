"""The worker of a durable queue: takes leases, works on them side by side, renews, gives back.

Any number of workers, in any number of processes, serve one queue. What the work is, the queue
knows; here is only how many are in progress and for how long, and what becomes of a row that its
worker fails on: it is reported to the queue, which sets it aside after a few times
(`engine/leasing` has the table). Suspects are worked on one at a time, whatever queues this
process serves: the lock that they wait for is shared.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Sequence
from datetime import timedelta
from time import monotonic
from typing import Generic, Protocol, TypeVar

from sendback.clock import Clock
from sendback.errors import SendbackError
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.leasing import Term

log = logging.getLogger(__name__)

# How long a row queued by another process may wait to be seen.
POLL_SECONDS = 1.0
_LONGEST_FINISH = 10.0
_STEP_SECONDS = 0.1
# A statement names no more rows than this: SQLite allows 32,766 parameters.
_MOST_AT_ONCE = 1000

L = TypeVar("L")


class SetAsideError(SendbackError):
    """The row cannot be worked on, and trying again would not help; `str` says why."""


class LeasedQueue(Protocol[L]):
    """A queue in the store, and the work that its rows are.

    All of its methods may raise `StoreUnavailableError`.
    """

    async def take(self, term: Term, limit: int) -> Sequence[L]:
        """Lease due rows that are no suspects."""

    async def take_suspect(self, term: Term) -> L | None:
        """Lease the suspect that has been due longest, if any."""

    async def renew(self, term: Term, keys: Sequence[str]) -> None: ...

    async def release(self, term: Term, keys: Sequence[str]) -> None:
        """Give back what is still held of `keys`, as if it had not been taken."""

    async def failed(self, lease: L, error: Exception, term: Term) -> None:
        """Record that working on a row raised `error`, so that it comes back later or is held."""

    def key(self, lease: L, /) -> str: ...

    async def work(self, lease: L, /) -> None: ...


class LeaseWorker(Generic[L]):
    """Works on one queue."""

    def __init__(
        self,
        queue: LeasedQueue[L],
        clock: Clock,
        *,
        owner: str,
        lease: timedelta,
        in_hand: int,
        suspects: asyncio.Lock | None = None,
    ) -> None:
        """`in_hand` is how many leases it holds at most, beside one suspect.

        `suspects` is the lock that this process's queues share.
        """
        self._queue = queue
        self._clock = clock
        self._owner = owner
        self._lease = lease
        self._in_hand = in_hand
        self._suspects = suspects or asyncio.Lock()
        self._wake = asyncio.Event()
        self._held: dict[str, asyncio.Task[None]] = {}
        self._reserved = 0
        self._taken_at = 0.0
        self._stopping = False

    @property
    def room(self) -> int:
        """How many more it could hold; none once it has been told to stop."""
        return 0 if self._stopping else self._in_hand - len(self._held) - self._reserved

    def term(self) -> Term:
        """The time of a lease that begins now."""
        now = self._clock.now()
        return Term(self._owner, now, now + self._lease)

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
        self._start(lease)

    async def run(self) -> None:
        """Work until `stop` is called; then finish what is in progress."""
        beside = [asyncio.create_task(self._renew()), asyncio.create_task(self._work_suspects())]
        try:
            while not self._stopping:
                if not await self._take():
                    await self._wait()
        finally:
            for task in beside:
                task.cancel()
            await self._finish()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def _start(self, lease: L) -> asyncio.Task[None]:
        task = asyncio.create_task(self._work(lease))
        self._held[self._queue.key(lease)] = task
        return task

    async def _take(self) -> bool:
        """Take what there is and room for; return whether there may be more to take now."""
        room = self.room
        # Larger steps, fewer transactions; but what takes long must not keep the rest waiting.
        few = room < self._in_hand // 4 and monotonic() - self._taken_at < _STEP_SECONDS
        if room <= 0 or few:
            return False
        room = min(room, _MOST_AT_ONCE)
        self._taken_at = monotonic()
        self._reserved += room
        leases: Sequence[L] = ()
        try:
            leases = await self._queue.take(self.term(), room)
        except StoreUnavailableError as error:
            log.warning("the queue cannot be read, work will go on by itself: %s", error)
            await asyncio.sleep(POLL_SECONDS)
        except Exception:
            log.exception("taking from the queue failed, and will be tried again")
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
        except Exception as error:
            log.exception("the work on %s failed", key)
            await self._report(lease, error)
        finally:
            del self._held[key]
            self._wake.set()

    async def _report(self, lease: L, error: Exception) -> None:
        try:
            await self._queue.failed(lease, error, self.term())
        except StoreUnavailableError as unavailable:
            log.warning("a failure cannot be recorded, its lease will end: %s", unavailable)
        except Exception:
            log.exception("a failure cannot be recorded, its lease will end")

    async def _work_suspects(self) -> None:
        """One at a time, or the next once one has gone on for as long as a lease.

        An `asyncio.Lock` is fair: the other queues of the process get it in turn.
        """
        while not self._stopping:
            try:
                async with self._suspects:
                    lease = await self._queue.take_suspect(self.term())
                    if lease is not None:
                        # Not cancelled with this task: `_finish` waits for it.
                        seconds = self._lease.total_seconds()
                        await asyncio.wait([self._start(lease)], timeout=seconds)
                        continue
            except StoreUnavailableError as error:
                log.debug("suspects cannot be looked for: %s", error)
            except Exception:
                log.exception("looking for suspects failed, and will be tried again")
            await asyncio.sleep(POLL_SECONDS)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            for keys in _in_steps(tuple(self._held)):
                try:
                    await self._queue.renew(self.term(), keys)
                except StoreUnavailableError as error:
                    log.warning("leases could not be renewed: %s", error)
                except Exception:
                    log.exception("leases could not be renewed, and will be the next time")

    async def _finish(self) -> None:
        """Let what is in progress end, for as long as a lease lasts, and give back the rest."""
        held = dict(self._held)
        if held:
            tasks = list(held.values())
            await asyncio.wait(tasks, timeout=min(_LONGEST_FINISH, self._lease.total_seconds()))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for keys in _in_steps(tuple(held)):
            try:
                await self._queue.release(self.term(), keys)
            except StoreUnavailableError as error:
                log.warning("leases were not given back and will end by themselves: %s", error)


def _in_steps(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + _MOST_AT_ONCE] for start in range(0, len(keys), _MOST_AT_ONCE))
