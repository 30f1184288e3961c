"""Keeps the clock of a process in step with the database's: see `store/engine/database_time.py`.

A clock that only a test moves stays unchanged.
"""

import asyncio
import logging
from datetime import timedelta

from sendback.clock import Clock, SystemClock
from sendback.store.engine.database_time import MeasureClock
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import Store

log = logging.getLogger(__name__)

# A clock that is set meanwhile is wrong for so long.
_EVERY_SECONDS = 5.0
_NOTABLE = timedelta(seconds=1)


class DatabaseClock:
    """Measures how far the clocks differ, and corrects the process's clock."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def measure(self) -> bool:
        """Correct the clock; return whether there is anything to measure.

        Raises `StoreUnavailableError`.
        """
        clock = self._clock
        if not isinstance(clock, SystemClock):
            return False
        found = await self._store.read(MeasureClock(clock.machine))
        if found is None:
            return False
        before = clock.correction
        clock.correct(found.by, found.within)
        if abs(clock.correction - before) >= _NOTABLE:
            log.warning(
                "clock_differs seconds=%+.1f: dates are the database's; is the time of this "
                "machine synchronized?",
                -clock.correction.total_seconds(),
            )
        return True

    async def run(self) -> None:
        """Measure every few seconds until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self.measure()
            except StoreUnavailableError as error:
                log.debug("the clock is measured again: %s", error)
            except Exception:
                log.exception("measuring the clock failed, it is tried again")
