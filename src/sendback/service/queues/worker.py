"""The worker of a durable queue: works on leases concurrently, renews and releases them.

Any number of workers, in any number of processes, serve one queue. The queue defines the work; this
module has the concurrency, the leases and the failures: a row whose work fails is reported to the
queue, which sets it aside after a few times (the table is in `engine/leasing`). Suspects are worked
on one at a time in each process: its queues share a lock.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from datetime import timedelta
from time import monotonic
from typing import Generic, Protocol, TypeVar

from sendback.clock import Clock
from sendback.errors import SendbackError
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.leasing import Term

log = logging.getLogger(__name__)

# How long a row queued by another process may wait to be found.
POLL_SECONDS = 1.0
_LONGEST_FINISH = 10.0
_STEP_SECONDS = 0.1
_IDLE_POLL_SECONDS = 0.002
# Most rows in a statement: SQLite allows 32,766 parameters.
_MOST_AT_ONCE = 1000

L = TypeVar("L")


class SetAsideError(SendbackError):
    """The row cannot be processed, now or later; `str` is the reason."""


class LeasedQueue(Protocol[L]):
    """A queue in the store, and the work on its rows.

    All of its methods may raise `StoreUnavailableError`.
    """

    async def take(self, term: Term, limit: int) -> Sequence[L]:
        """Lease due rows that are no suspects."""

    async def take_suspect(self, term: Term) -> L | None:
        """Lease the suspect that has been due longest, if any."""

    async def renew(self, term: Term, keys: Sequence[str]) -> None: ...

    async def release(self, term: Term, keys: Sequence[str]) -> None:
        """Release the leases of `keys` that are still held, as if not taken."""

    async def failed(self, lease: L, error: Exception, term: Term) -> None:
        """Record that the work raised `error`: the row is retried later, or held."""

    def key(self, lease: L, /) -> str: ...

    async def work(self, lease: L, /) -> None: ...


class LeaseWorker(Generic[L]):
    """Serves one queue."""

    def __init__(
        self,
        queue: LeasedQueue[L],
        clock: Clock,
        *,
        owner: str,
        lease: timedelta,
        concurrency: int,
        suspects: asyncio.Lock | None = None,
    ) -> None:
        """`concurrency` is the largest number of leases, in addition to one suspect.

        `suspects` is the lock that this process's queues share.
        """
        self._queue = queue
        self._clock = clock
        self._owner = owner
        self._lease = lease
        self._concurrency = concurrency
        self._suspects = suspects or asyncio.Lock()
        self._wake = asyncio.Event()
        self._wake_suspects = asyncio.Event()
        # The tasks of the leases, with their keys. A key may have two for a moment: a row is due
        # again when its result is recorded, before the task of its lease has ended.
        self._held: dict[asyncio.Task[None], str] = {}
        self._reserved = 0
        self._taken_at = 0.0
        self._stopping = False
        self._pauses = 0  # how many callers want no new leases
        self._taking_suspect = False

    @property
    def capacity(self) -> int:
        """The free capacity for leases; 0 once `stop` was called, and while it is paused."""
        if self._stopping or self._pauses:
            return 0
        return self._concurrency - len(self._held) - self._reserved

    def term(self) -> Term:
        """Return the time of a lease that begins now."""
        now = self._clock.now()
        return Term(self._owner, now, now + self._lease)

    def wake(self) -> None:
        """Look for due rows now: one was queued."""
        self._wake.set()

    @contextlib.asynccontextmanager
    async def idle(self, patience: float) -> AsyncGenerator[None, None]:
        """Take no leases meanwhile; begin when the work in progress has ended.

        Work that has not ended after `patience` seconds goes on. A lease that is being taken is
        waited for: with a clock that is moved meanwhile it would be over before its work begins.
        """
        self._pauses += 1
        try:
            deadline = monotonic() + patience
            while self._is_taking or (self._held and monotonic() < deadline):
                await asyncio.sleep(_IDLE_POLL_SECONDS)
            yield
        finally:
            self._resume()

    async def clock_moved(self) -> None:
        """Renew the leases of work in progress by the new date."""
        await self._renew_held()

    @contextlib.asynccontextmanager
    async def suspended(self) -> AsyncGenerator[None, None]:
        """Cancel the work in progress, release its leases, and take no others meanwhile."""
        self._pauses += 1
        try:
            await self._cancel(dict(self._held))
            yield
        finally:
            self._resume()

    @property
    def _is_taking(self) -> bool:
        """Whether leases are being taken whose work has not begun."""
        return self._reserved > 0 or self._taking_suspect

    def _resume(self) -> None:
        self._pauses -= 1
        self._wake.set()
        self._wake_suspects.set()

    def reserve(self) -> bool:
        """Reserve capacity for a lease; follow with `process` or `cancel_reservation`."""
        if self.capacity <= 0:
            return False
        self._reserved += 1
        return True

    def cancel_reservation(self) -> None:
        """Free reserved capacity: the lease was not made."""
        self._reserved -= 1

    def process(self, lease: L) -> None:
        """Work on a lease with reserved capacity."""
        self._reserved -= 1
        self._start(lease)

    async def run(self) -> None:
        """Work until `stop` is called; then give what is in progress a moment to finish."""
        background = [
            asyncio.create_task(self._renew()),
            asyncio.create_task(self._work_suspects()),
        ]
        try:
            while not self._stopping:
                if not await self._take():
                    await self._wait()
        finally:
            for task in background:
                task.cancel()
            await self._finish()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def _start(self, lease: L) -> asyncio.Task[None]:
        task = asyncio.create_task(self._work(lease))
        self._held[task] = self._queue.key(lease)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Free the capacity of a task, also of one that was cancelled before it began."""
        del self._held[task]
        self._wake.set()

    async def _take(self) -> bool:
        """Take due rows within the capacity; return whether there may be more now."""
        capacity = self.capacity
        # Larger steps mean fewer transactions, but slow work must not delay the other rows.
        few = capacity < self._concurrency // 4 and monotonic() - self._taken_at < _STEP_SECONDS
        if capacity <= 0 or few:
            return False
        capacity = min(capacity, _MOST_AT_ONCE)
        self._taken_at = monotonic()
        self._reserved += capacity
        leases: Sequence[L] = ()
        try:
            leases = await self._queue.take(self.term(), capacity)
        except StoreUnavailableError as error:
            log.warning(
                "the queue cannot be read, it is tried again in %g s: %s", POLL_SECONDS, error
            )
            await asyncio.sleep(POLL_SECONDS)
        except Exception:
            log.exception("leasing rows failed, it is tried again in %g s", POLL_SECONDS)
            await asyncio.sleep(POLL_SECONDS)
        finally:
            self._reserved -= capacity - len(leases)
        for lease in leases:
            self.process(lease)
        return len(leases) == capacity

    async def _wait(self) -> None:
        await wait_or_poll(self._wake)

    async def _work(self, lease: L) -> None:
        key = self._queue.key(lease)
        try:
            await self._queue.work(lease)
        except StoreUnavailableError as error:  # no failure of this work
            log.warning("the work on %s is given back: %s", key, error)
            await self._report(lease, error)
        except Exception as error:
            log.exception("the work on %s failed", key)
            await self._report(lease, error)

    async def _report(self, lease: L, error: Exception) -> None:
        try:
            await self._queue.failed(lease, error, self.term())
        except StoreUnavailableError as unavailable:
            log.warning("%s; %s", _not_recorded(self._queue.key(lease)), unavailable)
        except Exception:
            log.exception(_not_recorded(self._queue.key(lease)))

    async def _work_suspects(self) -> None:
        """Work on suspects one at a time, or on the next once one has taken as long as a lease.

        An `asyncio.Lock` is fair: the queues of the process acquire it in turn.
        """
        while not self._stopping:
            try:
                async with self._suspects:
                    task = await self._take_suspect()
                    if task is not None:
                        # Not cancelled with this task: `_finish` waits for it.
                        await asyncio.wait([task], timeout=self._lease.total_seconds())
                        continue
            except StoreUnavailableError as error:
                log.debug("suspects cannot be read: %s", error)
            except Exception:
                log.exception("leasing a suspect failed, it is tried again in %g s", POLL_SECONDS)
            await wait_or_poll(self._wake_suspects)

    async def _take_suspect(self) -> asyncio.Task[None] | None:
        """Lease a suspect and begin to work on it, if there is one."""
        if self._pauses:
            return None
        self._taking_suspect = True
        try:
            lease = await self._queue.take_suspect(self.term())
            return self._start(lease) if lease is not None else None
        finally:
            self._taking_suspect = False

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            await self._renew_held()

    async def _renew_held(self) -> None:
        for keys in _in_steps(tuple(self._held.values())):
            try:
                await self._queue.renew(self.term(), keys)
            except StoreUnavailableError as error:
                log.warning("leases could not be renewed: %s", error)
            except Exception:
                log.exception("leases could not be renewed, it is tried again")

    async def _finish(self) -> None:
        """Wait for work in progress, at most 10 s or one lease; cancel and release the rest."""
        held = dict(self._held)
        if held:
            longest = min(_LONGEST_FINISH, self._lease.total_seconds())
            await asyncio.wait(held, timeout=longest)
        await self._cancel(held)

    async def _cancel(self, held: Mapping[asyncio.Task[None], str]) -> None:
        """Cancel work that has not ended, and release the leases."""
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        for keys in _in_steps(tuple(held.values())):
            try:
                await self._queue.release(self.term(), keys)
            except StoreUnavailableError as error:
                log.warning("leases could not be released, they expire: %s", error)


async def wait_or_poll(wake: asyncio.Event, seconds: float | None = None) -> None:
    """Return when `wake` is set, which is cleared then, or after `seconds` (`POLL_SECONDS`)."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(wake.wait(), POLL_SECONDS if seconds is None else seconds)
    wake.clear()


def _not_recorded(key: str) -> str:
    return f"the failure of {key} cannot be recorded, it is tried again when its lease expires"


def _in_steps(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + _MOST_AT_ONCE] for start in range(0, len(keys), _MOST_AT_ONCE))
