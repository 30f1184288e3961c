"""The database's clock, by which nodes correct their own.

Dates are compared in SQL with dates that other nodes have written: the end of a lease, the last
bounce of an account, the date of a message. So all nodes have to agree on the time, and what they
share is the database. Each process measures how far its machine's clock is from the database's
(`service/database_clock.py`), and corrects the `Clock` by which all its services go. SQLite has no
clock of its own: its processes are on one machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from sendback.store.engine.dialects import database_time
from sendback.store.engine.locking import has_row_locks

_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class ClockDifference:
    """How far the database's clock is ahead of the machine's: `by`, give or take `within`."""

    by: timedelta
    within: timedelta


@dataclass(frozen=True, slots=True)
class MeasureClock:
    """Return the difference of the database's clock to `machine`, or None if it has none.

    Of a few measurements, the one with the shortest round trip.
    """

    machine: Callable[[], datetime]

    def __call__(self, connection: Connection, /) -> ClockDifference | None:
        if not has_row_locks(connection):
            return None
        samples = [self._sample(connection) for _ in range(_SAMPLES)]
        return min(samples, key=lambda sample: sample.within)

    def _sample(self, connection: Connection) -> ClockDifference:
        before = self.machine()
        database = database_time(connection)
        half = (self.machine() - before) / 2
        return ClockDifference(database - (before + half), half)
