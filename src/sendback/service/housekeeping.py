"""Housekeeping: deletes expired data, and what a crash has left behind.

Theory of operation. Every few minutes one of the processes sweeps: the one that acquires a lock,
which is a row of the store. It deletes in steps of some hundred rows (`engine/sweeping`) and pauses
after each for longer than the step took, so that the writer is mostly free for receiving. Bodies in
content stores are removed once the step that took their names is committed; what a crash in between
leaves is in the ledger of contents, for the next sweep. In the directory, files are searched too:
earlier versions had no ledger.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from sendback.clock import Clock
from sendback.service.queues.retry import random_share
from sendback.service.queues.worker import wait_or_poll
from sendback.store.access.audit import ForgetAuditLines
from sendback.store.access.installation import AcquireLock
from sendback.store.access.keys import ForgetExpiredKeys
from sendback.store.access.sessions import ForgetSessions
from sendback.store.bouncing.calls import ForgetCalls
from sendback.store.engine.content.directory import content_name
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import Store
from sendback.store.engine.sweeping import MAX_ROWS, SweepAlone, SweepStep
from sendback.store.events.counters import HOUR, MINUTE, ForgetCounters
from sendback.store.identities.dkim_keys import ForgetRetiredKeys
from sendback.store.messages.messages import BlobsInUse, ExpireContent, ForgetMessages
from sendback.store.outbox.destinations import ForgetDestinations
from sendback.store.outbox.mta_sts import ForgetStsPolicies
from sendback.store.outbox.queue import ExpireWaiting, ForgetFinished
from sendback.store.rules.processing import ForgetProcessed
from sendback.store.rules.rule_sets import ForgetVersions

log = logging.getLogger(__name__)

_EVERY = timedelta(minutes=5)
# For a process that dies while it sweeps; prolonged with every step.
_LOCK = timedelta(minutes=10)
_CALLS_KEPT = timedelta(hours=24)
_VERSIONS_KEPT = timedelta(hours=24)  # much longer than an SMTP session may last
# What the page Overview shows: an hour in minutes, a week in hours.
_MINUTES_KEPT, _HOURS_KEPT = timedelta(hours=3), timedelta(days=8)
_ORPHAN_AGE_SECONDS = 3600
# After each step the writer is free for at least this multiple of the time of the step.
_PAUSES = 2
_SHORTEST_PAUSE_SECONDS = 0.01


class Housekeeping:
    """Sweeps every few minutes, in one of all processes."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        history: timedelta,
        *,
        owner: str,
        jitter: Callable[[], float] = random_share,
    ) -> None:
        """`jitter`, from 0 to 1, spreads the sweeps of several processes."""
        self._store = store
        self._clock = clock
        self._history = history
        self._owner = owner
        self._jitter = jitter
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Sweep now: the clock was moved."""
        self._wake.set()

    async def run(self) -> None:
        """Sweep until cancelled, whenever this process acquires the lock."""
        while True:
            try:
                await self._empty_spool()
                if await self._acquire_lock(_LOCK):
                    await self.sweep()
                    await self._acquire_lock(_EVERY * 0.9)  # the lock is held until then
            except (StoreUnavailableError, OSError) as error:
                log.warning("the sweep will be tried again: %s", error)
            except Exception:
                log.exception("the sweep failed, and will be tried again")
            await wait_or_poll(self._wake, _EVERY.total_seconds() * (0.8 + 0.4 * self._jitter()))

    async def sweep(self) -> None:
        """Sweep once. Raises `StoreUnavailableError`, `OSError`."""
        now = self._clock.now()
        for first in sweep_steps(now, now - self._history):
            try:
                await self._sweep(first)
            except (StoreUnavailableError, OSError):
                raise
            except Exception:
                # A failure in one table must not stop the deletion in the others.
                log.exception("%s failed, and will be tried again", type(first).__name__)
        await self._remove_orphans()

    async def _sweep(self, first: SweepStep) -> None:
        step, total = first, 0
        while True:
            started = time.monotonic()
            swept = await self._store.write(SweepAlone(step))
            total += swept.count
            if swept.blobs:
                await self._remove(swept.blobs)
            if swept.after is None:
                break
            await asyncio.sleep(_pause(time.monotonic() - started))
            step = replace(step, after=swept.after)
            await self._acquire_lock(_LOCK)
        if total:
            log.info("%s: %d rows", type(first).__name__, total)

    async def _acquire_lock(self, lasts: timedelta) -> bool:
        now = self._clock.now()
        return await self._store.write(AcquireLock("sweep", self._owner, now, now + lasts, _LOCK))

    async def _remove(self, blobs: Collection[str]) -> None:
        """Remove contents. Those of a store that fails stay in the ledger, for the next sweep."""
        try:
            await self._store.contents.remove(blobs)
        except (StoreUnavailableError, OSError) as error:
            log.warning("contents are not removed, and will be later: %s", error)

    async def _remove_orphans(self) -> None:
        """Delete contents without a message: their transaction was not committed."""
        contents = self._store.contents
        try:
            if count := await contents.remove_unused():
                log.info("removed %d contents without a message", count)
        except (StoreUnavailableError, OSError) as error:
            log.warning("contents are not removed, and will be later: %s", error)
        old = contents.files_older_than(time.time() - _ORPHAN_AGE_SECONDS)
        # Not closed here: when this task is cancelled, the thread may still be inside.
        while files := await asyncio.to_thread(_some, old):
            used = await self._store.read(BlobsInUse(tuple(map(content_name, files))))
            orphans = [file for file in files if content_name(file) not in used]
            await asyncio.to_thread(contents.remove_files, orphans)
            await asyncio.sleep(_SHORTEST_PAUSE_SECONDS)

    async def _empty_spool(self) -> None:
        """Delete what a crash of this node has left; other nodes have spools of their own."""
        before = time.time() - _ORPHAN_AGE_SECONDS
        await asyncio.to_thread(self._store.contents.empty_spool, before)


def sweep_steps(now: datetime, forget_before: datetime) -> tuple[SweepStep, ...]:
    """Return the first step of each sweep, in order."""
    return (
        ExpireContent(now=now, held_since=forget_before),
        ForgetMessages(now=now, before=forget_before),
        ExpireWaiting(now=now),
        ForgetFinished(before=forget_before),
        ForgetDestinations(before=forget_before),
        ForgetStsPolicies(before=now),
        ForgetProcessed(before=forget_before),
        ForgetVersions(before=now - _VERSIONS_KEPT),
        ForgetCalls(before=now - _CALLS_KEPT),
        ForgetExpiredKeys(before=forget_before),
        ForgetRetiredKeys(before=forget_before),
        ForgetSessions(before=now),
        ForgetAuditLines(before=forget_before),
        ForgetCounters(width=MINUTE, before=now - _MINUTES_KEPT),
        ForgetCounters(width=HOUR, before=now - _HOURS_KEPT),
    )


def _pause(seconds: float) -> float:
    return max(_SHORTEST_PAUSE_SECONDS, _PAUSES * seconds)


def _some(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(islice(names, MAX_ROWS))
