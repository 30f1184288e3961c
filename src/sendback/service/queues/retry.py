"""When to try again: exponential, with jitter, up to a longest wait. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Backoff:
    """`first` is the wait after the first attempt; each is twice the one before it."""

    first: timedelta
    longest: timedelta

    def wait(self, attempts: int, chance: float) -> timedelta:
        """The wait after so many attempts; `chance`, from 0 to 1, spreads it by a fifth.

        Without the spread, all that failed at one moment would come back at one moment.
        """
        doublings = min(attempts - 1, 30)
        wait = min(self.first * (1 << doublings), self.longest)
        return wait * (1 - _JITTER + 2 * _JITTER * chance)

    def next_try(
        self, attempts: int, now: datetime, expires_at: datetime, chance: float
    ) -> datetime | None:
        """When to try next, or None when the message has expired by then."""
        moment = now + self.wait(attempts, chance)
        return moment if moment <= expires_at else None
