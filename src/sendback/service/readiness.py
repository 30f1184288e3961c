"""Readiness: whether this process can read and write the store."""

import asyncio
from time import monotonic

from sendback.clock import Clock
from sendback.store.access.installation import CheckRead, CheckWrite
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import Store

# A full disk, and a locked or read-only database, can still be read; only a write shows it. There
# is at most one write in this time.
_GOOD_FOR_SECONDS = 1.0
# A slower store is not ready. A load balancer waits a few seconds for the response.
_CHECK_SECONDS = 2.0


class Readiness:
    """Checks the store and caches the last result."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._checking: asyncio.Task[bool] | None = None
        self._checked_at = 0.0

    async def is_ready(self) -> bool:
        """Return whether the store can be read and written, as of at most a second ago.

        Concurrent callers share one check.
        """
        checking = self._checking
        if checking is None or (checking.done() and self._is_old()):
            checking = self._checking = asyncio.create_task(self._check())
        done, _ = await asyncio.wait({checking}, timeout=_CHECK_SECONDS)
        return bool(done) and checking.result()

    def _is_old(self) -> bool:
        return monotonic() - self._checked_at >= _GOOD_FOR_SECONDS

    async def _check(self) -> bool:
        try:
            await self._store.read(CheckRead())
            await self._store.write(CheckWrite(self._clock.now()))
        except StoreUnavailableError:
            return False
        finally:
            self._checked_at = monotonic()
        return True
