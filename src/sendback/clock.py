"""The one clock. Time is a parameter: everything that asks for the time is given a `Clock`.

Never import `time` or call `datetime.now` elsewhere for a date that is stored or compared with
a stored one. (Time-outs of connections use the event loop's monotonic clock, which is no date.)
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time, in UTC, as an aware datetime."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clock, shifted by `offset` (the setting `clock_offset`)."""

    def __init__(self, offset: timedelta = timedelta(0)) -> None:
        self._offset = offset

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset


class ManualClock:
    """A clock that stands still until it is moved: for tests, the users' own too."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        self._now += by


def seconds_of(clock: Clock) -> Callable[[], float]:
    """The clock as a timer in Unix seconds, for caches whose entries end by it."""
    return lambda: clock.now().timestamp()


def to_milliseconds(moment: datetime) -> int:
    """Unix time in milliseconds: the unit in which dates are stored."""
    return int(moment.timestamp() * 1000)


def from_milliseconds(milliseconds: int) -> datetime:
    """The inverse of `to_milliseconds`, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_optional_milliseconds(moment: datetime | None) -> int | None:
    """The same, for a date that need not be there."""
    return None if moment is None else to_milliseconds(moment)


def from_optional_milliseconds(milliseconds: int | None) -> datetime | None:
    """The same, for a date that need not be there."""
    return None if milliseconds is None else from_milliseconds(milliseconds)
