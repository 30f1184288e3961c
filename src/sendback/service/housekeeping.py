"""Housekeeping: what has expired goes, and what was left behind by a crash goes too."""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from sendback.clock import Clock
from sendback.store.calls import forget_calls
from sendback.store.destinations import forget_destinations
from sendback.store.dkim_keys import forget_retired_keys
from sendback.store.errors import StoreUnavailableError
from sendback.store.keys import forget_expired_keys
from sendback.store.messages import BlobsInUse, ExpireMessages
from sendback.store.mta_sts import forget_sts_policies
from sendback.store.outbox import ExpireWaiting, ForgetFinished
from sendback.store.processing import ForgetProcessed
from sendback.store.rule_sets import ForgetVersions
from sendback.store.store import Store

log = logging.getLogger(__name__)

_EVERY_SECONDS = 300
_CALLS_KEPT = timedelta(hours=24)
_ORPHAN_AGE_SECONDS = 3600


class Housekeeping:
    """Sweeps every few minutes; any number of processes may do so at once."""

    def __init__(self, store: Store, clock: Clock, history: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._history = history

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while True:
            try:
                await self.sweep()
            except (StoreUnavailableError, OSError) as error:
                log.warning("the sweep will be tried again: %s", error)
            except Exception:
                log.exception("the sweep broke, and will be tried again")
            await asyncio.sleep(_EVERY_SECONDS)

    async def sweep(self) -> None:
        """Once. Raises `StoreUnavailableError`, `OSError`."""
        now = self._clock.now()
        forget_before = now - self._history
        blobs = await self._store.write(ExpireMessages(now, forget_before))
        await self._store.write(lambda connection: _forget(connection, now, forget_before))
        while await self._store.write(ExpireWaiting(now)):
            pass
        await asyncio.to_thread(self._store.blobs.remove, blobs)
        await self._remove_orphans()

    async def _remove_orphans(self) -> None:
        """Blobs whose commit never came: old, and named by no row."""
        before = time.time() - _ORPHAN_AGE_SECONDS
        names = await asyncio.to_thread(lambda: list(self._store.blobs.older_than(before)))
        for start in range(0, len(names), 500):
            chunk: Sequence[str] = names[start : start + 500]
            used = await self._store.read(BlobsInUse(tuple(chunk)))
            orphans = [name for name in chunk if name not in used]
            await asyncio.to_thread(self._store.blobs.remove, orphans)


def _forget(connection: Connection, now: datetime, forget_before: datetime) -> None:
    ForgetFinished(forget_before)(connection)
    forget_destinations(connection, forget_before)
    forget_sts_policies(connection, now)
    ForgetProcessed(forget_before)(connection)
    ForgetVersions()(connection)
    forget_calls(connection, now - _CALLS_KEPT)
    forget_expired_keys(connection, forget_before)
    forget_retired_keys(connection, forget_before)
