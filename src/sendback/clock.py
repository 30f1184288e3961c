"""The clock. All code that needs the current date gets a `Clock` as a parameter.

Never import `time` or call `datetime.now` elsewhere for a date that is stored or compared with
a stored one. Timeouts use the event loop's monotonic clock.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Returns the current date and time, in UTC, as an aware datetime."""

    def now(self) -> datetime: ...


class AdjustableClock(Clock, Protocol):
    """A clock that can be moved forward, and back to where it began."""

    def advance(self, by: timedelta) -> None: ...

    def reset(self) -> None: ...


def _machine() -> datetime:
    return datetime.now(UTC)


class SystemClock:
    """The machine's clock, shifted by `offset` (the setting `clock_offset`) and by `advance`.

    Where several nodes share a database, it is corrected by the database's clock (`correct`).
    """

    def __init__(
        self, offset: timedelta = timedelta(0), machine: Callable[[], datetime] = _machine
    ) -> None:
        """`machine` returns the time of the machine; tests replace it by a wrong one."""
        self.machine = machine
        self.correction = timedelta(0)
        self._offset = self._first_offset = offset

    def now(self) -> datetime:
        return self.machine() + self.correction + self._offset

    def correct(self, by: timedelta, within: timedelta) -> None:
        """Add `by` to the machine's time, a measurement that may be wrong by `within`.

        A correction that agrees with it is kept: the clock should not jump by what the
        measurements differ.
        """
        if abs(by - self.correction) > within:
            self.correction = by

    def advance(self, by: timedelta) -> None:
        self._offset += by

    def reset(self) -> None:
        self._offset = self._first_offset


class ManualClock:
    """A clock that only `advance` moves: for tests, those of users included."""

    def __init__(self, start: datetime) -> None:
        self._now = self._start = start

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        self._now += by

    def reset(self) -> None:
        self._now = self._start


def seconds_of(clock: Clock) -> Callable[[], float]:
    """Return a timer in Unix seconds, for caches whose entries expire by this clock."""
    return lambda: clock.now().timestamp()


def to_milliseconds(moment: datetime) -> int:
    """Return Unix time in milliseconds: the unit in which dates are stored."""
    return int(moment.timestamp() * 1000)


def from_milliseconds(milliseconds: int) -> datetime:
    """Return the date of a Unix time in milliseconds, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_optional_milliseconds(moment: datetime | None) -> int | None:
    """Return Unix time in milliseconds, or None for None."""
    return None if moment is None else to_milliseconds(moment)


def from_optional_milliseconds(milliseconds: int | None) -> datetime | None:
    """Return the date of a Unix time in milliseconds, or None for None."""
    return None if milliseconds is None else from_milliseconds(milliseconds)
